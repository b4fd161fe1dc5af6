"""Why a JSON patch does not apply, in the words of the library that Kubernetes patches with.

In: a document and the operations that could not be done to it.  Out: what is wrong with the first that cannot. Clients
who send a patch are not told; who wrote a webhook or a policy that made one is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from navarch.api.errors import StatusError
from navarch.api.go_text import quoted
from navarch.api.meta import Obj
from navarch.api.patch import json_patch
from navarch.numbers import integer_or

TEST_FAILED: Final = "test failed"
_MISSING: Final = "missing value"
_NO_NUMBER: Final = -(2**63)


def failure(document: Any, operations: Sequence[Obj]) -> str:
    """Empty where all of them can be done."""
    for operation in operations:
        try:
            document = json_patch(document, [operation])
        except StatusError as error:
            return _why(document, operation) or error.message
    return ""


def _why(document: Any, operation: Obj) -> str:
    op, path = str(operation.get("op") or ""), str(operation.get("path") or "")
    if op in ("move", "copy"):
        return _why_not_moved(document, op, str(operation.get("from") or ""), path)
    if op not in ("add", "remove", "replace", "test"):
        return f"Unexpected kind: {op}"
    holder, key = _holder(document, path), _last(path)
    if holder is None:
        where = f'"{path}"' if op in ("add", "remove") else path
        return f"{op} operation does not apply: {'' if op == 'test' else 'doc '}is missing path: {where}: {_MISSING}"
    if op == "add":
        return f"error in add for path: '{path}': {_not_added(holder, key)}"
    problem = _not_there(holder, key)
    if op == "remove":
        return f"error in remove for path: '{path}': {problem or _not_removed(holder, key)}"
    if op == "replace":
        return f"replace operation does not apply: doc is missing key: {path}: {_MISSING}"
    return f"error in test for path: '{path}': {problem}" if problem else f"testing value {path} failed: {TEST_FAILED}"


def _why_not_moved(document: Any, op: str, source: str, path: str) -> str:
    holder, key = _holder(document, source), _last(source)
    if holder is None:
        return f"{op} operation does not apply: doc is missing from path: {source}: {_MISSING}"
    problem = _not_there(holder, key)
    if op == "move":
        problem = problem or _not_removed(holder, key)
        if problem:
            return f"error in move for path: '{key}': {problem}"
        document = json_patch(document, [{"op": "remove", "path": source}])
    elif problem:
        return f"error in copy for from: '{source}': {problem}"
    target = _holder(document, path)
    if target is None:
        return f"{op} operation does not apply: doc is missing destination path: {path}: {_MISSING}"
    problem = _not_added(target, _last(path))
    if not problem:
        return ""
    where = f"error in move for path: '{path}'" if op == "move" else "error while adding value during copy"
    return f"{where}: {problem}"


def _not_there(holder: Any, key: str) -> str:
    """Why a list has no such item; an object has nothing there at worst."""
    if isinstance(holder, dict):
        return ""
    index = integer_or(key, _NO_NUMBER)
    if index == _NO_NUMBER:
        return f"strconv.Atoi: parsing {quoted(key)}: invalid syntax"
    return "" if -len(holder) <= index < len(holder) else _invalid(index)


def _not_removed(holder: Any, key: str) -> str:
    if isinstance(holder, dict) and key not in holder:
        return f"Unable to remove nonexistent key: {key}: {_MISSING}"
    return ""


def _not_added(holder: Any, key: str) -> str:
    if isinstance(holder, dict) or key == "-":
        return ""
    index = integer_or(key, _NO_NUMBER)
    if index == _NO_NUMBER:
        wrong = f"strconv.Atoi: parsing {quoted(key)}: invalid syntax"
        return f"value was not a proper array index: '{key}': {wrong}"
    return "" if -len(holder) - 1 <= index <= len(holder) else _invalid(index)


def _invalid(index: int) -> str:
    return f"Unable to access invalid index: {index}: invalid index referenced"


def _step(text: str) -> str:
    return text.replace("~1", "/").replace("~0", "~")


def _last(path: str) -> str:
    return _step(path.rpartition("/")[2])


def _holder(document: Any, path: str) -> Any:
    """What holds the last step of a path; None where there is nothing that could."""
    if "/" not in path:
        return None
    for text in path.split("/")[1:-1]:
        step = _step(text)
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and not _not_there(document, step):
            document = document[int(step)]
        else:
            return None
    return document if isinstance(document, (dict, list)) else None
