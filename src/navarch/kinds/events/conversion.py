"""`events.k8s.io/v1` Events are stored as core `v1` Events; the two differ in the names of some fields.

Both functions take and give whole objects, share what they do not change, and lose nothing: what one version has and
the other has not, keeps its place under the name `deprecated…`.
"""

from __future__ import annotations

from typing import Final

from navarch.api.meta import Obj

# events.k8s.io/v1 → core v1
_CORE_NAMES: Final = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_EVENTS_NAMES: Final = {core: name for name, core in _CORE_NAMES.items()}


def to_core(obj: Obj) -> Obj:
    """The core `v1` Event that says the same."""
    return {_CORE_NAMES.get(key, key): value for key, value in obj.items()} | {"apiVersion": "v1"}


def from_core(obj: Obj) -> Obj:
    """The `events.k8s.io/v1` Event that says the same."""
    return {_EVENTS_NAMES.get(key, key): value for key, value in obj.items()} | {"apiVersion": "events.k8s.io/v1"}
