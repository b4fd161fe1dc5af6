"""Which pods simulated nodes take: the kubelet's own admission, over what the pods of each node have of it.

In: pods as they come, change and go.  Out: why a node refuses one. A pod that has a start time was taken by an earlier
process, or refused by it, and is asked nothing again. A pod's room is free with the event that tells of its end, as the
scheduler has it: so what that sends in its place finds room.
"""

from __future__ import annotations

from collections.abc import Mapping

from navarch.api.features import Features
from navarch.api.meta import Obj, uid_of
from navarch.kinds.core.pod_state import is_finished
from navarch.node.engine.admission import Host, Refusal, refusal
from navarch.node.engine.taken import Share, Taken, share_of
from navarch.records import mutable

_Version = tuple[object, object]
_NOTHING: Obj = {}


@mutable
class _Holder:
    node: str
    version: _Version
    share: Share


class Admission:
    """`capacity` is what a node has that says nothing of it."""

    def __init__(self, capacity: Mapping[str, str], features: Features) -> None:
        self._capacity = capacity
        self._features = features
        self._taken: dict[str, Taken] = {}
        self._holders: dict[str, _Holder] = {}
        """By pod uid."""
        self._shares: dict[Share, Share] = {}
        """One for all pods that take the same."""

    def refusal(self, pod: Obj, node: Obj | None) -> Refusal | None:
        """Why the pod's node does not take it; else it has its room there. The node's object, if it is known."""
        if uid_of(pod) in self._holders:
            return None
        name = pod["spec"]["nodeName"]
        status = (node or _NOTHING).get("status") or _NOTHING
        pressures = [
            each["type"]
            for each in status.get("conditions") or ()
            if each["status"] == "True" and each["type"].endswith("Pressure")
        ]
        allocatable = status.get("allocatable") or dict(self._capacity)
        taken = self._taken.setdefault(name, Taken())
        share = share_of(pod)
        host = Host(node, allocatable, pressures, taken, features=self._features)
        refused = refusal(pod, host, share=share)
        if refused is None:
            self._hold(pod, share)
        return refused

    def seen(self, pod: Obj) -> None:
        """The pod is there, or has changed."""
        holder = self._holders.get(uid_of(pod))
        if is_finished(pod):
            self.gone(uid_of(pod))
        elif holder is None:
            if (pod.get("status") or _NOTHING).get("startTime"):
                self._hold(pod, share_of(pod))
        elif holder.version != _version(pod):
            # Resized, or on the way to it.
            self.gone(uid_of(pod))
            self._hold(pod, share_of(pod))

    def gone(self, uid: str) -> None:
        holder = self._holders.pop(uid, None)
        if holder is not None:
            self._taken[holder.node].remove(holder.share)

    def _hold(self, pod: Obj, share: Share) -> None:
        share = self._shares.setdefault(share, share)
        node = pod["spec"]["nodeName"]
        self._taken.setdefault(node, Taken()).add(share)
        self._holders[uid_of(pod)] = _Holder(node, _version(pod), share)


def _version(pod: Obj) -> _Version:
    """What tells that a pod may take another share than before."""
    return pod["metadata"].get("generation"), (pod.get("status") or _NOTHING).get("observedGeneration")
