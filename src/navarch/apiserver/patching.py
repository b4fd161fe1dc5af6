"""A patch applied to a stored object, and what it touched decoded.

In: the stored object, a patch and its media type.  Out: the object as it shall be, and the paths of fields that nobody
knows. What the patch does not name is neither copied nor looked at: it was checked when it came, and the pipeline
changes nothing of it in place. Of a write through `/status` that holds for all that a strategic patch leaves as it is
(`sharing`): the pipeline changes nothing in place there but the object, its metadata and its status themselves, which
are copies.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from functools import partial
from typing import Any

import orjson

from navarch.api.errors import bad_request
from navarch.api.meta import Obj
from navarch.api.patch import json_patch, merge_patch
from navarch.api.schema import Compiled
from navarch.api.status_outcomes import Outcome, StatusOutcomes
from navarch.api.strategic import sharing_merge_patch, strategic_merge_patch

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
_OF_A_STATUS = frozenset({"metadata", "status"})


def patched(
    old: Obj, patch: Any, media_type: str, compiled: Compiled | None, *, sharing: bool = False
) -> tuple[Obj, Iterable[str]]:
    """The object, and the names of its fields that may differ from the stored one's; `old` is not changed. Raises
    StatusError 400, 422, 500."""
    names = _touched(patch, media_type)
    if names is None:
        obj = _apply(old, patch, media_type, compiled)
        # Compared as JSON, where unlike in Python true is not 1.
        differing = [n for n, v in obj.items() if n not in old or orjson.dumps(v) != orjson.dumps(old[n])]
        return obj, differing
    # In the order in which the object has them.
    held = {name: old[name] for name in (names if len(names) == 1 else old) if name in names and name in old}
    if sharing and media_type == STRATEGIC_PATCH and compiled is not None:
        part = sharing_merge_patch(held, patch, compiled.root)
    else:
        part = _apply(held, patch, media_type, compiled)
    obj = old | part
    for name in names:
        if name not in part:
            obj.pop(name, None)
    touched = [name for name, value in part.items() if name not in held or value is not held[name]]
    if "metadata" not in touched and "metadata" in obj:
        # The server's own metadata is written into it.
        obj["metadata"] = dict(obj["metadata"])
    return obj, touched


def remembered(
    outcomes: StatusOutcomes, old: Obj, patch: Any, media_type: str, compiled: Compiled
) -> tuple[Obj, Outcome] | None:
    """The object as a patch through `/status` and `decode_touched` make it, with what else is known of it, where the
    same was made of one like it; `old` is not changed. None where it is to be worked out."""
    if media_type == JSON_PATCH or not isinstance(patch, dict) or not patch.keys() <= _OF_A_STATUS:
        return None
    was, change = old.get("status"), patch.get("status")
    if not isinstance(was, dict) or not isinstance(change, dict):
        return None
    metadata = old["metadata"]
    if "metadata" in patch and patch["metadata"] != {"uid": metadata.get("uid")}:
        return None
    outcome = outcomes.find(f"{compiled.name} {media_type}", was, change, partial(_becomes, media_type, compiled))
    if outcome is None:
        return None
    obj = {**old, "metadata": dict(metadata), "status": outcome.status}
    compiled.default(obj)
    return obj, outcome


def _becomes(media_type: str, compiled: Compiled, was: Obj, change: Obj) -> Obj | None:
    """What a patch makes of a status; None for one that nobody would remember.  Raises DecodeError, StatusError."""
    held, patch = {"status": was}, {"status": change}
    if media_type == STRATEGIC_PATCH:
        part = sharing_merge_patch(held, patch, compiled.root)
    else:
        part = merge_patch(held, patch)
    unknown = compiled.checked(part)
    return None if unknown else part.get("status")


def _touched(patch: Any, media_type: str) -> frozenset[str] | None:
    """The top-level fields that a patch names; None where that is not plain to see."""
    if media_type == JSON_PATCH or not isinstance(patch, dict):
        return None
    names = frozenset(patch)
    return None if any(name.startswith("$") for name in names) else names


def _apply(old: Obj, patch: Any, media_type: str, compiled: Compiled | None) -> Obj:
    if media_type == JSON_PATCH:
        obj: Any = json_patch(old, patch)
    elif media_type == MERGE_PATCH or compiled is None:
        obj = merge_patch(old, patch)
    else:
        obj = strategic_merge_patch(old, patch, compiled.root)
    if not isinstance(obj, dict):
        raise bad_request("the patched object must be a JSON object")
    return obj


def decode_touched(
    compiled: Compiled | None, obj: Obj, touched: Iterable[str], stated: Container[str] | None = None
) -> list[str]:
    """Check the types of the touched fields, with defaults for them; of the metadata only what is `stated`, where that
    is known. The unknown fields' paths.  Raises DecodeError, StatusError."""
    if compiled is None:
        return []
    part = {name: obj[name] for name in touched if name in obj}
    names = list(part)
    metadata = part.get("metadata")
    if type(metadata) is not dict or stated is None:
        unknown = compiled.checked(part)
    else:
        part["metadata"] = {name: value for name, value in metadata.items() if name in stated}
        unknown = compiled.checked(part)
        part["metadata"] = _put_back(metadata, part.get("metadata") or {}, stated)
    for name in names:
        if name not in part:
            del obj[name]
    # What is not touched has its defaults.
    compiled.default(part)
    for name, value in part.items():
        if name in names:
            obj[name] = value
        else:
            obj.setdefault(name, value)
    obj.setdefault("metadata", {})
    return unknown


def _put_back(metadata: Obj, looked_at: Obj, stated: Container[str]) -> Obj:
    """The metadata with what came of those of its fields that were looked at."""
    for name in [name for name in metadata if name in stated and name not in looked_at]:
        del metadata[name]
    for name, value in looked_at.items():
        if name in stated:
            metadata[name] = value
        else:
            metadata.setdefault(name, value)
    return metadata


def stated_metadata(patch: Any, media_type: str) -> frozenset[str] | None:
    """The fields of the metadata that a patch names; None where that is not plain to see."""
    metadata = None if media_type == JSON_PATCH or not isinstance(patch, dict) else patch.get("metadata")
    return _touched(metadata, media_type)
