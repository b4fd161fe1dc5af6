"""Directories of this node that are volumes of the class `local-path`.

In: volumes that pods mount, and the Node's annotation of volumes that are to go. Out: a directory per volume below the
kubelet's folder, limited to the volume's size where the file system counts by projects (`project_quota.py`), wiped when
the cluster says so; the annotation then tells what has become of it.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Final

from navarch.api import quantity
from navarch.api.errors import StatusError
from navarch.api.meta import Obj, name_of
from navarch.client.base import Client, PatchKind
from navarch.client.informer import Informer
from navarch.client.resources import NODES
from navarch.kinds.storage import local_path
from navarch.node.volumes.mounts import mounted_below
from navarch.node.volumes.project_quota import limit_directory
from navarch.world import World

log = logging.getLogger(__name__)

_RETRY_S: Final = 1.0


def have_directory(path: Path, volume: Obj) -> None:
    """Make a volume's directory where it is not there yet: whoever runs in the pod may write."""
    if path.is_dir():
        return
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    path.mkdir(exist_ok=True)
    path.chmod(0o777)
    size = quantity.value((volume["spec"].get("capacity") or {}).get("storage", "0"))
    why = limit_directory(path, size)
    if why:
        log.info("volume %s may grow beyond its size: %s", name_of(volume), why)


def remove_directory(root: Path, name: str) -> str:
    """Wipe a volume's directory; answers why it is still there, if it is."""
    if not local_path.is_volume_name(name):
        return f"{name} is not the name of such a volume"
    path = root / local_path.FOLDER / name
    if mounted_below(path):
        return f"something is mounted below {path}"
    problems: list[str] = []
    shutil.rmtree(path, onerror=lambda _, what, error: problems.append(f"{what}: {error[1]}"))
    return "; ".join(problems[:3]) if path.exists() else ""


class Removals:
    """Does what the Node's annotation asks for. `own_node` is the informer of this node alone."""

    def __init__(self, client: Client, own_node: Informer, root: Path, world: World) -> None:
        self._client = client
        self._own_node = own_node
        self._root = root
        self._world = world
        self._wake = asyncio.Event()
        own_node.add_handler(lambda _: self._wake.set(), lambda _old, _new: self._wake.set())

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            for node in self._own_node.list():
                try:
                    await self._look(node)
                except (StatusError, OSError) as error:
                    log.debug("directories to remove: %s", error)
                    await asyncio.sleep(_RETRY_S)
                    self._wake.set()

    async def _look(self, node: Obj) -> None:
        told = local_path.removals(node)
        wanted = [name for name, state in told.items() if state == local_path.WANTED]
        if not wanted:
            return
        for name in wanted:
            told[name] = await self._world.in_thread(remove_directory, self._root, name) or local_path.DONE
        metadata = {
            "resourceVersion": node["metadata"]["resourceVersion"],
            "annotations": {local_path.REMOVALS: local_path.removals_text(told)},
        }
        await self._client.patch(NODES, name_of(node), "", {"metadata": metadata}, kind=PatchKind.MERGE)
