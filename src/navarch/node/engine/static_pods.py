"""`StaticPods`: the node's static pods, one of a name at a time, each with its mirror pod.

In: what the static sources tell. Out: workers. A manifest that changes is another pod of the same name: it starts when
nothing of the one before runs any more, as two of one name would be in each other's way.
"""

from __future__ import annotations

from collections.abc import Callable

from navarch.api.meta import Key, Obj, key_of, uid_of
from navarch.node.engine.mirrors import Mirrors
from navarch.node.engine.worker import PodWorker


class StaticPods:
    """A `PodSink`. `start` makes a worker for a static pod and runs it."""

    def __init__(self, mirrors: Mirrors, start: Callable[[Obj], PodWorker]) -> None:
        self._mirrors = mirrors
        self._start = start
        self._workers: dict[Key, PodWorker] = {}
        self._next: dict[Key, Obj] = {}
        mirrors.on_change = self._mirror_changed

    def pod_set(self, pod: Obj) -> None:
        key = key_of(pod)
        current = self._workers.get(key)
        if current is None:
            self._run(pod)
        elif current.uid != uid_of(pod) or current.gone:
            self._next[key] = pod
            current.object_gone()

    def pod_gone(self, pod: Obj) -> None:
        key = key_of(pod)
        waiting = self._next.get(key)
        if waiting is not None and uid_of(waiting) == uid_of(pod):
            del self._next[key]
        current = self._workers.get(key)
        if current is not None and current.uid == uid_of(pod):
            current.object_gone()

    def ended(self, worker: PodWorker) -> None:
        """Nothing of this pod is left on the node."""
        key = key_of(worker.pod)
        if self._workers.get(key) is not worker:
            return
        del self._workers[key]
        self._mirrors.forget(worker.pod)
        following = self._next.pop(key, None)
        if following is not None:
            self._run(following)

    def _run(self, pod: Obj) -> None:
        self._workers[key_of(pod)] = self._start(pod)
        self._mirrors.expect(pod)
        self._mirror_changed(key_of(pod))

    def _mirror_changed(self, key: Key) -> None:
        worker = self._workers.get(key)
        if worker is not None:
            worker.mirrored(self._mirrors.of(worker.pod))
