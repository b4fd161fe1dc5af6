"""Feature gates: which there are in a version of Kubernetes, and what may be said of them."""

from __future__ import annotations

import pytest

from navarch.api.features import ACTING, ALPHA, BETA, DEPRECATED, GA, FeatureError, Gate, gates_of, parse


def test_gates_are_those_of_the_version() -> None:
    assert gates_of("1.36")["MutatingAdmissionPolicy"] == Gate(GA, on=True, locked=False)
    assert gates_of("1.35")["MutatingAdmissionPolicy"] == Gate(BETA, on=False, locked=False)
    assert "MutatingAdmissionPolicy" not in gates_of("1.31")
    assert gates_of("1.36")["KMSv1"] == Gate(DEPRECATED, on=False, locked=False)
    assert gates_of("1.36")["HPAScaleToZero"] == Gate(ALPHA, on=False, locked=False)
    assert gates_of("1.36")["SidecarContainers"] == Gate(GA, on=True, locked=True)
    assert gates_of("1.37").keys() >= ACTING


def test_what_a_version_has_on_is_on() -> None:
    assert gates_of("1.36")["DRADeviceTaints"] == Gate(BETA, on=True, locked=False)
    assert gates_of("1.36")["NodeLogQuery"] == Gate(GA, on=True, locked=True)
    assert gates_of("1.36")["MaxUnavailableStatefulSet"] == Gate(BETA, on=False, locked=False)
    assert gates_of("1.37")["MaxUnavailableStatefulSet"].on
    assert gates_of("1.36")["PodCertificateRequest"] == Gate(BETA, on=False, locked=False)
    assert gates_of("1.37")["PodCertificateRequest"] == Gate(GA, on=True, locked=False)
    assert gates_of("1.37")["HPAScaleToZero"].on
    assert "HPAGeneration" not in gates_of("1.36")


def test_what_is_said_counts_and_the_last_word_most() -> None:
    features = parse(["WatchList=false", "kube:HPAScaleToZero=true", "WatchList=True"], "1.36")

    assert features.on("WatchList")
    assert features.on("HPAScaleToZero")
    assert not features.on("KMSv1")


def test_all_of_a_stage_are_switched_but_for_those_that_are_named() -> None:
    features = parse(["AllBeta=false", "WatchList=true"], "1.36")

    assert not features.on("ComponentFlagz")
    assert features.on("WatchList")
    assert features.on("SidecarContainers")
    assert 'kubernetes_feature_enabled{name="AllBeta",stage="BETA"} 0' in list(features.lines())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("Magic=true", "unrecognized feature gate: Magic"),
        ("WatchList", "missing bool value for WatchList"),
        (
            "WatchList=maybe",
            'invalid value of WatchList=maybe, err: strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
        (
            "SidecarContainers=false",
            "cannot set feature gate SidecarContainers to false, feature is locked to true",
        ),
        ("other:WatchList=true", "component not registered: other"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting: str, message: str) -> None:
    with pytest.raises(FeatureError) as refused:
        parse([setting], "1.36")

    assert str(refused.value) == message


def test_metrics_show_each_gate_with_its_stage() -> None:
    lines = list(parse(["WatchList=false"], "1.36").lines())

    assert 'kubernetes_feature_enabled{name="WatchList",stage="BETA"} 0' in lines
    assert 'kubernetes_feature_enabled{name="SidecarContainers",stage=""} 1' in lines
    assert len(lines) == 2 + len(gates_of("1.36")) + 2
