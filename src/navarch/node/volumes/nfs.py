"""nfs: a directory that a server exports, mounted by the machine's own helper (`mount.nfs`); where that is not
installed, the error says so as `mount` does.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from navarch.api.meta import Obj
from navarch.node.volumes.base import VolumeContext, VolumeError
from navarch.node.volumes.mounts import is_mount_point

# A server that does not answer is given up by the helper after about two minutes.
_LIMIT_S: Final = 180.0


class NFS:
    """Unmounted with all else that is mounted below the pod's folder."""

    refreshes = False

    async def publish(self, context: VolumeContext, volume: Obj, place: Path) -> Path:
        stated = volume["nfs"]
        return await context.in_thread(mount_export, stated, (), place, read_only=bool(stated.get("readOnly")))


def mount_export(stated: Obj, options: Sequence[str], place: Path, *, read_only: bool) -> Path:
    """Mount what `stated` names at `place`, unless it is there.  Raises VolumeError with what `mount` says."""
    if is_mount_point(place):
        return place
    place.mkdir(mode=0o750, parents=True, exist_ok=True)
    chosen = [*(["ro"] if read_only else []), *options]
    arguments = ["-t", "nfs", *(["-o", ",".join(chosen)] if chosen else [])]
    arguments += [f"{stated['server']}:{stated['path']}", str(place)]
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VolumeError(f"mount failed: {error}") from error
    if done.returncode != 0:
        raise VolumeError(
            f"mount failed: exit status {done.returncode}\nMounting command: mount\n"
            f"Mounting arguments: {' '.join(arguments)}\nOutput: {done.stdout}{done.stderr}"
        )
    return place
