"""Priority and fairness as clients see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from navarch.apiserver.admission.base import Attributes, Plugin
from navarch.apiserver.admission.chain import Chain
from navarch.apiserver.bootstrap import BootstrapConfig, bootstrap
from navarch.apiserver.flowcontrol.control import LEVEL_HEADER, SCHEMA_HEADER
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import LOOPBACK, User
from navarch.client.transport import Response
from navarch.store.memory import MemoryStore
from tests.apiserver.conftest import Api, config_map

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
FLOWS = "/apis/flowcontrol.apiserver.k8s.io/v1"
JANE = User("jane", ("system:authenticated",))


class Slow(Plugin):
    """Holds writes of config maps until it is told to let them go."""

    resources = frozenset({("", "configmaps")})

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.held = 0

    async def validate(self, attributes: Attributes) -> None:
        self.held += 1
        await self.go.wait()


class World:
    def __init__(self, server: ApiServer, slow: Slow) -> None:
        self.api, self.jane, self.slow = Api(server), Api(server, JANE), slow

    async def held(self, count: int) -> None:
        while self.slow.held < count:
            await asyncio.sleep(0)

    async def give(self, level: dict[str, Any]) -> None:
        """Jane's writes run at a level of their own."""
        await self.api.ok(
            "POST",
            f"{FLOWS}/prioritylevelconfigurations",
            {"metadata": {"name": "janes"}, "spec": {"type": "Limited", "limited": level}},
        )
        rule = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["configmaps"], "namespaces": ["*"]}
        spec = {
            "matchingPrecedence": 50,
            "priorityLevelConfiguration": {"name": "janes"},
            "rules": [{"subjects": [{"kind": "User", "user": {"name": "jane"}}], "resourceRules": [rule]}],
        }
        await self.api.ok("POST", f"{FLOWS}/flowschemas", {"metadata": {"name": "janes"}, "spec": spec})
        await asyncio.sleep(0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    slow = Slow()
    server = ApiServer(MemoryStore(), admission=Chain([slow]))
    await server.start()
    slow.go.set()
    await bootstrap(server, BootstrapConfig("192.0.2.1", 6443, "10.43.0.1", "10.43.0.0/16"))
    slow.go.clear()
    slow.held = 0
    try:
        yield World(server, slow)
    finally:
        slow.go.set()
        await server.stop()


async def test_answers_say_which_schema_and_level_they_belong_to(world: World) -> None:
    schema = await world.api.ok("GET", f"{FLOWS}/flowschemas/global-default")
    level = await world.api.ok("GET", f"{FLOWS}/prioritylevelconfigurations/global-default")

    for path in (f"{CONFIG_MAPS}?limit=1", f"{CONFIG_MAPS}/none", "/version", "/nowhere"):
        answer = await world.jane.send("GET", path)
        assert answer.headers[SCHEMA_HEADER] == schema["metadata"]["uid"], path
        assert answer.headers[LEVEL_HEADER] == level["metadata"]["uid"], path


async def test_whose_level_is_full_is_told_to_try_again(world: World) -> None:
    await world.give({"nominalConcurrencyShares": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}})
    running = asyncio.create_task(world.jane.send("POST", CONFIG_MAPS, config_map("a")))
    await world.held(1)

    refused = await world.jane.send("POST", CONFIG_MAPS, config_map("b"))
    others = await world.api.send("GET", CONFIG_MAPS)
    world.slow.go.set()

    assert (refused.status, refused.body) == (429, b"Too many requests, please try again later.\n")
    assert refused.headers["Retry-After"] == "1"
    assert refused.headers[SCHEMA_HEADER]
    assert others.status == 200
    assert (await running).status == 201
    numbers = (await world.api.send("GET", "/metrics")).body
    assert isinstance(numbers, bytes)
    rejected = 'rejected_requests_total{flow_schema="janes",priority_level="janes",reason="concurrency-limit"} 1'
    assert f"apiserver_flowcontrol_{rejected}\n" in numbers.decode()
    assert 'apiserver_flowcontrol_current_executing_requests{priority_level="janes"} 0\n' in numbers.decode()


async def test_whose_level_has_queues_waits(world: World) -> None:
    queuing = {"queues": 4, "handSize": 2, "queueLengthLimit": 10}
    response = {"type": "Queue", "queuing": queuing}
    await world.give({"nominalConcurrencyShares": 0, "borrowingLimitPercent": 0, "limitResponse": response})
    tasks = [asyncio.create_task(world.jane.send("POST", CONFIG_MAPS, config_map(f"c{index}"))) for index in range(3)]
    await world.held(1)
    dump = await world.api.send("GET", "/debug/api_priority_and_fairness/dump_priority_levels")
    assert isinstance(dump.body, bytes)
    assert "janes, 2, false, false, 2, 1" in dump.body.decode() or "janes, 1, false, false, 2, 1" in dump.body.decode()
    assert world.slow.held == 1

    world.slow.go.set()

    answers: list[Response] = await asyncio.gather(*tasks)
    assert [answer.status for answer in answers] == [201, 201, 201]


async def test_a_schema_that_is_gone_takes_nobody(world: World) -> None:
    await world.give({"limitResponse": {"type": "Reject"}})
    own = (await world.jane.send("GET", CONFIG_MAPS)).headers[SCHEMA_HEADER]

    await world.api.ok("DELETE", f"{FLOWS}/flowschemas/janes")
    await asyncio.sleep(0)

    default = await world.api.ok("GET", f"{FLOWS}/flowschemas/global-default")
    assert (await world.jane.send("GET", CONFIG_MAPS)).headers[SCHEMA_HEADER] == default["metadata"]["uid"] != own


async def test_administrators_never_wait(world: World) -> None:
    assert LOOPBACK.groups[0] == "system:masters"
    tasks = [asyncio.create_task(world.api.send("POST", CONFIG_MAPS, config_map(f"c{i}"))) for i in range(700)]
    await world.held(700)

    world.slow.go.set()

    assert {answer.status for answer in await asyncio.gather(*tasks)} == {201}


async def test_without_fairness_so_many_write_at_a_time() -> None:
    slow = Slow()
    server = ApiServer(MemoryStore(), admission=Chain([slow]), in_flight=(400, 1), fairness=False)
    await server.start()
    root, jane = Api(server), Api(server, JANE)
    await root.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
    running = [asyncio.create_task(each.send("POST", CONFIG_MAPS, config_map("a"))) for each in (root, jane)]
    while slow.held < 2:
        await asyncio.sleep(0)

    refused = await jane.send("POST", CONFIG_MAPS, config_map("b"))
    reading = await jane.send("GET", CONFIG_MAPS)
    numbers = (await root.send("GET", "/metrics")).body
    slow.go.set()

    assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
    assert SCHEMA_HEADER not in reading.headers
    assert isinstance(numbers, bytes)
    assert 'apiserver_current_inflight_requests{request_kind="mutating"} 1\n' in numbers.decode()
    assert sorted(answer.status for answer in await asyncio.gather(*running)) == [201, 409]
    await server.stop()
