"""The nftables backend: what every service port should be, compared with what was last written, becomes one script.

`nft` reads a script as one transaction: the rules go from one consistent state to the next with no packet in between.
Only chains and elements that differ are written. When a script is refused (somebody else changed our table), the whole
table is written anew, which is also how a start adopts what an earlier run has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from navarch.api.meta import Key
from navarch.node.proxy.base import EndpointMap, ServiceMap, ServicePort
from navarch.node.proxy.rules import PortRules, TableConfig, base_rules, port_rules
from navarch.node.proxy.services import choose

log = logging.getLogger(__name__)

_NOTHING = PortRules()
# The whole table of 10,000 services takes nft some seconds; one that waits for a lock of the kernel waits for ever.
NFT_LIMIT_S = 60.0


class NftError(Exception):
    """nft refused a script; the message is what it said, shortened."""


async def run_nft(*arguments: str, script: str = "", limit_s: float = NFT_LIMIT_S) -> str:
    """Run nft, give it `script` on standard input, return its output.  Raises NftError, also when it takes longer than
    `limit_s`: it is killed then, and the kernel has all of the script or nothing."""
    process = await asyncio.create_subprocess_exec(
        "nft",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(limit_s):
            output, errors = await process.communicate(script.encode())
    except TimeoutError:
        raise NftError(f"nft did not end within {limit_s:g} s") from None
    except (OSError, RuntimeError) as error:
        # It ended before it had read its input (uvloop calls writing to a closed pipe a RuntimeError).
        raise NftError(f"nft ended early: {error}") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    if process.returncode:
        raise NftError(errors.decode(errors="replace")[:2000].strip() or f"nft exited with {process.returncode}")
    return output.decode()


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
class _Shared:
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
        result.affinity.update(part.affinity)
        for where, entries in part.elements.items():
            result.elements.setdefault(where, {}).update(entries)
    return result


class RuleSet:
    """The desired rules of all services; `update` returns the commands that lead from the old to the new. Pure."""

    def __init__(self, table: TableConfig) -> None:
        self._table = table
        self._rules: dict[Key, PortRules] = {}
        self._shared = _Shared()

    def update(self, desired: Mapping[Key, PortRules]) -> list[str]:
        """Take over the rules of the services in `desired` (empty rules: the service is gone)."""
        at = f"{self._table.ip} {self._table.name}"
        chains: list[str] = []
        rules: list[str] = []
        gone: list[str] = []
        touched: dict[tuple[str, str], str | None] = {}
        for key, new in desired.items():
            old = self._rules.get(key, _NOTHING)
            if new == old:
                continue
            self._diff_chains(at, old, new, chains, rules, gone)
            self._claim(key, old, new, touched)
            if new == _NOTHING:
                self._rules.pop(key, None)
            else:
                self._rules[key] = new
        removed: dict[str, list[str]] = {}
        added: dict[str, list[str]] = {}
        for element, before in touched.items():
            after = self._shared.value(element)
            if after == before:
                continue
            if before is not None:
                removed.setdefault(element[0], []).append(element[1])
            if after is not None:
                added.setdefault(element[0], []).append(f"{element[1]} : {after}" if after else element[1])
        return [
            *chains,
            *rules,
            *(f"delete element {at} {where} {{ {', '.join(keys)} }}" for where, keys in removed.items()),
            *(f"add element {at} {where} {{ {', '.join(entries)} }}" for where, entries in added.items()),
            # Emptied first: chains that go may still refer to one another.
            *(command for command in gone if command.startswith("flush")),
            *(command for command in gone if not command.startswith("flush")),
        ]

    def _claim(self, key: Key, old: PortRules, new: PortRules, touched: dict[tuple[str, str], str | None]) -> None:
        for where in {**old.elements, **new.elements}:
            before, after = old.elements.get(where, {}), new.elements.get(where, {})
            for entry in before:
                if entry not in after:
                    touched.setdefault((where, entry), self._shared.value((where, entry)))
                    self._shared.drop(key, (where, entry))
            for entry, value in after.items():
                if before.get(entry) != value:
                    touched.setdefault((where, entry), self._shared.value((where, entry)))
                    self._shared.put(key, (where, entry), value)

    @staticmethod
    def _diff_chains(
        at: str, old: PortRules, new: PortRules, chains: list[str], rules: list[str], gone: list[str]
    ) -> None:
        for name, timeout_s in new.affinity.items():
            if old.affinity.get(name) != timeout_s:
                if name in old.affinity:
                    # A set's timeout cannot be changed: its chains are emptied, it is made anew below them.
                    chains += [f"flush chain {at} {chain}" for chain in old.chains if chain in new.chains]
                    chains.append(f"delete set {at} {name}")
                declared = "ipv4_addr" if at.startswith("ip ") else "ipv6_addr"
                chains.append(
                    f"add set {at} {name} {{ type {declared} ; flags dynamic,timeout ; timeout {timeout_s}s ; }}"
                )
        rewritten = any(old.affinity.get(name, t) != t for name, t in new.affinity.items())
        for chain, lines in new.chains.items():
            before = old.chains.get(chain)
            if before == lines and not rewritten:
                continue
            chains.append(f"add chain {at} {chain}")
            if before is not None:
                chains.append(f"flush chain {at} {chain}")
            rules += [f"add rule {at} {chain} {line}" for line in lines]
        for chain in old.chains:
            if chain not in new.chains:
                gone += [f"flush chain {at} {chain}", f"delete chain {at} {chain}"]
        gone += [f"delete set {at} {name}" for name in old.affinity if name not in new.affinity]


class NftablesProxier:
    """`Proxier` on nftables, for one table."""

    def __init__(self, table: TableConfig) -> None:
        self.table = table
        self._rules = RuleSet(table)
        self._trusted = False

    async def sync(self, services: ServiceMap, endpoints: EndpointMap, changed: Collection[Key] | None = None) -> None:
        if changed is not None and self._trusted:
            script = self._rules.update({key: self._desired(key, services, endpoints) for key in changed})
            if not script:
                return
            self._trusted = False
            try:
                await apply_script(script)
            except NftError as error:
                log.warning("rules were refused, writing the whole table anew: %s", error)
            else:
                self._trusted = True
                return
        self._trusted = False
        fresh = RuleSet(self.table)
        script = base_rules(self.table) + fresh.update(
            {key: self._desired(key, services, endpoints) for key in services}
        )
        await apply_script(script)
        self._rules, self._trusted = fresh, True

    async def intact(self) -> bool:
        """Whether our table is still there (`nft flush ruleset` by somebody else removes it)."""
        return any(
            entry.get("table", {}).get("name") == self.table.name and entry["table"]["family"] == self.table.ip
            for entry in await listed("tables")
        )

    async def cleanup(self) -> None:
        self._trusted = False
        await delete_table(self.table.ip, self.table.name)

    def _desired(self, key: Key, services: ServiceMap, endpoints: EndpointMap) -> PortRules:
        behind = endpoints.get(key) or {}
        return combine(self._port(port, behind) for port in services.get(key) or ())

    def _port(self, port: ServicePort, behind: Mapping[Any, Any]) -> PortRules:
        return port_rules(port, choose(behind.get(port.port_name) or ()), self.table)
