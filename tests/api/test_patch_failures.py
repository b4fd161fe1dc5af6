"""Why a JSON patch does not apply: the words of the library that Kubernetes patches with."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.api.meta import Obj
from navarch.api.patch_failures import failure

DOCUMENT: Obj = {"l": ["a", "b"], "m": {"a": "b"}}


def op(op: str, path: str, **more: Any) -> Obj:
    return {"op": op, "path": path, **more}


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        (op("bogus", "/m/a"), "Unexpected kind: bogus"),
        (op("add", "/no/x", value=1), 'add operation does not apply: doc is missing path: "/no/x": missing value'),
        (
            op("add", "/l/x", value=1),
            "error in add for path: '/l/x': value was not a proper array index: 'x': "
            'strconv.Atoi: parsing "x": invalid syntax',
        ),
        (
            op("add", "/l/5", value=1),
            "error in add for path: '/l/5': Unable to access invalid index: 5: invalid index referenced",
        ),
        (
            op("remove", "/m/z"),
            "error in remove for path: '/m/z': Unable to remove nonexistent key: z: missing value",
        ),
        (op("remove", "/no/z"), 'remove operation does not apply: doc is missing path: "/no/z": missing value'),
        (
            op("remove", "/l/2"),
            "error in remove for path: '/l/2': Unable to access invalid index: 2: invalid index referenced",
        ),
        (
            op("replace", "/l/3", value=1),
            "replace operation does not apply: doc is missing key: /l/3: missing value",
        ),
        (
            op("replace", "/no/x", value=1),
            "replace operation does not apply: doc is missing path: /no/x: missing value",
        ),
        (op("test", "/l/0", value="z"), "testing value /l/0 failed: test failed"),
        (op("test", "/no/x", value="z"), "test operation does not apply: is missing path: /no/x: missing value"),
        (
            op("copy", "/no/x", **{"from": "/m/a"}),
            "copy operation does not apply: doc is missing destination path: /no/x: missing value",
        ),
        (
            op("move", "/m/x", **{"from": "/no/a"}),
            "move operation does not apply: doc is missing from path: /no/a: missing value",
        ),
    ],
    ids=lambda each: f"{each['op']} {each['path']}" if isinstance(each, dict) else "",
)
def test_the_first_operation_that_does_not_apply_is_told(operation: Obj, said: str) -> None:
    assert failure(DOCUMENT, [op("add", "/m/b", value="c"), operation, op("remove", "/never")]) == said


def test_what_applies_has_no_failure() -> None:
    assert failure(DOCUMENT, [op("remove", "/l/0"), op("test", "/l/0", value="b")]) == ""
