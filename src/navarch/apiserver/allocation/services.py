"""Service addresses and node ports: given out by any number of API servers over one store.

In: a service on its way in, out or changing type.  Out: `clusterIP`, `clusterIPs`, `ipFamilies`, `ipFamilyPolicy`,
`nodePort`s and `healthCheckNodePort` filled in, 422 where what was asked for is taken or out of range; and the keys
that hold them, written and deleted in the service's own commit. What is free is looked up in the caches, which may be
behind; the store decides, and who loses the race draws again.

Invariant: a key that is held names a service that says so; both came in one commit, the service first, so that whoever
sees the key sees the service. A key whose service does not say so has leaked and may be taken over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_network
from typing import Final

from navarch.api.errors import FieldError, internal, invalid, invalid_value
from navarch.api.meta import Obj
from navarch.apiserver.allocation.families import let_second_go, set_families
from navarch.apiserver.allocation.keys import (
    Author,
    Held,
    address,
    addresses_of,
    held_by,
    node_port,
    parent_of,
    ports_of,
)
from navarch.apiserver.allocation.ranges import AddressRange, PortRange, Refused, parse_ranges
from navarch.apiserver.caches import Caches
from navarch.apiserver.changes import Cached
from navarch.apiserver.companions import Operation
from navarch.kinds.core.service import needs_cluster_ip, needs_health_check_port, needs_node_ports
from navarch.kinds.core.service_validation import validate_service_addresses
from navarch.kinds.resources import SERVICE_CIDRS, SERVICES
from navarch.records import frozen
from navarch.store.base import Conflict, Delete, Put
from navarch.world import World

TAKEN_IP: Final = "provided IP is already allocated"
TAKEN_PORT: Final = "provided port is already allocated"
_NO_RANGE: Final = "the provided network does not match the current range"
# The ServiceCIDR that is made of the configured ranges.
DEFAULT_RANGE: Final = "kubernetes"


@frozen
class AllocationConfig:
    """`service_cidr` may be two ranges, one per address family, parted by a comma; `cluster_dns` is the address that
    kubelets tell their pods."""

    service_cidr: str = "10.43.0.0/16"
    node_ports: range = range(30000, 32768)
    cluster_dns: str = "10.43.0.10"


class ServiceAllocation:
    """The companion of services."""

    def __init__(self, caches: Caches, world: World, config: AllocationConfig) -> None:
        self.caches = caches
        self.author = Author(world, lambda resource: caches.of(resource).codec)
        self.ports = PortRange(config.node_ports)
        self._configured = parse_ranges(config.service_cidr)
        self._dns = config.cluster_dns
        self.families = [each.family for each in self._configured]
        self.random = world.random("apiserver", "services")
        self._ranges: tuple[int, list[AddressRange]] = (-1, [])

    def take(self, obj: Obj, old: Obj | None) -> ServiceHolding:
        """Raises StatusError 422; 500 where a range is full."""
        holding = ServiceHolding(self, obj)
        was = old["spec"] if old is not None else {}
        errors: list[FieldError] = []
        let_second_go(obj["spec"], was)
        if needs_cluster_ip(obj["spec"]):
            # What makes no sense is not given out: validation comes later.
            errors += validate_service_addresses(obj["spec"])
        errors = errors or [*set_families(obj["spec"], self.families)]
        if not errors:
            errors += holding.take_addresses(was)
            errors += holding.take_ports(was)
        holding.refuse(errors)
        holding.give_back(was)
        return holding

    def release(self, old: Obj) -> ServiceHolding:
        holding = ServiceHolding(self, {**old, "spec": {}})
        holding.give_back(old["spec"])
        return holding

    # ------------------------------------------------------------------------------------------------------- the books

    def find(self, held: Held) -> Cached | None:
        return self.caches.of(held.resource).get("", held.name)

    def has_leaked(self, held: Held, key: Cached) -> bool:
        """Whether a key is ours and its service does not have what it holds."""
        parent = parent_of(key.obj())
        if parent is None:
            return False
        service = self.caches.of(SERVICES).get(*parent)
        return service is None or held not in held_by(service.obj()["spec"])

    def ranges(self) -> list[AddressRange]:
        """From which addresses are given out: the configured ranges, then the other ServiceCIDRs that are ready."""
        cache = self.caches.of(SERVICE_CIDRS)
        if self._ranges[0] != cache.last_change:
            stored = {cached.name: cached.obj() for cached in cache.items()}
            found = list(self._configured)
            if DEFAULT_RANGE in stored and not _is_ready(stored[DEFAULT_RANGE]):
                found = []
            for name, obj in stored.items():
                if name != DEFAULT_RANGE and _is_ready(obj):
                    found += [AddressRange(ip_network(text)) for text in obj["spec"].get("cidrs") or ()]
            self._ranges = (cache.last_change, found)
        return self._ranges[1]

    def special_address(self, service: Obj) -> str:
        """The API server's own service has the first address, cluster DNS the one that kubelets tell their pods."""
        metadata = service["metadata"]
        holder = (metadata.get("namespace"), metadata.get("name"))
        if holder == ("default", "kubernetes"):
            return self._configured[0].first
        return self._dns if holder == ("kube-system", "kube-dns") else ""


