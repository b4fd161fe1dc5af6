"""Events are gone some time after their last write, whichever version they were written as; nothing else is."""

from __future__ import annotations

from navarch.apiserver.server import ApiServer
from navarch.store.memory import MemoryStore
from tests.clocks import SetClock

from .conftest import Api, config_map

EVENTS = "/api/v1/namespaces/default/events"


def event(name: str) -> dict[str, object]:
    involved = {"kind": "Pod", "namespace": "default", "name": "p"}
    return {"metadata": {"name": name, "namespace": "default"}, "involvedObject": involved, "reason": "Seen"}


async def test_events_are_gone_after_their_time_and_a_patch_renews_it() -> None:
    clock = SetClock()
    store = MemoryStore(clock=clock)
    server = ApiServer(store, event_ttl_s=600)
    await server.start()
    api = Api(server)
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
    for name in ("old", "renewed"):
        await api.ok("POST", EVENTS, event(name))
    await api.ok("POST", "/api/v1/namespaces/default/configmaps", config_map("kept"))
    clock.pass_s(400)
    await api.patch(f"{EVENTS}/renewed", {"count": 2})
    clock.pass_s(400)

    await store.expire()

    names = [item["metadata"]["name"] for item in (await api.ok("GET", EVENTS))["items"]]
    assert names == ["renewed"]
    await api.ok("GET", "/api/v1/namespaces/default/configmaps/kept")
    await server.stop()
