"""How admission policies do, in Prometheus' text format, under the names that Kubernetes gives these numbers.

In: what became of an expression.  Out: lines. What a validation allows is not counted, as in Kubernetes: only what it
refuses, warns of or notes, and errors that are ignored; of mutations everything is. Labels are names of policies and
bindings; beyond so many, those that came later share one name.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

_BUCKETS_S: Final = (0.0000005, 0.001, 0.01, 0.1, 1.0)
_SHOWN_BUCKETS: Final = ("0.0000005", "0.001", "0.01", "0.1", "1", "+Inf")
_NAMES: Final = 1000
_OTHERS: Final = "others"
_VALIDATING: Final = "apiserver_validating_admission_policy_"
_MUTATING: Final = "apiserver_mutating_admission_policy_"
_HELP: Final = {
    _VALIDATING: (
        "Validation admission policy check total, labeled by policy and further identified by binding and enforcement "
        "action taken.",
        "Validation admission latency for individual validation expressions in seconds, labeled by policy and further "
        "including binding and enforcement action taken.",
    ),
    _MUTATING: (
        "Mutation admission policy check total, labeled by policy and further identified by binding.",
        "Mutation admission latency for individual mutation expressions in seconds, labeled by policy and binding.",
    ),
}


def error_type(message: str) -> str:
    """What kind of an error a message is about; empty for none."""
    if not message:
        return "no_error"
    if message.startswith("compilation error"):
        return "compile_error"
    return "out_of_budget" if "out of cost budget" in message else "invalid_error"


class PolicyMetrics:
    """Counted on the event loop, without locks."""

    def __init__(self) -> None:
        self._names: set[tuple[str, str]] = set()
        # By labels: how many of each duration, and all durations together.
        self._found: dict[str, dict[str, list[float]]] = {_VALIDATING: {}, _MUTATING: {}}

    def validated(self, policy: str, binding: str, action: str, error: str, seconds: float) -> None:
        """`action` is allow, deny, warn or audit; `error` the message of what failed, empty for a validation that says
        no."""
        policy, binding = self._named(policy, binding)
        labels = f'enforcement_action="{action}",error_type="{error_type(error)}"'
        self._count(_VALIDATING, f'{labels},policy="{policy}",policy_binding="{binding}"', seconds)

    def mutated(self, policy: str, binding: str, error: str, seconds: float) -> None:
        policy, binding = self._named(policy, binding)
        labels = f'error_type="{error_type(error)}",policy="{policy}",policy_binding="{binding}"'
        self._count(_MUTATING, labels, seconds)

    def _named(self, policy: str, binding: str) -> tuple[str, str]:
        names = policy, binding
        if names not in self._names:
            if len(self._names) >= _NAMES:
                return _OTHERS, _OTHERS
            self._names.add(names)
        return names

    def _count(self, prefix: str, labels: str, seconds: float) -> None:
        found = self._found[prefix].setdefault(labels, [0.0] * (len(_BUCKETS_S) + 2))
        found[bisect_left(_BUCKETS_S, seconds)] += 1
        found[-1] += seconds

    def lines(self) -> Iterator[str]:
        """What `/metrics` shows; nothing before there is something to count."""
        for prefix, found in self._found.items():
            if not found:
                continue
            total, duration = _HELP[prefix]
            yield f"# HELP {prefix}check_duration_seconds {duration}"
            yield f"# TYPE {prefix}check_duration_seconds histogram"
            for labels, counts in found.items():
                running = 0
                for bound, count in zip(_SHOWN_BUCKETS, counts[:-1], strict=True):
                    running += int(count)
                    yield f'{prefix}check_duration_seconds_bucket{{{labels},le="{bound}"}} {running}'
                yield f"{prefix}check_duration_seconds_sum{{{labels}}} {counts[-1]:g}"
                yield f"{prefix}check_duration_seconds_count{{{labels}}} {running}"
            yield f"# HELP {prefix}check_total {total}"
            yield f"# TYPE {prefix}check_total counter"
            for labels, counts in found.items():
                yield f"{prefix}check_total{{{labels}}} {int(sum(counts[:-1]))}"
