"""FNV, the hash of 32 bits by which Kubernetes names things and knows damaged files."""

from __future__ import annotations

from typing import Final

_OFFSET: Final = 2166136261
_PRIME: Final = 16777619


def fnv1a(data: bytes) -> int:
    """32-bit FNV-1a."""
    value = _OFFSET
    for byte in data:
        value = ((value ^ byte) * _PRIME) & 0xFFFFFFFF
    return value


def fnv1(data: bytes) -> int:
    """32-bit FNV-1."""
    value = _OFFSET
    for byte in data:
        value = (value * _PRIME & 0xFFFFFFFF) ^ byte
    return value
