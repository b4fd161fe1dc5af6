"""The nftables backend: what every service port should be, compared with what was last written, is one transaction.

The rules go from one consistent state to the next with no packet in between. Only what differs is written: mostly
elements of maps, which go to the kernel in a netlink batch; where chains are needed that are not there yet, a script
for `nft`. When either is refused (somebody else changed our table), the whole table is written anew, which is also how
a start adopts what an earlier run has left.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from navarch.api.meta import Key
from navarch.node.proxy.base import EndpointMap, PortName, ProxierConfig, ServiceMap
from navarch.node.proxy.commands import LIMIT_S, CommandError, run_command
from navarch.node.proxy.elements import ElementChanges, apply_elements
from navarch.node.proxy.netlink import Netlink
from navarch.node.proxy.ports import PortRules, Target, port_rules, seats_of
from navarch.node.proxy.rules import Shared, base_rules, prepared, structure_of
from navarch.node.proxy.services import choose
from navarch.world import MACHINE

log = logging.getLogger(__name__)

_NOTHING = PortRules()
# What may go wrong with rules anywhere in the node, and how long it may take.
NftError = CommandError
NFT_LIMIT_S: Final = LIMIT_S


async def run_nft(*arguments: str, script: str = "", limit_s: float = NFT_LIMIT_S) -> str:
    """Run nft, give it `script` on standard input, return its output.  Raises NftError."""
    return await run_command("nft", *arguments, script=script, limit_s=limit_s)


async def apply_script(lines: Iterable[str]) -> None:
    await run_nft("-f", "-", script="\n".join(lines) + "\n")


async def listed(*what: str) -> list[dict[str, Any]]:
    """`nft -j list <what>` as objects; empty where the thing does not exist."""
    try:
        output = await run_nft("-j", "list", *what)
    except NftError:
        return []
    found: list[dict[str, Any]] = json.loads(output)["nftables"]
    return found


async def delete_table(family: str, name: str) -> None:
    """Delete a table whether or not it is there."""
    await apply_script([f"add table {family} {name}", f"delete table {family} {name}"])


@dataclass(slots=True)
class _Claims:
    """The winners of elements that several services may ask for (two services with one external IP): the first by
    name has it, so the outcome does not depend on the order of events."""

    claims: dict[tuple[str, str], dict[Key, str]] = field(default_factory=dict)

    def value(self, element: tuple[str, str]) -> str | None:
        owners = self.claims.get(element)
        return owners[min(owners)] if owners else None

    def put(self, owner: Key, element: tuple[str, str], value: str) -> None:
        self.claims.setdefault(element, {})[owner] = value

    def drop(self, owner: Key, element: tuple[str, str]) -> None:
        owners = self.claims[element]
        owners.pop(owner, None)
        if not owners:
            del self.claims[element]


def combine(parts: Iterable[PortRules]) -> PortRules:
    """The rules of all ports of a service."""
    result = PortRules()
    for part in parts:
        result.chains.update(part.chains)
        result.shared.update(part.shared)
        for where, entries in part.elements.items():
            result.elements.setdefault(where, {}).update(entries)
    return result


@dataclass(slots=True)
class Update:
    """What leads from one state of the table to the next: `before` and `after` are chains, written around the elements
    that need them."""

    elements: ElementChanges = field(default_factory=ElementChanges)
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.elements or self.before or self.after)

    def script(self, table: ProxierConfig) -> list[str]:
        return [*self.before, *self.elements.script(table), *self.after]


class RuleSet:
    """The desired rules of all services; `update` returns what leads from the old to the new. Pure."""

    def __init__(self, table: ProxierConfig) -> None:
        self._table = table
        self._at = f"{table.ip} {table.name}"
        self._rules: dict[Key, PortRules] = {}
        self._shared: set[Shared] = set()
        self._made: set[str] = set()
        self._claims = _Claims()

    def update(self, desired: Mapping[Key, PortRules]) -> Update:
        """Take over the rules of the services in `desired` (empty rules: the service is gone)."""
        result = Update()
        touched: dict[tuple[str, str], str | None] = {}
        for key, new in desired.items():
            old = self._rules.get(key, _NOTHING)
            if new == old:
                continue
            self._make(sorted(new.shared - self._shared), result.before)
            self._diff_chains(old, new, result)
            self._claim(key, old, new, touched)
            if new == _NOTHING:
                self._rules.pop(key, None)
            else:
                self._rules[key] = new
        for element, before in touched.items():
            after = self._claims.value(element)
            if after == before:
                continue
            if before is not None:
                result.elements.removed.setdefault(element[0], []).append(element[1])
            if after is not None:
                result.elements.added.setdefault(element[0], {})[element[1]] = after
        return result

    def prepare(self, shared: Iterable[Shared]) -> list[str]:
        """Make chains that nobody needs yet."""
        script: list[str] = []
        self._make(shared, script)
        return script

    def _make(self, wanted: Iterable[Shared], script: list[str]) -> None:
        """Have chains that are shared by all ports of a form. They stay: another port may soon need them."""
        for shared in wanted:
            self._shared.add(shared)
            structure = structure_of(self._table, shared)
            sets = [name for name in structure.sets if name not in self._made]
            chains = [name for name in structure.chains if name not in self._made]
            self._made.update(sets, chains)
            script += [structure.sets[name] for name in sets]
            script += [f"add chain {self._at} {name}" for name in chains]
            script += [f"add rule {self._at} {name} {line}" for name in chains for line in structure.chains[name]]

    def _diff_chains(self, old: PortRules, new: PortRules, result: Update) -> None:
        at = self._at
        for chain, lines in new.chains.items():
            if old.chains.get(chain) != lines:
                result.before += [f"add chain {at} {chain}", f"flush chain {at} {chain}"]
                result.before += [f"add rule {at} {chain} {line}" for line in lines]
        result.after += [f"delete chain {at} {chain}" for chain in old.chains if chain not in new.chains]

    def _claim(self, key: Key, old: PortRules, new: PortRules, touched: dict[tuple[str, str], str | None]) -> None:
        for where in {**old.elements, **new.elements}:
            before, after = old.elements.get(where, {}), new.elements.get(where, {})
            for entry in before:
                if entry not in after:
                    touched.setdefault((where, entry), self._claims.value((where, entry)))
                    self._claims.drop(key, (where, entry))
            for entry, value in after.items():
                if before.get(entry) != value:
                    touched.setdefault((where, entry), self._claims.value((where, entry)))
                    self._claims.put(key, (where, entry), value)


class NftablesProxier:
    """`Proxier` on nftables, for one table."""

    def __init__(self, table: ProxierConfig) -> None:
        self.table = table
        self._rules = RuleSet(table)
        self._seats: dict[Key, dict[PortName, dict[Target, int]]] = {}
        self._netlink: Netlink | None = None
        self._trusted = False

    async def sync(self, services: ServiceMap, endpoints: EndpointMap, changed: Collection[Key] | None = None) -> None:
        if changed is not None and self._trusted:
            update = self._rules.update({key: self._desired(key, services, endpoints) for key in changed})
            if not update:
                return
            self._trusted = False
            try:
                await self._apply(update)
            except (NftError, OSError) as error:
                log.warning("rules were refused, writing the whole table anew: %s", error)
            else:
                self._trusted = True
                return
        self._trusted = False
        fresh = RuleSet(self.table)
        script = base_rules(self.table) + fresh.prepare(prepared())
        script += fresh.update({key: self._desired(key, services, endpoints) for key in services}).script(self.table)
        await apply_script(script)
        self._rules, self._trusted = fresh, True

    async def _apply(self, update: Update) -> None:
        if update.before or update.after:
            await apply_script(update.script(self.table))
            return
        if self._netlink is None:
            self._netlink = Netlink()
        await MACHINE.in_thread(apply_elements, self._netlink, self.table, update.elements)

    async def intact(self) -> bool:
        """Whether our table is still there (`nft flush ruleset` by somebody else removes it)."""
        return any(
            entry.get("table", {}).get("name") == self.table.name and entry["table"]["family"] == self.table.ip
            for entry in await listed("tables")
        )

    async def cleanup(self) -> None:
        self._trusted = False
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None
        await delete_table(self.table.ip, self.table.name)

    def _desired(self, key: Key, services: ServiceMap, endpoints: EndpointMap) -> PortRules:
        behind = endpoints.get(key) or {}
        before = self._seats.pop(key, {})
        after: dict[PortName, dict[Target, int]] = {}
        parts = []
        for port in services.get(key) or ():
            choice = choose(behind.get(port.port_name) or ())
            if port.affinity_s:
                seated = (*choice.cluster, *choice.local)
                after[port.port_name] = seats_of(seated, before.get(port.port_name, {}))
            parts.append(port_rules(port, choice, self.table, after.get(port.port_name, {})))
        if after:
            self._seats[key] = after
        return combine(parts)
