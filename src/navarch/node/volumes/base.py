"""The seam of volume types: what each is given, and what it answers."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from navarch.api.meta import Obj
from navarch.node.fieldref import PodFacts
from navarch.node.references import ObjectSource

P = ParamSpec("P")
T = TypeVar("T")

ImageSource = Callable[[Obj], Awaitable[Any]]


class InThread(Protocol):
    """`World.in_thread`, with a bound on how much runs at once."""

    async def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...


# Where kubelets have their folder, and so where what is written for Kubernetes looks for plugins and volumes.
COMMON_ROOT: Final = Path("/var/lib/kubelet")


class VolumeError(Exception):
    """A volume cannot be published; the message goes into a FailedMount event, with the operation that failed and the
    name of the volume that it was for, if that is not the pod's own. It is tried again after `retry_s`."""

    retry_s: float = 0.5

    def __init__(self, message: str, *, operation: str = "MountVolume.SetUp", volume: str = "") -> None:
        super().__init__(message)
        self.operation = operation
        self.volume = volume


class VolumePending(VolumeError):
    """What the volume needs is on its way: nothing has failed. It is looked for again after `wait_s`."""

    def __init__(self, message: str, *, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = self.retry_s = wait_s


def on_this_node(path: Path, root: Path) -> Path:
    """A path as this machine knows it: several kubelets may share the machine, so each has a folder of its own, `root`,
    and what is asked for below the common one is there."""
    if path.is_relative_to(COMMON_ROOT) and root != COMMON_ROOT:
        return root / path.relative_to(COMMON_ROOT)
    return path


@dataclass(frozen=True, slots=True)
class VolumeContext:
    """The pod whose volume it is, and where data comes from; `image` gives the runtime's image for an image volume,
    `in_thread` runs what touches a disk."""

    pod: Obj
    source: ObjectSource
    facts: PodFacts
    in_thread: InThread
    image: ImageSource | None = None

    @property
    def namespace(self) -> str:
        return str(self.pod["metadata"]["namespace"])

    @property
    def fs_group(self) -> int | None:
        group: int | None = (self.pod["spec"].get("securityContext") or {}).get("fsGroup")
        return group

    @property
    def regroups_always(self) -> bool:
        """Whether a volume's files get the pod's group although its top directory has it already."""
        policy = (self.pod["spec"].get("securityContext") or {}).get("fsGroupChangePolicy")
        return policy != "OnRootMismatch"


class VolumeType(Protocol):
    """One type of volume. `place` is the directory that is the volume's own, and all that the manager takes away again;
    `publish` answers the path to mount, which is `place` for all types that keep their own data. One that `refreshes`
    is called again, and must change only what differs. Disks are touched in threads alone: they may be slow, or hang.
    """

    refreshes: bool

    async def publish(self, context: VolumeContext, volume: Obj, place: Path) -> Path: ...


@dataclass(frozen=True, slots=True)
class Payload:
    """A file of an object's volume."""

    data: bytes
    mode: int
    uid: int | None = None


def mode_of(item: Mapping[str, object], default: int) -> int:
    """An item's mode, or the volume's default."""
    mode = item.get("mode")
    return default if mode is None else int(str(mode))


def chown_group(path: Path, group: int) -> None:
    """Give a tree to a group that may write it, new files included (set-group-id directories)."""
    for directory, _, files in os.walk(path):
        os.chown(directory, -1, group, follow_symlinks=False)
        os.chmod(directory, os.stat(directory).st_mode | 0o2770)
        for name in files:
            full = os.path.join(directory, name)
            if os.path.islink(full):
                continue
            os.chown(full, -1, group)
            mode = os.stat(full).st_mode
            os.chmod(full, mode | 0o660 | (0o010 if mode & 0o100 else 0))
