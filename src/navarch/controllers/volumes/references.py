"""How a volume names its claim."""

from __future__ import annotations

from navarch.api.meta import Obj, key_of, name_of, uid_of


def claim_reference(claim: Obj) -> Obj:
    """A volume's `spec.claimRef`."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": key_of(claim).namespace,
        "name": name_of(claim),
        "uid": uid_of(claim),
        "resourceVersion": claim["metadata"].get("resourceVersion", ""),
    }
