"""What the cluster's names mean, by the DNS specification of Kubernetes (version 1.1.0). Pure over what it is given.

A name is taken apart and answered from the objects that it names, found by key or index, so that a change in an
informer is the change of the answer and nothing has to be kept in step. Headless services answer with their ready
endpoints; a name that exists without records of the wanted type is told apart from one that does not exist.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, NamedTuple, Protocol

from navarch.api.meta import Key, Obj, labels_of, namespace_of

VERSION: Final = "1.1.0"
SERVICE_TTL_S: Final = 30
HEADLESS_TTL_S: Final = 5
NEGATIVE_TTL_S: Final = 5
_LONGEST_CHAIN: Final = 8
SERVICE_INDEX: Final = "service"
ADDRESS_INDEX: Final = "address"


class Outcome(enum.Enum):
    """How a name was answered. `FORWARD`: it is not the cluster's, ask upstream."""

    FOUND = enum.auto()
    NO_DATA = enum.auto()
    NO_NAME = enum.auto()
    FORWARD = enum.auto()


class Record(NamedTuple):
    """`data` is the address, the target name, the text, or for SRV `(priority, weight, port, target)`. Names are
    absolute, without the final dot."""

    name: str
    type: str
    ttl_s: int
    data: str | tuple[int, int, int, str]


@dataclass(slots=True)
class Answer:
    """`target` is set for a CNAME that leads out of the cluster: who answers adds what upstream says of it."""

    outcome: Outcome
    records: list[Record] = field(default_factory=list)
    extra: list[Record] = field(default_factory=list)
    target: str = ""


class Lookup(Protocol):
    """The part of an informer that is read here."""

    def get(self, namespace: str, name: str) -> Obj | None: ...
    def by_index(self, index: str, value: str) -> list[Obj]: ...
    def list(self, namespace: str | None = None) -> list[Obj]: ...


def services_by_address(service: Obj) -> Iterable[str]:
    """Indexer: the virtual IPs of a service."""
    return [address for address in _cluster_ips(service) if address]


def slices_by_service(endpoint_slice: Obj) -> Iterable[str]:
    """Indexer: the service that a slice belongs to."""
    name = labels_of(endpoint_slice).get("kubernetes.io/service-name")
    return (str(Key(namespace_of(endpoint_slice), name)),) if name else ()


def slices_by_address(endpoint_slice: Obj) -> Iterable[str]:
    """Indexer: the addresses of headless services' endpoints, which have names of their own."""
    if "service.kubernetes.io/headless" not in labels_of(endpoint_slice):
        return ()
    return {address for each in endpoint_slice.get("endpoints") or () for address in each.get("addresses") or ()}


class _Target(NamedTuple):
    """An endpoint of a headless service, as a name sees it."""

    label: str
    address: str
    port: int


