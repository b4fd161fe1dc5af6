"""What the controllers can be told by kube-controller-manager's flags (`spec.controllerManager` in a configuration)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from navarch.api.duration import seconds_of
from navarch.cluster.flags.pflag import FlagError
from navarch.controllers.base import ControllerConfig
from navarch.numbers import integer_or

# flag -> the setting that it changes; durations but for those that count.
_DURATIONS: Final = {
    "node-monitor-grace-period": "node_monitor_grace_s",
    "node-monitor-period": "node_monitor_period_s",
    "node-startup-grace-period": "node_startup_grace_s",
    "cluster-signing-duration": "certificate_lifetime_s",
}
_NUMBERS: Final = {"terminated-pod-gc-threshold": "terminated_pod_threshold"}
KNOWN: Final = (*_DURATIONS, *_NUMBERS)


def changed(config: ControllerConfig, stated: Mapping[str, str]) -> ControllerConfig:
    """Raises FlagError."""
    changes: dict[str, Any] = {}
    for name, text in stated.items():
        if name in _DURATIONS:
            try:
                seconds = seconds_of(text)
            except ValueError:
                seconds = 0.0
            if seconds <= 0:
                raise FlagError(f'invalid argument "{text}" for "--{name}" flag: a duration such as 40s')
            setting = _DURATIONS[name]
            changes[setting] = round(seconds) if setting == "certificate_lifetime_s" else seconds
        elif name in _NUMBERS:
            number = integer_or(text, -1)
            if number < 0:
                raise FlagError(f'invalid argument "{text}" for "--{name}" flag: a number')
            changes[_NUMBERS[name]] = number
        else:
            raise FlagError(f"--{name} is no flag that can be set here; these are {', '.join(sorted(KNOWN))}")
    return replace(config, **changes)
