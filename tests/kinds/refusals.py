"""What is wrong with an object, as far as its kind's strategy goes: field, reason and message of each mistake."""

from __future__ import annotations

import copy
from typing import Any

from navarch.kinds.enablement import EVERYTHING
from navarch.kinds.registry import builtin
from navarch.kinds.strategies import lookup

# With the gates that are on in the newest version.
_STRATEGIES = {(kind.resource.group, kind.resource.kind): kind.strategy for kind in builtin(config=EVERYTHING).kinds()}


def errors_of(case: Any) -> list[str]:
    """`case` names a `kind` (`Job.batch`) and an `object`; for an update also the `old` one, and the subresource that
    it goes `through`."""
    kind, _, group = case["kind"].partition(".")
    strategy = _STRATEGIES.get((group, kind)) or lookup(group, kind)
    obj = _named(case["object"])
    if "old" not in case:
        strategy.defaults(obj)
        strategy.prepare_create(obj)
        errors = strategy.validate(obj, None)
    else:
        old = _named(case["old"])
        status = copy.deepcopy(old.get("status"))
        strategy.defaults(old)
        strategy.prepare_create(old)
        if status is not None:
            old["status"] = status
        strategy.defaults(obj)
        through = strategy.through(case.get("through", ""))
        through.prepare(strategy, obj, old)
        errors = through.validate(strategy, obj, old)
    return [f"{error.field} {error.type} {error.message()}" for error in errors]


def _named(obj: Any) -> Any:
    obj = copy.deepcopy(obj)
    return {**obj, "metadata": {"name": "web", "namespace": "default", "uid": "u-1"} | obj.get("metadata", {})}
