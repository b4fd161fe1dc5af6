"""Bodies and answers that take long: whoever else asks meanwhile is answered soon."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import orjson
import pytest

from navarch.api import yaml_reader
from navarch.api.meta import Obj
from navarch.apiserver import answers, codec, deleting, encodings, negotiation, renderings, writes, writing
from navarch.apiserver.changes import Cached
from navarch.apiserver.http import HTTPFront
from navarch.apiserver.longwork import SHORT, LongWork
from navarch.apiserver.reading import Selection
from navarch.apiserver.server import ApiServer
from navarch.store.base import Put
from navarch.world import RealWorld
from tests.apiserver.admission.cluster import RUNNING, Cluster
from tests.apiserver.conftest import CONFIG_MAPS, DEPLOYMENTS, PODS, Api, config_map, deployment, pod
from tests.growth import collector_at_rest

pytestmark = pytest.mark.alone

# Seconds of the processor, which others use too, that the server may spend while a small request waits for its turn.
SOON_S = 0.2


class Wire:
    """One connection to the server, as any client's."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def __aenter__(self) -> Wire:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                return status, await self._reader.readexactly(int(line.split(b":")[1]))
        chunks: list[bytes] = []
        while size := int(await self._reader.readline(), 16):
            chunks.append(await self._reader.readexactly(size))
            await self._reader.readline()
        await self._reader.readline()
        return status, b"".join(chunks)


