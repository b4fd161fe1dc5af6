"""What clients that ask for protobuf are answered: the same as in JSON, byte for byte as Kubernetes frames it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from navarch.api import protobuf
from navarch.api.meta import Obj
from navarch.api.protobuf_messages import message_class
from navarch.apiserver.negotiation import Form
from navarch.apiserver.protobuf_forms import rendering_of
from navarch.apiserver.server import ApiServer
from navarch.client.transport import Response
from navarch.kinds.resources import PODS as PODS_RESOURCE
from tests.apiserver.conftest import CONFIG_MAPS, DEPLOYMENTS, PODS, Api, config_map, deployment, pod
from tests.apiserver.widgets import WIDGETS_V1, widget, widgets

PROTOBUF = "application/vnd.kubernetes.protobuf"
# As client-go's typed clients ask.
EITHER = f"{PROTOBUF},application/json"
METADATA = f"{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = f"{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
TABLE = f"{PROTOBUF};as=Table;g=meta.k8s.io;v=v1"


def read(response: Response) -> Obj:
    assert response.content_type == PROTOBUF
    assert isinstance(response.body, bytes)
    return protobuf.decode(response.body)


def bare(obj: Obj) -> Obj:
    """As an item of a list is: protobuf does not say there what it is."""
    return {name: value for name, value in obj.items() if name not in ("apiVersion", "kind")}


class Stream:
    """A watch, read event by event as client-go reads it: four bytes of length, then a WatchEvent."""

    def __init__(self, response: Response) -> None:
        assert response.content_type == f"{PROTOBUF};stream=watch"
        assert not isinstance(response.body, bytes)
        self._chunks: AsyncIterator[bytes] = response.body
        self._data = b""

    async def __anext__(self) -> tuple[str, Obj]:
        async with asyncio.timeout(30):
            size = int.from_bytes(await self._read(4), "big")
            event = message_class("meta/v1.WatchEvent").FromString(await self._read(size))
        return event.type, protobuf.decode(event.object.raw)

    async def _read(self, size: int) -> bytes:
        while len(self._data) < size:
            self._data += await anext(self._chunks)
        data, self._data = self._data[:size], self._data[size:]
        return data

    async def close(self) -> None:
        await self._chunks.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize("accept", [PROTOBUF, EITHER, f"{PROTOBUF};type=v1.Pod"])
async def test_an_object(api: Api, accept: str) -> None:
    made = await api.ok("POST", PODS, pod("a", app="web"))

    assert read(await api.send("GET", f"{PODS}/a", accept=accept)) == made
    assert (await api.send("GET", f"{PODS}/a", accept=accept)).body == protobuf.encode(made)


async def test_what_is_preferred_comes_first(api: Api) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a"))

    assert (
        await api.send("GET", CONFIG_MAPS, accept=f"application/json,{PROTOBUF}")
    ).content_type == "application/json"
    assert (await api.send("GET", CONFIG_MAPS, accept="*/*")).content_type == "application/json"


async def test_answers_to_writes(api: Api) -> None:
    made = read(await api.send("POST", DEPLOYMENTS, deployment("web"), accept=EITHER))
    made["spec"]["replicas"] = 3
    body = protobuf.encode(made)
    updated = read(await api.send("PUT", f"{DEPLOYMENTS}/web", body, content_type=PROTOBUF, accept=EITHER))
    scale = read(await api.send("GET", f"{DEPLOYMENTS}/web/scale", accept=EITHER))
    deleted = read(await api.send("DELETE", f"{DEPLOYMENTS}/web", accept=EITHER))

    assert updated["spec"]["replicas"] == scale["spec"]["replicas"] == 3
    assert (deleted["kind"], deleted["status"]) == ("Status", "Success")


async def test_a_list_joins_what_was_made_of_each_object(api: Api) -> None:
    for name in "abc":
        await api.ok("POST", PODS, pod(name))
    plain = await api.ok("GET", PODS)

    listed = read(await api.send("GET", PODS, accept=EITHER))
    again = await api.send("GET", PODS, accept=EITHER)

    assert listed == {**plain, "items": [bare(item) for item in plain["items"]]}
    assert again.body == protobuf.encode(plain)


async def test_a_chunk_of_a_list_says_how_to_go_on(api: Api) -> None:
    for name in "abc":
        await api.ok("POST", PODS, pod(name))

    first = read(await api.send("GET", f"{PODS}?limit=2", accept=EITHER))
    token = first["metadata"]["continue"]
    rest = read(await api.send("GET", f"{PODS}?limit=2&continue={token}", accept=EITHER))

    assert first["metadata"]["remainingItemCount"] == 1
    assert [item["metadata"]["name"] for item in rest["items"]] == ["c"]


async def test_an_object_is_encoded_once(api: Api, server: ApiServer) -> None:
    await api.ok("POST", PODS, pod("a"))
    kind = server.core.kind_of(PODS_RESOURCE)
    cached = kind.cache.get("default", "a")
    assert cached is not None
    await api.send("GET", PODS, accept=EITHER)
    key = (kind, rendering_of(kind, Form(PROTOBUF)).key)
    assert cached.kept is not None
    part = cached.kept[key]

    await api.send("GET", PODS, accept=EITHER)
    await api.send("GET", f"{PODS}/a", accept=EITHER)

    assert cached.kept[key] is part


async def test_errors(api: Api) -> None:
    missing = await api.send("GET", f"{PODS}/none", accept=EITHER)
    refused = await api.send("POST", PODS, pod("UPPER"), accept=PROTOBUF)

    assert (missing.status, refused.status) == (404, 422)
    assert read(missing) == await _error(api, "GET", f"{PODS}/none", None)
    assert read(refused) == await _error(api, "POST", PODS, pod("UPPER"))


async def _error(api: Api, method: str, path: str, body: Any) -> Obj:
    _, status = await api(method, path, body)
    return dict(status)


async def test_a_watch(api: Api) -> None:
    made = await api.ok("POST", CONFIG_MAPS, config_map("a", k="v"))
    stream = Stream(await api.send("GET", f"{CONFIG_MAPS}?watch=1", accept=EITHER))
    added = await anext(stream)
    _, changed = await api.patch(f"{CONFIG_MAPS}/a", {"data": {"k": "w"}})
    modified = await anext(stream)
    await api.ok("DELETE", f"{CONFIG_MAPS}/a")
    deleted = await anext(stream)
    await stream.close()

    assert added == ("ADDED", made)
    assert modified == ("MODIFIED", changed)
    assert (deleted[0], deleted[1]["metadata"]["name"]) == ("DELETED", "a")
    assert int(deleted[1]["metadata"]["resourceVersion"]) > int(changed["metadata"]["resourceVersion"])


async def test_a_streamed_list_says_where_it_ends(api: Api) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    stream = Stream(await api.send("GET", f"{CONFIG_MAPS}?{query}", accept=EITHER))

    types = [(await anext(stream))[0]]
    type_, bookmark = await anext(stream)
    await stream.close()

    assert (*types, type_) == ("ADDED", "BOOKMARK")
    assert bookmark["kind"] == "ConfigMap"
    assert bookmark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_all_watchers_are_sent_the_same_bytes(api: Api) -> None:
    streams = [await api.send("GET", f"{CONFIG_MAPS}?watch=1", accept=EITHER) for _ in range(3)]
    await api.ok("POST", CONFIG_MAPS, config_map("a"))

    chunks = [await anext(stream.body) for stream in streams]  # type: ignore[arg-type]
    for stream in streams:
        await stream.body.aclose()  # type: ignore[union-attr]

    assert chunks[0] is chunks[1] is chunks[2]


async def test_metadata_alone(api: Api) -> None:
    made = await api.ok("POST", CONFIG_MAPS, config_map("a", k="v"))

    alone = read(await api.send("GET", f"{CONFIG_MAPS}/a", accept=METADATA))
    listed = read(await api.send("GET", CONFIG_MAPS, accept=METADATA_LIST))
    older = read(await api.send("GET", CONFIG_MAPS, accept=METADATA_LIST.replace("v=v1", "v=v1beta1")))
    stream = Stream(await api.send("GET", f"{CONFIG_MAPS}?watch=1", accept=METADATA))
    _, shown = await anext(stream)
    await stream.close()

    expected = {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": made["metadata"]}
    assert alone == shown == expected
    assert (listed["kind"], listed["items"]) == ("PartialObjectMetadataList", [{"metadata": made["metadata"]}])
    assert (older["apiVersion"], older["items"]) == ("meta.k8s.io/v1beta1", listed["items"])
    assert older["metadata"] == listed["metadata"]


async def test_there_are_no_tables(api: Api) -> None:
    status, answer = await api("GET", PODS, accept=TABLE)
    fallback = await api.send("GET", PODS, accept=f"{TABLE},application/json")

    assert (status, answer["reason"]) == (406, "NotAcceptable")
    assert (
        answer["message"]
        == f"only the following media types are accepted: application/json, application/yaml, {PROTOBUF}"
    )
    assert fallback.content_type == "application/json"


async def test_a_custom_kind_has_its_metadata_alone(api: Api, server: ApiServer) -> None:
    await server.serve(*widgets())
    made = await api.ok("POST", WIDGETS_V1, widget("a", "v1", size=1))

    refused = await api.send("GET", WIDGETS_V1, accept=PROTOBUF)
    plain = await api.send("GET", WIDGETS_V1, accept=EITHER)
    listed = read(await api.send("GET", WIDGETS_V1, accept=METADATA_LIST))

    assert (refused.status, read(refused)["reason"]) == (406, "NotAcceptable")
    assert plain.content_type == "application/json"
    assert listed["items"] == [{"metadata": made["metadata"]}]


async def test_a_big_object_is_encoded_beside_the_loop_once(api: Api) -> None:
    made = await api.ok("POST", CONFIG_MAPS, config_map("big", k="x" * 100_000))

    answers = await asyncio.gather(*(api.send("GET", CONFIG_MAPS, accept=EITHER) for _ in range(5)))

    assert {answer.body for answer in answers} == {answers[0].body}
    assert read(answers[0])["items"] == [bare(made)]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/api", "APIVersions"),
        ("/apis", "APIGroupList"),
        ("/apis/apps", "APIGroup"),
        ("/apis/apps/v1", "APIResourceList"),
    ],
)
async def test_discovery(api: Api, path: str, kind: str) -> None:
    found = read(await api.send("GET", path, accept=EITHER))

    assert found["kind"] == kind
    assert found == {"apiVersion": "", **await api.ok("GET", path)}


async def test_aggregated_discovery(api: Api) -> None:
    accept = f"{PROTOBUF};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    found = await api.send("GET", "/apis", accept=accept)
    assert isinstance(found.body, bytes)

    assert found.content_type == accept
    assert (
        protobuf.decode(found.body)["items"]
        == (await api.ok("GET", "/apis", accept=accept.replace(PROTOBUF, "application/json")))["items"]
    )
