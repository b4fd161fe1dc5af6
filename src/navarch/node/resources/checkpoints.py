"""Files in which managers keep who has what, across restarts of the kubelet: each replaced as a whole.

What cannot be read, or was kept by another policy, is believed by nobody, and not passed over either: containers run on
with what it says. So the kubelet does not start, with Kubernetes' words, until somebody has drained the node and
removed the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class NotRestored(Exception):
    """The message is Kubernetes'."""

    def __init__(self, why: str, manager: str, path: Path) -> None:
        super().__init__(
            f"could not restore state from checkpoint: {why}, please drain this node and delete the {manager} "
            f'checkpoint file "{path}" before restarting Kubelet'
        )


def write(path: Path, state: Any) -> None:
    """Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(state))
    partial.replace(path)


def restored(
    path: Path, manager: str, policy: str, checksum: Callable[[Mapping[str, Any]], int], *, told: str = ""
) -> Mapping[str, Any] | None:
    """The state that was kept; None where there is none. `told` comes before what is said of policies.

    Raises NotRestored."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise NotRestored(str(error), manager, path) from error
    try:
        state = json.loads(text)
        if state.get("checksum") not in (None, 0, checksum(state)):
            raise NotRestored("checkpoint is corrupted", manager, path)
        kept = state["policyName"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotRestored(f"checkpoint is corrupted: {error!r}", manager, path) from error
    if kept != policy:
        why = f'{told}configured policy "{policy}" differs from state checkpoint policy "{kept}"'
        raise NotRestored(why, manager, path)
    return dict(state)