def _is_ready(service_cidr: Obj) -> bool:
    """One that nobody has looked at yet counts as ready: there may be no controller."""
    if service_cidr["metadata"].get("deletionTimestamp"):
        return False
    conditions = (service_cidr.get("status") or {}).get("conditions") or ()
    return all(each.get("status") == "True" for each in conditions if each.get("type") == "Ready")


class ServiceHolding:
    """What one write of a service takes and gives back."""

    def __init__(self, allocation: ServiceAllocation, service: Obj) -> None:
        self._allocation = allocation
        self._service = service
        # What is to be written, with the revision that is there now (0: nothing); what is to be deleted.
        self._puts: dict[Held, int] = {}
        self._deletes: dict[Held, int] = {}
        # Why a thing that was asked for, rather than drawn, is refused when it is taken.
        self._asked: dict[Held, Callable[[str], FieldError]] = {}
        # Taken, though the caches may not show it yet.
        self._avoid: set[Held] = set()

    def refuse(self, errors: Sequence[FieldError]) -> None:
        """Raises StatusError 422."""
        most = self._allocation.caches.store.max_ops - 1
        if not errors and len(self._puts) + len(self._deletes) > most:
            detail = f"needs more node ports and addresses than this store can give out at once ({most})"
            errors = [invalid_value("spec.ports", len(self._service["spec"].get("ports") or ()), detail)]
        if errors:
            raise invalid("Service", "", self._service["metadata"].get("name") or "", errors)

    # --------------------------------------------------------------------------------------------------------- commit

    def operations(self) -> list[Operation]:
        author = self._allocation.author
        deletes: list[Operation] = [Delete(author.key(held), revision) for held, revision in self._deletes.items()]
        return deletes + [
            Put(author.key(held), author.value(held, self._service), revision) for held, revision in self._puts.items()
        ]

    async def lost(self, conflict: Conflict) -> None:
        author = self._allocation.author
        everything = {author.key(held): held for held in (*self._puts, *self._deletes)}
        held = everything.get(conflict.key)
        if held is None:
            raise conflict
        await self._allocation.caches.sync()
        if held in self._deletes:
            del self._deletes[held]
            self._delete(held)
            return
        del self._puts[held]
        if held in self._asked:
            self.refuse([*self._ask(held, self._asked[held])])
        else:
            self._avoid.add(held)
            self._draw_again(held)

    def _draw_again(self, held: Held) -> None:
        spec = self._service["spec"]
        if held == address(held.name):
            index = spec["clusterIPs"].index(held.name)
            spec["clusterIPs"][index] = self._draw_address(spec["ipFamilies"][index])
            spec["clusterIP"] = spec["clusterIPs"][0]
            return
        number, other = int(held.name), self._draw_port()
        for port in spec.get("ports") or ():
            if port.get("nodePort") == number:
                port["nodePort"] = other
        if spec.get("healthCheckNodePort") == number:
            spec["healthCheckNodePort"] = other

    # ----------------------------------------------------------------------------------------------------- both kinds

    def _ask(self, held: Held, error: Callable[[str], FieldError]) -> Iterator[FieldError]:
        """Take a certain thing."""
        if held in self._puts:
            return
        key = self._allocation.find(held)
        if key is not None and not self._allocation.has_leaked(held, key):
            yield error(TAKEN_IP if held == address(held.name) else TAKEN_PORT)
            return
        self._puts[held] = key.revision if key is not None else 0
        self._asked[held] = error

    def _is_taken(self, held: Held) -> bool:
        return held in self._puts or held in self._avoid or self._allocation.find(held) is not None

    def _delete(self, held: Held) -> None:
        """Give back a thing, if its key is this service's."""
        key = self._allocation.find(held)
        metadata = self._service["metadata"]
        if key is not None and parent_of(key.obj()) == (metadata.get("namespace") or "", metadata["name"]):
            self._deletes[held] = key.revision

    def give_back(self, was: Obj) -> None:
        """Of what the service had, that which it has no longer."""
        kept = set(held_by(self._service["spec"]))
        for held in held_by(was):
            if held not in kept:
                self._delete(held)

    # ------------------------------------------------------------------------------------------------------ addresses

    def take_addresses(self, was: Obj) -> Iterator[FieldError]:
        spec = self._service["spec"]
        if not needs_cluster_ip(spec):
            return
        wanted: list[str] = list(spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else ()))
        if "None" in wanted:
            spec["clusterIP"], spec["clusterIPs"] = "None", ["None"]
            return
        if not wanted and (special := self._allocation.special_address(self._service)):
            wanted = [special]
        own = set(addresses_of(was))
        result: list[str] = []
        for index, family in enumerate(spec["ipFamilies"]):
            if index >= len(wanted):
                result.append(self._draw_address(family))
                continue
            if wanted[index] not in own:
                errors = [*self._ask_address(wanted, index)]
                if errors:
                    yield from errors
                    return
            result.append(wanted[index])
        # More addresses than families: validation says so.
        result += wanted[len(result) :]
        spec["clusterIP"], spec["clusterIPs"] = result[0], result

    def _ask_address(self, wanted: list[str], index: int) -> Iterator[FieldError]:
        text = wanted[index]

        def error(why: str) -> FieldError:
            return invalid_value("spec.clusterIPs", wanted, f"failed to allocate IP {text}: {why}")

        within = [each for each in self._allocation.ranges() if each.contains(text)]
        try:
            if not within:
                raise Refused(_NO_RANGE)
            within[0].check(text)
        except Refused as why:
            yield error(str(why))
        else:
            yield from self._ask(address(text), error)

    def _draw_address(self, family: str) -> str:
        """Raises StatusError 500."""
        for each in self._allocation.ranges():
            if each.family == family:
                found = each.draw(self._allocation.random, lambda text: self._is_taken(address(text)))
                if found is not None:
                    self._puts[address(found)] = 0
                    return found
        raise internal("failed to allocate a serviceIP: range is full")

    # ---------------------------------------------------------------------------------------------------------- ports

    def take_ports(self, was: Obj) -> Iterator[FieldError]:
        spec = self._service["spec"]
        own = set(ports_of(was))
        if needs_node_ports(spec):
            yield from self._take_node_ports(own)
        elif spec.get("type") == "LoadBalancer":
            # Node ports are not made for it, but those that it names are its own.
            for index, port in enumerate(spec.get("ports") or ()):
                if port.get("nodePort"):
                    yield from self._ask_port(port["nodePort"], f"spec.ports[{index}].nodePort", own)
        if needs_health_check_port(spec):
            if spec.get("healthCheckNodePort"):
                yield from self._ask_port(spec["healthCheckNodePort"], "spec.healthCheckNodePort", own)
            else:
                spec["healthCheckNodePort"] = self._draw_port()

    def _take_node_ports(self, own: set[int]) -> Iterator[FieldError]:
        """One node port per port; the same one for one port number over several protocols."""
        by_number: dict[int, int] = {}
        asked: dict[int, int] = {}
        ports = self._service["spec"].get("ports") or ()
        for port in ports:
            if port.get("nodePort"):
                by_number.setdefault(port.get("port", 0), port["nodePort"])
        used: set[tuple[str, int]] = {
            (port.get("protocol", "TCP"), port["nodePort"]) for port in ports if port.get("nodePort")
        }
        if len({port.get("port", 0) for port in ports} - by_number.keys()) > len(self._allocation.ports):
            # Before thousands are drawn for nothing.
            raise internal("failed to allocate a nodePort: range is full")
        for index, port in enumerate(ports):
            number, protocol = port.get("port", 0), port.get("protocol", "TCP")
            if port.get("nodePort"):
                at = f"spec.ports[{index}].nodePort"
                if not own and asked.setdefault(port["nodePort"], number) != number:
                    # Only ports of one number, of several protocols, share one.
                    yield invalid_value(at, port["nodePort"], TAKEN_PORT)
                else:
                    yield from self._ask_port(port["nodePort"], at, own)
                continue
            shared = by_number.get(number)
            if shared and (protocol, shared) not in used:
                port["nodePort"] = shared
            else:
                port["nodePort"] = self._draw_port()
                by_number.setdefault(number, port["nodePort"])
            used.add((protocol, port["nodePort"]))

    def _ask_port(self, number: int, path: str, own: set[int]) -> Iterator[FieldError]:
        if number in own:
            return

        def error(why: str) -> FieldError:
            return invalid_value(path, number, why)

        try:
            self._allocation.ports.check(number)
        except Refused as why:
            yield error(str(why))
        else:
            yield from self._ask(node_port(number), error)

    def _draw_port(self) -> int:
        """Raises StatusError 500."""
        found = self._allocation.ports.draw(self._allocation.random, lambda number: self._is_taken(node_port(number)))
        if found is None:
            raise internal("failed to allocate a nodePort: range is full")
        self._puts[node_port(found)] = 0
        return found
