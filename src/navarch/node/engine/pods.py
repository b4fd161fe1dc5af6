"""`Pods`: the node's pods and their workers, by uid; who is asked for one looks here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from navarch.client.supervision import Failures, until_done
from navarch.node import podspec
from navarch.node.engine.worker import PodWorker


class Pods:
    """Starts workers and keeps them until they have ended. `ids` says whose a container or sandbox is."""

    def __init__(self, failures: Failures) -> None:
        self._failures = failures
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._owners: dict[str, str] = {}
        self.on_end: Callable[[PodWorker], None] | None = None

    def __iter__(self) -> Iterator[PodWorker]:
        """All workers, also while some come and go."""
        return iter(list(self._workers.values()))

    def __len__(self) -> int:
        return len(self._workers)

    def get(self, uid: str) -> PodWorker | None:
        return self._workers.get(uid)

    def uids(self) -> set[str]:
        return set(self._workers)

    def start(self, worker: PodWorker) -> None:
        """Run a worker until its pod has gone from the node."""
        uid = worker.uid
        self._workers[uid] = worker
        name = f"pod {podspec.quoted(worker.pod)}"
        task = asyncio.create_task(until_done(name, worker.run, self._failures), name=name)
        self._tasks[uid] = task

        def done(ended: asyncio.Task[None]) -> None:
            self._workers.pop(uid, None)
            self._tasks.pop(uid, None)
            for runtime_id in [key for key, owner in self._owners.items() if owner == uid]:
                del self._owners[runtime_id]
            if not ended.cancelled() and self.on_end is not None:
                self.on_end(worker)

        task.add_done_callback(done)

    async def stop(self) -> None:
        """Cancel every worker; containers go on running."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def owned(self, runtime_id: str, uid: str) -> None:
        """A container or sandbox belongs to this pod."""
        self._owners[runtime_id] = uid

    def owner(self, runtime_id: str) -> PodWorker | None:
        uid = self._owners.get(runtime_id)
        return self._workers.get(uid) if uid else None

    def find(self, namespace: str, name: str, uid: str = "") -> PodWorker | None:
        """The worker of a pod by name; of several (one being deleted, its successor) the newest."""
        found = None
        for worker in self._workers.values():
            metadata = worker.pod["metadata"]
            if metadata["namespace"] == namespace and metadata["name"] == name and uid in ("", worker.uid):
                found = worker
        return found
