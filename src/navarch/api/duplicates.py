"""Duplicate keys in a JSON request body, which strict field validation refuses and the default one warns about.

In: the body's bytes and what they decoded to.  Out: what strict decoding says of fields that were given more than once,
and of those that are none.

Decoding with Python's own decoder, which sees the pairs, costs several times what orjson does.  A count of colons tells
most bodies to be free of duplicates: outside of strings there is exactly one per key, so a body that has no more colons
than its decoded form, encoded again, cannot have lost a key.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any, Final

import orjson

# Kubernetes stops counting there.
_MOST: Final = 100


def has_duplicates(body: bytes, decoded: Any) -> bool:
    """Whether a body that decoded to this may have given a key more than once."""
    return body.count(b":") != orjson.dumps(decoded).count(b":") or rb"\u003" in body


def strict_problems(body: bytes, unknown: Sequence[str]) -> list[str]:
    """What strict decoding says of a body that gave keys more than once and whose fields at the paths `unknown` are
    none: in the order in which a reader of the text comes upon them, each once. What is unknown has no duplicates."""
    found: dict[tuple[str, str], None] = {}
    with contextlib.suppress(ValueError):
        _collect(json.loads(body, object_pairs_hook=_Pairs), "", frozenset(unknown), found)
    return [f'{what} field "{path}"' for what, path in found][:_MOST]


class _Pairs(list[tuple[str, Any]]):
    """An object as it was written: a list of its pairs."""


def _collect(value: Any, path: str, unknown: frozenset[str], found: dict[tuple[str, str], None]) -> None:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for name, item in value:
            below = f"{path}.{name}" if path else name
            if below in unknown:
                found["unknown", below] = None
                continue
            if name in seen:
                found["duplicate", below] = None
            seen.add(name)
            _collect(item, below, unknown, found)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _collect(item, f"{path}[{index}]", unknown, found)
