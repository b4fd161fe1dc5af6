"""Allocation of service addresses and node ports.

In: services on their way in, out or changing type.  Out: `clusterIP`, `clusterIPs`, `ipFamilies`, `ipFamilyPolicy`,
`nodePort`s and `healthCheckNodePort` filled in; 422 where what was asked for is taken or out of range. What a write
took is given back when the write fails; what a service no longer needs, when its write is committed.

Invariant: no two stored services share an address or a node port. The books are built from what is stored at first use
and are checked against it before anything is refused, so that a service that left by another way blocks nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from navarch.api.errors import FieldError, internal, invalid, invalid_value
from navarch.api.meta import Obj
from navarch.apiserver.admission.base import Attributes, Plugin, Reader
from navarch.apiserver.admission.ranges import AddressRange, Books, PortRange, RangeFull, Refused, parse_ranges
from navarch.kinds.core.service import needs_cluster_ip, needs_health_check_port, needs_node_ports
from navarch.kinds.resources import SERVICES

_STATE: Final = "ServiceAllocator"
Holder = tuple[str, str]


@dataclass(slots=True)
class _Taken:
    """What one write took from the books and has to give back if it fails."""

    addresses: list[str] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)


class ServiceAllocator(Plugin):
    name = "ServiceAllocator"
    resources = frozenset({("", "services")})
    operations = frozenset({"CREATE", "UPDATE", "DELETE"})

    def __init__(
        self, reader: Reader, service_cidr: str, node_ports: range, cluster_dns: str, source: random.Random
    ) -> None:
        self._reader = reader
        self._ranges: dict[str, AddressRange] = {each.family: each for each in parse_ranges(service_cidr, source)}
        self._families = list(self._ranges)
        self._ports = PortRange(node_ports, source)
        self._dns = cluster_dns
        self._books: Books | None = None

    # ---------------------------------------------------------------------------------------------------- the hooks

    async def mutate(self, attributes: Attributes) -> None:
        service = attributes.obj
        if attributes.operation == "DELETE" or attributes.subresource or service is None:
            return
        taken = _Taken()
        if not attributes.dry_run:
            attributes.state[_STATE] = taken
        holder = (attributes.namespace, attributes.name)
        errors: list[FieldError] = []
        old_spec = attributes.old["spec"] if attributes.old is not None else {}
        try:
            errors += self._set_families(service["spec"])
            if not errors:
                errors += self._set_addresses(service["spec"], old_spec, holder, taken)
                errors += self._set_ports(service["spec"], old_spec, holder, taken)
        except RangeFull as full:
            self._give_back(taken)
            raise internal(str(full)) from None
        finally:
            if attributes.dry_run:
                self._give_back(taken)
        if errors:
            raise invalid("Service", "", attributes.name, errors)

    async def committed(self, attributes: Attributes, stored: Obj) -> None:
        taken: _Taken | None = attributes.state.pop(_STATE, None)
        books = self._open()
        gone = attributes.operation == "DELETE" or _finished(stored)
        if taken is not None and not gone:
            books.settle((attributes.namespace, stored["metadata"]["name"]), taken.addresses, taken.ports)
        if attributes.old is None:
            return
        had = attributes.old["spec"]
        keeps: Obj = {} if gone else stored["spec"]
        books.release(set(_addresses_of(had)) - set(_addresses_of(keeps)), set(_ports_of(had)) - set(_ports_of(keeps)))

    async def rolled_back(self, attributes: Attributes) -> None:
        taken: _Taken | None = attributes.state.pop(_STATE, None)
        if taken is not None:
            self._give_back(taken)

    def _give_back(self, taken: _Taken) -> None:
        self._open().release(taken.addresses, taken.ports)
        taken.addresses.clear()
        taken.ports.clear()

    def _open(self) -> Books:
        """The books; opened at first use, when what is stored can be read."""
        if self._books is None:
            self._books = Books(self._still_holds)
            for service in self._reader.list(SERVICES):
                holder = (service["metadata"].get("namespace", ""), service["metadata"]["name"])
                self._books.enter(holder, _addresses_of(service["spec"]), _ports_of(service["spec"]))
        return self._books

    def _still_holds(self, holder: Holder, thing: str | int) -> bool:
        service = self._reader.get(SERVICES, *holder)
        if service is None:
            return False
        spec = service["spec"]
        return thing in _ports_of(spec) if isinstance(thing, int) else thing in _addresses_of(spec)

    # ----------------------------------------------------------------------------------------------------- families

    def _set_families(self, spec: Obj) -> Iterator[FieldError]:
        """Fill in address families and their policy as the cluster's ranges allow."""
        if not needs_cluster_ip(spec):
            return
        families: list[str] = list(spec.get("ipFamilies") or ())
        policy = spec.get("ipFamilyPolicy")
        headless = spec.get("clusterIP") == "None"
        if headless and not spec.get("selector"):
            # Who writes the endpoints by hand may use both families, whatever the cluster's own are.
            if policy is None:
                policy = "SingleStack" if len(families) == 1 else "RequireDualStack"
            families = families or [self._families[0]]
            if policy != "SingleStack" and len(families) == 1:
                families.append("IPv6" if families[0] == "IPv4" else "IPv4")
            spec["ipFamilies"], spec["ipFamilyPolicy"] = families, policy
            return
        addresses = [each for each in spec.get("clusterIPs") or () if each != "None"]
        if policy is None:
            policy = "RequireDualStack" if len(families) == 2 or len(addresses) == 2 else "SingleStack"
        if policy == "SingleStack" and (len(families) > 1 or len(addresses) > 1):
            detail = "must be 'RequireDualStack' or 'PreferDualStack' when multiple ipFamilies are specified"
            yield invalid_value("spec.ipFamilyPolicy", policy, detail)
            return
        if policy == "RequireDualStack" and len(self._families) < 2:
            detail = "this cluster is not configured for dual-stack services"
            yield invalid_value("spec.ipFamilyPolicy", policy, detail)
            return
        for index, family in enumerate(families):
            if family not in self._ranges:
                yield invalid_value(f"spec.ipFamilies[{index}]", family, "not configured on this cluster")
                return
        if not families:
            families = ["IPv6" if ":" in each else "IPv4" for each in addresses] or [self._families[0]]
        if policy in ("PreferDualStack", "RequireDualStack"):
            families += [family for family in self._families if family not in families]
        spec["ipFamilies"], spec["ipFamilyPolicy"] = families, policy

    # ---------------------------------------------------------------------------------------------------- addresses

    def _set_addresses(self, spec: Obj, old: Obj, holder: Holder, taken: _Taken) -> Iterator[FieldError]:
        if not needs_cluster_ip(spec):
            return
        wanted: list[str] = list(spec.get("clusterIPs") or ())
        if spec.get("clusterIP") == "None" or "None" in wanted:
            spec["clusterIP"], spec["clusterIPs"] = "None", ["None"]
            return
        if not wanted:
            special = self._special_address(holder)
            wanted = [special] if special else []
        own = set(_addresses_of(old))
        result: list[str] = []
        for index, family in enumerate(spec["ipFamilies"]):
            address_range = self._ranges.get(family)
            if index < len(wanted):
                address = wanted[index]
                if address not in own:
                    try:
                        self._take_address(address, address_range, holder, taken)
                    except Refused as why:
                        detail = f"failed to allocate IP {address}: {why}"
                        yield invalid_value("spec.clusterIPs", wanted, detail)
                        return
            elif address_range is None:
                continue
            else:
                address = address_range.next_free(self._open(), holder)
                taken.addresses.append(address)
            result.append(address)
        # More addresses than families: validation says so.
        result += wanted[len(result) :]
        if result:
            spec["clusterIP"], spec["clusterIPs"] = result[0], result

    def _special_address(self, holder: Holder) -> str:
        """The API server's own service has the first address, cluster DNS the one that kubelets tell their pods."""
        if holder == ("default", "kubernetes"):
            return next(iter(self._ranges.values())).first
        if holder == ("kube-system", "kube-dns"):
            return self._dns
        return ""

    def _take_address(self, address: str, address_range: AddressRange | None, holder: Holder, taken: _Taken) -> None:
        if address_range is None:
            raise Refused("not configured on this cluster")
        address_range.take(self._open(), address, holder)
        taken.addresses.append(address)

    # -------------------------------------------------------------------------------------------------------- ports

    def _set_ports(self, spec: Obj, old: Obj, holder: Holder, taken: _Taken) -> Iterator[FieldError]:
        own = set(_ports_of(old))
        if needs_node_ports(spec):
            yield from self._set_node_ports(spec, own, holder, taken)
        elif spec.get("type") == "LoadBalancer":
            # Node ports are not made for it, but those that it names are its own.
            for index, port in enumerate(spec.get("ports") or ()):
                if port.get("nodePort"):
                    yield from self._take_port(port["nodePort"], f"spec.ports[{index}].nodePort", own, holder, taken)
        if needs_health_check_port(spec):
            asked = spec.get("healthCheckNodePort")
            if asked:
                yield from self._take_port(asked, "spec.healthCheckNodePort", own, holder, taken)
            else:
                spec["healthCheckNodePort"] = self._ports.next_free(self._open(), holder)
                taken.ports.append(spec["healthCheckNodePort"])

    def _set_node_ports(self, spec: Obj, own: set[int], holder: Holder, taken: _Taken) -> Iterator[FieldError]:
        """One node port per port; the same one for one port number over several protocols."""
        by_number: dict[int, int] = {}
        ports = spec.get("ports") or ()
        for port in ports:
            if port.get("nodePort"):
                by_number.setdefault(port.get("port", 0), port["nodePort"])
        used: set[tuple[str, int]] = {
            (port.get("protocol", "TCP"), port["nodePort"]) for port in ports if port.get("nodePort")
        }
        for index, port in enumerate(ports):
            at = f"spec.ports[{index}].nodePort"
            number, protocol = port.get("port", 0), port.get("protocol", "TCP")
            if port.get("nodePort"):
                yield from self._take_port(port["nodePort"], at, own, holder, taken)
                continue
            shared = by_number.get(number)
            if shared and (protocol, shared) not in used:
                port["nodePort"] = shared
            else:
                port["nodePort"] = self._ports.next_free(self._open(), holder)
                taken.ports.append(port["nodePort"])
                by_number.setdefault(number, port["nodePort"])
            used.add((protocol, port["nodePort"]))

    def _take_port(self, number: int, path: str, own: set[int], holder: Holder, taken: _Taken) -> Iterator[FieldError]:
        if number in own or number in taken.ports:
            return
        try:
            self._ports.take(self._open(), number, holder)
        except Refused as why:
            yield invalid_value(path, number, str(why))
        else:
            taken.ports.append(number)


def _addresses_of(spec: Obj) -> list[str]:
    listed: Iterable[str] = spec.get("clusterIPs") or [spec.get("clusterIP") or ""]
    return [address for address in listed if address not in ("", "None")]


def _ports_of(spec: Obj) -> list[int]:
    numbers = [int(port["nodePort"]) for port in spec.get("ports") or () if port.get("nodePort")]
    if spec.get("healthCheckNodePort"):
        numbers.append(int(spec["healthCheckNodePort"]))
    return numbers


def _finished(service: Obj) -> bool:
    """A deletion that was held and is held no longer."""
    metadata = service["metadata"]
    return bool(metadata.get("deletionTimestamp")) and not metadata.get("finalizers")
