"""NamespaceLifecycle: nothing is created in a namespace that does not exist or is going; three namespaces never go."""

from __future__ import annotations

from typing import Final

from navarch.api.errors import not_found
from navarch.api.meta import Obj
from navarch.apiserver.admission.base import Attributes, Plugin, Reader
from navarch.kinds.base import Kind
from navarch.kinds.resources import NAMESPACES

_IMMORTAL: Final = frozenset({"default", "kube-system", "kube-public"})
_REVIEWS: Final = frozenset({"localsubjectaccessreviews"})


def request_namespace(reader: Reader, attributes: Attributes) -> Obj | None:
    """The namespace of the write; read once, however many plugins ask."""
    state = attributes.state
    if "namespace" not in state:
        state["namespace"] = reader.get(NAMESPACES, "", attributes.namespace)
    found: Obj | None = state["namespace"]
    return found


class NamespaceLifecycle(Plugin):
    name = "NamespaceLifecycle"
    leaves_whole = True

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def concerns(self, kind: Kind, operation: str, subresource: str) -> bool:
        resource = kind.resource
        if resource.plural == "namespaces" and not resource.group:
            return operation == "DELETE"
        return operation == "CREATE" and resource.namespaced and resource.plural not in _REVIEWS

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.operation == "DELETE":
            if attributes.name in _IMMORTAL:
                raise attributes.refused("this namespace may not be deleted")
            return
        namespace = request_namespace(self._reader, attributes)
        if namespace is None:
            raise not_found("namespaces", "", attributes.namespace)
        phase = (namespace.get("status") or {}).get("phase")
        if phase != "Terminating" and not namespace["metadata"].get("deletionTimestamp"):
            return
        name = attributes.namespace
        error = attributes.refused(f"unable to create new content in namespace {name} because it is being terminated")
        cause = {
            "reason": "NamespaceTerminating",
            "message": f"namespace {name} is being terminated",
            "field": "metadata.namespace",
        }
        error.details = {**(error.details or {}), "causes": [cause]}
        raise error
