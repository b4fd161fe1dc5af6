"""`UserNamespaces`: which of the host's users the users of a pod are that has a user namespace (`hostUsers: false`).

Each such pod has 65,536 of them (or as many as the node's configuration says) for itself, in a file of its folder, so
that a restarted kubelet gives them to nobody else. The first block is the host's own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from navarch.node.config import KubeletConfig
from navarch.node.runtime.base import Features, IDRange, RuntimeFailure

_MOST_PODS: Final = 1024
_FILE: Final = "userns"


def unsupported(features: Features, handler: str) -> str:
    """Why a pod cannot have a user namespace with this handler; empty where it can."""
    known = features.handlers.get(handler)
    if known is None:
        return f'the handler "{handler}" is not known'
    return "" if known.user_namespaces else f'RuntimeClass handler "{handler}" does not support user namespaces'


class UserNamespaces:
    """Of the pods of one node."""

    def __init__(self, config: KubeletConfig) -> None:
        self._pods = config.pods
        self._length = config.ids_per_pod
        self._by_pod: dict[str, IDRange] | None = None

    def of(self, uid: str) -> IDRange:
        """The pod's range, given to it the first time. Reads and writes files.  Raises RuntimeFailure, OSError."""
        held = self._held()
        if uid not in held:
            users = self._free(held)
            file = self._pods / uid / _FILE
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(users))
            # Not before it is written down: the next kubelet would give the same to another pod.
            held[uid] = users
        return held[uid]

    def release(self, uid: str) -> None:
        """The pod is gone from the node, and its folder with it."""
        if self._by_pod is not None:
            self._by_pod.pop(uid, None)

    def _held(self) -> dict[str, IDRange]:
        if self._by_pod is None:
            found = ((file.parent.name, _read(file)) for file in sorted(self._pods.glob(f"*/{_FILE}")))
            self._by_pod = {uid: users for uid, users in found if users is not None}
        return self._by_pod

    def _free(self, held: dict[str, IDRange]) -> IDRange:
        taken = {users.first for users in held.values()}
        for number in range(1, _MOST_PODS + 1):
            if number * self._length not in taken:
                return IDRange(number * self._length, self._length)
        raise RuntimeFailure(
            f"limit on count of pods with user namespaces exceeded (limit is {_MOST_PODS}, "
            f"current pods with userns: {len(held)})"
        )


def _read(file: Path) -> IDRange | None:
    """None for a file that was not written to its end: nothing was started with it."""
    try:
        first, length = json.loads(file.read_text())
    except (OSError, ValueError, TypeError):
        return None
    return IDRange(int(first), int(length))
