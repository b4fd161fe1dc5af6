"""A server that was killed between any two of its writes brings to an end what it had begun.

What a registration takes is done once, to its end; then again for each commit of it, with a store that ends there: a
server that starts on that store must come to where one that was never killed comes.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from itertools import groupby
from pathlib import Path

import pytest

from navarch.api.meta import Obj
from navarch.apiserver.bootstrap import bootstrap
from navarch.cluster import pki
from navarch.cluster.assembly import attach, bootstrap_config, make_server
from navarch.cluster.config import ClusterConfig
from navarch.cluster.settings import settings_of
from navarch.store.base import Delete, Event, Put
from navarch.store.memory import MemoryStore
from navarch.testing.embedded import ADMIN
from navarch.world import RealWorld
from tests.apiserver.conftest import Api
from tests.apiserver.crd.definitions import (
    CRDS,
    GADGETS,
    NAME,
    answers,
    conditions,
    definition,
    established,
    eventually,
    gadget,
)

API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
LOCAL = f"{API_SERVICES}/v1.example.com"
FOREIGN = f"{API_SERVICES}/v1.elsewhere.example.com"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ClusterConfig:
    folder: Path = tmp_path_factory.mktemp("interrupted")
    config = ClusterConfig("interrupted", str(folder))
    pki.ensure(config)
    return config


@contextlib.asynccontextmanager
async def serving(config: ClusterConfig, store: MemoryStore) -> AsyncIterator[Api]:
    server = make_server(config, store=store, world=RealWorld(1))
    await server.start()
    attach(server)
    await bootstrap(server, bootstrap_config(settings_of(config)))
    try:
        yield Api(server, ADMIN)
    finally:
        await server.stop()


class Recording:
    """What was stored when it began, and each commit since, in order."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._before: list[tuple[str, bytes]] = []
        self._since = 0

    async def begin(self) -> None:
        page = await self._store.range("/")
        self._before, self._since = [(entry.key, entry.value) for entry in page.entries], page.revision

    async def commits(self) -> list[list[Event]]:
        newest = await self._store.revision()
        events: list[Event] = []
        async with aclosing(self._store.watch("/", self._since)) as stream:  # type: ignore[type-var]
            async for event in stream:
                if isinstance(event, Event):
                    events.append(event)
                elif event.revision >= newest:
                    break
        return [list(commit) for _, commit in groupby(events, key=lambda event: event.revision)]

    async def cut(self, commits: list[list[Event]]) -> MemoryStore:
        """A store that was killed after these."""
        store = MemoryStore()
        for key, value in self._before:
            await store.commit([Put(key, value)])
        for commit in commits:
            await store.commit([
                Delete(event.key) if event.value is None else Put(event.key, event.value) for event in commit
            ])  # fmt: skip
        return store


async def for_each_cut(
    config: ClusterConfig,
    prepare: Callable[[Api], Awaitable[None]],
    act: Callable[[Api], Awaitable[None]],
    holds: Callable[[Api], Awaitable[None]],
) -> int:
    """After `prepare` and `act` done once, `holds` is asked of a server on the store as it was after each commit of
    `act`; returns how many there are."""
    store = MemoryStore()
    recording = Recording(store)
    async with serving(config, store) as api:
        await prepare(api)
        await recording.begin()
        await act(api)
        commits = await recording.commits()
    for length in range(1, len(commits) + 1):
        async with serving(config, await recording.cut(commits[:length])) as api:
            try:
                await holds(api)
            except (AssertionError, TimeoutError) as error:
                written = [event.key for commit in commits[:length] for event in commit]
                raise AssertionError(f"after {written} alone") from error
    return len(commits)


async def nothing(api: Api) -> None:
    """No preparation."""


async def with_default_namespace(api: Api) -> None:
    await answers(api, "GET", "/api/v1/namespaces/default", 200)


async def is_available(api: Api, path: str, status: str) -> None:
    async def asked() -> bool:
        code, found = await api("GET", path)
        known = found.get("status", {}).get("conditions", []) if code == 200 else []
        return any((each["type"], each["status"]) == ("Available", status) for each in known)

    await eventually(asked)


