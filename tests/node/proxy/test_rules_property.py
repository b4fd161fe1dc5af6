"""Whatever changes in whatever order: applying the commands step by step gives what writing everything anew gives."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from navarch.api.meta import Key
from navarch.node.proxy.base import Endpoint, PortName, ServicePort
from navarch.node.proxy.nftables import NftablesProxier, RuleSet
from navarch.node.proxy.rules import SLOTS, TableConfig, base_rules

TABLE = TableConfig("navarch-p", "10.42.0.0/16", "10.43.0.0/16")
HTTP, DNS = PortName("http", "TCP"), PortName("dns", "UDP")

Services = dict[Key, tuple[ServicePort, ...]]
Endpoints = dict[Key, dict[PortName, tuple[Endpoint, ...]]]


class Table:
    """What nftables makes of commands; refuses what nft refuses."""

    def __init__(self) -> None:
        self.chains: dict[str, list[str]] = {}
        self.sets: dict[str, dict[str, str]] = {}
        self.declared: dict[str, str] = {}

    def run(self, script: list[str]) -> None:
        for command in script:
            verb, kind, rest = re.fullmatch(r"(\w+) (\w+) ip navarch-p ?(.*)", command).groups()  # type: ignore[union-attr]
            if kind != "table":
                getattr(self, f"{verb}_{kind}")(*rest.split(" ", 1))
        self._check()

    def add_chain(self, name: str, hook: str = "") -> None:
        self.chains.setdefault(name, [hook] if hook else [])

    def flush_chain(self, name: str) -> None:
        self.chains[name].clear()

    def delete_chain(self, name: str) -> None:
        assert self.chains.pop(name) == [], "a chain with rules cannot be deleted"

    def add_rule(self, chain: str, rule: str) -> None:
        self.chains[chain].append(rule)

    def add_set(self, name: str, declared: str) -> None:
        assert self.declared.setdefault(name, declared) == declared, "a set cannot be declared in two ways"
        self.sets.setdefault(name, {})

    add_map = add_set

    def delete_set(self, name: str) -> None:
        assert not any(f"@{name} " in f"{rule} " for rules in self.chains.values() for rule in rules), "set in use"
        del self.sets[name], self.declared[name]

    def add_element(self, where: str, entries: str) -> None:
        for entry in entries.strip("{ }").split(", "):
            key, _, value = entry.partition(" : ")
            assert self.sets[where].setdefault(key, value) == value, "an element has one value"

    def delete_element(self, where: str, keys: str) -> None:
        for key in keys.strip("{ }").split(", "):
            del self.sets[where][key]

    def _check(self) -> None:
        """Verdicts and rules refer to chains and sets that are there."""
        rules = [rule for chain in self.chains.values() for rule in chain]
        for text in (*rules, *(value for entries in self.sets.values() for value in entries.values())):
            for target in re.findall(r"(?:goto|jump) ([^ ,}]+)", text):
                assert target in self.chains, target
            for name in re.findall(r"@([^ }]+)", text):
                assert name in self.sets, name

    def state(self) -> Any:
        return self.chains, self.sets, self.declared


ADDRESSES = [f"10.42.0.{number}" for number in range(2, 8)]


@st.composite
def endpoints(draw: st.DrawFn) -> tuple[Endpoint, ...]:
    if draw(st.integers(0, 20)) == 0:
        count = draw(st.integers(SLOTS - 1, SLOTS + 2))
        return tuple(Endpoint(f"10.42.1.{number}", 8080) for number in range(count))
    return tuple(
        Endpoint(
            address,
            draw(st.sampled_from([8080, 9090])),
            local=draw(st.booleans()),
            ready=(ready := draw(st.booleans())),
            serving=ready or draw(st.booleans()),
            terminating=not ready and draw(st.booleans()),
        )
        for address in draw(st.sets(st.sampled_from(ADDRESSES), max_size=5).map(sorted))
    )


@st.composite
def change(draw: st.DrawFn) -> tuple[Key, tuple[ServicePort, ...], dict[PortName, tuple[Endpoint, ...]]]:
    """A service as it is from now on; without ports it is gone."""
    number = draw(st.integers(1, 3))
    key = Key("default", f"s{number}")
    names = draw(st.sets(st.sampled_from([HTTP, DNS]), max_size=2).map(sorted))
    settings_ = {
        # One external address for all: services quarrel over it.
        "external_ips": draw(st.sampled_from([(), ("198.51.100.1",)])),
        "load_balancer_ips": draw(st.sampled_from([(), ("198.51.100.2",)])),
        "source_ranges": draw(st.sampled_from([(), ("192.0.2.0/24",)])),
        "affinity_s": draw(st.sampled_from([0, 0, 10, 20])),
        "internal_local": draw(st.booleans()),
        "external_local": draw(st.booleans()),
    }
    has_node_port = draw(st.booleans())
    ports = tuple(
        ServicePort(
            key,
            name,
            80,
            (f"10.43.0.{number}",),
            node_port=(30000 + 10 * number + (name == DNS)) if has_node_port else 0,
            **settings_,
        )
        for name in names
    )
    return key, ports, {name: draw(endpoints()) for name in names}


def desired(services: Services, behind: Endpoints, key: Key) -> Any:
    return NftablesProxier(TABLE)._desired(key, services, behind)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(change(), min_size=1, max_size=3), max_size=8))
def test_step_by_step_is_the_same_as_all_at_once(
    steps: list[list[tuple[Key, tuple[ServicePort, ...], dict[PortName, tuple[Endpoint, ...]]]]],
) -> None:
    services: Services = {}
    behind: Endpoints = {}
    table, rules = Table(), RuleSet(TABLE)
    table.run(base_rules(TABLE))
    for step in steps:
        for key, ports, found in step:
            services[key], behind[key] = ports, found
            if not ports:
                del services[key], behind[key]
        changed = {key for key, _, _ in step}
        table.run(rules.update({key: desired(services, behind, key) for key in changed}))

        anew = Table()
        anew.run(base_rules(TABLE))
        anew.run(RuleSet(TABLE).update({key: desired(services, behind, key) for key in services}))
        assert table.state() == anew.state()
        assert rules.update({key: desired(services, behind, key) for key in services}) == []
