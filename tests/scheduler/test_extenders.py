"""Extenders: what is asked over HTTP, and what comes of the answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from navarch.api.meta import Obj
from navarch.client import resources
from navarch.scheduler.configuration.reading import checked, configured
from tests.ports import free_ports
from tests.scheduler.conftest import World

Answer = Callable[[Obj], Any]


class Extender:
    """A program that answers as told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, Obj]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        verb, question = request.match_info["verb"], await request.json()
        self.asked.append((verb, question))
        if verb not in self.answers:
            return web.Response(status=500)
        return web.json_response(self.answers[verb](question))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Extender]:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/scheduler/{verb}", self.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        (port,) = free_ports(1)
        await web.TCPSite(runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{port}/scheduler"
        try:
            yield self
        finally:
            await runner.cleanup()


@asynccontextmanager
async def extended(world: World, answers: dict[str, Answer], **stated: Any) -> AsyncIterator[Extender]:
    """A scheduler at work that asks an extender which answers so."""
    extender = Extender()
    extender.answers = answers
    async with extender.running():
        document = {"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration"}
        config = configured(checked({**document, "extenders": [{"urlPrefix": extender.url, **stated}]}))
        config.first_backoff_s, config.last_backoff_s = 0.01, 0.02
        async with world.scheduling(config):
            yield extender


async def test_a_pod_goes_where_the_extender_takes_it(world: World) -> None:
    world.node("a", cpu="8")
    world.node("b")
    world.pod("web", cpu="1")

    def only_b(question: Obj) -> Obj:
        items = [node for node in question["Nodes"]["items"] if node["metadata"]["name"] == "b"]
        return {"Nodes": {"items": items}, "FailedNodes": {"a": "a is mine"}}

    async with extended(world, {"filter": only_b}, filterVerb="filter") as extender:
        await world.until(lambda: world.where("web"))

    assert world.where("web") == "b"
    assert extender.asked[0][1]["Pod"]["metadata"]["name"] == "web"


async def test_its_reasons_are_told_and_nodes_that_it_knows_go_by_name(world: World) -> None:
    for name in "abc":
        world.node(name)
    world.pod("web")

    def none(question: Obj) -> Obj:
        assert question["Nodes"] is None
        assert sorted(question["NodeNames"]) == ["a", "b", "c"]
        return {"nodenames": [], "failedNodes": {"a": "no licence"}, "failedAndUnresolvableNodes": {"b": "no room"}}

    async with extended(world, {"filter": none}, filterVerb="filter", nodeCacheCapable=True):
        await world.until(lambda: world.message("web"))

    assert world.message("web").startswith("0/3 nodes are available: 1 no licence, 1 no room.")


async def test_its_scores_count_ten_times_its_weight(world: World) -> None:
    world.node("a", cpu="16", memory="64Gi")
    world.node("b")
    world.pod("web", cpu="1", memory="1Gi")
    scores = [{"Host": "a", "Score": 0}, {"host": "b", "score": 10}]

    async with extended(world, {"prioritize": lambda _: scores}, prioritizeVerb="prioritize", weight=5):
        await world.until(lambda: world.where("web"))

    assert world.where("web") == "b"


async def test_a_pod_waits_while_its_extender_fails(world: World) -> None:
    world.node("a")
    world.pod("web")

    async with extended(world, {}, filterVerb="filter") as extender:
        await world.until(lambda: world.message("web"))
        assert world.message("web") == f"failed filter with extender at URL {extender.url}/filter, code 500"
        await world.until(lambda: ("web", "FailedScheduling", world.message("web")) in world.events)
        extender.answers["filter"] = lambda question: {"Nodes": question["Nodes"]}

        await world.until(lambda: world.where("web") == "a")


async def test_an_extender_that_may_be_ignored_stops_nobody(world: World) -> None:
    world.node("a")
    world.pod("web")

    async with extended(world, {}, filterVerb="filter", ignorable=True):
        await world.until(lambda: world.where("web") == "a")


async def test_it_is_asked_about_pods_with_its_resources_alone(world: World) -> None:
    world.node("a")
    world.pod("plain")
    world.pod("licensed", extended={"example.com/licence": "1"})
    managed = [{"name": "example.com/licence", "ignoredByScheduler": True}]
    answers: dict[str, Answer] = {"filter": lambda question: {"Nodes": question["Nodes"]}}

    async with extended(world, answers, filterVerb="filter", managedResources=managed) as extender:
        await world.until(lambda: world.where("plain") and world.where("licensed"))

    assert {question["Pod"]["metadata"]["name"] for _, question in extender.asked} == {"licensed"}


async def test_it_binds_where_it_says_so(world: World) -> None:
    world.node("a")
    world.pod("web")

    def bind(question: Obj) -> Obj:
        world.change_pod(question["PodName"], spec={"nodeName": question["Node"]}, namespace=question["PodNamespace"])
        return {}

    async with extended(world, {"bind": bind}, bindVerb="bind"):
        await world.until(lambda: ("web", "Scheduled", "Successfully assigned default/web to a") in world.events)

    assert world.where("web") == "a"


async def test_it_has_a_say_in_whose_place_is_taken(world: World) -> None:
    world.node("a", cpu="1")
    world.node("b", cpu="1")
    world.pod("less", cpu="1", priority=1, nodeName="a")
    world.pod("more", cpu="1", priority=2, nodeName="b")
    world.pod("high", cpu="1", priority=10)

    def on_b(question: Obj) -> Obj:
        assert sorted(question["NodeNameToVictims"]) == ["a", "b"]
        pods = [{"UID": pod["metadata"]["uid"]} for pod in question["NodeNameToVictims"]["b"]["Pods"]]
        return {"NodeNameToMetaVictims": {"b": {"Pods": pods, "NumPDBViolations": 0}}}

    async with extended(world, {"preempt": on_b}, preemptVerb="preempt"):
        await world.until(lambda: world.where("high"))

    assert world.where("high") == "b"
    assert world.informers.get(resources.PODS).get("default", "more") is None
