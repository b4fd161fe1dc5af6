"""The iptables backend: what every service should have, compared with what was last written, is one `iptables-restore`.

Only what differs is written, with `--noflush`: a service's own chains as a whole, its lines in the chains of all one by
one. When that is refused (somebody else changed our chains), everything is written anew; chains with our prefix that
nobody needs any more are found in what `iptables-save` says and go with it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from navarch.api.meta import Key
from navarch.node.proxy.base import EndpointMap, ProxierConfig, ServiceMap
from navarch.node.proxy.chains import Names, ServiceRules, Where, base_chains, combine, hooks, port_chains
from navarch.node.proxy.commands import CommandError, run_command
from navarch.node.proxy.services import choose

log = logging.getLogger(__name__)

_NOTHING = ServiceRules()
_TABLES: Final = ("nat", "filter")
# A thousand services take seconds, ten thousand with the kind that is made of nftables minutes.
_LIMIT_S: Final = 900.0
FLAVOURS: Final = ("", "nft-", "legacy-")
"""The machine's default, and the two kinds that it chooses from."""


@dataclass(slots=True)
class _Script:
    """Commands of one table, in the order in which they are safe."""

    declared: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[str]:
        yield from self.declared
        yield from self.taken
        yield from self.added
        yield from self.gone


class _Scripts:
    def __init__(self) -> None:
        self._of = {table: _Script() for table in _TABLES}

    def write(self, where: Where, rules: Iterable[str]) -> None:
        """Make a chain consist of `rules`."""
        script = self._of[where.table]
        script.declared.append(f":{where.chain} - [0:0]")
        script.added += [f"-A {where.chain} {rule}" for rule in rules]

    def remove(self, where: Where) -> None:
        script = self._of[where.table]
        script.declared.append(f":{where.chain} - [0:0]")
        script.gone.append(f"-X {where.chain}")

    def insert(self, where: Where, rule: str) -> None:
        self._of[where.table].added.append(f"-I {where.chain} 1 {rule}")

    def take(self, where: Where, rule: str) -> None:
        self._of[where.table].taken.append(f"-D {where.chain} {rule}")

    def text(self) -> str:
        lines: list[str] = []
        for table, script in self._of.items():
            if commands := list(script):
                lines += [f"*{table}", *commands, "COMMIT"]
        return "".join(f"{line}\n" for line in lines)


class ChainSet:
    """The desired rules of all services; `update` returns the script from the old to the new. Pure."""

    def __init__(self, names: Names, config: ProxierConfig) -> None:
        self._names, self._config = names, config
        self._rules: dict[Key, ServiceRules] = {}

    def update(self, desired: Mapping[Key, ServiceRules]) -> str:
        """Take over the rules of the services in `desired` (empty rules: the service is gone)."""
        scripts = _Scripts()
        for key, new in desired.items():
            old = self._rules.get(key, _NOTHING)
            for where, rules in new.own.items():
                if old.own.get(where) != rules:
                    scripts.write(where, rules)
            for where in old.own:
                if where not in new.own:
                    scripts.remove(where)
            for where in {**old.lines, **new.lines}:
                before, after = old.lines.get(where, ()), new.lines.get(where, ())
                for line in before:
                    if line not in after:
                        scripts.take(where, line)
                for line in after:
                    if line not in before:
                        scripts.insert(where, line)
            self._keep(key, new)
        return scripts.text()

    def anew(self, desired: Mapping[Key, ServiceRules], saved: str) -> str:
        """Write everything, whatever there is; `saved` is what `iptables-save` says."""
        self._rules.clear()
        chains = {where: list(rules) for where, rules in base_chains(self._names, self._config).items()}
        for key, new in desired.items():
            for where, lines in new.lines.items():
                chains[where][:0] = lines
            chains.update({where: list(rules) for where, rules in new.own.items()})
            self._keep(key, new)
        scripts = _Scripts()
        for where, written in chains.items():
            scripts.write(where, written)
        present = list(chains_in(saved))
        for where in present:
            if where.chain.startswith(self._names.prefix) and where not in chains:
                scripts.remove(where)
        for where, hook in reversed(hooks(self._names)):
            if not any(line.endswith(f"-j {hook.rpartition(' ')[2]}") for line in rules_in(saved, where)):
                scripts.insert(where, hook)
        return scripts.text()

    def _keep(self, key: Key, new: ServiceRules) -> None:
        if new == _NOTHING:
            self._rules.pop(key, None)
        else:
            self._rules[key] = new


def chains_in(saved: str) -> Iterator[Where]:
    """The chains that `iptables-save` lists."""
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            yield Where(table, line[1:].partition(" ")[0])


def rules_in(saved: str, where: Where) -> Iterator[str]:
    """The rules of one chain."""
    table, begin = "", f"-A {where.chain} "
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif table == where.table and line.startswith(begin):
            yield line[len(begin) :]


def removal(names: Names, saved: str) -> str:
    """The script that removes every chain with the prefix, and what leads there."""
    scripts = _Scripts()
    for where in chains_in(saved):
        if where.table not in _TABLES:
            continue
        if where.chain.startswith(names.prefix):
            scripts.remove(where)
            continue
        for line in rules_in(saved, where):
            if f"-j {names.prefix}" in line:
                scripts.take(where, line)
    return scripts.text()


class IptablesProxier:
    """`Proxier` on iptables; `flavour` picks one of the two kinds where a machine has both."""

    def __init__(self, config: ProxierConfig, flavour: str = "") -> None:
        self.config = config
        self._names = Names(config.name)
        self._flavour = flavour
        self._chains = ChainSet(self._names, config)
        self._trusted = False

    async def sync(self, services: ServiceMap, endpoints: EndpointMap, changed: Collection[Key] | None = None) -> None:
        if changed is not None and self._trusted:
            script = self._chains.update({key: self._desired(key, services, endpoints) for key in changed})
            if not script:
                return
            self._trusted = False
            try:
                await self._restore(script)
            except CommandError as error:
                log.warning("rules were refused, writing all of them anew: %s", error)
            else:
                self._trusted = True
                return
        self._trusted = False
        desired = {key: self._desired(key, services, endpoints) for key in services}
        await self._restore(self._chains.anew(desired, await self._save()))
        self._trusted = True

    async def intact(self) -> bool:
        """Whether the chains are still there and are led to."""
        saved = await self._save()
        return all(
            any(line.endswith(hook.rpartition(" ")[2]) for line in rules_in(saved, where))
            for where, hook in hooks(self._names)
        )

    async def cleanup(self) -> None:
        self._trusted = False
        script = removal(self._names, await self._save())
        if script:
            await self._restore(script)

    def _desired(self, key: Key, services: ServiceMap, endpoints: EndpointMap) -> ServiceRules:
        behind = endpoints.get(key) or {}
        return combine(
            port_chains(port, choose(behind.get(port.port_name) or ()), self._names, self.config)
            for port in services.get(key) or ()
        )

    async def _restore(self, script: str) -> None:
        await run_command(self._command("restore"), "--noflush", "-w", "5", script=script, limit_s=_LIMIT_S)

    async def _save(self) -> str:
        return await run_command(self._command("save"))

    def _command(self, what: str) -> str:
        return f"{'ip6tables' if self.config.family == 6 else 'iptables'}-{self._flavour}{what}"


def flavours() -> list[str]:
    """The kinds of iptables that this machine has."""
    return [each for each in FLAVOURS if shutil.which(f"iptables-{each}restore")]
