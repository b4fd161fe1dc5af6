"""The seam of volume types: what each is given, and what it answers."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from navarch.api.meta import Obj
from navarch.node.fieldref import PodFacts
from navarch.node.references import ObjectSource

ImageSource = Callable[[Obj], Awaitable[Any]]


class VolumeError(Exception):
    """A volume cannot be set up; the message goes into a FailedMount event."""


class VolumePending(VolumeError):
    """What the volume needs is on its way: nothing has failed."""


@dataclass(frozen=True, slots=True)
class VolumeContext:
    """The pod whose volume it is, and where data comes from; `image` gives the runtime's image for an image volume."""

    pod: Obj
    source: ObjectSource
    facts: PodFacts
    image: ImageSource | None = None

    @property
    def namespace(self) -> str:
        return str(self.pod["metadata"]["namespace"])

    @property
    def fs_group(self) -> int | None:
        group: int | None = (self.pod["spec"].get("securityContext") or {}).get("fsGroup")
        return group


class VolumeType(Protocol):
    """One type of volume. `place` is the directory that is the volume's own; `set_up` answers the path to mount,
    which is
    `place` for all types that keep their own data. It is called again to refresh, and must change only what differs."""

    refreshes: bool

    async def set_up(self, context: VolumeContext, volume: Obj, place: Path) -> Path: ...

    def tear_down(self, place: Path) -> None: ...


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