async def test_a_definition_is_established_and_served(config: ClusterConfig) -> None:
    async def define(api: Api) -> None:
        await established(api, definition())
        await is_available(api, LOCAL, "True")

    async def is_served(api: Api) -> None:
        async def asked() -> bool:
            found = conditions(await api.ok("GET", f"{CRDS}/{NAME}"))
            return all(found.get(type_, ("",))[0] == "True" for type_ in ("Established", "NamesAccepted"))

        await eventually(asked)
        await is_available(api, LOCAL, "True")
        assert (await api.ok("GET", f"{CRDS}/{NAME}"))["status"]["storedVersions"] == ["v1"]
        made = await api.ok("POST", GADGETS, gadget(size=1))
        assert made["spec"] == {"size": 1}
        assert (await api.ok("GET", "/apis/example.com/v1"))["resources"][0]["name"] == "gadgets"

    assert await for_each_cut(config, with_default_namespace, define, is_served) >= 3


async def test_a_deleted_definition_goes_with_all_its_objects(config: ClusterConfig) -> None:
    async def prepare(api: Api) -> None:
        await with_default_namespace(api)
        await established(api, definition())
        await is_available(api, LOCAL, "True")
        for name in "abc":
            await api.ok("POST", GADGETS, gadget(name, size=1))

    async def delete(api: Api) -> None:
        await api.ok("DELETE", f"{CRDS}/{NAME}")
        await answers(api, "GET", f"{CRDS}/{NAME}", 404)
        await answers(api, "GET", LOCAL, 404)

    async def is_gone(api: Api) -> None:
        await answers(api, "GET", f"{CRDS}/{NAME}", 404)
        await answers(api, "GET", LOCAL, 404)
        await answers(api, "GET", GADGETS, 404)
        # Whoever defines it again finds none of the old objects.
        await established(api, definition())
        assert (await api.ok("GET", GADGETS))["items"] == []

    assert await for_each_cut(config, prepare, delete, is_gone) >= 4


async def test_a_new_version_of_a_definition_is_served_and_noted(config: ClusterConfig) -> None:
    async def prepare(api: Api) -> None:
        await with_default_namespace(api)
        await established(api, definition())
        await is_available(api, LOCAL, "True")
        await api.ok("POST", GADGETS, gadget(size=1))

    second = "/apis/example.com/v2/namespaces/default/gadgets"

    async def change(api: Api) -> None:
        found = await api.ok("GET", f"{CRDS}/{NAME}")
        old = found["spec"]["versions"][0]
        found["spec"]["versions"] = [{**old, "storage": False}, {**old, "name": "v2"}]
        await api.ok("PUT", f"{CRDS}/{NAME}", found)
        await is_noted(api)

    async def is_noted(api: Api) -> None:
        async def asked() -> bool:
            found: Obj = await api.ok("GET", f"{CRDS}/{NAME}")
            return bool(found["status"]["storedVersions"] == ["v1", "v2"])

        await eventually(asked)
        await is_available(api, f"{API_SERVICES}/v2.example.com", "True")
        await answers(api, "GET", f"{second}/a", 200)
        assert (await api.ok("GET", f"{second}/a"))["apiVersion"] == "example.com/v2"

    assert await for_each_cut(config, prepare, change, is_noted) >= 2


async def test_a_registration_of_another_server_gets_its_condition(config: ClusterConfig) -> None:
    spec = {
        "group": "elsewhere.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
        "service": {"namespace": "default", "name": "nowhere"}, "insecureSkipTLSVerify": True,
    }  # fmt: skip

    async def register(api: Api) -> None:
        await api.ok("POST", API_SERVICES, {"metadata": {"name": "v1.elsewhere.example.com"}, "spec": spec})
        await is_available(api, FOREIGN, "False")

    async def is_unavailable(api: Api) -> None:
        await is_available(api, FOREIGN, "False")
        status, _ = await api("GET", "/apis/elsewhere.example.com/v1/things")
        assert status == 503
        await api.ok("DELETE", FOREIGN)
        await answers(api, "GET", "/apis/elsewhere.example.com/v1/things", 404)

    assert await for_each_cut(config, nothing, register, is_unavailable) >= 2