class ClusterRecords:
    """Answers names below `domain`, and addresses in the cluster's ranges."""

    def __init__(
        self, services: Lookup, slices: Lookup, *, domain: str, dns_ip: str, ranges: Iterable[str] = ()
    ) -> None:
        self.domain = domain.lower().rstrip(".")
        self._suffix = f".{self.domain}"
        self._services = services
        self._slices = slices
        self._dns_ip = dns_ip
        self._ranges = [ip_network(text) for text in ranges]

    def lookup(self, name: str, kind: str) -> Answer:
        """Answer for an absolute name (no final dot) and a record type (`A`, `SRV`, `ANY` …)."""
        name = name.lower()
        if name == self.domain:
            return self._apex(name, kind)
        if name.endswith(self._suffix):
            return self._inside(name, name[: -len(self._suffix)].split("."), kind)
        if name.endswith((".in-addr.arpa", ".ip6.arpa")):
            return self._reverse(name, kind)
        return Answer(Outcome.FORWARD)

    def owners(self, name: str, answer: Answer) -> list[Key] | None:
        """The services on which an answer depends, whether or not they are there; None where it may be any."""
        names = [name.lower(), *(str(record.data) for record in answer.records if record.type == "CNAME")]
        keys = []
        for each in names:
            labels = each[: -len(self._suffix)].split(".") if each.endswith(self._suffix) else []
            if len(labels) < 3 or labels[-1] != "svc":
                return None
            keys.append(Key(labels[-2], labels[-3]))
        return keys

    def soa(self, serial: int) -> tuple[str, str]:
        """The zone and the text of its SOA record."""
        d = self.domain
        return d, f"ns.dns.{d}. hostmaster.{d}. {serial} 7200 1800 86400 {NEGATIVE_TTL_S}"

    # Forward.

    def _apex(self, name: str, kind: str) -> Answer:
        if kind == "NS":
            server = f"ns.dns.{self.domain}"
            return Answer(
                Outcome.FOUND, [Record(name, "NS", SERVICE_TTL_S, server)], _addresses(server, [self._dns_ip], 30)
            )
        return Answer(Outcome.NO_DATA)

    def _inside(self, name: str, labels: list[str], kind: str) -> Answer:
        if labels == ["dns-version"]:
            return _answer([Record(name, "TXT", SERVICE_TTL_S, VERSION)], kind)
        if labels in (["svc"], ["pod"], ["dns"]):
            return Answer(Outcome.NO_DATA)
        if labels == ["ns", "dns"]:
            return _answer(_addresses(name, [self._dns_ip], SERVICE_TTL_S), kind)
        if labels[-1] == "pod":
            return self._pod(name, labels[:-1], kind)
        if labels[-1] != "svc":
            return Answer(Outcome.NO_NAME)
        namespace = labels[-2]
        if len(labels) == 2:
            return self._namespace(namespace)
        service = self._services.get(namespace, labels[-3])
        if service is None:
            return Answer(Outcome.NO_NAME)
        return self._service(name, service, labels[:-3], kind)

    def _namespace(self, namespace: str) -> Answer:
        # An empty non-terminal: whether it exists is told by whether anything is below it.
        known = namespace in ("default", "kube-system") or bool(self._services.list(namespace))
        return Answer(Outcome.NO_DATA if known else Outcome.NO_NAME)

    def _pod(self, name: str, labels: list[str], kind: str) -> Answer:
        if len(labels) == 1:
            return self._namespace(labels[0])
        if len(labels) != 2:
            return Answer(Outcome.NO_NAME)
        for text in (labels[0].replace("-", "."), labels[0].replace("-", ":")):
            try:
                address = str(ip_address(text))
            except ValueError:
                continue
            return _answer(_addresses(name, [address], SERVICE_TTL_S), kind)
        return Answer(Outcome.NO_NAME)

    def _service(self, name: str, service: Obj, below: list[str], kind: str) -> Answer:
        spec = service.get("spec") or {}
        if spec.get("type") == "ExternalName":
            target = _external_target(service)
            return self._external(name, target, kind) if target and not below else Answer(Outcome.NO_NAME)
        full = self._full_name(service)
        if spec.get("clusterIP") == "None":
            return self._headless(name, full, service, below, kind)
        addresses = _cluster_ips(service)
        if not below:
            found = _addresses(name, addresses, SERVICE_TTL_S)
            if kind == "SRV":
                found = [
                    Record(name, "SRV", SERVICE_TTL_S, (0, 100, port["port"], full)) for port in spec.get("ports") or ()
                ]
                return Answer(Outcome.FOUND, found, _addresses(full, addresses, SERVICE_TTL_S))
            return _answer(found, kind)
        wanted = _port_of(below)
        if wanted is None:
            return Answer(Outcome.NO_NAME)
        if len(below) == 1:
            known = any(_protocol(port) == wanted[1] for port in spec.get("ports") or ())
            return Answer(Outcome.NO_DATA if known else Outcome.NO_NAME)
        found = [
            Record(name, "SRV", SERVICE_TTL_S, (0, 100, port["port"], full))
            for port in spec.get("ports") or ()
            if (port.get("name") or "", _protocol(port)) == wanted
        ]
        if not found:
            return Answer(Outcome.NO_NAME)
        return _with_extra(_answer(found, kind), _addresses(full, addresses, SERVICE_TTL_S))

    def _external(self, name: str, target: str, kind: str) -> Answer:
        chain = [Record(name, "CNAME", SERVICE_TTL_S, target)]
        if kind == "CNAME":
            return Answer(Outcome.FOUND, chain)
        while further := self._alias_of(target):
            if len(chain) == _LONGEST_CHAIN or any(record.name == target for record in chain):
                # It leads round and round: who asks sees that.
                return Answer(Outcome.FOUND, chain)
            chain.append(Record(target, "CNAME", SERVICE_TTL_S, further))
            target = further
        answer = self.lookup(target, kind)
        if answer.outcome is Outcome.FORWARD:
            return Answer(Outcome.FOUND, chain, target=target)
        return Answer(Outcome.FOUND, [*chain, *answer.records], answer.extra)

    def _alias_of(self, name: str) -> str:
        """Where an ExternalName service leads; empty for any other name."""
        labels = name[: -len(self._suffix)].split(".") if name.endswith(self._suffix) else []
        if len(labels) != 3 or labels[2] != "svc":
            return ""
        service = self._services.get(labels[1], labels[0])
        return _external_target(service) if service is not None else ""

    def _headless(self, name: str, full: str, service: Obj, below: list[str], kind: str) -> Answer:
        slices = self._slices.by_index(SERVICE_INDEX, str(Key(namespace_of(service), service["metadata"]["name"])))
        if not below:
            targets = {target.address: target for target in _ready(slices)}
            if kind == "SRV":
                return self._srv(name, full, list(_ready(slices)), kind)
            # A service without ready endpoints has no name, as CoreDNS has it.
            if not targets:
                return Answer(Outcome.NO_NAME)
            return _answer(_addresses(name, sorted(targets), HEADLESS_TTL_S), kind)
        wanted = _port_of(below)
        if wanted is not None:
            if len(below) == 1:
                known = any(_protocol(port) == wanted[1] for each in slices for port in each.get("ports") or ())
                return Answer(Outcome.NO_DATA if known else Outcome.NO_NAME)
            return self._srv(name, full, list(_ready(slices, wanted)), kind)
        if len(below) != 1:
            return Answer(Outcome.NO_NAME)
        addresses = sorted({target.address for target in _ready(slices) if target.label == below[0]})
        if not addresses:
            return Answer(Outcome.NO_NAME)
        return _answer(_addresses(name, addresses, HEADLESS_TTL_S), kind)

    @staticmethod
    def _srv(name: str, full: str, targets: list[_Target], kind: str) -> Answer:
        if not targets:
            return Answer(Outcome.NO_NAME)
        weight = max(1, 100 // len(targets))
        unique = sorted(set(targets))
        found = [
            Record(name, "SRV", HEADLESS_TTL_S, (0, weight, each.port, f"{each.label}.{full}"))
            for each in unique
            if each.port
        ]
        extra = [
            record
            for label, address in sorted({(each.label, each.address) for each in unique})
            for record in _addresses(f"{label}.{full}", [address], HEADLESS_TTL_S)
        ]
        return _with_extra(_answer(found, kind), extra)

    # Reverse.

    def _reverse(self, name: str, kind: str) -> Answer:
        address = _address_of(name)
        if address is None or not any(address in each for each in self._ranges):
            # Endpoints may be anywhere (host network, custom slices); what has no name of ours is not ours.
            if address is None or not (names := self._names_of(str(address))):
                return Answer(Outcome.FORWARD)
        else:
            names = self._names_of(str(address))
        if not names:
            return Answer(Outcome.NO_NAME)
        return _answer([Record(name, "PTR", SERVICE_TTL_S, target) for target in names], kind)

    def _names_of(self, address: str) -> list[str]:
        names = [self._full_name(service) for service in self._services.by_index(ADDRESS_INDEX, address)]
        for each in self._slices.by_index(ADDRESS_INDEX, address):
            service = labels_of(each).get("kubernetes.io/service-name")
            names += [
                f"{target.label}.{service}.{namespace_of(each)}.svc.{self.domain}"
                for target in _ready([each])
                if target.address == address
            ]
        return sorted(set(names))

    def _full_name(self, service: Obj) -> str:
        return f"{service['metadata']['name']}.{namespace_of(service)}.svc.{self.domain}"


def _external_target(service: Obj) -> str:
    spec = service.get("spec") or {}
    return str(spec.get("externalName") or "").lower().rstrip(".") if spec.get("type") == "ExternalName" else ""


def _cluster_ips(service: Obj) -> list[str]:
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return []
    addresses = spec.get("clusterIPs") or [spec.get("clusterIP") or ""]
    return [address for address in addresses if address and address != "None"]


def _addresses(name: str, addresses: Iterable[str], ttl_s: int) -> list[Record]:
    return [Record(name, "AAAA" if ":" in address else "A", ttl_s, address) for address in addresses]


def _answer(records: list[Record], kind: str) -> Answer:
    """Of the records at a name those of the wanted type; none of it is an answer too."""
    wanted = [record for record in records if kind in (record.type, "ANY")]
    return Answer(Outcome.FOUND if wanted else Outcome.NO_DATA, wanted)


def _with_extra(answer: Answer, extra: list[Record]) -> Answer:
    if answer.outcome is Outcome.FOUND:
        answer.extra = extra
    return answer


def _protocol(port: Obj) -> str:
    return str(port.get("protocol") or "TCP").lower()


def _port_of(labels: list[str]) -> tuple[str, str] | None:
    """`_http._tcp` as ("http", "tcp"), `_tcp` as ("", "tcp"); None for what does not name a port."""
    if labels[-1] not in ("_tcp", "_udp", "_sctp") or len(labels) > 2:
        return None
    if len(labels) == 1:
        return "", labels[0][1:]
    return (labels[0][1:], labels[1][1:]) if labels[0].startswith("_") else None


def _ready(slices: Iterable[Obj], wanted: tuple[str, str] | None = None) -> Iterator[_Target]:
    """Endpoints that may be published, one for each port (port 0 where there is none)."""
    for each in slices:
        ports = [
            int(port.get("port") or 0)
            for port in each.get("ports") or ()
            if wanted is None or (port.get("name") or "", _protocol(port)) == wanted
        ]
        if not ports and wanted is None:
            ports = [0]
        for endpoint in each.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is False:
                continue
            for address in endpoint.get("addresses") or ():
                label = str(endpoint.get("hostname") or address.replace(".", "-").replace(":", "-")).lower()
                for port in ports:
                    yield _Target(label, address, port)


def _address_of(name: str) -> IPv4Address | IPv6Address | None:
    """The address that a reverse name stands for."""
    try:
        if name.endswith(".in-addr.arpa"):
            return IPv4Address(".".join(reversed(name.removesuffix(".in-addr.arpa").split("."))))
        nibbles = "".join(reversed(name.removesuffix(".ip6.arpa").split(".")))
        return IPv6Address(":".join(nibbles[start : start + 4] for start in range(0, 32, 4)))
    except ValueError:
        return None
