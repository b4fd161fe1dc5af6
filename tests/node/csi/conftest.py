"""A kubelet on simulated containers, and a CSI driver beside it: real sockets, real mounts."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from navarch.api.meta import Obj
from navarch.client.resources import (
    CSI_DRIVERS,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    VOLUME_ATTACHMENTS,
)
from navarch.kinds.storage.csi_names import attachment_name
from tests.csi_driver import NAME, DirectoryDriver
from tests.node.engine.conftest import Simulated, running


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short name: paths of sockets have room for some hundred letters."""
    folder = Path(tempfile.mkdtemp(prefix="nvcsi-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def simulated(place: Path) -> AsyncIterator[Simulated]:
    async with running(place, controllers=False) as node:
        yield node


@pytest.fixture
async def controlled(place: Path) -> AsyncIterator[Simulated]:
    async with running(place, controllers=True) as node:
        yield node


class Storage:
    """What people and a provisioner would have made."""

    def __init__(self, node: Simulated, place: Path) -> None:
        self.node = node
        self.place = place
        self.admin = node.api.admin

    def driver(self, **options: Any) -> DirectoryDriver:
        return DirectoryDriver(self.place / "store", self.node.config.data, **options)

    @asynccontextmanager
    async def serving(self, driver: DirectoryDriver | None = None, **options: Any) -> AsyncIterator[DirectoryDriver]:
        """A driver that the kubelet has taken."""
        async with driver or self.driver(**options) as running:
            await self.node.until(lambda: running.told)
            yield running

    async def describe(self, **spec: Any) -> None:
        """The CSIDriver object."""
        stated = {"attachRequired": False, **spec}
        await self.admin.create(CSI_DRIVERS, {"metadata": {"name": NAME}, "spec": stated})

    async def claim(self, name: str, *, handle: str = "", size: str = "1Gi", **volume: Any) -> None:
        """A claim `name` that is bound to a volume `pv-<name>`, of the driver if nothing else is stated."""
        if not {"local", "hostPath"} & volume.keys():
            volume["csi"] = {"driver": NAME, "volumeHandle": handle or name, **volume.get("csi", {})}
        modes = volume.pop("accessModes", ["ReadWriteOnce"])
        reference = {"namespace": "default", "name": name}
        mode = volume.get("volumeMode", "Filesystem")
        claim = await self.admin.create(
            PERSISTENT_VOLUME_CLAIMS,
            {
                "metadata": {"name": name, "namespace": "default"},
                "spec": {
                    "accessModes": modes,
                    "volumeMode": mode,
                    "storageClassName": "",
                    "volumeName": f"pv-{name}",
                    "resources": {"requests": {"storage": size}},
                },
            },
        )
        reference["uid"] = claim["metadata"]["uid"]
        await self.admin.create(
            PERSISTENT_VOLUMES,
            {
                "metadata": {"name": f"pv-{name}"},
                "spec": {
                    "capacity": {"storage": size},
                    "accessModes": modes,
                    "claimRef": reference,
                    **volume,
                },
            },
        )
        status = {"phase": "Bound", "accessModes": modes, "capacity": {"storage": size}}
        await self.admin.update(PERSISTENT_VOLUME_CLAIMS, {**claim, "status": status}, subresource="status")

    async def attach(self, handle: str, volume: str, metadata: Obj | None = None) -> None:
        """What controller and external-attacher do."""
        name = attachment_name(handle, NAME, "n1")
        spec = {"attacher": NAME, "nodeName": "n1", "source": {"persistentVolumeName": volume}}
        made = await self.admin.create(VOLUME_ATTACHMENTS, {"metadata": {"name": name}, "spec": spec})
        status = {"attached": True, "attachmentMetadata": metadata or {}}
        await self.admin.update(VOLUME_ATTACHMENTS, {**made, "status": status}, subresource="status")

    def mounts(self) -> list[str]:
        """Everything that is mounted below the test's folder by the driver."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [
            where
            for line in lines
            if (where := line.split()[4]).startswith(str(self.place)) and "kubernetes.io~projected" not in where
        ]

    def records(self) -> list[Path]:
        return sorted(self.node.config.data.rglob("vol_data.json"))


@pytest.fixture
def storage(simulated: Simulated, place: Path) -> Storage:
    if os.geteuid() != 0:
        pytest.skip("a kubelet mounts, which needs root")
    return Storage(simulated, place)
