"""Completion indexes: sets of numbers as Jobs write them (`1,3-5,7`), and the pods that stand for them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from navarch.api.meta import Obj, annotations_of
from navarch.numbers import integer_or

INDEX = "batch.kubernetes.io/job-completion-index"
FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED_FAILURES = "batch.kubernetes.io/job-index-ignored-failure-count"


def parse(text: str) -> set[int]:
    found: set[int] = set()
    for part in (text or "").split(","):
        first, dash, last = part.partition("-")
        if first:
            found.update(range(int(first), int(last if dash else first) + 1))
    return found


def show(indexes: Iterable[int]) -> str:
    """Runs of three and more are written with a dash, as are runs of two."""
    parts: list[str] = []
    ordered = sorted(indexes)
    start = 0
    for position, value in enumerate(ordered):
        if position + 1 < len(ordered) and ordered[position + 1] == value + 1:
            continue
        first = ordered[start]
        if first == value:
            parts.append(str(first))
        else:
            parts.append(f"{first},{value}" if value == first + 1 else f"{first}-{value}")
        start = position + 1
    return ",".join(parts)


def index_of(pod: Obj) -> int | None:
    text = annotations_of(pod).get(INDEX, "")
    return integer_or(text, None)


def is_indexed(job: Obj) -> bool:
    return bool(job["spec"].get("completionMode") == "Indexed")


def failures_before(pods: Iterable[Obj], *, ignored: bool = False) -> int:
    """How often an index had failed when the latest of its pods were made."""
    annotation = IGNORED_FAILURES if ignored else FAILURES
    counts = [annotations_of(pod).get(annotation, "0") for pod in pods]
    return max((integer_or(count, 0) for count in counts), default=0)


def all_failures(pod: Obj) -> int:
    """How often the pod's index had failed when the pod was made, also where that did not count."""
    return failures_before([pod]) + failures_before([pod], ignored=True)


def first_free(wanted: int, completions: int, taken: set[int]) -> list[int]:
    """The lowest `wanted` indexes that are not taken."""
    free: list[int] = []
    for index in range(completions):
        if len(free) >= wanted:
            break
        if index not in taken:
            free.append(index)
    return free
