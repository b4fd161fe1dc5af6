"""CustomResourceDefinition: a kind that is not part of Kubernetes, as its author defines it.

What is served for it follows from it (`resource`, `navarch.apiserver.crd`). Its deletion begins with a finalizer of the
server's own, which goes once the objects of the kind are gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from typing import Final

from navarch.api.errors import FieldError
from navarch.api.meta import Obj
from navarch.api.structural_pruning import has_rules
from navarch.kinds.apiextensions.canonical import canonicalize
from navarch.kinds.apiextensions.conditions import Condition, with_conditions
from navarch.kinds.apiextensions.definition_validation import definition_errors, status_errors, update_errors
from navarch.kinds.apiextensions.schema_validation import unrecognized_formats
from navarch.kinds.base import NAME, Column, Strategy
from navarch.kinds.strategies import strategy

FINALIZER: Final = "customresourcecleanup.apiextensions.k8s.io"
_PENDING: Final = Condition(
    "Terminating",
    "True",
    "InstanceDeletionPending",
    "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
)


@strategy("apiextensions.k8s.io", "CustomResourceDefinition")
class CustomResourceDefinitionStrategy(Strategy):
    columns = (
        NAME,
        Column(
            "Created At",
            ".metadata.creationTimestamp",
            type="date",
            description="The time at which the definition was created, as the server's clock had it.",
        ),
    )
    has_generation = True
    allow_unconditional_update = False
    counts_deletion = False
    nulls = ("status.conditions",)

    def defaults(self, obj: Obj) -> None:
        canonicalize(obj)
        spec = obj.setdefault("spec", {})
        names = spec.setdefault("names", {})
        kind = names.get("kind") or ""
        if not names.get("singular") and kind:
            names["singular"] = kind.lower()
        if not names.get("listKind") and kind:
            names["listKind"] = f"{kind}List"
        if spec.get("conversion") is None:
            spec["conversion"] = {"strategy": "None"}
        webhook = spec["conversion"].get("webhook") or {}
        service = (webhook.get("clientConfig") or {}).get("service")
        if service is not None and service.get("port") is None:
            service["port"] = 443
        status = obj.get("status")
        if status is not None and not status.get("storedVersions"):
            _note_storage(obj)

    def prepare_create(self, obj: Obj) -> None:
        obj["status"] = {"conditions": None, "acceptedNames": {"plural": "", "kind": ""}}
        _note_storage(obj)

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        super().prepare_update(obj, old)
        if "status" in obj:
            obj["status"] = dict(obj["status"])
        _note_storage(obj)

    def prepare_delete(self, obj: Obj) -> None:
        metadata = obj["metadata"]
        finalizers = metadata.get("finalizers") or []
        if FINALIZER not in finalizers:
            metadata["finalizers"] = [*finalizers, FINALIZER]
        status = obj.setdefault("status", {})
        status["conditions"] = with_conditions(obj, [_PENDING], metadata["deletionTimestamp"])

    def holds_deletion(self, obj: Obj) -> bool:
        # The first thing that a deletion does is to add the finalizer.
        return not obj["metadata"].get("deletionTimestamp")

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        if old is None:
            return definition_errors(obj, _rule_errors)
        known = [_schema_of(version) for version in old["spec"].get("versions") or ()]

        def check(schema: Obj, path: str, wrong: Set[str]) -> Iterable[FieldError]:
            return () if schema in known else _rule_errors(schema, path, wrong)

        return update_errors(obj, old, check)

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        return status_errors(obj)

    def warnings(self, obj: Obj, old: Obj | None) -> Iterator[str]:
        known = set(_formats(old)) if old is not None else set()
        for form in _formats(obj):
            if form not in known:
                yield f'unrecognized format "{form}"'


def _rule_errors(schema: Obj, path: str, wrong: Set[str]) -> Iterable[FieldError]:
    if not has_rules(schema):
        return ()
    # With all of CEL, which clusters without rules need not load.
    from navarch.kinds.apiextensions.rule_validation import rule_errors

    return rule_errors(schema, path, wrong)


def _schema_of(version: Obj) -> Obj | None:
    return (version.get("schema") or {}).get("openAPIV3Schema")


def _formats(crd: Obj) -> Iterator[str]:
    for version in (crd.get("spec") or {}).get("versions") or ():
        schema = _schema_of(version)
        if schema:
            yield from unrecognized_formats(schema)


def _note_storage(obj: Obj) -> None:
    """The version that objects are stored in now is one that objects are stored in."""
    stored = next((each for each in obj["spec"].get("versions") or () if each.get("storage")), None)
    if stored is None:
        return
    status = obj.setdefault("status", {})
    known = status.get("storedVersions") or []
    if stored.get("name") not in known:
        status["storedVersions"] = [*known, stored.get("name")]
