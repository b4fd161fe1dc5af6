"""What the controllers of endpoints share: a Service is looked at when it or a pod that it selects changes.

In: Services and pods. Out: keys of Services, those of large ones in batches, and the pods that count for a Service.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from navarch.api.meta import Key, Obj, is_deleting, key_of, labels_of
from navarch.api.time import parse_time
from navarch.client.resources import PODS, SERVICES
from navarch.controllers.base import Context, Controller
from navarch.controllers.endpoints import addresses
from navarch.kinds.core.pod_state import condition_of, is_ready

_BATCH_S = 0.05
_PODS_PER_S = 3000
_LONGEST_BATCH_S = 1.0


class ServicePodsController(Controller):
    """A controller whose keys are Services."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._services = self.watch_primary(SERVICES)
        self._sizes: dict[Key, int] = {}
        self._pods = self.informer(PODS)
        addresses.index_by_label(self._pods)
        self._pods.add_handler(self._pod_changed, self._pod_updated, self._pod_changed)

    def _pod_changed(self, pod: Obj) -> None:
        if addresses.counts(pod):
            self._enqueue_services(pod)

    def _pod_updated(self, old: Obj, new: Obj) -> None:
        if addresses.matters(old, new):
            self._enqueue_services(new)
            if labels_of(old) != labels_of(new):
                self._enqueue_services(old)

    def _enqueue_services(self, pod: Obj) -> None:
        # A Service of thousands is looked at and rewritten as a whole, so the more pods it has, the more changes
        # go into one pass; that an endpoint must no longer be used is told sooner than that there is one more.
        joins = is_ready(pod) and not is_deleting(pod)
        for service in addresses.services_of(self._services, pod):
            batch_s = min(self._sizes.get(key_of(service), 0) / _PODS_PER_S, _LONGEST_BATCH_S)
            self.enqueue(key_of(service), max(batch_s, _BATCH_S) if joins else batch_s / 5)

    def pods_of(self, service: Obj) -> list[Obj]:
        """The Service's pods that count as endpoints."""
        pods = [pod for pod in addresses.selected_pods(self._pods, service) if addresses.counts(pod)]
        self._sizes[key_of(service)] = len(pods)
        return pods


def last_change(service: Obj, pods: Iterable[Obj]) -> datetime | None:
    """The latest of what the endpoints follow from: the Service made, a pod's readiness turned."""
    stamps = [service["metadata"].get("creationTimestamp")]
    stamps += [(condition_of(pod, "Ready") or {}).get("lastTransitionTime") for pod in pods]
    latest = max((stamp for stamp in stamps if stamp), default=None)
    return parse_time(latest) if latest else None
