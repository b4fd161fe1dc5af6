"""Patterns in the syntax of Go (RE2), matched in a time that grows with the text and not with what the pattern tries.

In: a pattern that some client wrote.  Out: a function that says whether a text contains it, or, in Go's words, why the
pattern is none. The library is the one that Go's own follows; a pattern that it is given can neither hang nor blow up,
which no pattern of Python's `re` is safe from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import re2

from navarch.api.memo import memo

_OPTIONS: Final = re2.Options()
# What is wrong with a pattern is told to who wrote it, not to the log.
_OPTIONS.log_errors = False
_OPTIONS.never_capture = True

# RE2's words, and those that Go has for the same.
_WORDS: Final = {
    "missing ]": "missing closing ]",
    "missing )": "missing closing )",
    "unexpected )": "unexpected )",
    "bad repetition operator": "invalid nested repetition operator",
    "no argument for repetition operator": "missing argument to repetition operator",
    "trailing \\": "trailing backslash at end of expression",
    "invalid escape sequence": "invalid escape sequence",
    "invalid character class": "invalid character class",
    "invalid character class range": "invalid character class range",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid repetition size": "invalid repeat count",
    "invalid named capture group": "invalid named capture",
    "invalid UTF-8": "invalid UTF-8",
}


_WHOLE: Final = ("missing )", "unexpected )")


def search_of(pattern: str) -> Callable[[str], bool]:
    """Whether a text contains what the pattern says.  Raises ValueError, in the words of `problem_of`."""
    return _compiled(pattern)


@memo(2048)
def _compiled(pattern: str) -> Callable[[str], bool]:
    try:
        # Bytes on both sides: the library would count characters of every text otherwise.
        search = re2.compile(pattern.encode(), _OPTIONS).search
    except re2.error as error:
        raise ValueError(_problem(pattern, error)) from None
    finally:
        # The library keeps what it has compiled, too.
        re2.purge()

    def found(text: str) -> bool:
        return search(text.encode()) is not None

    return found


def problem_of(pattern: str) -> str:
    """Why it is no pattern, as Go's `regexp.Compile` says it; empty for one that is right."""
    try:
        search_of(pattern)
    except ValueError as error:
        return str(error)
    return ""


def _problem(pattern: str, error: Exception) -> str:
    said = error.args[0] if error.args else ""
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    what, _, where = text.partition(": ")
    # Go shows the whole of what is closed once too often or not at all.
    return f"error parsing regexp: {_WORDS.get(what, what)}: `{pattern if what in _WHOLE else where}`"
