"""Fields of features that one version of Kubernetes has on and the one before has not, and gates that say otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.api import schema
from navarch.api.errors import StatusError
from navarch.api.features import parse
from navarch.api.meta import Obj
from navarch.client.resources import (
    CSI_DRIVERS,
    HORIZONTAL_POD_AUTOSCALERS,
    PODS,
    SERVICE_ACCOUNTS,
    STATEFUL_SETS,
)
from navarch.kinds.registry import builtin
from navarch.testing.embedded import EmbeddedCluster

PROJECTIONS = [
    {"clusterTrustBundle": {"name": "roots", "path": "roots.pem"}},
    {"podCertificate": {"signerName": "example.com/s", "keyType": "ED25519", "keyPath": "key.pem"}},
]
VOLUMES = [{"name": "v", "projected": {"sources": PROJECTIONS}}]
CONTAINERS = [{"name": "c", "image": "web"}]


def stateful_set(name: str, **rolling: Any) -> Obj:
    template = {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": CONTAINERS, "volumes": VOLUMES}}
    update = {"updateStrategy": {"rollingUpdate": rolling}} if rolling else {}
    spec = {"selector": {"matchLabels": {"app": "db"}}, "template": template, **update}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


def autoscaler() -> Obj:
    metric = {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "1"}}}
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    spec = {"minReplicas": 0, "maxReplicas": 3, "scaleTargetRef": target, "metrics": [metric]}
    return {"metadata": {"name": "h", "namespace": "default"}, "spec": spec}


def sources(spec: Obj) -> list[Obj]:
    (volume,) = (volume for volume in spec["volumes"] if volume["name"] == "v")
    found: list[Obj] = volume["projected"]["sources"]
    return found


async def test_what_is_off_in_1_36_is_dropped_unless_it_is_in_use() -> None:
    async with EmbeddedCluster(nodes=0, controllers=False, kubernetes_version="1.36") as cluster:
        client = cluster.client
        await client.create(SERVICE_ACCOUNTS, {"metadata": {"name": "default", "namespace": "default"}})

        pod = await client.create(
            PODS,
            {
                "metadata": {"name": "p", "namespace": "default"},
                "spec": {"containers": CONTAINERS, "volumes": VOLUMES, "automountServiceAccountToken": False},
            },
        )
        stated = await client.create(STATEFUL_SETS, stateful_set("stated", maxUnavailable=2))
        driver = await client.create(
            CSI_DRIVERS, {"metadata": {"name": "d.io"}, "spec": {"preventPodSchedulingIfMissing": True}}
        )
        with pytest.raises(
            StatusError, match=r"spec\.minReplicas: Invalid value: 0: must be greater than or equal to 1"
        ):
            await client.create(HORIZONTAL_POD_AUTOSCALERS, autoscaler())

        assert sources(pod["spec"]) == [{}, {}]
        assert sources(stated["spec"]["template"]["spec"]) == [{}, {}]
        assert stated["spec"]["updateStrategy"]["rollingUpdate"] == {"partition": 0}
        assert "preventPodSchedulingIfMissing" not in driver["spec"]


async def test_what_is_on_in_1_37_is_kept_and_has_its_defaults() -> None:
    async with EmbeddedCluster(nodes=0, controllers=False, kubernetes_version="1.37") as cluster:
        client = cluster.client

        plain = await client.create(STATEFUL_SETS, stateful_set("plain"))
        stated = await client.create(STATEFUL_SETS, stateful_set("stated", maxUnavailable=2))
        driver = await client.create(
            CSI_DRIVERS, {"metadata": {"name": "d.io"}, "spec": {"preventPodSchedulingIfMissing": True}}
        )
        scaler = await client.create(HORIZONTAL_POD_AUTOSCALERS, autoscaler())

        assert sources(plain["spec"]["template"]["spec"]) == PROJECTIONS
        assert plain["spec"]["updateStrategy"]["rollingUpdate"] == {"partition": 0, "maxUnavailable": 1}
        assert stated["spec"]["updateStrategy"]["rollingUpdate"] == {"partition": 0, "maxUnavailable": 2}
        assert driver["spec"]["preventPodSchedulingIfMissing"] is True
        assert scaler["spec"]["minReplicas"] == 0


def test_gates_switch_kinds_and_a_server_beside_has_its_own() -> None:
    schemas = schema.load("1.37")
    off = builtin(schemas, features=parse(["MaxUnavailableStatefulSet=false"], "1.37"))
    on = builtin(schemas)

    def defaulted(registry: Any) -> Obj:
        kind = registry.by_kind("apps", "v1", "StatefulSet")
        obj = stateful_set("db")
        kind.strategy.defaults(obj)
        rolling: Obj = obj["spec"]["updateStrategy"]["rollingUpdate"]
        return rolling

    assert defaulted(off) == {"partition": 0}
    assert defaulted(on) == {"partition": 0, "maxUnavailable": 1}


def test_what_is_in_use_may_stay_where_it_is_off() -> None:
    kind = builtin(schema.load("1.36")).by_kind("apps", "v1", "StatefulSet")
    assert kind is not None
    old, new = stateful_set("db", maxUnavailable=2), stateful_set("db", maxUnavailable=3)

    kind.strategy.prepare_update(new, old)

    assert new["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 3}
    assert sources(new["spec"]["template"]["spec"]) == PROJECTIONS
