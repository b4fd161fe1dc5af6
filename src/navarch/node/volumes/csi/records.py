"""What is written down on the node of volumes that CSI drivers have set up, so that a kubelet that starts finds them.

Each use by a pod and each volume that is staged has a small file beside its place, in Kubernetes' layout and with its
keys. It is written before the driver is asked and removed after the driver let go: what has no file is nowhere mounted.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from navarch.kinds.storage.csi_names import unique_name

FILE: Final = "vol_data.json"
_PODS: Final = ("volumes", "volumeDevices")
_PLUGIN: Final = "kubernetes.io~csi"


@dataclass(frozen=True, slots=True)
class Used:
    """A pod's use of a volume; `place` is the folder of its file. `ephemeral` ones live with the pod and are never
    staged."""

    place: Path
    spec: str
    handle: str
    driver: str
    attachment: str = ""
    ephemeral: bool = False

    @property
    def block(self) -> bool:
        return self.place.parent.parent.name == "volumeDevices"

    @property
    def pod(self) -> str:
        return self.place.parent.parent.parent.name

    @property
    def unique_name(self) -> str:
        """The volume's name in a node's status."""
        return unique_name(self.driver, self.handle)

    def save(self, node: str) -> None:
        told = {
            "specVolID": self.spec,
            "volumeHandle": self.handle,
            "driverName": self.driver,
            "nodeName": node,
            "attachmentID": self.attachment,
            "volumeLifecycleMode": "Ephemeral" if self.ephemeral else "Persistent",
        }
        _save(self.place, told)

    def remove(self) -> None:
        (self.place / FILE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.place.rmdir()


@dataclass(frozen=True, slots=True)
class Staged:
    """A volume that is set up on the node."""

    place: Path
    handle: str
    driver: str

    def save(self) -> None:
        _save(self.place, {"volumeHandle": self.handle, "driverName": self.driver})

    def remove(self) -> None:
        """Called once nothing is mounted below."""
        (self.place / FILE).unlink(missing_ok=True)
        shutil.rmtree(self.place, ignore_errors=True)


def inline_handle(uid: str, volume: str) -> str:
    """The id of a volume that a pod brings itself."""
    return f"csi-{hashlib.sha256(f'{uid}{volume}'.encode()).hexdigest()}"


def place_of_use(pod_directory: Path, spec: str, *, block: bool) -> Path:
    return pod_directory / _PODS[block] / _PLUGIN / spec.replace("/", "~")


def staging_path(root: Path, driver: str, handle: str) -> Path:
    """What a driver is told to stage a volume at: below the folder of its record."""
    return root / "plugins/kubernetes.io/csi" / driver / hashlib.sha256(handle.encode()).hexdigest() / "globalmount"


def device_path(root: Path, spec: str, uid: str) -> Path:
    """Where a driver puts a block device for a pod."""
    return root / "plugins/kubernetes.io/csi/volumeDevices/publish" / spec / uid


def uses_of_pod(pod_directory: Path) -> list[Used]:
    """What the files in a pod's folder say."""
    return [
        _used(file)
        for kind in _PODS
        for file in sorted((pod_directory / kind / _PLUGIN).glob(f"*/{FILE}"))
        if file.stat().st_size
    ]


def all_uses(pods: Path) -> list[Used]:
    return [used for directory in _folders(pods) for used in uses_of_pod(directory)]


def all_staged(root: Path) -> list[Staged]:
    found = []
    for file in sorted((root / "plugins/kubernetes.io/csi").glob(f"*/*/{FILE}")):
        with contextlib.suppress(ValueError, KeyError):
            told = json.loads(file.read_text())
            found.append(Staged(file.parent, told["volumeHandle"], told["driverName"]))
    return found


def decoded(data: Mapping[str, str]) -> dict[str, str]:
    """A Secret's data as drivers are given it: text."""
    return {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}


def _folders(place: Path) -> Iterator[Path]:
    if place.is_dir():
        yield from (child for child in sorted(place.iterdir()) if child.is_dir())


def _used(file: Path) -> Used:
    told = json.loads(file.read_text())
    return Used(
        place=file.parent,
        spec=told.get("specVolID") or file.parent.name,
        handle=told["volumeHandle"],
        driver=told["driverName"],
        attachment=told.get("attachmentID") or "",
        ephemeral=told.get("volumeLifecycleMode") == "Ephemeral",
    )


def _save(place: Path, told: dict[str, str]) -> None:
    """All of it or nothing: a kubelet may be killed while it writes."""
    place.mkdir(parents=True, exist_ok=True, mode=0o750)
    fresh = place / f".{FILE}"
    fresh.write_text(json.dumps(told))
    os.replace(fresh, place / FILE)
