"""What a pod on a simulated node does, and how people say so.

Without annotations a pod starts at once, its probes succeed, and it runs until it is deleted; a Job's pod, and a hook
or test of a Helm chart, completes after `Latencies.job_s`. Annotations of the pod say otherwise, each below
`sim.navarch.dev/` (durations as `90s`, `1m30s`, `250ms`, or a number of seconds):

- `start-duration`: time from being bound to running (image pull, volumes)
- `run-duration`: the containers exit this long after their start
- `exit-code`: with which code they exit (default 0)
- `stop-duration`: time that they take to stop, at most the grace period
- `ready`: `false` and readiness probes fail, until the annotation changes
- `waiting-reason`: the containers never start, and wait for this reason (`ImagePullBackOff`)
- `cpu-usage`, `memory-usage`: what each container uses (`250m`, `100Mi`; default: half of what it requests);
  `cpu-usage.NAME` what the container NAME does
- `logs`: the lines that each container's log has; `logs.NAME` those of the container NAME
- `exec`: what every command that is run in the pod prints, before it ends well
"""

from __future__ import annotations

import re

from navarch.api.meta import Obj, annotations_of, controller_of
from navarch.numbers import integer_or
from navarch.records import frozen

PREFIX = "sim.navarch.dev/"
_HELM_HOOK = "helm.sh/hook"

_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|us|µs|ns|m|s)")
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


@frozen
class Latencies:
    """How long things take on a simulated node where the pod does not say otherwise."""

    start_s: float = 0.0
    stop_s: float = 0.0
    job_s: float = 1.0


@frozen
class Behaviour:
    """What one pod does; `run_s` is None where it runs until it is deleted."""

    start_s: float
    ready_s: float
    run_s: float | None
    exit_code: int
    stop_s: float
    ready: bool
    waiting_reason: str


def behaviour_of(pod: Obj, latencies: Latencies) -> Behaviour:
    """Read the pod's annotations and probes; what cannot be read counts as not given."""
    annotations = annotations_of(pod)

    def duration(name: str) -> float | None:
        text = annotations.get(PREFIX + name)
        return parse_duration(text) if text else None

    run_s = duration("run-duration")
    if run_s is None and _runs_to_an_end(pod):
        run_s = latencies.job_s
    start_s = duration("start-duration")
    stop_s = duration("stop-duration")
    code = annotations.get(PREFIX + "exit-code", "0")
    return Behaviour(
        start_s=latencies.start_s if start_s is None else start_s,
        ready_s=max((_probe_delay_s(container) for container in pod["spec"]["containers"]), default=0.0),
        run_s=run_s,
        exit_code=integer_or(code, 0, 32),
        stop_s=latencies.stop_s if stop_s is None else stop_s,
        ready=annotations.get(PREFIX + "ready", "true") != "false",
        waiting_reason=annotations.get(PREFIX + "waiting-reason", ""),
    )


def _runs_to_an_end(pod: Obj) -> bool:
    """Whether somebody waits for the pod to complete: a Job's, or a hook or test of a Helm chart."""
    owner = controller_of(pod)
    if owner is not None:
        return bool(owner.get("kind") == "Job")
    return _HELM_HOOK in annotations_of(pod) and (pod["spec"].get("restartPolicy") or "Always") != "Always"


def _probe_delay_s(container: Obj) -> float:
    """When the first readiness probe can have succeeded: after both probes' initial delays, one after the other."""
    startup, readiness = container.get("startupProbe"), container.get("readinessProbe")
    if startup is None and readiness is None:
        return 0.0
    return float(sum((probe or {}).get("initialDelaySeconds") or 0 for probe in (startup, readiness)))


def parse_duration(text: str) -> float | None:
    """Seconds of a duration as Go writes it, or of a plain number; None if it is neither."""
    text = text.strip()
    try:
        return max(float(text), 0.0)
    except ValueError:
        pass
    position, total_s = 0, 0.0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            return None
        total_s += float(part.group(1)) * _UNITS_S[part.group(2)]
        position = part.end()
    return total_s if text else None
