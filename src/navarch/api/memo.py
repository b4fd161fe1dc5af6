"""Remembering what was made of a text that clients send.

A plain `lru_cache` bounds the number of texts but not their length: a few thousand names of a megabyte each would be
kept for as long as the process lives. What is longer than any text that is worth remembering is made anew each time.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")


class _Memo(dict[str, T], Generic[T]):
    """What was made of which text, oldest first. Asking is `__getitem__`: for a text that is remembered no Python code
    runs, which counts where a request asks ten times."""

    __slots__ = ("_function", "_longest", "_maxsize")

    def __init__(self, function: Callable[[str], T], maxsize: int, longest: int) -> None:
        super().__init__()
        self._function = function
        self._maxsize = maxsize
        self._longest = longest

    def __missing__(self, text: str) -> T:
        made = self._function(text)
        if len(text) <= self._longest:
            if len(self) >= self._maxsize:
                self._make_room()
            self[text] = made
        return made

    def _make_room(self) -> None:
        """Forget the oldest eighth. One by one each would be looked for behind the holes that those before it left,
        which costs more than most of what is remembered."""
        try:
            oldest = list(islice(self, self._maxsize // 8 + 1))
        except RuntimeError:
            # Another thread was at it: it makes room, too.
            return
        for text in oldest:
            self.pop(text, None)


def memo(maxsize: int, longest: int = 256) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
    """Keeps the results for `maxsize` texts, of those with at most `longest` characters; the oldest go first, some
    at a time."""

    def decorate(function: Callable[[str], T]) -> Callable[[str], T]:
        return _Memo(function, maxsize, longest).__getitem__

    return decorate
