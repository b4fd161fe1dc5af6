"""Sets of a Job's indexes as text: `1,3-5,7`.

In: such a text, and how many completions there are.  Out: what is wrong with it, and the numbers in it.
"""

from __future__ import annotations

from collections.abc import Iterator

Interval = tuple[int, int]


def _number(text: str, completions: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise ValueError(f'cannot convert string to integer for index: "{text}"') from None
    if number >= completions:
        raise ValueError(f'too large index: "{text}"')
    return number


def intervals(text: str, completions: int) -> Iterator[Interval]:
    """The intervals, first and last index of each.  Raises ValueError with Kubernetes' words."""
    last = -1
    for part in text.split(",") if text else ():
        ends = part.split("-")
        if len(ends) > 2:
            raise ValueError(
                f'the fragment "{part}" violates the requirement that an index interval can have at most two parts '
                "separated by '-'"
            )
        first, *more = (_number(end, completions) for end in ends)
        if more and first >= more[0]:
            raise ValueError(f"non-increasing order, previous: {first}, current: {more[0]}")
        if last >= first:
            raise ValueError(f"non-increasing order, previous: {last}, current: {first}")
        last = more[0] if more else first
        yield first, last


def interval_problem_and_count(text: str, completions: int) -> tuple[str, int]:
    """What is wrong with the text, empty if nothing is; and how many indexes it names."""
    try:
        return "", sum(last - first + 1 for first, last in intervals(text, completions))
    except ValueError as error:
        return str(error), 0


def common_index(one: str, other: str, completions: int) -> int | None:
    """The first index that is in both sets, if they can be read."""
    try:
        mine, theirs = list(intervals(one, completions)), list(intervals(other, completions))
    except ValueError:
        return None
    common = [max(a, c) for a, b in mine for c, d in theirs if a <= d and c <= b]
    return min(common, default=None)
