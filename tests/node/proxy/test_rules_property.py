"""Whatever changes in whatever order: applying the commands step by step gives what writing everything anew gives."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from navarch.api.meta import Key
from navarch.node.proxy.base import Endpoint, PortName, ProxierConfig, ServicePort
from navarch.node.proxy.nftables import NftablesProxier, RuleSet
from navarch.node.proxy.rules import base_rules, declared

TABLE = ProxierConfig("navarch-p", "10.42.0.0/16", "10.43.0.0/16")
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
        in_use = any(value == f"goto {name}" for entries in self.sets.values() for value in entries.values())
        assert not in_use, "a chain that verdicts lead to cannot be deleted"
        del self.chains[name]

    def add_rule(self, chain: str, rule: str) -> None:
        self.chains[chain].append(rule)

    def add_set(self, name: str, declared: str) -> None:
        assert self.declared.setdefault(name, declared) == declared, "a set cannot be declared in two ways"
        self.sets.setdefault(name, {})

    add_map = add_set

    def add_element(self, where: str, entries: str) -> None:
        for entry in entries.strip("{ }").split(", "):
            key, _, value = entry.partition(" : ")
            assert len(key.split(" . ")) == len(declared(where).key)
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

    def meaning(self) -> Any:
        """What is in the sets. Chains that all services share may be there without being needed; of numbered maps it
        matters what a frontend finds in all of them together, since seats are given in the order of arrival."""
        plain: dict[str, Any] = {}
        for name, entries in self.sets.items():
            kind, _, number = name.rpartition("-")
            if not number.isdigit() or kind.startswith("affinity"):
                plain[name] = {key: re.sub(r"-of-\d+-", "-", value) for key, value in entries.items()}
                continue
            for key, value in entries.items():
                if kind.endswith("-seats"):
                    pool, seat = re.fullmatch(r"goto stick-(.*)-(\d+)-\d+s", value).groups()  # type: ignore[union-attr]
                    value = self.sets[f"{pool}-{seat}"][key]
                plain.setdefault(kind, {}).setdefault(key, []).append(value)
        for kind, entries in plain.items():
            plain[kind] = {key: sorted(value) if isinstance(value, list) else value for key, value in entries.items()}
        firewalls = {name: rules for name, rules in self.chains.items() if name.startswith("firewall-")}
        return {kind: entries for kind, entries in plain.items() if entries}, firewalls


ADDRESSES = [f"10.42.0.{number}" for number in range(2, 8)]


@st.composite
def endpoints(draw: st.DrawFn) -> tuple[Endpoint, ...]:
    if draw(st.integers(0, 20)) == 0:
        count = draw(st.integers(23, 40))
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


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(change(), min_size=1, max_size=3), max_size=8))
def test_step_by_step_is_the_same_as_all_at_once(
    steps: list[list[tuple[Key, tuple[ServicePort, ...], dict[PortName, tuple[Endpoint, ...]]]]],
) -> None:
    services: Services = {}
    behind: Endpoints = {}
    table, rules, proxier = Table(), RuleSet(TABLE), NftablesProxier(TABLE)
    table.run(base_rules(TABLE))
    for step in steps:
        for key, ports, found in step:
            services[key], behind[key] = ports, found
            if not ports:
                del services[key], behind[key]
        changed = {key for key, _, _ in step}
        desired = {key: proxier._desired(key, services, behind) for key in changed}
        table.run(rules.update(desired).script(TABLE))

        anew, other = Table(), NftablesProxier(TABLE)
        anew.run(base_rules(TABLE))
        everything = {key: other._desired(key, services, behind) for key in services}
        anew.run(RuleSet(TABLE).update(everything).script(TABLE))
        assert table.meaning() == anew.meaning()
        assert not rules.update({key: proxier._desired(key, services, behind) for key in services})
