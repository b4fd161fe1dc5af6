"""ServiceAccount: the identity of pods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from navarch.api.meta import Obj
from navarch.kinds.base import AGE, NAME, Strategy
from navarch.kinds.strategies import strategy

_ENFORCE: Final = "kubernetes.io/enforce-mountable-secrets"


@strategy("", "ServiceAccount")
class ServiceAccountStrategy(Strategy):
    returns_deleted = True
    columns = (NAME, AGE)

    def prepare_create(self, obj: Obj) -> None:
        _keep_names(obj)

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        super().prepare_update(obj, old)
        _keep_names(obj)

    def warnings(self, obj: Obj, old: Obj | None) -> Iterator[str]:
        before = ((old or {}).get("metadata") or {}).get("annotations") or ()
        if _ENFORCE in (obj["metadata"].get("annotations") or ()) and _ENFORCE not in before:
            advice = "prefer separate namespaces to isolate access to mounted secrets"
            yield f"metadata.annotations[{_ENFORCE}]: deprecated in v1.32+; {advice}"


def _keep_names(obj: Obj) -> None:
    """Secrets are of the account's own namespace: of a reference to one only the name says anything."""
    if obj.get("secrets"):
        obj["secrets"] = [{"name": each["name"]} if each.get("name") else {} for each in obj["secrets"]]
