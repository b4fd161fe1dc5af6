"""PodResizeValidator, NodeDeclaredFeatureValidator: what a pod asks for while it runs, its node must be able to give.

In: a change of a pod that is bound.  Out: refusals of a resize that the node could never hold, and of changes that need
a feature which the node does not declare.
"""

from __future__ import annotations

from navarch.api import quantity
from navarch.api.errors import StatusError
from navarch.api.meta import Obj, labels_of
from navarch.apiserver.admission.base import Attributes, Plugin, Reader
from navarch.kinds.core import declared_features
from navarch.kinds.core.resource_lists import pod_requests
from navarch.kinds.resources import NODES


class _OfBoundPods(Plugin):
    resources = frozenset({("", "pods")})
    operations = frozenset({"UPDATE"})

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def _node(self, attributes: Attributes, pod: Obj) -> Obj:
        """Raises StatusError where it is gone."""
        name = pod["spec"]["nodeName"]
        node = self._reader.get(NODES, "", name)
        if node is None:
            raise attributes.refused(f'node "{name}" not found')
        return node


def _changed(attributes: Attributes) -> tuple[Obj, Obj] | None:
    """A bound pod before and after a change of what is asked of its node."""
    pod, old = attributes.obj, attributes.old
    if pod is None or old is None or not pod["spec"].get("nodeName"):
        return None
    # It counts changes of what was asked for.
    return None if pod["metadata"].get("generation") == old["metadata"].get("generation") else (old, pod)


class PodResizeValidator(_OfBoundPods):
    name = "PodResizeValidator"
    subresources = frozenset({"resize"})

    async def validate(self, attributes: Attributes) -> None:
        if (found := _changed(attributes)) is None:
            return
        _, pod = found
        node = self._node(attributes, pod)
        if short := _short(pod, (node.get("status") or {}).get("allocatable") or {}):
            why = f"Node didn't have enough allocatable resources: {short}"
            raise _with_cause(attributes.refused(why), "NodeCapacity")
        if (system := labels_of(node).get("kubernetes.io/os", "")) != "linux":
            why = f'pod resize is only supported on linux nodes, node "{node["metadata"]["name"]}" is "{system}"'
            raise _with_cause(attributes.refused(why), "UnsupportedPlatform")


def _short(pod: Obj, allocatable: Obj) -> str:
    """Of what the node has not enough, had it no other pod."""
    wanted = pod_requests({"spec": pod["spec"]})
    has = {
        "cpu": quantity.milli(allocatable.get("cpu", 0)),
        "memory": quantity.value(allocatable.get("memory", 0)),
    }
    return "; ".join(
        f"{name}, requested: {wanted[name]}, allocatable: {amount}"
        for name, amount in has.items()
        if wanted.get(name, 0) > amount
    )


def _with_cause(error: StatusError, reason: str) -> StatusError:
    error.details = {**(error.details or {}), "causes": [{"reason": reason}]}
    return error


class NodeDeclaredFeatureValidator(_OfBoundPods):
    name = "NodeDeclaredFeatureValidator"
    subresources = frozenset({"", "resize"})

    async def validate(self, attributes: Attributes) -> None:
        if (found := _changed(attributes)) is None or not (needed := declared_features.needed_by_change(*found)):
            return
        node = self._node(attributes, found[1])
        if missing := sorted(needed - set((node.get("status") or {}).get("declaredFeatures") or ())):
            name = node["metadata"]["name"]
            raise attributes.refused(
                f'pod update requires features {", ".join(missing)} which are not available on node "{name}"'
            )
