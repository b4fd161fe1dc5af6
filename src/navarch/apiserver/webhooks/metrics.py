"""How admission webhooks do, in Prometheus' text format, under the names that Kubernetes gives these numbers.

Labels are names of configured webhooks; beyond so many, webhooks that came later share one name.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

_BUCKETS_S: Final = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0)
_NAMES: Final = 1000
_OTHERS: Final = "others"
_PREFIX: Final = "apiserver_admission_webhook_"

MUTATING: Final = "admit"
VALIDATING: Final = "validating"
# Why a webhook's part in a request ended it.
REFUSED: Final = "no_error"
CALL_FAILED: Final = "calling_webhook_error"


class WebhookMetrics:
    """Counted on the event loop, without locks."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._durations: dict[tuple[str, str, str, bool], list[float]] = {}
        self._requests: dict[tuple[str, str, str, int, bool], int] = {}
        self._rejections: dict[tuple[str, str, str, str, int], int] = {}
        self._open: dict[tuple[str, str], int] = {}

    def asked(self, name: str, type_: str, operation: str, code: int, seconds: float, *, rejected: bool) -> None:
        """One call, however it ended."""
        name = self._named(name)
        found = self._durations.setdefault((name, operation, type_, rejected), [0.0] * (len(_BUCKETS_S) + 2))
        found[bisect_left(_BUCKETS_S, seconds)] += 1
        found[-1] += seconds
        key = (name, operation, type_, code, rejected)
        self._requests[key] = self._requests.get(key, 0) + 1

    def rejected(self, name: str, type_: str, operation: str, why: str, code: int) -> None:
        """A request that ended with this call."""
        key = (self._named(name), operation, type_, why, min(code, 600))
        self._rejections[key] = self._rejections.get(key, 0) + 1

    def failed_open(self, name: str, type_: str) -> None:
        """A call that failed, and was done without."""
        key = (self._named(name), type_)
        self._open[key] = self._open.get(key, 0) + 1

    def _named(self, name: str) -> str:
        if name not in self._names:
            if len(self._names) >= _NAMES:
                return _OTHERS
            self._names.add(name)
        return name

    def lines(self) -> Iterator[str]:
        """What `/metrics` shows; nothing before the first call."""
        if self._durations:
            yield from _family(
                "admission_duration_seconds", "histogram", "Admission webhook latency histogram in seconds."
            )
        for (name, operation, type_, rejected), found in self._durations.items():
            labels = f'name="{name}",operation="{operation}",rejected="{str(rejected).lower()}",type="{type_}"'
            running = 0
            for bound, count in zip((*(f"{bound:g}" for bound in _BUCKETS_S), "+Inf"), found[:-1], strict=True):
                running += int(count)
                yield f'{_PREFIX}admission_duration_seconds_bucket{{{labels},le="{bound}"}} {running}'
            yield f"{_PREFIX}admission_duration_seconds_sum{{{labels}}} {found[-1]:g}"
            yield f"{_PREFIX}admission_duration_seconds_count{{{labels}}} {running}"
        if self._requests:
            yield from _family("request_total", "counter", "Admission webhook request total.")
        for (name, operation, type_, code, rejected), total in self._requests.items():
            labels = f'code="{code}",name="{name}",operation="{operation}",rejected="{str(rejected).lower()}"'
            yield f'{_PREFIX}request_total{{{labels},type="{type_}"}} {total}'
        if self._rejections:
            yield from _family("rejection_count", "counter", "Admission webhook rejection count.")
        for (name, operation, type_, why, code), total in self._rejections.items():
            labels = f'error_type="{why}",name="{name}",operation="{operation}",rejection_code="{code}",type="{type_}"'
            yield f"{_PREFIX}rejection_count{{{labels}}} {total}"
        if self._open:
            yield from _family("fail_open_count", "counter", "Admission webhook fail open count.")
        for (name, type_), total in self._open.items():
            yield f'{_PREFIX}fail_open_count{{name="{name}",type="{type_}"}} {total}'


def _family(name: str, type_: str, help_: str) -> Iterator[str]:
    yield f"# HELP {_PREFIX}{name} {help_}"
    yield f"# TYPE {_PREFIX}{name} {type_}"
