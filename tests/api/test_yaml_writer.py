"""YAML for clients: every parser reads it as the value that was written."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from navarch.api.yaml_reader import load
from navarch.api.yaml_writer import write

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.text("ab:-#|>'\"\\\n\t {}[]!&*?%@`,.~", max_size=12)
    | st.sampled_from(["yes", "n", "off", "null", "~", "1e3", "0x1f", "1:20", "2024-01-02", "<<", "=", "---", "..."]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_it_reads_as_what_was_written(value: Any) -> None:
    text = write(value).encode()

    assert load(text).value == value
    assert _without_floats(yaml.load(text, Loader=yaml.CSafeLoader)) == _without_floats(value)


def _without_floats(value: Any) -> Any:
    """PyYAML takes `1e+20` for text, which YAML 1.1 makes it."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return {key: _without_floats(item) for key, item in value.items()}
    return [_without_floats(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": {"x": [{"k": "v", "l": []}, "t"]}}, "a:\n  x:\n  - k: v\n    l: []\n  - t\nb: 1\n"),
        ({"a": [["b"], {}]}, "a:\n- - b\n- {}\n"),
        ({"script": "one\n  two\n"}, "script: |\n  one\n    two\n"),
        ({"image": "nginx:1.2", "on": "true", "n": "5"}, 'image: nginx:1.2\n"n": "5"\n"on": "true"\n'),
        ([], "[]\n"),
    ],
)
def test_it_looks_as_kubernetes_writes_it(value: Any, text: str) -> None:
    assert write(value) == text
