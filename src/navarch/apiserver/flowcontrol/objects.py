"""The priority levels and flow schemas that every cluster has: what Kubernetes makes of them, as data.

The mandatory ones cannot be changed for long; the suggested ones are kept as they are here until somebody takes over
(annotation `apf.kubernetes.io/autoupdate-spec`). Nothing of them depends on a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from navarch.api.meta import Obj, Resource
from navarch.kinds.resources import FLOW_SCHEMAS, PRIORITY_LEVEL_CONFIGURATIONS

AUTOUPDATE: Final = "apf.kubernetes.io/autoupdate-spec"
_EVERYBODY: Final = ("system:unauthenticated", "system:authenticated")
_ALL_OBJECTS: Final = {
    "verbs": ["*"],
    "apiGroups": ["*"],
    "resources": ["*"],
    "clusterScope": True,
    "namespaces": ["*"],
}
_ALL_PATHS: Final = {"verbs": ["*"], "nonResourceURLs": ["*"]}
_LEASES: Final = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "namespaces": ["*"]}


class Default(NamedTuple):
    """One of them. `mandatory`: put right whoever changed it."""

    resource: Resource
    obj: Obj
    mandatory: bool


def defaults() -> Iterator[Default]:
    """Fresh copies, priority levels first: flow schemas refer to them."""
    for name, spec in _levels().items():
        yield _default(PRIORITY_LEVEL_CONFIGURATIONS, name, spec)
    for name, spec in _schemas():
        yield _default(FLOW_SCHEMAS, name, spec)


def _default(resource: Resource, name: str, spec: Obj) -> Default:
    obj = {"metadata": {"name": name, "annotations": {AUTOUPDATE: "true"}}, "spec": spec}
    return Default(resource, obj, name in ("exempt", "catch-all"))


def _levels() -> dict[str, Obj]:
    return {
        "exempt": {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}},
        "catch-all": _limited(5, 0, {"type": "Reject"}),
        "system": _limited(30, 33, _queues(64, 6)),
        "node-high": _limited(40, 25, _queues(64, 6)),
        "leader-election": _limited(10, 0, _queues(16, 4)),
        "workload-high": _limited(40, 50, _queues(128, 6)),
        "workload-low": _limited(100, 90, _queues(128, 6)),
        "global-default": _limited(20, 50, _queues(128, 6)),
    }


def _limited(shares: int, lendable_percent: int, response: Obj) -> Obj:
    limited = {"nominalConcurrencyShares": shares, "limitResponse": response, "lendablePercent": lendable_percent}
    return {"type": "Limited", "limited": limited}


def _queues(queues: int, hand_size: int) -> Obj:
    return {"type": "Queue", "queuing": {"queues": queues, "handSize": hand_size, "queueLengthLimit": 50}}


def _schemas() -> Iterator[tuple[str, Obj]]:
    manager, scheduler = "system:kube-controller-manager", "system:kube-scheduler"
    everything = _rule(resources=[_ALL_OBJECTS], paths=[_ALL_PATHS])
    yield "exempt", _schema("exempt", 1, "", {**everything, "subjects": _groups("system:masters")})
    probes = _rule(paths=[{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}])
    yield "probes", _schema("exempt", 2, "", {**probes, "subjects": _groups(*_EVERYBODY)})
    leaders = _rule(resources=[{"verbs": ["get", "create", "update"], **_LEASES}])
    subjects = [*_users(manager, scheduler), _SYSTEM_ACCOUNTS]
    yield "system-leader-election", _schema("leader-election", 100, "ByUser", {**leaders, "subjects": subjects})
    nodes = {
        "verbs": ["*"],
        "apiGroups": [""],
        "resources": ["nodes", "nodes/status"],
        "clusterScope": True,
        "namespaces": ["*"],
    }
    high = _rule(resources=[nodes, {"verbs": ["*"], **_LEASES}])
    yield "system-node-high", _schema("node-high", 400, "ByUser", {**high, "subjects": _groups("system:nodes")})
    for name, level, precedence, by, subjects in (
        ("system-nodes", "system", 500, "ByUser", _groups("system:nodes")),
        ("kube-controller-manager", "workload-high", 800, "ByNamespace", _users(manager)),
        ("kube-scheduler", "workload-high", 800, "ByNamespace", _users(scheduler)),
        ("kube-system-service-accounts", "workload-high", 900, "ByNamespace", [_SYSTEM_ACCOUNTS]),
        ("service-accounts", "workload-low", 9000, "ByUser", _groups("system:serviceaccounts")),
        ("global-default", "global-default", 9900, "ByUser", _groups(*_EVERYBODY)),
        ("catch-all", "catch-all", 10000, "ByUser", _groups(*_EVERYBODY)),
    ):
        yield name, _schema(level, precedence, by, {**everything, "subjects": subjects})


def _schema(level: str, precedence: int, by: str, rule: Obj) -> Obj:
    method = {"distinguisherMethod": {"type": by}} if by else {}
    return {
        "priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence,
        **method,
        "rules": [rule],
    }


def _rule(resources: Sequence[Obj] = (), paths: Sequence[Obj] = ()) -> Obj:
    rule: Obj = {}
    if resources:
        rule["resourceRules"] = [dict(each) for each in resources]
    if paths:
        rule["nonResourceRules"] = [dict(each) for each in paths]
    return rule


_SYSTEM_ACCOUNTS: Final = {"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}}


def _groups(*names: str) -> list[Obj]:
    return [{"kind": "Group", "group": {"name": name}} for name in names]


def _users(*names: str) -> list[Obj]:
    return [{"kind": "User", "user": {"name": name}} for name in names]
