"""Hashes that name what a template makes: pod-template-hash of ReplicaSets, names of ControllerRevisions.

The hash is FNV-1a over the canonical JSON of the template, written in an alphabet without vowels so that no word comes
out. `collisions` is mixed in so that a controller can step aside when the name is taken by something else.
"""

from __future__ import annotations

from typing import Any

import orjson

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_OFFSET = 2166136261
_PRIME = 16777619


def fnv1a(data: bytes) -> int:
    """32-bit FNV-1a."""
    value = _OFFSET
    for byte in data:
        value = ((value ^ byte) * _PRIME) & 0xFFFFFFFF
    return value


def safe_encode(text: str) -> str:
    """Each character mapped into the alphabet that generated names use."""
    return "".join(_ALPHABET[ord(char) % len(_ALPHABET)] for char in text)


def template_hash(template: Any, collisions: int | None = None) -> str:
    """Equal templates give equal hashes, whatever the order of their keys."""
    data = orjson.dumps(template, option=orjson.OPT_SORT_KEYS)
    if collisions is not None:
        data += str(collisions).encode()
    return safe_encode(str(fnv1a(data)))
