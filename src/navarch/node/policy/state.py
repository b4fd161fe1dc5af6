"""What should be in the policies' table, kept up to date change by change; `take` says what that is in nft's commands.

In: policies, pods (of all nodes, as peers) and the labels of namespaces. Only what pods of this node need is there: a
policy's chain while it isolates one of them, the set of a selection's addresses while a chain asks for it. So a change
costs what it touches: a pod that comes is compared with the selections in use that its namespace allows, and moves a
few elements; a policy that changes has another chain, to which the maps lead from then on. Pure.

Invariant: after any changes the state is the one that a fresh start with the same objects would have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from navarch.api.meta import Key
from navarch.node.policy import text
from navarch.node.policy.objects import Line, PeerSelector, Pod, Policy, Port
from navarch.node.policy.text import EGRESS, INGRESS

_SIDES: Final = (EGRESS, INGRESS)


@dataclass(slots=True)
class _Chain:
    """`lines`: what a policy's chain was made of; `jumps`: the chains that a pod's leads to."""

    rules: tuple[str, ...]
    lines: tuple[Line, ...] = ()
    jumps: tuple[str, ...] = ()
    users: int = 0


@dataclass(frozen=True, slots=True)
class _Compiled:
    name: str
    rules: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(slots=True)
class _Journal:
    """What was there before the changes since the last `take`; None: nothing."""

    chains: dict[str, bool] = field(default_factory=dict)
    sets: dict[str, bool] = field(default_factory=dict)
    members: dict[tuple[str, str], bool] = field(default_factory=dict)
    verdicts: dict[tuple[str, str], str | None] = field(default_factory=dict)


class PolicyState:
    def __init__(self, table: str, node: str, families: Sequence[int]) -> None:
        self._at = f"inet {table}"
        self._table = table
        self._node = node
        self._families = tuple(families)
        self._policies: dict[str, dict[Key, Policy]] = {}
        self._compiled: dict[tuple[Key, str], _Compiled] = {}
        self._pods: dict[Key, Pod] = {}
        self._in_namespace: dict[str, dict[Key, None]] = {}
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._local: dict[str, dict[Key, None]] = {}
        # Selections in use, by the one namespace that they look at, or "" for those that look at many.
        self._selections: dict[str, dict[str, tuple[PeerSelector, int]]] = {}
        self._selected: dict[Key, list[str]] = {}
        self._port_names: dict[tuple[str, str], int] = {}
        self.chains: dict[str, _Chain] = {}
        self.sets: dict[str, Counter[str]] = {}
        # Map -> address -> the chains of the pods that have (or just had) it, the one that counts last.
        self.maps: dict[str, dict[str, dict[Key, str]]] = {}
        self._isolated: dict[Key, tuple[str, str]] = {}
        self._journal = _Journal()

    @property
    def has_policies(self) -> bool:
        return any(self._policies.values())

    # Changes.

    def set_policy(self, key: Key, policy: Policy | None) -> None:
        mine = self._policies.setdefault(key.namespace, {})
        old = mine.pop(key, None)
        if policy is not None:
            mine[key] = policy
        for side in _SIDES:
            self._compiled.pop((key, side), None)
        for pod_key in self._local.get(key.namespace, ()):
            labels = self._pods[pod_key].labels
            if any(each is not None and each.pods.matches(labels) for each in (old, policy)):
                self._isolate(pod_key, self._pods[pod_key])

    def set_pod(self, key: Key, pod: Pod | None) -> None:
        old = self._pods.get(key)
        if pod == old:
            return
        if old is not None:
            self._forget_peer(old)
            self._isolate(key, None)
            for index in (self._in_namespace, self._local):
                index.get(key.namespace, {}).pop(key, None)
            del self._pods[key]
        if pod is not None:
            self._pods[key] = pod
            self._in_namespace.setdefault(key.namespace, {})[key] = None
            self._add_peer(pod)
            if pod.node == self._node:
                self._local.setdefault(key.namespace, {})[key] = None
                self._isolate(key, pod)

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        if self._namespaces.get(name) == labels:
            return
        pods = [self._pods[key] for key in self._in_namespace.get(name, ())]
        for pod in pods:
            self._forget_peer(pod)
        if labels is None:
            self._namespaces.pop(name, None)
        else:
            self._namespaces[name] = labels
        for pod in pods:
            self._add_peer(pod)

    def uid_of(self, key: Key) -> str:
        """Of the pod that counts under a name."""
        pod = self._pods.get(key)
        return pod.uid if pod is not None else ""

    # Pods of this node.

    def _isolate(self, key: Key, pod: Pod | None) -> None:
        """Lead the pod's packets through what its policies say now."""
        old = self._isolated.pop(key, None)
        new = None
        if pod is not None:
            chains = tuple(self._chain_of(pod, side) for side in _SIDES)
            if any(chains):
                new = (chains[0], chains[1])
                self._isolated[key] = new
        was = self._pods.get(key)
        for address, family in self._addresses(was) if old else ():
            for side, chain in zip(_SIDES, old or (), strict=False):
                if chain:
                    self._unmap(f"{side}-pods{family}", address, key)
            self._leave(f"selves{family}", f"{address} . {address}")
        for address, family in self._addresses(pod) if new else ():
            for side, chain in zip(_SIDES, new or (), strict=False):
                if chain:
                    self._map(f"{side}-pods{family}", address, key, chain)
            self._join(f"selves{family}", f"{address} . {address}")
        for chain in old or ():
            if chain:
                self._release(chain)

    def _chain_of(self, pod: Pod, side: str) -> str:
        """The chain, taken into use, of what the pod's policies allow in a direction; empty where none isolates it."""
        mine = self._policies.get(pod.key.namespace, {})
        selecting = [mine[key] for key in sorted(mine) if mine[key].pods.matches(pod.labels)]
        allowing = [compiled for policy in selecting if (compiled := self._compile(policy, side)) is not None]
        if not allowing:
            return ""
        # Policies that say the same have one chain.
        jumps = {f"policy-{side}-{compiled.name}": compiled for compiled in allowing if compiled.rules}
        body = (*(f"jump {name}" for name in jumps), "drop")
        name = f"pods-{side}-{text.name_of_chain(body)}"
        if name not in self.chains:
            for jump, compiled in jumps.items():
                self._use(jump, _Chain(compiled.rules, compiled.lines))
        self._use(name, _Chain(body, jumps=tuple(jumps)))
        return name

    def _compile(self, policy: Policy, side: str) -> _Compiled | None:
        """What the policy allows, in nft's words; None where it does not speak of the direction."""
        lines = policy.ingress if side == INGRESS else policy.egress
        if lines is None:
            return None
        compiled = self._compiled.get((policy.key, side))
        if compiled is None:
            rules = text.rules(lines, side, self._families)
            compiled = self._compiled[policy.key, side] = _Compiled(text.name_of_chain(rules), rules, lines)
        return compiled

    def _use(self, name: str, chain: _Chain) -> None:
        known = self.chains.get(name)
        if known is None:
            self._journal.chains.setdefault(name, False)
            known = self.chains[name] = chain
            for line in chain.lines:
                self._use_sets(line)
        known.users += 1

    def _release(self, name: str) -> None:
        chain = self.chains[name]
        chain.users -= 1
        if chain.users:
            return
        self._journal.chains.setdefault(name, True)
        del self.chains[name]
        for line in chain.lines:
            self._release_sets(line)
        for jump in chain.jumps:
            self._release(jump)

    # Sets that chains ask.

    def _use_sets(self, line: Line) -> None:
        if isinstance(line.peer, PeerSelector):
            self._use_selection(line.peer)
        for port in _named(line):
            count = self._port_names.get((port.protocol, port.name), 0)
            self._port_names[port.protocol, port.name] = count + 1
            if not count:
                for family in self._families:
                    self._add_set(text.ports_set(family, port))
                for pod in self._pods.values():
                    for where, member in self._port_members(pod, {(port.protocol, port.name)}):
                        self._join(where, member)

    def _release_sets(self, line: Line) -> None:
        if isinstance(line.peer, PeerSelector):
            self._release_selection(line.peer)
        for port in _named(line):
            self._port_names[port.protocol, port.name] -= 1
            if not self._port_names[port.protocol, port.name]:
                del self._port_names[port.protocol, port.name]
                for family in self._families:
                    self._remove_set(text.ports_set(family, port))

    def _use_selection(self, selector: PeerSelector) -> None:
        identity = selector.identity
        mine = self._selections.setdefault(selector.namespace, {})
        known = mine.get(identity)
        mine[identity] = (selector, (known[1] if known else 0) + 1)
        if known:
            return
        for family in self._families:
            self._add_set(text.peers_set(family, selector))
        for key in list(self._in_namespace.get(selector.namespace, ())) if selector.namespace else list(self._pods):
            pod = self._pods[key]
            if selector.matches(pod, self._namespaces):
                self._selected.setdefault(key, []).append(identity)
                self._change_membership(pod, identity, self._join)

    def _release_selection(self, selector: PeerSelector) -> None:
        identity = selector.identity
        mine = self._selections[selector.namespace]
        count = mine[identity][1] - 1
        if count:
            mine[identity] = (selector, count)
            return
        del mine[identity]
        for key in self._in_namespace.get(selector.namespace, ()) if selector.namespace else self._pods:
            if identity in self._selected.get(key, ()):
                self._selected[key].remove(identity)
        for family in self._families:
            self._remove_set(text.peers_set(family, selector))

    # Pods as peers.

    def _add_peer(self, pod: Pod) -> None:
        for namespace in (pod.key.namespace, ""):
            for identity, (selector, _) in self._selections.get(namespace, {}).items():
                if selector.matches(pod, self._namespaces):
                    self._selected.setdefault(pod.key, []).append(identity)
                    self._change_membership(pod, identity, self._join)
        for where, member in self._port_members(pod, self._port_names):
            self._join(where, member)

    def _forget_peer(self, pod: Pod) -> None:
        for identity in self._selected.pop(pod.key, ()):
            self._change_membership(pod, identity, self._leave)
        for where, member in self._port_members(pod, self._port_names):
            self._leave(where, member)

    def _change_membership(self, pod: Pod, identity: str, change: Callable[[str, str], None]) -> None:
        for address, family in self._addresses(pod):
            change(f"peers{family}-{identity}", address)

    def _port_members(self, pod: Pod, names: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        for name, protocol, number in sorted(pod.ports):
            if (protocol, name) in names:
                for address, family in self._addresses(pod):
                    yield text.ports_set(family, Port(protocol, name=name)), f"{address} . {protocol} . {number}"

    def _addresses(self, pod: Pod | None) -> Iterator[tuple[str, int]]:
        for address in pod.addresses if pod is not None else ():
            family = 6 if ":" in address else 4
            if family in self._families:
                yield address, family

    # The table, and what has changed in it.

    def _add_set(self, name: str) -> None:
        self._journal.sets.setdefault(name, name in self.sets)
        self.sets[name] = Counter()

    def _remove_set(self, name: str) -> None:
        self._journal.sets.setdefault(name, True)
        for member in self.sets.pop(name):
            self._journal.members.setdefault((name, member), True)

    def _join(self, where: str, member: str) -> None:
        members = self.sets.setdefault(where, Counter())
        self._journal.members.setdefault((where, member), member in members)
        members[member] += 1

    def _leave(self, where: str, member: str) -> None:
        members = self.sets[where]
        self._journal.members.setdefault((where, member), True)
        members[member] -= 1
        if not members[member]:
            del members[member]

    def _map(self, where: str, address: str, key: Key, chain: str) -> None:
        owners = self.maps.setdefault(where, {}).setdefault(address, {})
        self._journal.verdicts.setdefault((where, address), _last(owners))
        owners.pop(key, None)
        owners[key] = chain

    def _unmap(self, where: str, address: str, key: Key) -> None:
        owners = self.maps[where][address]
        self._journal.verdicts.setdefault((where, address), _last(owners))
        del owners[key]
        if not owners:
            del self.maps[where][address]

    def verdict(self, where: str, address: str) -> str | None:
        """The chain to which a map leads."""
        return _last(self.maps.get(where, {}).get(address, {}))

    def take(self) -> list[str]:
        """The commands that lead from what the last `take` (or `whole`) left to what should be."""
        journal, self._journal = self._journal, _Journal()
        new_sets = [name for name, before in journal.sets.items() if name in self.sets and not before]
        dead_sets = [name for name, before in journal.sets.items() if name not in self.sets and before]
        new_chains = [name for name, before in journal.chains.items() if name in self.chains and not before]
        dead_chains = [name for name, before in journal.chains.items() if name not in self.chains and before]
        gone: dict[str, list[str]] = {}
        come: dict[str, list[str]] = {}
        for (where, member), was_there in journal.members.items():
            if where in self.sets and (there := member in self.sets[where]) != was_there:
                (come if there else gone).setdefault(where, []).append(member)
        for (where, address), before in journal.verdicts.items():
            after = self.verdict(where, address)
            if after == before:
                continue
            if before is not None:
                gone.setdefault(where, []).append(address)
            if after is not None:
                come.setdefault(where, []).append(f"{address} : goto {after}")
        at = self._at
        return [
            *(self._declared(name) for name in new_sets),
            *(f"add chain {at} {name}" for name in new_chains),
            *(f"delete element {at} {where} {{ {', '.join(members)} }}" for where, members in gone.items()),
            *(f"add element {at} {where} {{ {', '.join(members)} }}" for where, members in come.items()),
            *(f"add rule {at} {name} {rule}" for name in new_chains for rule in self.chains[name].rules),
            # Emptied first: they refer to one another.
            *(f"flush chain {at} {name}" for name in dead_chains),
            *(f"delete chain {at} {name}" for name in dead_chains),
            *(f"delete set {at} {name}" for name in dead_sets),
        ]

    def whole(self) -> list[str]:
        """The commands that make the table, whatever there was."""
        self._journal = _Journal()
        at = self._at
        script = text.base(self._table, self._families)
        script += [self._declared(name) for name in self.sets if not name.startswith("selves")]
        script += [f"add chain {at} {name}" for name in self.chains]
        script += [
            f"add element {at} {name} {{ {', '.join(members)} }}" for name, members in self.sets.items() if members
        ]
        script += [f"add rule {at} {name} {rule}" for name, chain in self.chains.items() for rule in chain.rules]
        for where, addresses in self.maps.items():
            if addresses:
                entries = [f"{address} : goto {_last(owners)}" for address, owners in addresses.items()]
                script.append(f"add element {at} {where} {{ {', '.join(entries)} }}")
        return script

    def _declared(self, name: str) -> str:
        kind, _, _ = name.partition("-")
        address = f"ipv{kind[-1]}_addr"
        of = f"{address} . inet_proto . inet_service" if kind.startswith("ports") else address
        return f"add set {self._at} {name} {{ type {of} ; }}"


def _named(line: Line) -> Iterator[Port]:
    return (port for port in line.ports or () if port.name)


def _last(owners: Mapping[Key, str]) -> str | None:
    return list(owners.values())[-1] if owners else None
