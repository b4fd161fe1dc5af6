"""LeaseCandidate: a process that stands for a lease, for who elects leaders by version. Columns, validation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from navarch.api.errors import FieldError, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import validate_immutable, validate_qualified_name
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.strategies import strategy
from navarch.numbers import integer_or

_Order = tuple[int, int, int, bool, tuple[tuple[int, int, str], ...]]
_NUMBER: Final = r"(?:0|[1-9][0-9]*)"
_VERSION: Final = re.compile(
    rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)
_NONE: Final = (0, 0, 0, True, ())
_STRATEGY: Final = "OldestEmulationVersion"


@strategy("coordination.k8s.io", "LeaseCandidate")
class LeaseCandidateStrategy(Strategy):
    name_rule = "key"
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
        # What is no version counts as the least.
        low, high = _order(emulated) or _NONE, _order(binary) or _NONE
        if emulated and binary and high < low:
            yield invalid_value("spec.binaryVersion", binary, "must be greater than or equal to `emulationVersion`")
        chosen = spec.get("strategy") or ""
        if not chosen:
            yield required("spec.strategy")
        else:
            yield from _validate_strategy(chosen, emulated=low != _NONE)
        if old is not None:
            yield from validate_immutable(
                spec.get("leaseName"), (old.get("spec") or {}).get("leaseName"), "spec.leaseName"
            )


def _validate_strategy(chosen: str, *, emulated: bool) -> Iterator[FieldError]:
    """Kubernetes' own, or one with a domain before it."""
    if chosen == _STRATEGY and not emulated:
        yield required("spec.emulationVersion", f"must be specified when `strategy` is '{_STRATEGY}'")
    at = "spec.strategy.strategy"
    if "/" in chosen:
        yield from validate_qualified_name(chosen, at)
    elif chosen != _STRATEGY:
        yield not_supported(at, chosen, (_STRATEGY,))


def _order(version: str) -> _Order | None:
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
