"""What can go wrong with an expression: while it is compiled (with the place, as cel-go shows it), and while it runs.

In: a source text, and messages with offsets into it.  Out: texts that are word for word what Kubernetes answers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

_MOST_SHOWN = 100


class CelError(Exception):
    """An evaluation that has no value. `text` is what Kubernetes shows of it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        # What was spent until then.
        self.cost = 0


class CostExceeded(CelError):
    """The evaluation was stopped because it cost more than it may; nothing inside an expression can absorb it."""

    def __init__(self) -> None:
        super().__init__("operation cancelled: actual cost limit exceeded")


class Issue(NamedTuple):
    offset: int
    text: str


class CompileError(Exception):
    """The expression cannot be parsed or has no type. `str()` shows every issue with its line and a mark below it."""

    def __init__(self, source: str, issues: Sequence[Issue]) -> None:
        super().__init__(shown(source, issues))
        self.issues = tuple(issues)


def shown(source: str, issues: Sequence[Issue]) -> str:
    starts = [0, *(at + 1 for at, char in enumerate(source) if char == "\n")]
    lines = source.split("\n")
    placed = []
    for issue in issues:
        line = bisect_right(starts, issue.offset) - 1
        placed.append((line, issue.offset - starts[line], issue.text))
    placed.sort(key=lambda each: each[:2])
    parts = [_snippet(lines[line], line, column, text) for line, column, text in placed[:_MOST_SHOWN]]
    if len(placed) > _MOST_SHOWN:
        parts.append(f"{len(placed) - _MOST_SHOWN} more errors were truncated")
    return "\n".join(parts)


def _snippet(line: str, number: int, column: int, text: str) -> str:
    # Characters of more than one byte are marked by wide ones, so that the mark stands below its place.
    dots = "".join("．" if len(char.encode()) > 1 else "." for char in line[:column]).ljust(column, ".")
    mark = "＾" if column < len(line) and len(line[column].encode()) > 1 else "^"
    return f"ERROR: <input>:{number + 1}:{column + 1}: {text}\n | {line.replace(chr(9), ' ')}\n | {dots}{mark}"
