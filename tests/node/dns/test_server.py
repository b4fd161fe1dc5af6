"""The server over real sockets on loopback, with an upstream of the test's own."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from navarch.api.meta import Key
from navarch.node.dns.corefile import Forwarding
from navarch.node.dns.guests import Guests
from navarch.node.dns.server import DnsServer
from navarch.node.dns.upstream import Upstream, UpstreamConfig, parse_servers
from tests.growth import cpu_s
from tests.node.dns.test_records import Names
from tests.node.proxy.objects import endpoint, endpoint_slice, service
from tests.ports import free_port


class _Answering(asyncio.DatagramProtocol):
    """Says that every name is 192.0.2.99, or nothing at all."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.silent = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        self.asked.append(query.question[0].name.to_text())
        if not self.silent:
            response = dns.message.make_response(query)
            response.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "192.0.2.99"))
            self.transport.sendto(response.to_wire(), addr)  # type: ignore[attr-defined]


class Served:
    def __init__(self, names: Names, server: DnsServer, port: int, upstream: _Answering) -> None:
        self.names, self.server, self.port, self.upstream = names, server, port, upstream

    async def raw(self, data: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()

        class Protocol(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                answer.set_result(data)

        transport, _ = await loop.create_datagram_endpoint(Protocol, remote_addr=("127.0.0.1", self.port))
        try:
            transport.sendto(data)
            async with asyncio.timeout(5):
                return await answer
        finally:
            transport.close()

    async def udp(self, name: str, kind: str = "A", **options: int) -> dns.message.Message:
        query = dns.message.make_query(name, kind, **options)  # type: ignore[arg-type]
        response = dns.message.from_wire(await self.raw(query.to_wire()))
        assert query.is_response(response)
        return response

    async def tcp(self, name: str, kind: str = "A") -> dns.message.Message:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        data = dns.message.make_query(name, kind).to_wire()
        writer.write(struct.pack(">H", len(data)) + data)
        (length,) = struct.unpack(">H", await reader.readexactly(2))
        answer = await reader.readexactly(length)
        writer.close()
        return dns.message.from_wire(answer)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    names = Names()
    names.put(service("web", "10.43.0.100"))
    names.put(service("ext", "", type="ExternalName", externalName="example.com"))
    loop = asyncio.get_running_loop()
    transport, upstream = await loop.create_datagram_endpoint(_Answering, local_addr=("127.0.0.1", 0))
    where = transport.get_extra_info("sockname")
    server = DnsServer(names.records, Upstream(UpstreamConfig(servers=(where,), timeout_s=0.1)))
    port = await server.start("127.0.0.1", free_port())
    yield Served(names, server, port, upstream)
    await server.stop()
    transport.close()


def addresses(response: dns.message.Message) -> list[str]:
    return [rdata.to_text() for rrset in response.answer for rdata in rrset]


async def test_both_protocols_answer(served: Served) -> None:
    for response in (
        await served.udp("web.default.svc.cluster.local."),
        await served.tcp("web.default.svc.cluster.local."),
    ):
        assert addresses(response) == ["10.43.0.100"]
        assert response.flags & dns.flags.AA


async def test_a_change_is_seen_at_once(served: Served) -> None:
    name = "web.default.svc.cluster.local."
    await served.udp(name)
    changed = service("web", "10.43.0.101")
    changed["metadata"]["resourceVersion"] = "2"

    served.names.put(changed)
    served.server.changed(Key("default", "web"))

    assert addresses(await served.udp(name)) == ["10.43.0.101"]


async def test_no_name_and_no_data_carry_the_zone(served: Served) -> None:
    missing = await served.udp("nope.default.svc.cluster.local.")
    empty = await served.udp("web.default.svc.cluster.local.", "AAAA")

    assert (missing.rcode(), empty.rcode()) == (dns.rcode.NXDOMAIN, dns.rcode.NOERROR)
    for response in (missing, empty):
        assert [rrset.rdtype for rrset in response.authority] == [dns.rdatatype.SOA]


async def test_long_answers_are_cut_and_whole_by_tcp(served: Served) -> None:
    served.names.put(service("many", "None"))
    served.names.put(endpoint_slice(*(endpoint(f"10.42.1.{at}") for at in range(1, 101)), service="many"))
    name = "many.default.svc.cluster.local."

    cut = await served.udp(name)
    assert cut.flags & dns.flags.TC
    assert len(addresses(await served.udp(name, use_edns=0, payload=4096))) < 100
    assert len(addresses(await served.tcp(name))) == 100


async def test_other_names_are_asked_upstream_and_kept(served: Served) -> None:
    for _ in range(3):
        assert addresses(await served.udp("www.example.org.")) == ["192.0.2.99"]

    assert served.upstream.asked == ["www.example.org."]


async def test_an_alias_out_of_the_cluster_brings_its_target_along(served: Served) -> None:
    response = await served.udp("ext.default.svc.cluster.local.")

    assert addresses(response) == ["example.com.", "192.0.2.99"]


async def test_a_domain_may_have_servers_of_its_own(served: Served) -> None:
    loop = asyncio.get_running_loop()
    transport, stub = await loop.create_datagram_endpoint(_Answering, local_addr=("127.0.0.1", 0))
    try:
        for name in ("www.acme.local.", "www.example.org."):
            await served.udp(name)
        where = transport.get_extra_info("sockname")

        served.server.forward(Forwarding({"acme.local": (where,)}))
        for name in ("www.acme.local.", "www.example.org.", "www.Acme.local."):
            await served.udp(name)

        assert served.upstream.asked == ["www.acme.local.", "www.example.org.", "www.example.org."]
        assert stub.asked == ["www.acme.local.", "www.Acme.local."]
    finally:
        transport.close()


def test_nobody_takes_all_places() -> None:
    guests = Guests(8)

    assert [guests.enter("10.42.0.1") for _ in range(4)] == [True, True, False, False]
    assert [guests.enter(f"10.42.1.{at}") for at in range(8)] == [True] * 6 + [False] * 2
    guests.leave("10.42.0.1")
    assert [guests.enter("10.42.0.1"), guests.enter("10.42.0.2")] == [True, False]


async def test_silence_upstream_is_a_failure_and_holds_nobody_up(served: Served) -> None:
    served.upstream.silent = True
    waiting = asyncio.ensure_future(served.udp("www.example.org."))

    assert addresses(await served.udp("web.default.svc.cluster.local.")) == ["10.43.0.100"]
    assert not waiting.done()
    assert (await waiting).rcode() == dns.rcode.SERVFAIL


async def test_nonsense_is_refused_and_does_no_harm(served: Served) -> None:
    garbage = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xff\xff"
    assert dns.message.from_wire(await served.raw(garbage), ignore_trailing=True).rcode() == dns.rcode.FORMERR
    update = dns.message.make_query("x.", "A")
    update.set_opcode(dns.opcode.NOTIFY)
    assert dns.message.from_wire(await served.raw(update.to_wire())).rcode() == dns.rcode.NOTIMP
    assert addresses(await served.udp("web.default.svc.cluster.local.")) == ["10.43.0.100"]


def test_three_thousand_queries_take_less_than_a_second() -> None:
    async def measure() -> float:
        names = Names()
        for at in range(300):
            names.put(service(f"s{at}", f"10.43.1.{at % 250}"))
        server = DnsServer(names.records, Upstream(UpstreamConfig(servers=(("127.0.0.1", 9),))))
        queries = [
            dns.message.make_query(f"s{at % 300}.default.svc.cluster.local", "A").to_wire() for at in range(3000)
        ]

        def answer_all() -> None:
            for query in queries:
                assert server.answer_now(query, stream=False)

        return cpu_s(answer_all, enough_s=1)

    assert asyncio.run(measure()) < 1.0


def test_servers_that_lead_back_are_left_out() -> None:
    text = "# c\nnameserver 10.43.0.10\nnameserver 8.8.8.8\nsearch x\nnameserver 8.8.8.8\nnameserver fe80::1%eth0\n"

    assert parse_servers(text, {"10.43.0.10"}) == (("8.8.8.8", 53), ("fe80::1", 53))


async def test_resolv_conf_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 192.0.2.1\n")
    upstream = Upstream(UpstreamConfig(resolv_conf=file))
    assert upstream.servers() == (("192.0.2.1", 53),)

    file.write_text("nameserver 192.0.2.22\n")
    upstream._checked_s = float("-inf")

    assert upstream.servers() == (("192.0.2.22", 53),)
