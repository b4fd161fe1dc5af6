"""Fields that a JSON text gives twice, which parsing into dictionaries hides.

Kubernetes refuses them where `fieldValidation=Strict` asks for it. Parsing a second time costs several times what the
decoder needs, so this is for that case alone.
"""

from __future__ import annotations

import json
from typing import Any


class _WithDuplicates(dict[str, Any]):
    """An object that had duplicate keys, and which."""

    duplicates: list[str]


def duplicate_fields(data: bytes | str) -> list[str]:
    """The dotted paths of the fields that occur more than once in one object of a valid JSON text."""
    found_any = False

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        plain = dict(pairs)
        if len(plain) == len(pairs):
            return plain
        nonlocal found_any
        found_any = True
        seen: set[str] = set()
        marked = _WithDuplicates(plain)
        marked.duplicates = [key for key, _ in pairs if key in seen or seen.add(key)]  # type: ignore[func-returns-value]
        return marked

    root = json.loads(data, object_pairs_hook=collect)
    return list(dict.fromkeys(_paths(root, ""))) if found_any else []


def _paths(value: Any, prefix: str) -> list[str]:
    found: list[str] = []
    if isinstance(value, list):
        for index, item in enumerate(value):
            found += _paths(item, f"{prefix}[{index}]")
    elif isinstance(value, dict):
        dot = f"{prefix}." if prefix else ""
        if isinstance(value, _WithDuplicates):
            found += [dot + key for key in value.duplicates]
        for key, item in value.items():
            found += _paths(item, dot + key)
    return found
