"""Between DNS messages on the wire and the answers of `records`. Pure; dnspython reads and writes the format."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from navarch.node.dns.records import NEGATIVE_TTL_S, Answer, Outcome, Record

PAYLOAD = 1232
_RCODES = {
    Outcome.FOUND: dns.rcode.NOERROR,
    Outcome.NO_DATA: dns.rcode.NOERROR,
    Outcome.NO_NAME: dns.rcode.NXDOMAIN,
}


class BadQuery(Exception):
    """A message that gets an error at once; `response` is empty where it is not even answered."""

    def __init__(self, response: bytes) -> None:
        super().__init__("bad query")
        self.response = response


def parse(data: bytes) -> dns.message.QueryMessage:
    """A query with one question of class IN.  Raises BadQuery."""
    if len(data) < 12 or data[2] & 0x80:
        raise BadQuery(b"")
    try:
        query = dns.message.from_wire(data)
    except (dns.exception.DNSException, ValueError):
        raise BadQuery(bare(data, dns.rcode.FORMERR)) from None
    if query.opcode() != dns.opcode.QUERY:
        raise BadQuery(bare(data, dns.rcode.NOTIMP))
    if len(query.question) != 1 or not isinstance(query, dns.message.QueryMessage):
        raise BadQuery(bare(data, dns.rcode.FORMERR))
    if query.question[0].rdclass != dns.rdataclass.IN:
        raise BadQuery(respond(query, dns.rcode.REFUSED).to_wire())
    return query


def bare(data: bytes, rcode: int) -> bytes:
    """A header alone, for a message whose rest could not be read."""
    opcode_and_desired = data[2] & 0x79
    return data[:2] + bytes([0x80 | opcode_and_desired, 0x80 | rcode]) + b"\0" * 8


def question_of(query: dns.message.Message) -> tuple[str, str]:
    """The name without its final dot, and the type as a word."""
    question = query.question[0]
    return question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)


def respond(query: dns.message.Message, rcode: dns.rcode.Rcode) -> dns.message.Message:
    """An empty response."""
    response = dns.message.make_response(query, recursion_available=True, our_payload=PAYLOAD)
    response.set_rcode(rcode)
    return response


def answer_of(query: dns.message.Message, answer: Answer, soa: tuple[str, str]) -> dns.message.Message:
    """The authoritative response that says `answer`."""
    response = respond(query, _RCODES[answer.outcome])
    response.flags |= dns.flags.AA
    asked = query.question[0].name
    response.answer = rrsets(answer.records, asked)
    response.additional = rrsets(answer.extra, asked)
    if not answer.records:
        zone, text = soa
        rdata = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.SOA, text)
        response.authority = [dns.rrset.from_rdata(_name(zone), NEGATIVE_TTL_S, rdata)]
    return response


def encode(response: dns.message.Message, query: dns.message.Message | None, *, stream: bool) -> bytes:
    """The response in wire form, cut to what its asker can take by UDP and then marked as truncated."""
    if stream or query is None:
        return response.to_wire(max_size=65535)
    limit = max(512, min(query.payload, PAYLOAD)) if query.edns >= 0 else 512
    return response.to_wire(max_size=limit, prefer_truncation=True)


def lifetime_s(response: bytes, longest_s: float) -> float:
    """For how long an upstream's response may be kept: not at all unless it is an answer."""
    try:
        message = dns.message.from_wire(response, ignore_trailing=True)
    except dns.exception.DNSException:
        return 0
    if message.flags & dns.flags.TC or message.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return 0
    lifetimes = [rrset.ttl for section in (message.answer, message.authority) for rrset in section]
    return min([longest_s, *lifetimes]) if lifetimes else 0


def appended(response: dns.message.Message, upstream: bytes) -> None:
    """Add what upstream answered about an alias's target to the response that names the alias."""
    try:
        message = dns.message.from_wire(upstream)
    except dns.exception.DNSException:
        return
    response.answer.extend(message.answer)


def query_for(name: str, kind: str, identifier: int) -> bytes:
    """A fresh query, as a resolver sends it."""
    message = dns.message.make_query(_name(name), kind, use_edns=0, payload=PAYLOAD)
    message.id = identifier
    return message.to_wire()


def identifier_of(data: bytes) -> int:
    return int(struct.unpack_from(">H", data)[0])


def rrsets(records: Iterable[Record], asked: dns.name.Name) -> list[dns.rrset.RRset]:
    """Records grouped by name and type. The asked name keeps the case in which it was asked."""
    spelled = asked.to_text(omit_final_dot=True)
    found: dict[tuple[str, str], dns.rrset.RRset] = {}
    for record in records:
        kind = dns.rdatatype.from_text(record.type)
        rdata = dns.rdata.from_text(dns.rdataclass.IN, kind, _text(record))
        group = found.get((record.name, record.type))
        if group is None:
            name = asked if record.name == spelled.lower() else _name(record.name)
            group = found[record.name, record.type] = dns.rrset.RRset(name, dns.rdataclass.IN, kind)
        group.add(rdata, record.ttl_s)
    return list(found.values())


def _text(record: Record) -> str:
    if isinstance(record.data, tuple):
        priority, weight, port, target = record.data
        return f"{priority} {weight} {port} {target}."
    if record.type in ("CNAME", "PTR", "NS"):
        return f"{record.data}."
    return f'"{record.data}"' if record.type == "TXT" else record.data


def _name(text: str) -> dns.name.Name:
    return dns.name.from_text(text)
