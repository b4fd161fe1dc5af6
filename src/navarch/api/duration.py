"""Durations as Go writes them: `1h30m`, `1.5s`, `10ms`."""

from __future__ import annotations

from typing import Final

_UNITS_S: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def seconds_of(text: str) -> float:
    """Raises ValueError."""
    rest = text.lstrip("+-")
    if rest == "0":
        return 0.0
    if not rest:
        raise ValueError(text)
    total = 0.0
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = rest[: len(rest) - len(rest.lstrip("hmsuµn"))]
        if unit not in _UNITS_S:
            raise ValueError(text)
        total += float(number) * _UNITS_S[unit]
        rest = rest[len(unit) :]
    return -total if text.startswith("-") else total
