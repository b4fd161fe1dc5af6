"""What the state lets through is what Kubernetes' words about NetworkPolicies say, whatever the order of changes."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from navarch.api.meta import Key, key_of
from navarch.node.policy.objects import Block, Line, PeerSelector, pod_of, policy_of
from navarch.node.policy.state import PolicyState
from navarch.node.policy.text import peers_set, ports_set

Obj = dict[str, Any]
NODE = "here"
FAMILIES = (4, 6)
OUTSIDE = ("192.0.2.7", "198.51.100.9", "2001:db8::9")
PORTS = ((None, None), (80, None), (81, None), (80, 90), ("web", None), ("dns", None))

labels = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["a", "b"]), max_size=2)
requirements = st.fixed_dictionaries(
    {"key": st.sampled_from(["app", "tier"]), "operator": st.sampled_from(["Exists", "DoesNotExist"])}
) | st.fixed_dictionaries(
    {
        "key": st.sampled_from(["app", "tier"]),
        "operator": st.sampled_from(["In", "NotIn"]),
        "values": st.just(["a"]),
    }
)
selectors = st.fixed_dictionaries(
    {}, optional={"matchLabels": labels, "matchExpressions": st.lists(requirements, max_size=1)}
)
blocks = st.sampled_from(
    [
        {"cidr": "0.0.0.0/0"},
        {"cidr": "::/0", "except": ["2001:db8::/32"]},
        {"cidr": "192.0.2.0/24", "except": ["192.0.2.0/28"]},
        {"cidr": "10.42.0.0/16", "except": ["10.42.0.2/31", "10.42.0.8/32"]},
    ]
)
peers = (
    st.fixed_dictionaries({"ipBlock": blocks})
    | st.fixed_dictionaries({"podSelector": selectors})
    | st.fixed_dictionaries({"namespaceSelector": selectors}, optional={"podSelector": selectors})
)


@st.composite
def ports(draw: st.DrawFn) -> Obj:
    port, end = draw(st.sampled_from(PORTS))
    protocol = draw(st.sampled_from([None, "TCP", "UDP", "SCTP"]))
    stated = {"protocol": protocol, "port": port, "endPort": end}
    return {key: value for key, value in stated.items() if value is not None}


def rules(side: str) -> st.SearchStrategy[list[Obj]]:
    rule = st.fixed_dictionaries(
        {}, optional={side: st.lists(peers, max_size=2), "ports": st.lists(ports(), max_size=2)}
    )
    return st.lists(rule, max_size=2)


policies = st.builds(
    lambda namespace, name, spec: {"metadata": {"namespace": namespace, "name": name}, "spec": spec},
    st.sampled_from(["x", "y"]),
    st.sampled_from(["p", "q"]),
    st.fixed_dictionaries(
        {"podSelector": selectors},
        optional={
            "ingress": rules("from"),
            "egress": rules("to"),
            "policyTypes": st.lists(st.sampled_from(["Ingress", "Egress"]), min_size=1, unique=True),
        },
    ),
)


@st.composite
def pods(draw: st.DrawFn) -> Obj:
    number = draw(st.integers(1, 6))
    named = draw(
        st.lists(
            st.sampled_from(
                [
                    {"name": "web", "containerPort": 80},
                    {"name": "web", "containerPort": 85},
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                ]
            ),
            max_size=2,
            unique_by=lambda port: port["name"],
        )
    )
    return {
        "metadata": {"namespace": draw(st.sampled_from(["x", "y"])), "name": f"pod-{number}", "labels": draw(labels)},
        "spec": {
            "nodeName": draw(st.sampled_from([NODE, NODE, "elsewhere"])),
            "containers": [{"ports": named}],
            "hostNetwork": draw(st.sampled_from([False] * 5 + [True])),
        },
        "status": {
            "podIPs": [{"ip": f"10.42.0.{number}"}, {"ip": f"fd42::{number}"}],
            "phase": draw(st.sampled_from(["Running"] * 4 + ["Succeeded"])),
        },
    }


changes = st.lists(
    st.tuples(st.just("policy"), policies, st.booleans())
    | st.tuples(st.just("pod"), pods(), st.booleans())
    | st.tuples(st.just("namespace"), st.tuples(st.sampled_from(["x", "y"]), labels), st.just(True)),
    min_size=1,
    max_size=25,
)


class World:
    """The objects, and the state that follows their changes."""

    def __init__(self) -> None:
        self.policies: dict[Key, Obj] = {}
        self.pods: dict[Key, Obj] = {}
        self.namespaces: dict[str, Mapping[str, str]] = {}
        self.state = PolicyState("t", NODE, FAMILIES)

    def change(self, what: str, value: Any, there: bool) -> None:
        if what == "namespace":
            name, stated = value
            self.namespaces[name] = stated
            self.state.set_namespace(name, stated)
            return
        objects = self.policies if what == "policy" else self.pods
        key = key_of(value)
        if there:
            if what == "pod":
                # Two pods that live at a time have not one address.
                taken = [
                    each for each, pod in self.pods.items() if pod["status"]["podIPs"] == value["status"]["podIPs"]
                ]
                for other in taken:
                    if other != key:
                        self.change("pod", self.pods[other], False)
            objects[key] = value
        else:
            objects.pop(key, None)
        if what == "policy":
            self.state.set_policy(key, policy_of(value) if there else None)
        else:
            self.state.set_pod(key, pod_of(value) if there else None)

    def fresh(self) -> PolicyState:
        state = PolicyState("t", NODE, FAMILIES)
        for key, policy in self.policies.items():
            state.set_policy(key, policy_of(policy))
        for name, stated in self.namespaces.items():
            state.set_namespace(name, stated)
        for key, pod in self.pods.items():
            state.set_pod(key, pod_of(pod))
        return state

    # The model: the words of the API's documentation, straightforwardly.

    def live(self, address: str) -> Obj | None:
        for pod in self.pods.values():
            if {"ip": address} in pod["status"]["podIPs"] and pod["status"]["phase"] == "Running":
                return None if pod["spec"]["hostNetwork"] else pod
        return None

    def allowed(self, source: str, target: str, protocol: str, port: int) -> bool:
        """As far as this node has a say."""
        if source == target:
            return True
        sender, receiver = self.live(source), self.live(target)
        for pod, other, kind, side in ((sender, target, "Egress", "to"), (receiver, source, "Ingress", "from")):
            if pod is None or pod["spec"]["nodeName"] != NODE:
                continue
            isolating = [
                policy
                for policy in self.policies.values()
                if policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
                and selects(policy["spec"]["podSelector"], pod["metadata"]["labels"])
                and kind
                in (policy["spec"].get("policyTypes") or ["Ingress", *["Egress"] * bool(policy["spec"].get("egress"))])
            ]
            if isolating and not any(
                self._rule(rule, side, other, receiver, protocol, port, policy["metadata"]["namespace"])
                for policy in isolating
                for rule in policy["spec"].get(kind.lower()) or ()
            ):
                return False
        return True

    def _rule(
        self, rule: Obj, side: str, other: str, receiver: Obj | None, protocol: str, port: int, namespace: str
    ) -> bool:
        stated = rule.get("ports")
        if stated and not any(self._port(each, receiver, protocol, port) for each in stated):
            return False
        return not rule.get(side) or any(self._peer(peer, other, namespace) for peer in rule[side])

    @staticmethod
    def _port(stated: Obj, receiver: Obj | None, protocol: str, port: int) -> bool:
        if stated.get("protocol", "TCP") != protocol:
            return False
        number = stated.get("port")
        if number is None:
            return True
        if isinstance(number, str):
            own = receiver["spec"]["containers"][0]["ports"] if receiver else []
            named = [each for each in own if each["name"] == number]
            return any(each["containerPort"] == port and each.get("protocol", "TCP") == protocol for each in named)
        return bool(number <= port <= stated.get("endPort", number))

    def _peer(self, peer: Obj, other: str, namespace: str) -> bool:
        if "ipBlock" in peer:
            address, block = ip_address(other), peer["ipBlock"]
            return address in ip_network(block["cidr"]) and not any(
                address in ip_network(each) for each in block.get("except", ())
            )
        pod = self.live(other)
        if pod is None or not selects(peer.get("podSelector", {}), pod["metadata"]["labels"]):
            return False
        home = pod["metadata"]["namespace"]
        if "namespaceSelector" not in peer:
            return bool(home == namespace)
        return home in self.namespaces and selects(peer["namespaceSelector"], self.namespaces[home])


def selects(selector: Obj, stated: Mapping[str, str]) -> bool:
    for key, value in (selector.get("matchLabels") or {}).items():
        if stated.get(key) != value:
            return False
    for each in selector.get("matchExpressions") or ():
        key, values = each["key"], each.get("values", ())
        good = {
            "Exists": key in stated,
            "DoesNotExist": key not in stated,
            "In": stated.get(key) in values,
            "NotIn": stated.get(key) not in values,
        }
        if not good[each["operator"]]:
            return False
    return True


def lets_through(state: PolicyState, source: str, target: str, protocol: str, port: int) -> bool:
    """What the kernel does with the first packet of a connection, given what the state says is in the table."""
    family = 6 if ":" in source else 4
    if f"{source} . {target}" in state.sets.get(f"selves{family}", ()):
        return True
    for side, own, other in (("from", source, target), ("to", target, source)):
        chain = state.verdict(f"{side}-pods{family}", own)
        if chain is None:
            continue
        jumps = state.chains[chain].jumps
        lines = [line for jump in jumps for line in state.chains[jump].lines]
        if not any(_matches(state, line, other, target, protocol, port, family) for line in lines):
            return False
    return True


def _matches(state: PolicyState, line: Line, other: str, target: str, protocol: str, port: int, family: int) -> bool:
    peer = line.peer
    if isinstance(peer, PeerSelector) and other not in state.sets[peers_set(family, peer)]:
        return False
    if isinstance(peer, Block):
        address = ip_address(other)
        if address not in ip_network(peer.cidr) or any(address in ip_network(each) for each in peer.excepted):
            return False
    return line.ports is None or any(
        stated.protocol == protocol.lower()
        and (
            f"{target} . {stated.protocol} . {port}" in state.sets[ports_set(family, stated)]
            if stated.name
            else (not stated.low or stated.low <= port <= stated.high)
        )
        for stated in line.ports
    )


@settings(max_examples=50, deadline=None)
@given(changes)
def test_the_state_lets_through_what_the_policies_say(made: list[tuple[str, Any, bool]]) -> None:
    world = World()
    for change in made:
        world.change(*change)

    addresses = [each["ip"] for pod in world.pods.values() for each in pod["status"]["podIPs"]]
    for source in [*addresses, *OUTSIDE]:
        for target in [*addresses, *OUTSIDE]:
            if (":" in source) != (":" in target) or (source in OUTSIDE and target in OUTSIDE):
                continue
            for protocol, port in (("TCP", 80), ("TCP", 85), ("UDP", 53), ("SCTP", 81)):
                said = world.allowed(source, target, protocol, port)
                assert lets_through(world.state, source, target, protocol, port) == said, (
                    source,
                    target,
                    protocol,
                    port,
                )


class Kernel:
    """The table as it is after scripts: refuses what the kernel would."""

    def __init__(self) -> None:
        self.chains: dict[str, list[str]] = {}
        self.sets: dict[str, set[str]] = {}

    def run(self, script: list[str]) -> None:
        for line in script:
            verb, kind, *words = line.split(" ")
            if kind == "table":
                if verb == "delete":
                    self.chains, self.sets = {}, {}
                continue
            name = words[2]
            rest = " ".join(words[3:])
            if kind in ("set", "map"):
                if verb == "add":
                    assert self.sets.setdefault(name, set()) == set()
                else:
                    assert not any(f"@{name} " in rule for rules in self.chains.values() for rule in rules)
                    del self.sets[name]
            elif kind == "element":
                for element in rest.strip("{} ").split(", "):
                    if verb == "add":
                        assert element.split(" : ")[0] not in {each.split(" : ")[0] for each in self.sets[name]}
                        self.sets[name].add(element)
                    else:
                        (there,) = [each for each in self.sets[name] if each.split(" : ")[0] == element]
                        self.sets[name].remove(there)
            elif kind == "chain":
                if verb == "add":
                    assert name not in self.chains
                    self.chains[name] = []
                elif verb == "flush":
                    self.chains[name] = []
                else:
                    assert not any(rule.endswith(f"jump {name}") for rules in self.chains.values() for rule in rules)
                    assert not any(e.endswith(f" goto {name}") for elements in self.sets.values() for e in elements)
                    del self.chains[name]
            else:
                self.chains[name].append(rest)


@settings(max_examples=50, deadline=None)
@given(st.lists(changes, min_size=1, max_size=5))
def test_changes_lead_where_a_fresh_start_does(steps: list[list[tuple[str, Any, bool]]]) -> None:
    world, kernel, anew = World(), Kernel(), Kernel()
    kernel.run(world.state.whole())
    for made in steps:
        for change in made:
            world.change(*change)
        kernel.run(world.state.take())

    anew.run(world.fresh().whole())

    # Sets of the selves are there from the beginning, others while a chain asks for them.
    assert kernel.chains == anew.chains
    assert kernel.sets == anew.sets
    assert world.state.take() == []
