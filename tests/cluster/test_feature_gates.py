"""`--feature-gates` changes what a server does."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from navarch.api.features import ACTING, gates_of
from navarch.apiserver.bootstrap import bootstrap
from navarch.apiserver.server import ApiServer
from navarch.cluster import pki
from navarch.cluster.assembly import attach, bootstrap_config, make_server, server_settings
from navarch.cluster.config import ClusterConfig, ConfigError
from navarch.store.memory import MemoryStore
from tests.apiserver.conftest import PODS, Api, pod

Start = Callable[[str], Awaitable[Api]]
ZONE = "topology.kubernetes.io/zone"


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    servers: list[ApiServer] = []

    async def started(gates: str) -> Api:
        config = ClusterConfig("gates", str(tmp_path / "data"), apiserver_flags={"feature-gates": gates})
        pki.ensure(config)
        server = make_server(config, store=MemoryStore())
        await server.start()
        servers.append(server)
        settings = server_settings(config)
        attach(server, settings)
        await bootstrap(server, bootstrap_config(settings))
        return Api(server)

    yield started
    for server in servers:
        await server.stop()


async def test_pages_for_people_can_be_switched_off(start: Start) -> None:
    on, off = await start("ComponentStatusz=true"), await start("ComponentFlagz=false,ComponentStatusz=false")

    assert [(await api("GET", path))[0] for api in (on, off) for path in ("/flagz", "/statusz")] == [200, 200, 404, 404]


async def test_streamed_lists_can_be_switched_off(start: Start) -> None:
    api = await start("WatchList=false")

    status, refused = await api(
        "GET", f"{PODS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    )

    assert status == 422
    assert "unless the WatchList feature gate is enabled" in refused["message"]


async def labels_of_a_bound_pod(api: Api) -> Any:
    node = {"metadata": {"name": "n", "labels": {ZONE: "z", "other": "o"}}, "spec": {}}
    await api.ok("POST", "/api/v1/nodes", node)
    await api.ok("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    await api.ok("POST", PODS, pod("p", app="web"))
    await api.ok("POST", PODS, pod("placed", "n", **{ZONE: "own"}))
    binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}}
    await api.ok("POST", f"{PODS}/p/binding", binding)
    return [(await api.ok("GET", f"{PODS}/{name}"))["metadata"]["labels"] for name in ("p", "placed")]


async def test_a_pod_has_the_zone_of_its_node_unless_that_is_switched_off(start: Start) -> None:
    on, off = await start("PodTopologyLabelsAdmission=true"), await start("PodTopologyLabelsAdmission=false")

    assert await labels_of_a_bound_pod(on) == [{"app": "web", ZONE: "z"}, {ZONE: "own"}]
    assert await labels_of_a_bound_pod(off) == [{"app": "web"}, {ZONE: "own"}]


async def test_metrics_say_what_is_on(start: Start) -> None:
    _, text = await (await start("WatchList=false"))("GET", "/metrics")

    assert 'kubernetes_feature_enabled{name="WatchList",stage="BETA"} 0\n' in text


def test_a_gate_that_there_is_not_keeps_the_server_from_starting(tmp_path: Path) -> None:
    config = ClusterConfig("gates", str(tmp_path), apiserver_flags={"feature-gates": "Magic=true"})

    with pytest.raises(ConfigError, match='invalid argument "Magic=true" for "--feature-gates" flag: unrecognized'):
        make_server(config, store=MemoryStore())


def test_gates_that_change_nothing_are_told_in_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gates = gates_of(ClusterConfig("gates", str(tmp_path)).kubernetes_version)
    idle = sorted(name for name, gate in gates.items() if not gate.locked and name not in ACTING)
    stated = ",".join(f"{name}={gates[name].on}" for name in reversed(idle))
    config = ClusterConfig("gates", str(tmp_path / "data"), apiserver_flags={"feature-gates": stated})
    pki.ensure(config)

    with caplog.at_level(logging.INFO, "navarch.cluster.assembly"):
        make_server(config, store=MemoryStore())

    assert len(idle) > 20
    assert [record.args for record in caplog.records if "changes nothing" in record.msg] == [(name,) for name in idle]
