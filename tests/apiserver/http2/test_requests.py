"""Requests over HTTP/2, as a client that is not ours sends them, to the whole API server."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import h2.errors
import orjson
import pytest

from navarch.apiserver import connection as http1
from navarch.apiserver.auth.base import EveryoneIsAdmin
from navarch.apiserver.http import HTTPFront
from navarch.apiserver.http2 import answering, sending
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import ANONYMOUS, LOOPBACK, User
from navarch.client.transport import Request, Response
from navarch.http2 import frames
from tests.apiserver.conftest import CONFIG_MAPS, Api, config_map
from tests.apiserver.http2.wire import GET, Client, Wire, eventually, turns


class Somebody(EveryoneIsAdmin):
    async def authenticate(self, request: Request, certificate: bytes | None) -> User:
        return ANONYMOUS if request.headers.get("authorization") == "nobody" else LOOPBACK

    def recognized(self, request: Request, certificate: bytes | None) -> User | None:
        return None if request.headers.get("authorization") == "nobody" else LOOPBACK


@pytest.fixture
async def client(server: ApiServer, api: Api) -> AsyncIterator[Client]:
    server.use(authenticator=Somebody())
    client = Client(HTTPFront(server)._answer)
    yield client
    client.drop()
    await turns()


async def test_an_object_is_written_and_read(client: Client) -> None:
    created = await client.ask("POST", CONFIG_MAPS, config_map("a", k="v"))
    read = await client.ask("GET", f"{CONFIG_MAPS}/a")

    assert (created.status, read.status) == (201, 200)
    assert read.json["data"] == {"k": "v"}
    assert read.headers["content-type"] == "application/json"
    assert read.headers["content-length"] == str(len(read.body))
    assert read.headers["cache-control"] == "no-cache, private"
    assert "date" in read.headers


async def test_query_and_errors_are_those_of_http1(client: Client) -> None:
    await client.ask("POST", CONFIG_MAPS, config_map("a"))

    listed = await client.ask("GET", f"{CONFIG_MAPS}?fieldSelector=metadata.name%3Da&limit=5")
    missing = await client.ask("GET", f"{CONFIG_MAPS}/b")
    nowhere = await client.ask("GET", "/nowhere")
    method = await client.ask("PUT", CONFIG_MAPS, config_map("a"))

    assert [item["metadata"]["name"] for item in listed.json["items"]] == ["a"]
    assert (missing.status, missing.json["reason"]) == (404, "NotFound")
    assert (nowhere.status, method.status) == (404, 405)


async def test_many_requests_at_a_time(client: Client) -> None:
    created = [client.begin("POST", CONFIG_MAPS, [("content-type", "application/json")], end=False) for _ in range(90)]
    for number, stream in enumerate(created):
        await client.send(stream, orjson.dumps(config_map(f"n{number}")))

    assert {(await client.ended(stream)).status for stream in created} == {201}
    listed = await client.ask("GET", CONFIG_MAPS)
    assert len(listed.json["items"]) == 90


async def test_a_body_in_many_pieces_larger_than_the_window(client: Client) -> None:
    data = orjson.dumps(config_map("a", k="v" * 900_000))
    stream = client.begin("POST", CONFIG_MAPS, [("content-type", "application/json")], end=False)
    await client.send(stream, data, piece=5_000)

    assert (await client.ended(stream)).status == 201
    read = await client.ask("GET", f"{CONFIG_MAPS}/a")
    assert len(read.json["data"]["k"]) == 900_000
    assert client.serving.bodies.total == 0


async def test_trailers_end_a_request(client: Client) -> None:
    stream = client.begin("POST", CONFIG_MAPS, [("content-type", "application/json")], end=False)
    await client.send(stream, orjson.dumps(config_map("a")), end=False)
    client.h2.send_headers(stream, [("checksum", "1234")], end_stream=True)

    assert (await client.ended(stream)).status == 201


async def test_head_has_the_length_and_no_body(client: Client) -> None:
    await client.ask("POST", CONFIG_MAPS, config_map("a"))

    read = await client.ask("GET", f"{CONFIG_MAPS}/a")
    head = await client.ask("HEAD", f"{CONFIG_MAPS}/a")

    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(read.body))


async def test_who_waits_to_be_told_to_go_on_is_told(client: Client) -> None:
    headers = [("content-type", "application/json"), ("expect", "100-continue")]
    stream = client.begin("POST", CONFIG_MAPS, headers, end=False)
    await eventually(lambda: client.answers[stream].informational == [100], client.pump)
    await client.send(stream, orjson.dumps(config_map("a")))

    assert (await client.ended(stream)).status == 201


async def test_a_compressed_body_and_a_compressed_answer(client: Client) -> None:
    data = gzip.compress(orjson.dumps(config_map("a", k="x" * 200_000)))
    created = await client.ask("POST", CONFIG_MAPS, data, [("content-encoding", "gzip")])
    listed = await client.ask("GET", CONFIG_MAPS, headers=[("accept-encoding", "gzip")])

    assert created.status == 201
    assert listed.headers["content-encoding"] == "gzip"
    assert len(orjson.loads(gzip.decompress(bytes(listed.body)))["items"]) == 1


async def test_a_body_that_is_no_gzip_is_refused(client: Client) -> None:
    refused = await client.ask("POST", CONFIG_MAPS, b"no gzip", [("content-encoding", "gzip")])

    assert refused.status == 400
    assert "unable to decompress" in refused.json["message"]


@pytest.mark.parametrize("stated", [True, False])
async def test_a_body_that_is_too_large_is_refused_before_it_is_there(client: Client, stated: bool) -> None:
    length = [("content-length", str(4 << 20))] if stated else []
    stream = client.begin("POST", CONFIG_MAPS, [("content-type", "application/json"), *length], end=False)
    sent = 0
    while not client.answers[stream].over and sent < 4 << 20:
        size = min(16_000, client.h2.local_flow_control_window(stream))
        client.h2.send_data(stream, b"x" * size)
        sent += size
        client.pump()
        await turns(2)
        client.pump()

    answer = await client.ended(stream)
    assert (answer.status, answer.json["reason"]) == (413, "RequestEntityTooLarge")
    assert client.serving.bodies.total == 0
    assert (await client.ask("GET", "/version")).status == 200


async def test_a_big_answer_comes_as_the_client_makes_room(server: ApiServer, api: Api) -> None:
    for name in ("a", "b", "c"):
        await api.ok("POST", CONFIG_MAPS, config_map(name, k="v" * 800_000))
    client = Client(HTTPFront(server)._answer, window=10_000)

    listed = await client.ask("GET", CONFIG_MAPS, headers=[("accept-encoding", "identity")])

    assert [len(item["data"]["k"]) for item in listed.json["items"]] == [800_000] * 3
    client.drop()


async def test_a_watch_streams_and_ends_with_the_server(client: Client, api: Api) -> None:
    stream = client.begin("GET", f"{CONFIG_MAPS}?watch=true")
    await eventually(lambda: client.answers[stream].status == 200, client.pump)
    assert "content-length" not in client.answers[stream].headers

    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    await eventually(lambda: client.answers[stream].body.endswith(b"\n"), client.pump)
    event = orjson.loads(client.answers[stream].body)
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "a")

    api.server.drain()
    assert (await client.ended(stream)).reset is None


async def test_a_watch_that_is_not_wanted_any_more_is_over(client: Client, api: Api) -> None:
    stream = client.begin("GET", f"{CONFIG_MAPS}?watch=true")
    await eventually(lambda: client.answers[stream].status == 200, client.pump)
    assert api.server.core.metrics.watches == 1

    client.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    await eventually(lambda: api.server.core.metrics.watches == 0, client.pump)

    assert (await client.ask("GET", CONFIG_MAPS)).status == 200


async def test_all_watches_of_a_client_that_is_gone_are_over(client: Client, api: Api) -> None:
    for _ in range(5):
        client.begin("GET", f"{CONFIG_MAPS}?watch=true")
    await eventually(lambda: api.server.core.metrics.watches == 5, client.pump)

    client.drop()

    await eventually(lambda: api.server.core.metrics.watches == 0)


# Who is gone


class Held:
    """Answers when it is let go."""

    def __init__(self) -> None:
        self.begun: list[Request] = []
        self.cancelled: list[Request] = []
        self.done: list[Request] = []
        self.go = asyncio.Event()

    async def __call__(self, request: Request, certificate: bytes | None) -> Response:
        self.begun.append(request)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request)
            raise
        self.done.append(request)
        return Response(200, b"{}")


@pytest.mark.parametrize("hangs_up", [True, False])
async def test_what_is_only_read_is_cancelled_and_a_write_goes_on(hangs_up: bool) -> None:
    held = Held()
    client = Client(held)
    read = client.begin("GET", CONFIG_MAPS)
    write = client.begin("DELETE", f"{CONFIG_MAPS}/a")
    await eventually(lambda: len(held.begun) == 2)

    if hangs_up:
        client.drop()
    else:
        for stream in (read, write):
            client.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        client.pump()
    await eventually(lambda: len(held.cancelled) == 1)
    held.go.set()
    await eventually(lambda: len(held.done) == 1)

    assert (held.cancelled[0].method, held.done[0].method) == ("GET", "DELETE")
    if not hangs_up:
        assert (await client.ask("GET", CONFIG_MAPS)).status == 200


async def test_requests_that_were_given_up_count_while_they_run() -> None:
    held = Held()
    client = Client(held, streams=3)
    for _ in range(9):
        stream = client.begin("DELETE", f"{CONFIG_MAPS}/a")
        client.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        client.pump()
        await turns()

    assert len(held.begun) == 3
    waiting = client.begin("GET", CONFIG_MAPS)
    await turns()
    assert len(held.begun) == 3

    held.go.set()
    assert (await client.ended(waiting)).status == 200


async def test_a_request_that_is_reset_in_the_same_piece_is_not_begun() -> None:
    held = Held()
    client = Client(held, streams=2)
    for _ in range(50):
        stream = client.h2.get_next_available_stream_id()
        head = [(":method", "GET"), (":scheme", "https"), (":authority", "x"), (":path", "/")]
        client.h2.send_headers(stream, head, end_stream=True)
        client.h2.reset_stream(stream)
    client.pump()
    await turns()

    assert not held.begun
    held.go.set()
    assert (await client.ask("GET", "/")).status == 200


# Slow readers


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "STALLED_S", 0.05)


async def big(request: Request, certificate: bytes | None) -> Response:
    return Response(200, b"x" * 1_000_000 if request.path == "/big" else b"small")


@pytest.mark.usefixtures("impatient")
async def test_a_stream_that_is_not_read_is_cut_off_and_the_others_go_on() -> None:
    client = Client(big)
    client.reads = False
    stream = client.begin("GET", "/big")

    answer = await client.ended(stream)

    assert answer.reset == h2.errors.ErrorCodes.CANCEL
    client.h2.increment_flow_control_window(100_000)
    assert (await client.ask("GET", "/small")).body == b"small"


@pytest.mark.usefixtures("impatient")
async def test_a_connection_that_is_not_read_is_cut_off() -> None:
    client = Client(big)
    client.server.pause_writing()
    client.begin("GET", "/small")

    await eventually(lambda: client.pipe.closing)


async def test_answers_that_nobody_reads_hold_up_further_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "_UNREAD_MAX", 2_500_000)
    asked: list[str] = []

    async def counted(request: Request, certificate: bytes | None) -> Response:
        asked.append(request.path)
        return await big(request, certificate)

    client = Client(counted)
    client.reads = False
    streams = [client.begin("GET", "/big") for _ in range(3)]
    await turns()
    streams.append(client.begin("GET", "/small"))
    await turns()
    assert asked == ["/big"] * 3

    client.reads = True
    client.h2.increment_flow_control_window(2_000_000_000)
    for stream in streams[:3]:
        client.h2.increment_flow_control_window(2_000_000, stream)

    assert [len((await client.ended(stream)).body) for stream in streams] == [1_000_000] * 3 + [5]


async def test_a_watch_that_is_not_read_holds_one_chunk(client: Client, api: Api) -> None:
    client.reads = False
    stream = client.begin("GET", f"{CONFIG_MAPS}?watch=true")
    for number in range(40):
        await api.ok("POST", CONFIG_MAPS, config_map(f"n{number}", k="v" * 10_000))
        client.pump()
        await turns()

    assert 0 < len(client.answers[stream].body) <= 65_535
    client.reads = True
    client.h2.increment_flow_control_window(10_000_000)
    client.h2.increment_flow_control_window(10_000_000, stream)
    await eventually(lambda: client.answers[stream].body.count(b"\n") == 40, client.pump)


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "HEAD_S", 0.05)
    monkeypatch.setattr(http1, "BODY_S", 0.05)
    client = Client()
    stream = client.begin("POST", CONFIG_MAPS, end=False)
    await client.send(stream, b"{", end=False)

    assert (await client.ended(stream)).status == 408
    assert client.serving.bodies.total == 0


async def test_bodies_that_are_too_much_together_are_given_up() -> None:
    client = Client()
    client.serving.bodies.known.limit = 100_000
    streams = [client.begin("POST", CONFIG_MAPS, end=False) for _ in range(3)]
    for stream in streams:
        await client.send(stream, b"x" * 40_000, end=False)

    await eventually(lambda: any(client.answers[stream].over for stream in streams), client.pump)
    refused = [client.answers[stream] for stream in streams if client.answers[stream].over]
    assert [(answer.status, answer.headers["retry-after"]) for answer in refused] == [(429, "1")]


async def test_strangers_have_little_room_for_bodies_together_and_take_none_from_those_who_are_known(
    client: Client, server: ApiServer
) -> None:
    bodies = client.serving.bodies = HTTPFront(server)._http2.bodies
    bodies.strangers.limit = 200_000
    data = orjson.dumps(config_map("big", k="v" * 400_000))
    typed = [("content-type", "application/json")]
    known = client.begin("POST", CONFIG_MAPS, typed, end=False)
    await client.send(known, data[:300_000], end=False)
    await eventually(lambda: bodies.known.total == 300_000, client.pump)
    strangers = [client.begin("POST", CONFIG_MAPS, [*typed, ("authorization", "nobody")], end=False) for _ in range(3)]
    for stream in strangers:
        await client.send(stream, data[:80_000], end=False)

    await eventually(lambda: any(client.answers[stream].over for stream in strangers), client.pump)

    assert [client.answers[stream].status for stream in strangers if client.answers[stream].over] == [429]
    assert 0 < bodies.strangers.total <= 200_000
    await client.send(known, data[300_000:])
    assert (await client.ended(known)).status == 201


# The end


async def test_a_connection_is_left_gently() -> None:
    held = Held()
    wire = Wire(held)
    await wire.say(frames.PREFACE + frames.settings({}), GET(1))
    await wire.hear()
    stopping = asyncio.create_task(wire.server.shutdown(10))
    said = await wire.hear()
    assert [kind for kind, *_ in said] == [frames.PING, frames.GOAWAY]
    assert said[1][3][:8] == bytes.fromhex("7fffffff00000000")

    # What was sent before the client knew is answered, what comes later is not.
    await wire.say(GET(3), frames.ping(said[0][3], answer=True), GET(5))
    last = await wire.hear()
    assert [(kind, payload[:8]) for kind, _, _, payload in last] == [(frames.GOAWAY, bytes.fromhex("0000000300000000"))]
    assert not wire.pipe.closing
    held.go.set()
    answered = await wire.hear()
    assert [(kind, stream) for kind, _, stream, _ in answered if kind == frames.HEADERS] == [(1, 1), (1, 3)]
    await stopping
    assert wire.pipe.closing
    assert not wire.serving.connections


async def test_who_does_not_say_who_it_is_gets_one_answer(client: Client) -> None:
    known = await client.ask("GET", CONFIG_MAPS)
    assert (known.status, client.goaways) == (200, [])

    unknown = await client.ask("GET", CONFIG_MAPS, headers=[("authorization", "nobody")])

    assert unknown.status == 403
    await eventually(lambda: client.pipe.closing, client.pump)
    assert [code for _, code in client.goaways] == [0, 0]


async def test_now_and_then_a_client_is_sent_elsewhere() -> None:
    client = Client(parts=lambda: True)

    assert (await client.ask("GET", "/")).status == 200
    await eventually(lambda: client.pipe.closing, client.pump)
    assert [code for _, code in client.goaways] == [0, 0]


async def test_a_connection_that_asks_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "HEAD_S", 0.05)
    monkeypatch.setattr(http1, "IDLE_S", 0.05)
    silent, idle = Client(), Client()
    assert (await idle.ask("GET", "/")).status == 200

    await eventually(lambda: silent.pipe.closing)
    await eventually(lambda: idle.pipe.closing, idle.pump)
    assert idle.goaways[0] == ((1 << 31) - 1, 0)
