"""What controller and kubelet agree on about volumes of the class `local-path`, which are directories of a node."""

from __future__ import annotations

import json
import re
from typing import Final

from navarch.api.meta import Obj, annotations_of

PROVISIONER: Final = "navarch.dev/local-path"
CLASS: Final = "local-path"
PROVISIONED_BY: Final = "pv.kubernetes.io/provisioned-by"
# Below the kubelet's folder, wherever a node has that.
FOLDER: Final = "local-path"
# On a Node: directories that are to go, by the names of their volumes, and what has become of them.
REMOVALS: Final = "navarch.dev/local-path-removals"
WANTED: Final = "wanted"
DONE: Final = "done"

_NAME: Final = re.compile(r"pvc-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_ours(volume: Obj) -> bool:
    return annotations_of(volume).get(PROVISIONED_BY) == PROVISIONER


def is_volume_name(name: str) -> bool:
    """Whether a directory may have been made for a volume of that name: what is to be deleted is looked at twice."""
    return bool(_NAME.fullmatch(name))


def removals(node: Obj) -> dict[str, str]:
    """What a Node's annotation says."""
    try:
        stated = json.loads(annotations_of(node).get(REMOVALS) or "{}")
    except ValueError:
        return {}
    return {str(name): str(state) for name, state in stated.items()} if isinstance(stated, dict) else {}


def removals_text(stated: dict[str, str]) -> str | None:
    """The annotation that says so; None for none."""
    return json.dumps(stated, separators=(",", ":"), sort_keys=True) if stated else None
