"""Regular expressions as Go has them: RE2, whose time grows with the text alone, whatever the pattern.

In: a pattern.  Out: whether and where a text has it; patterns are kept while they are used.  Raises CelError with Go's
words. Python's own `re` would let one pattern of a stranger (`(a+)+$`) stop the server.
"""

from __future__ import annotations

from typing import Any, Final

import re2

from navarch.api.cel.errors import CelError
from navarch.api.memo import memo

_OPTIONS: Final = re2.Options()
_OPTIONS.log_errors = False
_WORDS: Final = {
    "missing )": "missing closing )",
    "missing ]": "missing closing ]",
    "unexpected )": "unexpected )",
    "trailing \\": "trailing backslash at end of expression",
    "no argument for repetition operator": "missing argument to repetition operator",
    "invalid repetition size": "invalid repeat count",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid named capture group": "invalid named capture",
}


def wrong_pattern(pattern: str) -> str | None:
    """What Go says of the pattern, None where nothing is wrong with it."""
    try:
        re2.compile(pattern.encode(), _OPTIONS)
    except re2.error as error:
        text = error.args[0]
        text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
        reason, _, shown = text.partition(": ")
        # Go shows a pattern that is not closed whole.
        if reason in ("missing )", "unexpected )"):
            shown = pattern
        words = f"error parsing regexp: {_WORDS.get(reason, reason)}"
        return words if reason == "trailing \\" and not shown else f"{words}: `{shown}`"
    return None


@memo(1024)
def _kept(pattern: str) -> Any:
    try:
        # Over bytes: what maps offsets of characters would cost more than the search.
        return re2.compile(pattern.encode(), _OPTIONS)
    except re2.error:
        return wrong_pattern(pattern)


def _compiled(pattern: str) -> Any:
    found = _kept(pattern)
    if isinstance(found, str):
        raise CelError(found)
    return found


def found_in(pattern: str, text: str) -> bool:
    """Raises CelError."""
    return _compiled(pattern).search(text.encode()) is not None


def matches_of(pattern: str, text: str, most: int = -1) -> list[str]:
    """The parts of the text that match, in order; at most so many unless it is negative.  Raises CelError."""
    parts: list[str] = []
    encoded = text.encode()
    for match in _compiled(pattern).finditer(encoded):
        if 0 <= most <= len(parts):
            break
        start, end = match.span()
        parts.append(encoded[start:end].decode(errors="replace"))
    return parts
