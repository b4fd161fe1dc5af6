"""Remembering what was made of a text that clients send.

A plain `lru_cache` bounds the number of texts but not their length: a few thousand names of a megabyte each would be
kept for as long as the process lives. What is longer than any text that is worth remembering is made anew each time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

T = TypeVar("T")


def memo(maxsize: int, longest: int = 256) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
    """Keeps the results for the `maxsize` texts last asked about, of those with at most `longest` characters."""

    def decorate(function: Callable[[str], T]) -> Callable[[str], T]:
        remembered = lru_cache(maxsize)(function)

        @wraps(function)
        def answer(text: str) -> T:
            return remembered(text) if len(text) <= longest else function(text)

        return answer

    return decorate
