"""PriorityLevelConfiguration: how many requests of a priority level run at a time, and what the others do."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, log2
from typing import Final

from navarch.api.errors import FieldError, forbidden_field, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import range_problem
from navarch.kinds.base import AGE, NAME, SETTABLE_METADATA, Column, Strategy
from navarch.kinds.flowcontrol.flowschema import validate_typed_conditions
from navarch.kinds.flowcontrol.mandatory import LEVELS
from navarch.kinds.internal import internal
from navarch.kinds.strategies import strategy

_GROUP: Final = "flowcontrol.apiserver.k8s.io"
_QUEUING: Final = {"queues": 64, "handSize": 8, "queueLengthLimit": 50}
_MAX_QUEUES: Final = 10_000_000
# A request's hand of queues is dealt from so many bits of its hash.
_MAX_BITS: Final = 60
_SPEC: Final = "PriorityLevelConfigurationSpec"
_QUEUES: Final = ".spec.limited.limitResponse.queuing"


@strategy(_GROUP, "PriorityLevelConfiguration")
class PriorityLevelConfigurationStrategy(Strategy):
    """Generation, defaults and checks of a priority level."""

    has_generation = True
    status_keeps = SETTABLE_METADATA
    columns = (
        NAME,
        Column("Type", ".spec.type"),
        Column("NominalConcurrencyShares", ".spec.limited.nominalConcurrencyShares", none=True),
        Column("Queues", f"{_QUEUES}.queues", none=True),
        Column("HandSize", f"{_QUEUES}.handSize", none=True),
        Column("QueueLengthLimit", f"{_QUEUES}.queueLengthLimit", none=True),
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
        name = (obj.get("metadata") or {}).get("name") or ""
        if (name == "exempt") != (kind == "Exempt"):
            yield invalid_value("spec.type", kind, "must be 'Exempt' if and only if `name` is 'exempt'")
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
        yield from _validate_mandatory(name, spec)

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        return validate_typed_conditions(obj)


def _validate_mandatory(name: str, spec: Obj) -> Iterator[FieldError]:
    fixed = LEVELS.get(name)
    if fixed is None:
        return
    kept, but = spec, ""
    if name == "exempt":
        # How much may be lent of it is for administrators to say.
        kept, but = {key: value for key, value in spec.items() if key != "exempt"}, " except the 'spec.exempt' field"
    if internal(kept, _SPEC) != internal(fixed, _SPEC):
        yield invalid_value("spec", internal(spec, _SPEC), f"spec of '{name}'{but} must equal the fixed value")


def _validate_shares(part: Obj, path: str) -> Iterator[FieldError]:
    shares, lendable = part.get("nominalConcurrencyShares", 0), part.get("lendablePercent", 0)
    if shares < 0:
        yield invalid_value(f"{path}.nominalConcurrencyShares", shares, "must be a non-negative integer")
    if not 0 <= lendable <= 100:
        yield invalid_value(f"{path}.lendablePercent", lendable, range_problem(0, 100))


def _validate_limited(limited: Obj, path: str) -> Iterator[FieldError]:
    shares, lendable = limited.get("nominalConcurrencyShares", 0), limited.get("lendablePercent", 0)
    if shares < 0:
        yield invalid_value(f"{path}.nominalConcurrencyShares", shares, "must be a non-negative integer")
    yield from _validate_response(limited, path)
    if not 0 <= lendable <= 100:
        yield invalid_value(f"{path}.lendablePercent", lendable, range_problem(0, 100))
    borrowing = limited.get("borrowingLimitPercent")
    if borrowing is not None and borrowing < 0:
        yield invalid_value(f"{path}.borrowingLimitPercent", borrowing, "if specified, must be a non-negative integer")


def _validate_response(limited: Obj, path: str) -> Iterator[FieldError]:
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
    queues, hand = queuing["queues"], queuing["handSize"]
    if queuing["queueLengthLimit"] <= 0:
        yield invalid_value(f"{path}.queueLengthLimit", queuing["queueLengthLimit"], "must be positive")
    if queues <= 0:
        yield invalid_value(f"{path}.queues", queues, "must be positive")
    elif queues > _MAX_QUEUES:
        yield invalid_value(f"{path}.queues", queues, f"must not be greater than {_MAX_QUEUES}")
    if hand <= 0:
        yield invalid_value(f"{path}.handSize", hand, "must be positive")
    elif hand > queues:
        yield invalid_value(f"{path}.handSize", hand, f"should not be greater than queues ({queues})")
    elif ceil(log2(queues) * hand) > _MAX_BITS:
        detail = (
            f"required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {_MAX_BITS}"
        )
        yield invalid_value(f"{path}.handSize", hand, detail)
