"""Pods that run and ask for more, or for something else: their node has to be able to give it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from navarch.api.meta import Obj
from navarch.client.base import PatchKind
from navarch.kinds import resources as r
from tests.apiserver.admission.cluster import Cluster, refusal

ALL = ["InPlacePodLevelResourcesVerticalScaling", "InPlacePodVerticalScalingInitContainers"]


def node(declared: list[str], **labels: str) -> Obj:
    status = {"allocatable": {"cpu": "2", "memory": "1Gi"}, "declaredFeatures": declared}
    return {"metadata": {"name": "n", "labels": {"kubernetes.io/os": "linux", **labels}}, "status": status}


def requests(cpu: str, memory: str = "16Mi") -> Obj:
    return {"requests": {"cpu": cpu, "memory": memory}}


async def running(found: Obj | None) -> Cluster:
    cluster = await Cluster(disabled=frozenset({"ServiceAccount"})).start()
    if found is not None:
        await cluster.put(r.NODES, found)
    spec = {
        "nodeName": "n",
        "resources": requests("1", "64Mi"),
        "initContainers": [
            {"name": "first", "image": "i", "resources": requests("100m")},
            {"name": "beside", "image": "i", "restartPolicy": "Always", "resources": requests("100m")},
        ],
        "containers": [{"name": "c", "image": "i", "resources": requests("100m")}],
    }
    await cluster.create(r.PODS, {"metadata": {"name": "p", "namespace": "default"}, "spec": spec})
    return cluster


async def resize(cluster: Cluster, **spec: Any) -> None:
    strategic = PatchKind.STRATEGIC
    await cluster.client().patch(r.PODS, "p", "default", {"spec": spec}, kind=strategic, subresource="resize")


def more(name: str, cpu: str) -> list[Mapping[str, Any]]:
    return [{"name": name, "resources": {"requests": {"cpu": cpu}}}]


CHANGES: dict[str, tuple[Obj, list[str]]] = {
    "the whole pod": ({"resources": {"requests": {"cpu": "1500m"}}}, [ALL[0]]),
    "an init container": ({"initContainers": more("first", "200m")}, [ALL[1]]),
    "both": ({"resources": {"requests": {"cpu": "1500m"}}, "initContainers": more("first", "200m")}, ALL),
    "a sidecar": ({"initContainers": more("beside", "200m")}, []),
    "a container": ({"containers": more("c", "200m")}, []),
}


@pytest.mark.parametrize(("change", "needed"), CHANGES.values(), ids=CHANGES)
async def test_what_a_node_does_not_declare_is_refused(change: Obj, needed: list[str]) -> None:
    declaring = await running(node(ALL))
    await resize(declaring, **change)

    silent = await running(node([]))
    if not needed:
        await resize(silent, **change)
        return
    refused = await refusal(resize(silent, **change))
    assert refused.message == (
        f'pods "p" is forbidden: pod update requires features {", ".join(needed)} which are not available on node "n"'
    )


async def test_what_a_node_could_never_hold_is_refused_with_a_cause() -> None:
    cluster = await running(node(ALL))

    refused = await refusal(resize(cluster, resources=requests("3", "2Gi")))

    assert (refused.code, refused.reason) == (403, "Forbidden")
    assert refused.message == (
        'pods "p" is forbidden: Node didn\'t have enough allocatable resources: '
        "cpu, requested: 3000, allocatable: 2000; memory, requested: 2147483648, allocatable: 1073741824"
    )
    assert (refused.details or {})["causes"] == [{"reason": "NodeCapacity"}]


async def test_a_node_of_another_system_resizes_nothing() -> None:
    cluster = await running(node(ALL, **{"kubernetes.io/os": "plan9"}))

    refused = await refusal(resize(cluster, containers=more("c", "200m")))

    assert refused.message == (
        'pods "p" is forbidden: pod resize is only supported on linux nodes, node "n" is "plan9"'
    )
    assert (refused.details or {})["causes"] == [{"reason": "UnsupportedPlatform"}]


async def test_a_node_that_is_gone_gives_nothing_and_what_asks_for_nothing_new_passes() -> None:
    cluster = await running(None)

    refused = await refusal(resize(cluster, containers=more("c", "200m")))
    assert refused.message == 'pods "p" is forbidden: node "n" not found'
    await resize(cluster, containers=more("c", "100m"))
    await cluster.client().patch(r.PODS, "p", "default", {"metadata": {"labels": {"a": "b"}}})
