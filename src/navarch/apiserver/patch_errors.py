"""What Kubernetes says of a patch whose outcome is no object of its kind.

In: the stored object, the patch, what it made of the object, and what is wrong with that.  Out: the 422 that a client
reads. It repeats, for JSON and merge patches, the whole outcome as JSON in Kubernetes' order (fields as Go declares
them, but what the patch went through sorted); for strategic ones the patch as Go prints maps.
"""

from __future__ import annotations

import copy
from typing import Any

import orjson

from navarch.api.errors import Obj, StatusError, invalid, invalid_value
from navarch.api.go_structs import go_json, message_of_definition, struct
from navarch.api.go_text import escaped_json, go_text
from navarch.api.scalar_decoders import DecodeError
from navarch.api.schema import Compiled
from navarch.api.strategic import consume
from navarch.apiserver.patching import JSON_PATCH, STRATEGIC_PATCH


def patch_refused(shown: str, why: str) -> StatusError:
    """Kubernetes names neither kind nor object here."""
    return invalid("", "", "", [invalid_value("patch", shown, why)])


def shown(old: Obj, patch: Any, obj: Obj, media_type: str, compiled: Compiled | None) -> str:
    """What the message repeats; `obj` is the outcome before it was decoded."""
    if media_type == STRATEGIC_PATCH:
        left = copy.deepcopy(patch)
        consume(old, left, compiled.root if compiled is not None else None)
        return go_text(left)
    touched = _paths(patch) if media_type == JSON_PATCH else patch
    message = message_of_definition(compiled.name) if compiled is not None else ""
    return escaped_json(orjson.dumps(_ordered(old, obj, touched, message))).decode()


def _paths(operations: Any) -> Obj:
    """Which maps a JSON patch goes through, as nested dictionaries."""
    out: Obj = {}
    for operation in operations:
        for pointer in (operation.get("path"), operation.get("from")):
            at = out
            for step in str(pointer or "").split("/")[1:]:
                at = at.setdefault(step.replace("~1", "/").replace("~0", "~"), {})
    return out


def _ordered(old: Any, new: Any, touched: Any, message: str) -> Any:
    """`new` in the order in which it would be written: a map that the patch went through is sorted."""
    if not touched or not isinstance(touched, dict):
        return new if old is None else go_json(new, message)
    if isinstance(new, list):
        items = old if isinstance(old, list) else []
        return [
            _ordered(items[index] if index < len(items) else None, item, touched.get(str(index)), message)
            for index, item in enumerate(new)
        ]
    if not isinstance(new, dict):
        return new
    fields = struct(message)
    held = old if isinstance(old, dict) else {}
    return {
        name: _ordered(held.get(name), new[name], touched.get(name), fields[name].message if name in fields else "")
        for name in sorted(new)
    }


def converter_text(error: DecodeError) -> str:
    """How the converter of decoded maps words what the decoder of JSON would word in its own way."""
    if error.message:
        return error.message
    value, wanted = error.value, error.go_type
    if wanted == "[]uint8":
        wanted = "[]"
    if wanted.startswith("map[") or wanted == "v1.ResourceList":
        return f"cannot restore map from {_kind(value)}"
    if wanted.startswith("[]"):
        return f"cannot restore slice from {_kind(value)}"
    if "." in wanted:
        return f"cannot restore struct from: {_kind(value)}"
    if isinstance(value, (int, float)) and not isinstance(value, bool) and wanted != "bool":
        return f"cannot convert {_kind(value)} to {wanted}"
    return f"unrecognized type: {wanted}"


def _kind(value: Any) -> str:
    """Go's kind of a decoded value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64"
    if isinstance(value, float):
        return "float64"
    return "string" if isinstance(value, str) else "slice" if isinstance(value, list) else "map"
