"""Pod sources: where it is said which pods this node is to run.

Each tells a `PodSink` of pods that are there and of pods that are gone; all of them together are what the node has. The
API server's pods come from here; static pods come from files or a URL (`static.py`).
"""

from __future__ import annotations

from typing import Protocol

from navarch.api.meta import Obj, uid_of
from navarch.client.base import Client
from navarch.client.informer import Informer
from navarch.client.resources import PODS
from navarch.node import podspec


def slim(obj: Obj) -> Obj:
    """An object without the record of who set which field, which is as large as the rest and of no use here."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": metadata}


class PodSink(Protocol):
    """Who is told. Pods are told apart by uid: a pod of the same name with another uid is another pod."""

    def pod_set(self, pod: Obj) -> None:
        """The pod is to run on this node, as it says now."""
        ...

    def pod_gone(self, pod: Obj) -> None:
        """The pod is no longer to be here."""
        ...


class PodSource(Protocol):
    """`uids` are those of its pods, complete once `synced` has returned."""

    async def run(self, sink: PodSink) -> None:
        """Tell `sink` for ever."""
        ...

    async def synced(self) -> None:
        """Wait until the sink has been told of every pod that there was at the start."""
        ...

    def uids(self) -> set[str]: ...


class MirrorSink(Protocol):
    """Who is told of mirror pods: those by which the API server shows static pods."""

    def mirror_set(self, mirror: Obj) -> None: ...

    def mirror_gone(self, mirror: Obj) -> None: ...


class APIPods:
    """The pods that the API server binds to this node. Mirror pods go to `mirrors`: their static pods are what runs."""

    def __init__(self, client: Client, node_name: str, mirrors: MirrorSink) -> None:
        self._informer = Informer(client, PODS, fields=f"spec.nodeName={node_name}", transform=slim)
        self._mirrors = mirrors
        self._followed = False

    async def run(self, sink: PodSink) -> None:
        if not self._followed:
            self._followed = True
            self._follow(sink)
        await self._informer.run()

    def _follow(self, sink: PodSink) -> None:
        def is_set(pod: Obj) -> None:
            if podspec.is_mirror(pod):
                self._mirrors.mirror_set(pod)
            else:
                sink.pod_set(pod)

        def gone(pod: Obj) -> None:
            if podspec.is_mirror(pod):
                self._mirrors.mirror_gone(pod)
            else:
                sink.pod_gone(pod)

        def updated(old: Obj, new: Obj) -> None:
            if uid_of(old) != uid_of(new):
                gone(old)
            is_set(new)

        self._informer.add_handler(is_set, updated, gone)

    async def synced(self) -> None:
        await self._informer.synced()

    def uids(self) -> set[str]:
        return {uid_of(pod) for pod in self._informer.list()}
