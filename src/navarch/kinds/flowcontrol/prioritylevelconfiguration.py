"""PriorityLevelConfiguration: how many requests of a priority level run at a time, and what the others do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from navarch.api.errors import FieldError, forbidden_field, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import range_problem
from navarch.kinds.base import AGE, NAME, SETTABLE_METADATA, Column, Strategy
from navarch.kinds.strategies import strategy

_GROUP: Final = "flowcontrol.apiserver.k8s.io"
_QUEUING: Final = {"queues": 64, "handSize": 8, "queueLengthLimit": 50}
_QUEUES: Final = ".spec.limited.limitResponse.queuing"


@strategy(_GROUP, "PriorityLevelConfiguration")
class PriorityLevelConfigurationStrategy(Strategy):
    """Generation, defaults and checks of a priority level."""

    has_generation = True
    status_keeps = SETTABLE_METADATA
    columns = (
        NAME,
        Column("Type", ".spec.type"),
        Column("NominalConcurrencyShares", ".spec.limited.nominalConcurrencyShares", type="integer", none=True),
        Column("Queues", f"{_QUEUES}.queues", type="integer", none=True),
        Column("HandSize", f"{_QUEUES}.handSize", type="integer", none=True),
        Column("QueueLengthLimit", f"{_QUEUES}.queueLengthLimit", type="integer", none=True),
        AGE,
    )

    def defaults(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        if spec.get("type") == "Exempt":
            exempt = spec.setdefault("exempt", {})
            exempt.setdefault("nominalConcurrencyShares", 0)
            exempt.setdefault("lendablePercent", 0)
        limited = spec.get("limited")
        if limited is None:
            return
        limited.setdefault("nominalConcurrencyShares", 30)
        limited.setdefault("lendablePercent", 0)
        queuing = (limited.get("limitResponse") or {}).get("queuing")
        if queuing is not None:
            for name, value in _QUEUING.items():
                if not queuing.get(name):
                    queuing[name] = value

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj["spec"]
        kind, limited, exempt = spec.get("type", ""), spec.get("limited"), spec.get("exempt")
        if kind == "Exempt":
            if limited is not None:
                yield forbidden_field("spec.limited", "must be nil if the type is not Limited")
            if exempt is None:
                yield required("spec.exempt", "must not be empty when type is Exempt")
            else:
                yield from _validate_shares(exempt, "spec.exempt")
        elif kind == "Limited":
            if exempt is not None:
                yield forbidden_field("spec.exempt", "must be nil if the type is Limited")
            if limited is None:
                yield required("spec.limited", "must not be empty when type is Limited")
            else:
                yield from _validate_limited(limited, "spec.limited")
        else:
            yield not_supported("spec.type", kind, ("Exempt", "Limited"))


def _validate_shares(part: Obj, path: str) -> Iterator[FieldError]:
    shares, lendable = part.get("nominalConcurrencyShares", 0), part.get("lendablePercent", 0)
    if shares < 0:
        yield invalid_value(f"{path}.nominalConcurrencyShares", shares, "must be a non-negative integer")
    if not 0 <= lendable <= 100:
        yield invalid_value(f"{path}.lendablePercent", lendable, range_problem(0, 100))


def _validate_limited(limited: Obj, path: str) -> Iterator[FieldError]:
    yield from _validate_shares(limited, path)
    borrowing = limited.get("borrowingLimitPercent")
    if borrowing is not None and borrowing < 0:
        yield invalid_value(f"{path}.borrowingLimitPercent", borrowing, "if specified, must be a non-negative integer")
    response = limited.get("limitResponse") or {}
    kind, queuing, at = response.get("type", ""), response.get("queuing"), f"{path}.limitResponse"
    if kind == "Reject":
        if queuing is not None:
            yield forbidden_field(f"{at}.queuing", "must be nil if limited.limitResponse.type is not Limited")
    elif kind == "Queue":
        if queuing is None:
            yield required(f"{at}.queuing", "must not be empty if limited.limitResponse.type is Limited")
        else:
            yield from _validate_queuing(queuing, f"{at}.queuing")
    else:
        yield not_supported(f"{at}.type", kind, ("Queue", "Reject"))


def _validate_queuing(queuing: Obj, path: str) -> Iterator[FieldError]:
    for name in ("queues", "queueLengthLimit", "handSize"):
        if queuing[name] <= 0:
            yield invalid_value(f"{path}.{name}", queuing[name], "must be a positive integer")
    if queuing["handSize"] > queuing["queues"]:
        detail = f"should not be greater than queues ({queuing['queues']})"
        yield invalid_value(f"{path}.handSize", queuing["handSize"], detail)
