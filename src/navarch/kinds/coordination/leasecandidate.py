"""LeaseCandidate: a process that stands for a lease, for who elects leaders by version. Columns, validation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from navarch.api.errors import FieldError, invalid_value, required
from navarch.api.meta import Obj
from navarch.api.validation import validate_immutable
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.strategies import strategy
from navarch.numbers import integer_or

_NUMBER: Final = r"(?:0|[1-9][0-9]*)"
_VERSION: Final = re.compile(
    rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)
_STRATEGY: Final = "OldestEmulationVersion"


@strategy("coordination.k8s.io", "LeaseCandidate")
class LeaseCandidateStrategy(Strategy):
    allow_create_on_update = True
    allow_unconditional_update = False
    columns = (
        NAME,
        Column("LeaseName", ".spec.leaseName"),
        Column("BinaryVersion", ".spec.binaryVersion"),
        Column("EmulationVersion", ".spec.emulationVersion"),
        AGE,
    )

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        if not spec.get("leaseName"):
            yield required("spec.leaseName")
        emulated, binary = spec.get("emulationVersion") or "", spec.get("binaryVersion") or ""
        if emulated and _order(emulated) is None:
            yield invalid_value("spec.emulationVersion", emulated, "must be a valid semantic version")
        if not binary:
            yield required("spec.binaryVersion")
        elif _order(binary) is None:
            yield invalid_value("spec.binaryVersion", binary, "must be a valid semantic version")
        low, high = _order(emulated) if emulated else None, _order(binary) if binary else None
        if low is not None and high is not None and high < low:
            yield invalid_value("spec.binaryVersion", binary, "must be greater than or equal to `emulationVersion`")
        chosen = spec.get("strategy") or ""
        if not chosen:
            yield required("spec.strategy")
        elif "/" not in chosen and chosen != _STRATEGY:
            supported = f'supported values: "{_STRATEGY}"'
            yield FieldError("FieldValueNotSupported", "spec.strategy", supported, chosen)
        if old is not None:
            yield from validate_immutable(
                spec.get("leaseName"), (old.get("spec") or {}).get("leaseName"), "spec.leaseName"
            )


def _order(version: str) -> tuple[int, int, int, bool, tuple[tuple[int, int, str], ...]] | None:
    """What semantic versions are compared by; None for a text that is none."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return None
    before = tuple(
        (1, 0, part) if (number := integer_or(part, -1)) < 0 else (0, number, "")
        for part in (match[4] or "").split(".")
        if part
    )
    return int(match[1]), int(match[2]), int(match[3]), match[4] is None, before
