"""Files in which managers keep who has what, across restarts of the kubelet: each replaced as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write(path: Path, state: Any) -> None:
    """Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(state))
    partial.replace(path)


def read(path: Path) -> Any:
    """None where there is none, or a damaged one."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
