"""JSON Patch (RFC 6902) and JSON merge patch (RFC 7386), with the errors that Kubernetes' API gives for them.

In: an object as it is and a decoded patch.  Out: the patched object, which shares nothing with either, so that the
steps that follow may change it in place.  Neither input is ever changed.  Strategic merge patches, which need the
kind's schema, are re-exported from `navarch.api.strategic`.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from navarch.api.errors import Obj, StatusError, bad_request, rejected, too_large
from navarch.api.go_text import go_kind
from navarch.api.strategic import strategic_merge_patch
from navarch.numbers import ascii_integer

__all__ = ["MAX_OPERATIONS", "copy_json", "json_patch", "merge_patch", "strategic_merge_patch"]

MAX_OPERATIONS: Final = 10_000
# What the `copy` operations of one patch may add up to: without a bound, twenty of them make a gigabyte.
_MAX_COPIED_BYTES: Final = 3 * 1024 * 1024


def copy_json(value: Any) -> Any:
    """A copy of a JSON value that shares nothing with it (several times faster than `copy.deepcopy`)."""
    return orjson.loads(orjson.dumps(value))


def merge_patch(obj: Obj, patch: Any) -> Obj:
    """Apply a JSON merge patch: null deletes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        raise bad_request("Invalid JSON Patch")
    # Copied once, and only what is left of both.
    merged: Obj = copy_json(_merged(obj, patch))
    return merged


def _merged(target: Any, patch: Obj) -> Obj:
    """What comes of both, sharing what it can with them."""
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            merged[name] = _merged(merged.get(name), value)
        else:
            merged[name] = value
    return merged


def json_patch(obj: Obj, operations: Any) -> Obj:
    """Apply a list of JSON Patch operations; all of them or, with a StatusError, none."""
    if not isinstance(operations, list):
        raise bad_request(f"json: cannot unmarshal {go_kind(operations)} into Go value of type jsonpatch.Patch")
    if len(operations) > MAX_OPERATIONS:
        message = f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}"
        raise StatusError(413, "RequestEntityTooLarge", f"Request entity too large: {message}")
    document: Any = copy_json(obj)
    copied_bytes = 0
    for operation in operations:
        if operation is None:
            raise rejected()
        if not isinstance(operation, dict):
            kind = go_kind(operation)
            raise bad_request(f"json: cannot unmarshal {kind} into Go value of type map[string]*json.RawMessage")
        if operation.get("op") == "copy":
            source = orjson.dumps(_member(document, _pointer(operation.get("from"))))
            copied_bytes += len(source)
            if copied_bytes > _MAX_COPIED_BYTES:
                raise too_large(_MAX_COPIED_BYTES)
            document = _add(document, _pointer(operation.get("path")), orjson.loads(source))
        else:
            document = _apply_operation(document, operation)
    if not isinstance(document, dict):
        raise rejected()
    return document


def _apply_operation(document: Any, operation: Obj) -> Any:
    path = _pointer(operation.get("path"))
    match operation.get("op"):
        case "add":
            return _add(document, path, copy_json(operation.get("value")))
        case "remove":
            return _remove(document, path)[0]
        case "replace":
            return _replace(document, path, copy_json(operation.get("value")))
        case "move":
            source = _pointer(operation.get("from"))
            if path[: len(source)] == source and path != source:
                raise rejected()
            document, moved = _remove(document, source)
            return _add(document, path, moved)
        case "test":
            return _test(document, path, operation.get("value"))
        case _:
            raise rejected()


def _test(document: Any, path: list[str], wanted: Any) -> Any:
    if not _equal(_member(document, path), wanted):
        raise rejected()
    return document


def _equal(left: Any, right: Any) -> bool:
    """JSON equality: Python's, but true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[name], right[name]) for name in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)


def _pointer(text: Any) -> list[str]:
    """The steps of a JSON pointer. As in Kubernetes' library what stands before the first slash is not looked at, but
    there must be one."""
    if not isinstance(text, str) or (text and "/" not in text):
        raise rejected()
    return [step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:]]


def _index(step: str, length: int) -> int:
    """An index below `length`; negative ones count from the end, which Kubernetes' library allows."""
    try:
        index = ascii_integer(step)
    except ValueError:
        raise rejected() from None
    if index < 0:
        index += length
    if not 0 <= index < length:
        raise rejected()
    return index


def _get(document: Any, path: list[str]) -> Any:
    for step in path:
        if isinstance(document, dict):
            if step not in document:
                raise rejected()
            document = document[step]
        elif isinstance(document, list):
            document = document[_index(step, len(document))]
        else:
            raise rejected()
    return document


def _member(document: Any, path: list[str]) -> Any:
    """What is there, where a missing member is null, as in Kubernetes, so that `test` can assert that it is missing.
    What it would be a member of must be there."""
    if not path:
        return document
    parent, last = _get(document, path[:-1]), path[-1]
    return parent.get(last) if isinstance(parent, dict) else _get(parent, [last])


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent, last = _get(document, path[:-1]), path[-1]
    if isinstance(parent, dict):
        parent[last] = value
    elif isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else _index(last, len(parent) + 1), value)
    else:
        raise rejected()
    return document


def _remove(document: Any, path: list[str]) -> tuple[Any, Any]:
    if not path:
        raise rejected()
    parent, last = _get(document, path[:-1]), path[-1]
    if isinstance(parent, dict) and last in parent:
        return document, parent.pop(last)
    if isinstance(parent, list):
        return document, parent.pop(_index(last, len(parent)))
    raise rejected()


def _replace(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent, last = _get(document, path[:-1]), path[-1]
    if isinstance(parent, dict):
        # Kubernetes' library also replaces what is not there, against the letter of RFC 6902.
        parent[last] = value
    elif isinstance(parent, list):
        parent[_index(last, len(parent))] = value
    else:
        raise rejected()
    return document
