"""What the controllers can be told, by the names that kube-controller-manager's flags have."""

from __future__ import annotations

import pytest

from navarch.cluster.flags.controller_settings import changed
from navarch.cluster.flags.pflag import FlagError
from navarch.controllers.base import ControllerConfig


def test_durations_and_numbers_are_read_as_kubernetes_does() -> None:
    stated = {
        "node-monitor-grace-period": "1m30s",
        "cluster-signing-duration": "720h",
        "terminated-pod-gc-threshold": "5",
    }

    found = changed(ControllerConfig(), stated)

    assert found.node_monitor_grace_s == 90
    assert found.certificate_lifetime_s == 30 * 24 * 3600
    assert found.terminated_pod_threshold == 5
    assert found.node_monitor_period_s == ControllerConfig().node_monitor_period_s


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("node-monitor-period", "soon", "a duration such as 40s"),
        ("node-monitor-period", "0s", "a duration such as 40s"),
        ("terminated-pod-gc-threshold", "-1", "a number"),
        ("leader-elect", "true", "is no flag that can be set here; these are cluster-signing-duration,"),
    ],
)
def test_what_cannot_be_is_refused(flag: str, value: str, words: str) -> None:
    with pytest.raises(FlagError, match=words):
        changed(ControllerConfig(), {flag: value})
