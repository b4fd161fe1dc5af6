"""JSON values as Go prints them."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.api.errors import invalid_value
from navarch.api.go_structs import go_json
from navarch.api.go_text import go_float, go_syntax, go_text, go_type


@pytest.mark.parametrize(
    ("value", "text", "syntax", "named"),
    [
        ({"b": 1, "a": [True, None]}, "map[a:[true <nil>] b:1]",
         'map[string]interface {}{"a":[]interface {}{true, interface {}(nil)}, "b":1}', "map[string]interface {}"),
        ([], "[]", "[]interface {}{}", "[]interface {}"),
        ("x y", "x y", '"x y"', "string"),
        (1.5, "1.5", "1.5", "float64"),
        (False, "false", "false", "bool"),
        (None, "<nil>", "interface {}(nil)", "%!s(<nil>)"),
    ],
)  # fmt: skip
def test_a_value(value: Any, text: str, syntax: str, named: str) -> None:
    assert (go_text(value), go_syntax(value), go_type(value)) == (text, syntax, named)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1.0, "1"), (-2.5, "-2.5"), (100000.0, "100000"), (1e6, "1e+06"), (1234567.0, "1.234567e+06"),
     (0.0001, "0.0001"), (0.00001, "1e-05"), (1.25e100, "1.25e+100")],
)  # fmt: skip
def test_a_float(value: float, text: str) -> None:
    assert go_float(value) == text


def test_an_object_in_the_order_in_which_go_writes_it() -> None:
    container = {"image": "x", "terminationMessagePath": "t", "name": "c", "env": [{"value": "v", "name": "E"}],
                 "resources": {"limits": {"memory": "1", "cpu": "2"}}}  # fmt: skip
    written = go_json(container, "core/v1.Container")
    assert list(written) == ["name", "image", "env", "resources", "terminationMessagePath"]
    assert list(written["env"][0]) == ["name", "value"]
    assert list(written["resources"]["limits"]) == ["cpu", "memory"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", '"plain"'),
        ('a "b" \\', '"a \\"b\\" \\\\"'),
        ("tab\t", '"tab\\t"'),
        ("\x00\x7f", '"\\x00\\x7f"'),
        ("é\u2028\ufeff", '"é\\u2028\\ufeff"'),
        # Texts are quoted; what is JSON can be put into HTML.
        ("<&>", '"<&>"'),
        (["<&>"], '["\\u003c\\u0026\\u003e"]'),
        ({"a": "<"}, '{"a":"\\u003c"}'),
        (None, "null"),
        (True, "true"),
        (5, "5"),
    ],
)
def test_a_refused_value_is_shown_as_go_shows_it(value: Any, shown: str) -> None:
    assert invalid_value("f", value, "no").message() == f"Invalid value: {shown}: no"
