"""Namespace: born Active with the `kubernetes` finalizer in its spec, labelled with its own name.

Invariant: a namespace leaves the store only when its `spec.finalizers` are empty; the namespace controller empties
them through `/finalize` once nothing lives in it any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from navarch.api.errors import FieldError, invalid_value
from navarch.api.meta import Obj
from navarch.api.metadata_validation import STANDARD_FINALIZERS
from navarch.api.validation import qualified_name_problems
from navarch.kinds.base import AGE, NAME, Column, Strategy, Subresource
from navarch.kinds.strategies import strategy

NAME_LABEL = "kubernetes.io/metadata.name"


class Finalize(Subresource):
    """`/finalize` changes the finalizers and nothing else."""

    def prepare(self, strategy: Strategy, obj: Obj, old: Obj) -> None:
        obj["status"] = old.get("status", {})

    def validate(self, strategy: Strategy, obj: Obj, old: Obj) -> Iterator[FieldError]:
        yield from _validate_finalizers(obj, indexed=True)


@strategy("", "Namespace")
class NamespaceStrategy(Strategy):
    columns = (NAME, Column("Status", ".status.phase", description="The status of the namespace"), AGE)
    selectable = ("status.phase",)
    counts_deletion = False
    name_rule = "label"
    subresources: ClassVar[Mapping[str, Subresource]] = {"finalize": Finalize()}

    def defaults(self, obj: Obj) -> None:
        metadata = obj["metadata"]
        if metadata.get("name"):
            metadata.setdefault("labels", {})[NAME_LABEL] = metadata["name"]
        obj.setdefault("spec", {})
        obj.setdefault("status", {}).setdefault("phase", "Active")

    def prepare_create(self, obj: Obj) -> None:
        metadata = obj["metadata"]
        # A generated name is known only now; who lacks both is refused for that.
        if metadata.get("name"):
            metadata["labels"] = {**(metadata.get("labels") or {}), NAME_LABEL: metadata["name"]}
        obj["status"] = {"phase": "Active"}
        finalizers = obj["spec"].setdefault("finalizers", [])
        if "kubernetes" not in finalizers:
            finalizers.append("kubernetes")

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        obj["spec"], obj["status"] = old.get("spec", {}), old.get("status", {})

    def prepare_delete(self, obj: Obj) -> None:
        obj.setdefault("status", {})["phase"] = "Terminating"

    def holds_deletion(self, obj: Obj) -> bool:
        return bool((obj.get("spec") or {}).get("finalizers"))

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        if old is None:
            yield from _validate_finalizers(obj, indexed=False)

    def complete(self, obj: Obj) -> None:
        for condition in (obj.get("status") or {}).get("conditions") or ():
            condition.setdefault("lastTransitionTime", None)

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        phase = (obj.get("status") or {}).get("phase")
        if obj["metadata"].get("deletionTimestamp"):
            if phase != "Terminating":
                detail = "may only be 'Terminating' if `deletionTimestamp` is not empty"
                yield invalid_value("status.Phase", phase, detail)
        elif phase != "Active":
            yield invalid_value("status.Phase", phase, "may only be 'Active' if `deletionTimestamp` is empty")


def _validate_finalizers(obj: Obj, *, indexed: bool) -> Iterator[FieldError]:
    for index, finalizer in enumerate(obj["spec"].get("finalizers") or ()):
        at = f"spec.finalizers[{index}]" if indexed else "spec.finalizers"
        for problem in qualified_name_problems(finalizer):
            yield invalid_value(at, finalizer, problem)
        if "/" not in finalizer and finalizer not in STANDARD_FINALIZERS:
            yield invalid_value(at, finalizer, "name is neither a standard finalizer name nor is it fully qualified")
