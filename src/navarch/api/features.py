"""Feature gates: what `--feature-gates` switches on and off.

In: a version of Kubernetes, and the settings as its programs take them.  Out: which gates there are, and which are on.
A name that no gate has is refused, and so is changing one that is locked. `ACTING` are those that change something
here; the others are known, checked and shown, and change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from functools import cache
from importlib.resources import files
from typing import Final

from navarch.records import frozen

ALPHA, BETA, GA, DEPRECATED = "ALPHA", "BETA", "", "DEPRECATED"
_STAGES: Final = {"a": ALPHA, "b": BETA, "g": GA, "d": DEPRECATED}
# Switch all of a stage, but for those that are named.
_ALL: Final = {"AllAlpha": ALPHA, "AllBeta": BETA}
_COMPONENT: Final = "kube"
_BOOLEANS: Final = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}
ACTING: Final = frozenset(
    {
        "AllowParsingUserUIDFromCertAuth",
        "AuthorizePodWebsocketUpgradeCreatePermission",
        "ClusterTrustBundleProjection",
        "ComponentFlagz",
        "ComponentStatusz",
        "DRAResourceClaimGranularStatusAuthorization",
        "ExcludeAdmissionWebhookVirtualResources",
        "HPAScaleToZero",
        "MaxUnavailableStatefulSet",
        "MutatingAdmissionPolicy",
        "NodeDeclaredFeatures",
        "PodCertificateRequest",
        "PodTopologyLabelsAdmission",
        "RemoteRequestHeaderUID",
        "ServiceAccountNodeAudienceRestriction",
        "VolumeLimitScaling",
        "WatchList",
    }
)


class FeatureError(ValueError):
    """The settings cannot be; the message is the one that Kubernetes' programs give."""


@frozen
class Gate:
    stage: str
    on: bool
    locked: bool


@frozen
class Features:
    gates: Mapping[str, Gate]
    changed: Mapping[str, bool] = field(default_factory=dict)

    def on(self, name: str) -> bool:
        """Of a gate that this version of Kubernetes does not have, no."""
        gate, said = self.gates.get(name), self.changed.get(name)
        return (gate is not None and gate.on) if said is None else said

    def lines(self) -> Iterator[str]:
        """For `/metrics`."""
        name = "kubernetes_feature_enabled"
        yield f"# HELP {name} [BETA] This metric records the data about the stage and enablement of a k8s feature."
        yield f"# TYPE {name} gauge"
        for gate, stage in sorted([*_ALL.items(), *((name, gate.stage) for name, gate in self.gates.items())]):
            on = self.changed.get(gate, False) if gate in _ALL else self.on(gate)
            yield f'{name}{{name="{gate}",stage="{stage}"}} {int(on)}'


@cache
def gates_of(version: str) -> Mapping[str, Gate]:
    """Those of a version of Kubernetes (`1.36`), by name."""
    at = number_of(version)
    found: dict[str, Gate] = {}
    for line in files("navarch.api").joinpath("feature_gates.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        name, on, locked, *stages = line.split()
        begun = [each for each in stages if number_of(each[1:]) <= at]
        if not begun:
            continue
        first, _, last = on.partition("/")
        is_on = first != "-" and number_of(first) <= at and not (last and number_of(last) <= at)
        found[name] = Gate(_STAGES[begun[-1][0]], is_on, locked != "-" and number_of(locked) <= at)
    return found


def number_of(version: str) -> tuple[int, ...]:
    """Of a version of Kubernetes (`1.36`), what is compared with others."""
    return tuple(map(int, version.split(".")))


def parse(settings: Iterable[str], version: str) -> Features:
    """Of settings like `WatchList=false`.  Raises FeatureError."""
    gates = gates_of(version)
    stated: dict[str, bool] = {}
    for setting in settings:
        name, equals, value = setting.strip().partition("=")
        component, colon, inner = name.partition(":")
        if colon and component.strip() != _COMPONENT:
            raise FeatureError(f"component not registered: {component.strip()}")
        name = (inner if colon else name).strip()
        if not equals:
            raise FeatureError(f"missing bool value for {name}")
        on = _BOOLEANS.get(value.strip())
        if on is None:
            why = f'strconv.ParseBool: parsing "{value.strip()}": invalid syntax'
            raise FeatureError(f"invalid value of {name}={value.strip()}, err: {why}")
        if name not in gates and name not in _ALL:
            raise FeatureError(f"unrecognized feature gate: {name}")
        if name in gates and gates[name].locked and on != gates[name].on:
            shown, default = str(on).lower(), str(gates[name].on).lower()
            raise FeatureError(f"cannot set feature gate {name} to {shown}, feature is locked to {default}")
        stated[name] = on
    changed = dict(stated)
    for every, stage in _ALL.items():
        if every in stated:
            of_stage = [name for name, gate in gates.items() if gate.stage == stage and not gate.locked]
            changed = {**dict.fromkeys(of_stage, stated[every]), **changed}
    return Features(gates, changed)
