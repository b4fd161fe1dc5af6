"""Mirror pods: static pods as the API server shows them. Each static pod has one; the kubelet makes it, makes it anew
when somebody deletes it or the static pod changes, and deletes those whose static pod has gone.

In: the static pods that this node has, and the mirror pods that the API server has for it. Out: creations and deletions
of mirror pods. Level-triggered by the pod's name. A mirror pod never decides what runs: only the static pod does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, annotations_of, is_deleting, key_of, uid_of
from navarch.client.base import Client
from navarch.client.resources import NODES, PODS
from navarch.client.supervision import Failures
from navarch.client.workqueue import WorkQueue
from navarch.node.podspec import CONFIG_HASH, CONFIG_MIRROR

log = logging.getLogger(__name__)

_LONGEST_DELAY_S: Final = 30.0


class Mirrors:
    """`on_change` is called with a static pod's key when its mirror pod came, changed or went."""

    def __init__(self, client: Client, node_name: str, failures: Failures) -> None:
        self._client = client
        self._node_name = node_name
        self._failures = failures
        self._static: dict[Key, Obj] = {}
        self._seen: dict[Key, Obj] = {}
        self._queue: WorkQueue[Key] = WorkQueue(base_delay_s=0.2, max_delay_s=_LONGEST_DELAY_S)
        self.on_change: Callable[[Key], None] | None = None

    def of(self, static: Obj) -> Obj | None:
        """The mirror pod of this very static pod, if the API server has it and nobody is deleting it."""
        mirror = self._seen.get(key_of(static))
        if mirror is None or is_deleting(mirror) or not _shows(mirror, static):
            return None
        return mirror

    # The static pods.

    def expect(self, static: Obj) -> None:
        """This static pod is here: it shall have a mirror pod."""
        self._static[key_of(static)] = static
        self._queue.add(key_of(static))

    def forget(self, static: Obj) -> None:
        """The static pod has gone, and nothing of it runs any more."""
        held = self._static.get(key_of(static))
        if held is not None and uid_of(held) == uid_of(static):
            del self._static[key_of(static)]
            self._queue.add(key_of(static))

    # The mirror pods, as the API server has them.

    def mirror_set(self, mirror: Obj) -> None:
        self._changed(mirror, mirror)

    def mirror_gone(self, mirror: Obj) -> None:
        held = self._seen.get(key_of(mirror))
        if held is not None and uid_of(held) == uid_of(mirror):
            self._changed(mirror, None)

    def _changed(self, mirror: Obj, now: Obj | None) -> None:
        key = key_of(mirror)
        if now is None:
            self._seen.pop(key, None)
        else:
            self._seen[key] = now
        self._queue.add(key)
        if self.on_change is not None:
            self.on_change(key)

    # Work.

    async def run(self) -> None:
        """Reconcile for ever. To be started once the static pods and the API's pods are known."""
        while True:
            key = await self._queue.get()
            try:
                await self._reconcile(key)
            except (StatusError, OSError) as error:
                log.warning("mirror pod %s: %s", key, error)
                self._queue.add_rate_limited(key)
            except Exception as error:
                self._failures.note(f"mirror pod {key}", error)
                self._queue.add_rate_limited(key)
            else:
                self._queue.forget(key)
            finally:
                self._queue.done(key)
                await asyncio.sleep(0)

    async def _reconcile(self, key: Key) -> None:
        static, mirror = self._static.get(key), self._seen.get(key)
        if mirror is not None:
            if static is None or is_deleting(mirror) or not _shows(mirror, static):
                await self._delete(mirror)
            return
        if static is not None:
            await self._create(static)

    async def _delete(self, mirror: Obj) -> None:
        """At once: nothing runs under this object. That it has gone comes back by the watch."""
        namespace, name = key_of(mirror)
        try:
            await self._client.delete(PODS, name, namespace, grace_s=0, uid=uid_of(mirror))
        except StatusError as error:
            if error.code not in (404, 409):
                raise

    async def _create(self, static: Obj) -> None:
        node = await self._client.get(NODES, self._node_name)
        body = mirror_of(static, node)
        try:
            await self._client.create(PODS, body, namespace=static["metadata"]["namespace"])
        except StatusError as error:
            # One that the watch is about to show; or another pod of that name, which may go some day.
            if error.reason != "AlreadyExists":
                raise
            if self._seen.get(key_of(static)) is None:
                raise


def mirror_of(static: Obj, node: Obj) -> Obj:
    """The mirror pod of a static pod, owned by the node. Pure."""
    metadata = static["metadata"]
    annotations = {**annotations_of(static), CONFIG_MIRROR: annotations_of(static)[CONFIG_HASH]}
    owner = {
        "apiVersion": "v1",
        "kind": "Node",
        "name": node["metadata"]["name"],
        "uid": node["metadata"]["uid"],
        "controller": True,
    }
    kept = {key: metadata[key] for key in ("name", "namespace", "labels") if key in metadata}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**kept, "annotations": annotations, "ownerReferences": [owner]},
        "spec": static["spec"],
    }


def _shows(mirror: Obj, static: Obj) -> bool:
    return annotations_of(mirror).get(CONFIG_MIRROR) == annotations_of(static).get(CONFIG_HASH)
