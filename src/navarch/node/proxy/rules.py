"""The nftables table that all services share: maps and sets, the chains around them, and how they are written. Pure.

A packet's way through the table: the NAT hooks look its destination up in `service-ips` (address, protocol, port) or,
when it is for the node itself, in `service-nodeports`. The verdict leads to a `pick-…` chain, which is for any service
with so many endpoints: it draws a number N, and the chain for N rewrites the destination to what map N of the pool has
for the frontend. What was not rewritten and has an entry in `no-endpoint-*` is refused in the filter hooks.
Masquerading is asked for with a mark, or by an entry in `hairpins` (an endpoint that reaches itself by its service).

Session affinity: an endpoint keeps its number, its *seat*, for as long as it is there. `affinity-…-N-T` is the set of
clients (of any service with timeout T) that sit at seat N. `seek-…` looks a client up, seat by seat; a `stick-…` chain
remembers the client and goes to the endpoint at that seat; who finds nobody at the seat is forgotten and drawn anew.

Services are data in maps and never chains or rules of their own: what the kernel and `nft` have to look at when one of
them changes does not grow with their number. Chains depend on numbers of endpoints and timeouts alone, are made when
first needed (`Shared`) and then stay. (One map with the number in its key would do for a pool; but such keys have no
type by name, and nft 1.0.6 refuses rules about maps of such a type unless it makes both at once.)
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from navarch.node.proxy.base import ProxierConfig

# Sets and maps: the fields of the key, and of the value where it is a map.
_ADDRESSED: Final = ("address", "protocol", "port")
_NODE: Final = ("protocol", "port")
_TARGET: Final = ("address", "port")
_VERDICT: Final = ("verdict",)


@dataclass(frozen=True, slots=True)
class Declared:
    """A set, or with a `value` a map."""

    key: tuple[str, ...]
    value: tuple[str, ...] = ()


class Pool(NamedTuple):
    """Endpoints by frontend and number. `addressed`: a frontend is an address with a port, else a node port."""

    name: str
    addressed: bool

    @property
    def frontend(self) -> tuple[str, ...]:
        return _ADDRESSED if self.addressed else _NODE

    @property
    def clients(self) -> str:
        return "affinity-address" if self.addressed else "affinity-node"

    def endpoints(self, number: int) -> str:
        """The map of the endpoints with a number."""
        return f"{self.name}-{number}"

    def seats(self, number: int) -> str:
        """The map that says at which seat the endpoint is that has been drawn by this number."""
        return f"{self.name}-seats-{number}"


POOLS: Final = {
    pool.name: pool
    for pool in (
        Pool("endpoints", True),
        Pool("local-endpoints", True),
        Pool("node-endpoints", False),
        Pool("node-local-endpoints", False),
    )
}
SETS: Final[dict[str, Declared]] = {
    "service-ips": Declared(_ADDRESSED, _VERDICT),
    "service-nodeports": Declared(_NODE, _VERDICT),
    # External policy Local: where clients of the cluster go, and where those from outside go.
    "anywhere-ips": Declared(_ADDRESSED, _VERDICT),
    "anywhere-nodeports": Declared(_NODE, _VERDICT),
    "local-ips": Declared(_ADDRESSED, _VERDICT),
    "local-nodeports": Declared(_NODE, _VERDICT),
    "no-endpoint-services": Declared(_ADDRESSED, _VERDICT),
    "no-endpoint-nodeports": Declared(_NODE, _VERDICT),
    "firewall-ips": Declared(_ADDRESSED, _VERDICT),
    "cluster-ips": Declared(("address",)),
    "hairpins": Declared(("address", "address")),
}


def declared(name: str) -> Declared:
    """What a set or map is made of, also one of those with a number."""
    if name in SETS:
        return SETS[name]
    kind = name.rpartition("-")[0]
    seats = kind.endswith("-seats")
    return Declared(POOLS[kind.removesuffix("-seats")].frontend, _VERDICT if seats else _TARGET)


# Clients remembered by seat: the kernel refuses to remember more, and draws for those each time.
_CLIENTS_MAX: Final = 1_000_000
_PREPARED: Final = 8


class Mark(NamedTuple):
    """Whose source address is masqueraded."""

    word: str
    strangers: bool
    everyone: bool


INSIDE: Final = Mark("inside", strangers=True, everyone=False)
OUTSIDE: Final = Mark("outside", strangers=True, everyone=True)
NOBODY: Final = Mark("bare", strangers=False, everyone=False)


class Shared(NamedTuple):
    """The chain that picks one of so many `choices` in a pool; with `timeout_s`, one that remembers where clients were
    sent, among `seats`."""

    pool: str
    mark: Mark
    choices: int
    timeout_s: int = 0
    seats: int = 0

    @property
    def name(self) -> str:
        if not self.timeout_s:
            return f"pick-{self.mark.word}-{self.pool}-{self.choices}"
        return f"sticky-{self.mark.word}-{self.pool}-{self.choices}-of-{self.seats}-{self.timeout_s}s"


def stick_name(pool: str, timeout_s: int, seat: int) -> str:
    return f"stick-{pool}-{seat}-{timeout_s}s"


@dataclass(frozen=True, slots=True)
class Structure:
    """Sets and maps, as they are declared, and rules by chain, in an order in which they can be made."""

    sets: dict[str, str]
    chains: dict[str, tuple[str, ...]]


def key_of(table: ProxierConfig, *, addressed: bool) -> str:
    """The expression that finds a frontend."""
    return f"{table.ip} daddr . meta l4proto . th dport" if addressed else "meta l4proto . th dport"


def marking(table: ProxierConfig) -> str:
    return f"meta mark set meta mark or {table.mark}"


def _marks(table: ProxierConfig, mark: Mark) -> list[str]:
    if mark.everyone or (table.masquerade_all and mark.strangers):
        return [marking(table)]
    # Who is not a pod may have no way back from an endpoint but through this node.
    return [f"{table.ip} saddr != {table.pod_cidr} {marking(table)}"] if mark.strangers and table.pod_cidr else []


@functools.lru_cache(1024)
def structure_of(table: ProxierConfig, shared: Shared) -> Structure:
    """What a shared chain needs, itself the last."""
    pool, before = POOLS[shared.pool], _marks(table, shared.mark)
    key = key_of(table, addressed=pool.addressed)
    result = Structure({}, {})
    if shared.timeout_s:
        before.append(f"jump {_seek(result, table, pool, shared)}")
        _numbered(result, table, [pool.seats(number) for number in range(shared.choices)], f"{key} vmap")
        to = pool.seats
    else:
        _numbered(
            result, table, [pool.endpoints(number) for number in range(shared.choices)], f"dnat {table.ip} to {key} map"
        )
        to = pool.endpoints
    verdicts = ", ".join(f"{number} : goto to-{to(number)}" for number in range(shared.choices))
    draw = f"numgen random mod {shared.choices} vmap {{ {verdicts} }}" if shared.choices > 1 else f"goto to-{to(0)}"
    result.chains[shared.name] = (*before, draw)
    return result


def _numbered(result: Structure, table: ProxierConfig, maps: Sequence[str], look: str) -> None:
    """For each map a chain that looks the frontend up in it. A packet that was sent there just before the number of
    endpoints shrank may find nothing just after: the first map has something as long as there are any."""
    for name in maps:
        result.sets[name] = _declaration(table, name)
        result.chains[f"to-{name}"] = tuple(f"{look} @{each}" for each in dict.fromkeys((name, maps[0])))


def _seek(result: Structure, table: ProxierConfig, pool: Pool, shared: Shared) -> str:
    """The chain that sends known clients back to where they were."""
    key = key_of(table, addressed=pool.addressed)
    client = f"{table.ip} saddr . {key}"
    address = f"ipv{table.family}_addr"
    of = f"{address} . {f'{address} . ' if pool.addressed else ''}inet_proto . inet_service"
    seek: list[str] = []
    for seat in range(shared.seats):
        endpoints, clients = pool.endpoints(seat), f"{pool.clients}-{seat}-{shared.timeout_s}s"
        stick = stick_name(pool.name, shared.timeout_s, seat)
        result.sets[endpoints] = _declaration(table, endpoints)
        result.sets[clients] = (
            f"add set {table.ip} {table.name} {clients} {{ type {of} ; flags dynamic,timeout ; size {_CLIENTS_MAX} ; }}"
        )
        result.chains[stick] = (
            f"update @{clients} {{ {client} timeout {shared.timeout_s}s }}",
            f"dnat {table.ip} to {key} map @{endpoints}",
            f"delete @{clients} {{ {client} }}",
        )
        seek.append(f"{client} @{clients} goto {stick}")
    name = f"seek-{pool.name}-{shared.seats}-{shared.timeout_s}s"
    result.chains[name] = tuple(seek)
    return name


def base_rules(table: ProxierConfig) -> list[str]:
    """The script that replaces the table by one without services, in one transaction with whatever follows it."""
    name = f"{table.ip} {table.name}"
    script = [f"add table {name}", f"delete table {name}", f"add table {name}"]
    script += [_declaration(table, what) for what in SETS]
    chains = {**_way(table), **_refusals(table)}
    script += [f"add chain {name} {chain}" for chain in chains]
    rules = [(chain, line) for chain, lines in chains.items() for line in lines]
    for chain, kind, hook, priority, lines in _hooks(table):
        script.append(f"add chain {name} {chain} {{ type {kind} hook {hook} priority {priority} ; }}")
        rules += [(chain, line) for line in lines]
    script += [f"add rule {name} {chain} {rule}" for chain, rule in rules]
    return script


def prepared() -> Iterable[Shared]:
    """Chains that nearly every cluster needs soon, made with the table so that the first changes find them."""
    return [Shared("endpoints", INSIDE, count) for count in range(1, _PREPARED + 1)]


def _declaration(table: ProxierConfig, name: str) -> str:
    made = declared(name)
    words = {
        "address": f"ipv{table.family}_addr",
        "protocol": "inet_proto",
        "port": "inet_service",
        "verdict": "verdict",
    }
    of = " : ".join(" . ".join(words[each] for each in part) for part in (made.key, made.value) if part)
    return f"add {'map' if made.value else 'set'} {table.ip} {table.name} {name} {{ type {of} ; }}"


def _way(table: ProxierConfig) -> dict[str, list[str]]:
    """How a packet for a service finds its chain."""
    at_address, at_node = key_of(table, addressed=True), key_of(table, addressed=False)
    addresses = ", ".join(table.node_port_addresses)
    for_node = f"{table.ip} daddr {{ {addresses} }} fib daddr type local" if addresses else "fib daddr type local"
    if not table.serves_loopback:
        for_node = f"{table.ip} daddr != {table.loopback} {for_node}"
    chains = {
        "services": [f"{at_address} vmap @service-ips", f"{for_node} {at_node} vmap @service-nodeports"],
        "no-endpoints": [
            f"{at_address} vmap @no-endpoint-services",
            f"{for_node} {at_node} vmap @no-endpoint-nodeports",
        ],
    }
    for suffix, key in (("ips", at_address), ("nodeports", at_node)):
        # External policy Local is for clients outside: this node's pods and the node itself may go to any endpoint.
        # Answers to pods of other nodes, whose addresses are kept, come back this way only from endpoints here.
        chains[f"anywhere-{suffix}-check"] = [f"{key} vmap @anywhere-{suffix}"]
        chains[f"local-{suffix}-check"] = [
            *([f"{_from_own_pods(table)} goto anywhere-{suffix}-check"] if table.pod_cidr else []),
            f"fib saddr type local {marking(table)}",
            f"fib saddr type local goto anywhere-{suffix}-check",
            f"{key} vmap @local-{suffix}",
        ]
    return chains


def _from_own_pods(table: ProxierConfig) -> str:
    whose = f"{table.ip} saddr {table.pod_cidr}"
    return f'iifname "{table.pods_at}" {whose}' if table.pods_at else whose


def _refusals(table: ProxierConfig) -> dict[str, list[str]]:
    checks = [f"{table.ip} daddr @cluster-ips goto refuse"]
    if table.service_cidr:
        checks.append(f"{table.ip} daddr {table.service_cidr} goto refuse")
    # Resets, unlike ICMP's answers, are never held back by a rate limit: no client is left waiting.
    return {"refuse": ["meta l4proto tcp reject with tcp reset", "reject"], "cluster-ips-check": checks}


def _hooks(table: ProxierConfig) -> list[tuple[str, str, str, str, list[str]]]:
    ip, mark = table.ip, table.mark
    refusing = ["ct state new jump no-endpoints", "ct state new jump cluster-ips-check"]
    masquerading = [
        f"ct status dnat {ip} saddr . {ip} daddr @hairpins masquerade fully-random",
        f"meta mark and {mark} == {mark} meta mark set meta mark xor {mark} masquerade fully-random",
    ]
    return [
        # Loopback addresses become reachable from outside with route_localnet, which node ports on localhost need.
        # After conntrack (-200), so that there is a state to ask for, and before destinations are rewritten (-100).
        ("guard", "filter", "prerouting", "-150", [f'iifname != "lo" {ip} daddr {table.loopback} ct state new drop']),
        (
            "firewall",
            "filter",
            "prerouting",
            "-110",
            [f"ct state new {key_of(table, addressed=True)} vmap @firewall-ips"],
        ),
        ("nat-prerouting", "nat", "prerouting", "-100", ["jump services"]),
        ("nat-output", "nat", "output", "-100", ["jump services"]),
        ("nat-postrouting", "nat", "postrouting", "100", masquerading),
        # Right after destinations were rewritten, and not in `forward`: a machine without a route to the service
        # range would say "unreachable" before that.
        ("filter-prerouting", "filter", "prerouting", "-90", refusing),
        ("filter-output", "filter", "output", "-90", refusing),
    ]