class Others:
    """A client that reads one small object again and again."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def run(self, port: int) -> None:
        async with Wire(port) as wire:
            started = time.process_time()
            while True:
                status, _ = await wire.ask("GET", f"{CONFIG_MAPS}/small")
                # The pause included: this client stands still with the server, whose process it shares.
                now = time.process_time()
                self.waits.append(now - started)
                started = now
                assert status == 200
                await asyncio.sleep(0.005)


@asynccontextmanager
async def others(port: int) -> AsyncIterator[Others]:
    """Others ask while the block runs, and were always answered soon."""
    asking = Others()
    with collector_at_rest():
        task = asyncio.create_task(asking.run(port))
        await asyncio.sleep(0.05)
        asking.waits.clear()
        try:
            yield asking
        finally:
            await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert asking.waits
    assert max(asking.waits) < SOON_S, f"the longest of {len(asking.waits)} took {max(asking.waits):.2f} s"


@pytest.fixture
async def port(server: ApiServer, api: Api) -> AsyncIterator[int]:
    await api.ok("POST", CONFIG_MAPS, config_map("small", k="v"))
    front = HTTPFront(server)
    yield await front.start("127.0.0.1", 0, None)
    await front.stop()


LONG = b"a: &a " + b"x" * 50_000 + b"\n"
YAML_BODIES = {
    "keys": (b"metadata: {name: k}\ndata:\n" + b"".join(b"  k%d: v\n" % n for n in range(100_000)), 201),
    "aliases": (LONG + b"b: [" + b",".join([b"*a"] * 20_000) + b"]\n", 400),
    "keys given again": (b"metadata: {name: k}\ndata:\n" + b"  k: v\n" * 100_000, 201),
    "a million lines": (b"a:\n" * 1_000_000, 400),
    "directives": (b"".join(b"%%TAG !%d! x\n" % n for n in range(200_000)) + b"--- a", 400),
    "nesting": (b"- " * 1_000_000, 400),
}


@pytest.mark.parametrize("what", YAML_BODIES)
async def test_others_are_served_while_yaml_is_read(port: int, what: str) -> None:
    body, expected = YAML_BODIES[what]
    async with Wire(port) as wire, others(port):
        status, answer = await wire.ask("POST", CONFIG_MAPS, body, Content_Type="application/yaml")
    assert status == expected, orjson.loads(answer)


async def test_others_are_served_while_many_send_yaml_at_once(port: int) -> None:
    body = b"data:\n" + b"".join(b"  k%d: v\n" % n for n in range(10_000))

    async def send() -> None:
        async with Wire(port) as wire:
            assert (await wire.ask("POST", CONFIG_MAPS, body, Content_Type="application/yaml"))[0] == 422

    async with others(port), asyncio.TaskGroup() as group:
        for _ in range(12):
            group.create_task(send())


JSON_BODIES = {
    "keys": (orjson.dumps(config_map("k", **{f"k{n}": "" for n in range(150_000)})), 201),
    "labels": (orjson.dumps({"metadata": {"name": "k", "labels": {f"k{n}": "" for n in range(100_000)}}}), 201),
    "unknown fields": (orjson.dumps({"metadata": {"name": "k"}} | {f"f{n}": 1 for n in range(150_000)}), 201),
    "no JSON": (b'{"a":[' + b"1," * 1_400_000, 400),
    "very odd JSON": (b'{"metadata":{"name":"k"},"data":{"k":"' + b"\\ud800" * 400_000 + b'"}}', 400),
    "odd JSON": (b'{"metadata":{"name":"k"},"data":{"k":"' + b"\\ud800" * 10_000 + b'"}}', 201),
}


@pytest.mark.parametrize("what", JSON_BODIES)
async def test_others_are_served_while_json_is_read(port: int, what: str) -> None:
    body, expected = JSON_BODIES[what]
    async with Wire(port) as wire, others(port):
        status, answer = await wire.ask("POST", CONFIG_MAPS, body, Content_Type="application/json")
    assert status == expected, orjson.loads(answer)


EVENTS = "/api/v1/namespaces/default/events"


@pytest.fixture
async def events(server: ApiServer, api: Api) -> None:
    """As many as a busy cluster has; put into the store side by side, which is faster than creating them."""
    labels = {f"label-{n}": "v" for n in range(6)}
    event = {"metadata": {"name": "event-00000", "labels": labels}, "involvedObject": {"namespace": "default"}}
    await api.ok("POST", EVENTS, event)
    store = server.core.caches.store
    first = (await store.range("/registry/core/events/")).entries[0]
    names = [f"event-{n:05}" for n in range(1, 12_001)]
    for start in range(0, len(names), 100):
        await store.commit(
            [
                Put(first.key.replace("event-00000", name), first.value.replace(b"event-00000", name.encode()), 0)
                for name in names[start : start + 100]
            ]
        )
    await server.core.caches.sync()


TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


@pytest.mark.parametrize("accept", [TABLE, METADATA, "application/json"])
@pytest.mark.parametrize("query", ["", "?pretty=1"])
async def test_others_are_served_while_long_answers_are_made(port: int, events: None, accept: str, query: str) -> None:
    async with Wire(port) as wire:
        plain = orjson.loads((await wire.ask("GET", EVENTS))[1])
        async with others(port):
            status, body = await wire.ask("GET", EVENTS + query, Accept=accept)

    answer = orjson.loads(body)
    assert status == 200
    assert answer["metadata"] == plain["metadata"]
    if accept == TABLE:
        assert [row["object"]["metadata"] for row in answer["rows"]] == [item["metadata"] for item in plain["items"]]
    elif accept == METADATA:
        assert [item["metadata"] for item in answer["items"]] == [item["metadata"] for item in plain["items"]]
    else:
        assert answer == plain
    assert (b"\n  " in body) == (query != "")


async def test_others_are_served_while_yaml_is_written(port: int, events: None) -> None:
    async with Wire(port) as wire:
        plain = orjson.loads((await wire.ask("GET", EVENTS))[1])
        async with others(port):
            status, body = await wire.ask("GET", EVENTS, Accept="application/yaml")

    assert status == 200
    assert body.count(b"\n- eventTime: null\n") == len(plain["items"])
    first = yaml_reader.load(body[: body.index(b"\n- ", 100_000)] + b"\n").value["items"]
    assert len(first) > 50
    assert first == plain["items"][: len(first)]


async def test_others_are_served_while_one_big_object_is_written_as_yaml(port: int, api: Api) -> None:
    made = await api.ok("POST", CONFIG_MAPS, config_map("big", **{f"k{n}": "" for n in range(30_000)}))
    async with Wire(port) as wire, others(port):
        status, body = await wire.ask("GET", f"{CONFIG_MAPS}/big", Accept="application/yaml")
    assert status == 200
    assert yaml_reader.load(body).value == made


PATCHES = {
    "application/merge-patch+json": b'{"data":{"new":"v"}}',
    "application/strategic-merge-patch+json": b'{"data":{"new":"v"}}',
    "application/json-patch+json": b'[{"op":"add","path":"/data/new","value":"v"}]',
    "application/apply-patch+yaml": b"apiVersion: v1\nkind: ConfigMap\ndata: {new: v}\n",
}


@pytest.mark.parametrize("kind", PATCHES)
async def test_others_are_served_while_something_big_is_patched(port: int, api: Api, kind: str) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("big", **{f"k{n}": "" for n in range(60_000)}))
    async with Wire(port) as wire, others(port):
        path = f"{CONFIG_MAPS}/big?fieldManager=m"
        status, body = await wire.ask("PATCH", path, PATCHES[kind], Content_Type=kind)
    assert (status, orjson.loads(body)["data"]["new"]) == (200, "v")


async def test_a_long_list_is_compared_with_selectors_in_steps() -> None:
    taken = 0

    class Counting(LongWork):
        async def do(self, steps: Iterator[None]) -> None:
            nonlocal taken
            for _ in steps:
                taken += 1

    objects = [Cached(f"k{n}", "", str(n), n, b"", {"odd": str(n % 2)}, {}) for n in range(10_000)]
    selection = Selection("", lambda cached: cached.labels["odd"] == "1", ("", ""))

    found = await selection.of(objects, Counting(RealWorld(1)))

    assert found == objects[1::2]
    assert taken >= 10


PARTIAL = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
BIG = orjson.dumps(config_map("big", **{f"k{n}": "" for n in range(100_000)}))
BIG_READS = {
    "as a table": ("GET", "", TABLE, b"", 200),
    "metadata only": ("GET", "", PARTIAL, b"", 200),
    "indented": ("GET", "?pretty=1", "", b"", 200),
    "deleted": ("DELETE", "", "", b"", 200),
    "deleted with no options": ("DELETE", "", "", b'{"a":[' + b"1," * 1_000_000, 500),
}


@pytest.mark.parametrize("what", BIG_READS)
async def test_others_are_served_while_something_big_is_read_or_deleted(port: int, api: Api, what: str) -> None:
    method, query, accept, body, expected = BIG_READS[what]
    made = await api.ok("POST", CONFIG_MAPS, BIG)
    async with Wire(port) as wire, others(port):
        status, sent = await wire.ask(method, f"{CONFIG_MAPS}/big{query}", body, Accept=accept or "application/json")

    answer = orjson.loads(sent)
    assert status == expected
    if method == "GET":
        assert answer["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


MERGE = "application/merge-patch+json"
# In a version that is not the stored one.
SCALERS = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
SCALED = {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}
ON_BIG = {
    "as a table": ("GET", f"{CONFIG_MAPS}/big", b"", "", TABLE),
    "metadata only": ("GET", f"{CONFIG_MAPS}/big", b"", "", PARTIAL),
    "indented": ("GET", f"{CONFIG_MAPS}/big?pretty=1", b"", "", ""),
    "as YAML": ("GET", f"{CONFIG_MAPS}/big", b"", "", "application/yaml"),
    "patched": ("PATCH", f"{CONFIG_MAPS}/big", b'{"metadata":{"labels":{"a":"b"}}}', MERGE, ""),
    "patched with nothing": ("PATCH", f"{CONFIG_MAPS}/big", b"{}", MERGE, ""),
    "deleted": ("DELETE", f"{CONFIG_MAPS}/big", b"", "", ""),
    "listed, indented": ("GET", f"{CONFIG_MAPS}?pretty=1", b"", "", ""),
    "listed as YAML": ("GET", CONFIG_MAPS, b"", "", "application/yaml"),
    "of another version": ("GET", f"{SCALERS}/big", b"", "", ""),
    "of another version, listed": ("GET", SCALERS, b"", "", ""),
    "of another version, patched": ("PATCH", f"{SCALERS}/big", b'{"metadata":{"labels":{"a":"b"}}}', MERGE, ""),
    "scaled": ("PATCH", f"{DEPLOYMENTS}/big/scale", b'{"spec":{"replicas":2}}', MERGE, ""),
}


@pytest.mark.parametrize("what", ON_BIG)
async def test_something_big_is_decoded_beside_the_loop(api: Api, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    many = {f"k{n}": "" for n in range(5000)}
    await api.ok("POST", CONFIG_MAPS, config_map("big", **many))
    await api.ok("POST", SCALERS, {"metadata": {"name": "big", "labels": many}, "spec": SCALED})
    big = deployment("big")
    big["metadata"]["labels"] = many
    await api.ok("POST", DEPLOYMENTS, big)
    loops, elsewhere = 0, 0
    here, decode = threading.get_ident(), codec.decode

    def noting(data: bytes) -> Obj:
        nonlocal loops, elsewhere
        if len(data) > SHORT:
            loops, elsewhere = (loops + 1, elsewhere) if threading.get_ident() == here else (loops, elsewhere + 1)
        return decode(data)

    for module in (answers, codec, deleting, encodings, negotiation, renderings, writes, writing):
        monkeypatch.setattr(module, "decode", noting, raising=False)
    method, path, body, content_type, accept = ON_BIG[what]

    response = await api.send(method, path, body, content_type=content_type, accept=accept)

    assert response.status == 200
    assert loops == 0
    assert elsewhere > 0


APPLY = "application/apply-patch+yaml"
QUOTAS = "/api/v1/namespaces/default/resourcequotas"


class Turns:
    """How many calls the longest turn of the loop made, of Python's functions and of C's."""

    def __init__(self) -> None:
        self.longest = 0
        self._calls = 0

    @contextmanager
    def counted(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        run = asyncio.Handle._run  # type: ignore[attr-defined]

        def one(handle: asyncio.Handle) -> None:
            self._calls = 0
            run(handle)
            self.longest = max(self.longest, self._calls)

        def count(_frame: object, event: str, _said: object) -> None:
            self._calls += event in ("call", "c_call")

        with monkeypatch.context() as patches:
            patches.setattr(asyncio.Handle, "_run", one)
            # Of this thread alone, which is the loop's.
            sys.setprofile(count)
            try:
                yield
            finally:
                sys.setprofile(None)


@pytest.fixture
async def admitting() -> AsyncIterator[Api]:
    """A server with the default admission plugins, and a quota that they count by."""
    cluster = Cluster()
    api = Api((await cluster.start()).server)
    await api.ok("POST", QUOTAS, {"metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "1M"}}})
    yield api
    RUNNING.remove(cluster)
    await cluster.server.stop()


def containers(name: str, count: int) -> Obj:
    made = pod(name)
    made["spec"]["containers"] = [
        {"name": f"c{n}", "image": "i", "resources": {"requests": {"cpu": "1"}}} for n in range(count)
    ]
    return made


def keys(name: str, count: int) -> Obj:
    return config_map(name, **{f"k{n}": "" for n in range(count)})


def scaler(name: str, count: int) -> Obj:
    labels = {f"k{n}": "" for n in range(count)}
    return {"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "spec": SCALED} | {
        "metadata": {"name": name, "labels": labels}
    }


WRITES: dict[str, tuple[str, str, Any, str]] = {
    "containers created": ("POST", PODS, containers, "application/json"),
    "containers applied": ("PATCH", PODS, containers, APPLY),
    "keys created": ("POST", CONFIG_MAPS, keys, "application/json"),
    "keys applied": ("PATCH", CONFIG_MAPS, keys, APPLY),
    "labels of another version created": ("POST", SCALERS, scaler, "application/json"),
    "labels of another version applied": ("PATCH", SCALERS, scaler, APPLY),
}
MANY = 5000


@pytest.mark.parametrize("what", WRITES)
async def test_no_turn_of_the_loop_goes_through_all_of_something_big(
    admitting: Api, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    method, collection, of_many, content_type = WRITES[what]

    async def write(name: str, count: int) -> None:
        path = f"{collection}/{name}?fieldManager=m" if method == "PATCH" else collection
        await admitting.ok(method, path, of_many(name, count), content_type=content_type)
        # And once more, as a change of what is there.
        label = {"metadata": {"labels": {"a": name}}}
        await admitting.ok("PATCH", f"{collection}/{name}", label, content_type=MERGE)

    # What is made at the first use is made.
    await write("small", 3)
    turns = Turns()
    with turns.counted(monkeypatch):
        await write("big", MANY)

    assert turns.longest < MANY
