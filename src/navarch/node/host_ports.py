"""Host ports: what is sent to a port of the node goes to the container that asked for it.

In: the node's pods. Out: elements of two maps in the pod network's table, for ports on every address of the node and
for those on one. The rules are ours instead of a plugin's, so that they follow the pods whatever became of their
sandboxes, survive a restart of the agent, and go with the cluster.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from navarch.api.meta import Obj, is_deleting
from navarch.client.base import Client
from navarch.client.following import follow
from navarch.client.informer import Informer
from navarch.client.resources import PODS
from navarch.kinds.core.pod_state import is_finished
from navarch.node.proxy.nftables import apply_script

log = logging.getLogger(__name__)

ANYWHERE: Final = "host-ports"
AT_ADDRESS: Final = "host-ports-at"
HAIRPINS: Final = "host-port-hairpins"
_WORDS: Final = {4: "ip", 6: "ip6"}


class HostPorts(NamedTuple):
    """The elements of the maps and of the set of pods that may reach themselves by the node."""

    anywhere: dict[str, str]
    at_address: dict[str, str]
    hairpins: frozenset[str]


def host_ports_of(pods: Iterable[Obj], family: int = 4) -> HostPorts:
    """What the pods want of a family (4 or 6); of two with the same port the one that stays, then the younger, has
    it."""
    result = HostPorts({}, {}, frozenset())
    addresses = set()
    ordered = sorted(pods, key=lambda pod: (not is_deleting(pod), pod["metadata"].get("creationTimestamp") or ""))
    for pod in ordered:
        spec, status = pod.get("spec") or {}, pod.get("status") or {}
        own = [entry["ip"] for entry in status.get("podIPs") or ()] or [status.get("podIP") or ""]
        address = next((each for each in own if each and (":" in each) == (family == 6)), "")
        if spec.get("hostNetwork") or not address or is_finished(pod):
            continue
        for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
            for port in container.get("ports") or ():
                if not port.get("hostPort"):
                    continue
                addresses.add(address)
                target = f"{address} . {port['containerPort']}"
                key = f"{(port.get('protocol') or 'TCP').lower()} . {port['hostPort']}"
                host_ip = port.get("hostIP") or "0.0.0.0"
                if host_ip in ("0.0.0.0", "::"):
                    result.anywhere[key] = target
                elif (":" in host_ip) == (family == 6):
                    result.at_address[f"{host_ip} . {key}"] = target
    return result._replace(hairpins=frozenset(f"{address} . {address}" for address in addresses))


def rules(table: str, pod_cidr: str, family: int = 4) -> list[str]:
    """The part of the pod network's table of a family that is about host ports; repeating it keeps the elements."""
    ip = _WORDS[family]
    at, address = f"{ip} {table}", f"ipv{family}_addr"
    loopback = "::1" if family == 6 else "127.0.0.0/8"
    protocols = "meta l4proto { tcp, udp, sctp }"
    script = [
        f"add map {at} {ANYWHERE} {{ type inet_proto . inet_service : {address} . inet_service ; }}",
        f"add map {at} {AT_ADDRESS} {{ type {address} . inet_proto . inet_service : {address} . inet_service ; }}",
        f"add set {at} {HAIRPINS} {{ type {address} . {address} ; }}",
    ]
    chains = {
        "host-ports-to-pods": [
            f"{protocols} dnat {ip} to {ip} daddr . meta l4proto . th dport map @{AT_ADDRESS}",
            f"{protocols} dnat {ip} to meta l4proto . th dport map @{ANYWHERE}",
        ],
        "host-ports-masquerade": [
            f"ct status dnat {ip} saddr . {ip} daddr @{HAIRPINS} masquerade",
            f"ct status dnat {ip} saddr {loopback} {ip} daddr {pod_cidr} masquerade",
        ],
        "host-ports-prerouting": ["fib daddr type local jump host-ports-to-pods"],
        "host-ports-output": ["fib daddr type local jump host-ports-to-pods"],
    }
    # Before the services' chains: a host port is nearer than a node port of the same number.
    hooks = {"host-ports-prerouting": "prerouting", "host-ports-output": "output"}
    for chain, lines in chains.items():
        hook = f" {{ type nat hook {hooks[chain]} priority -101 ; }}" if chain in hooks else ""
        script += [f"add chain {at} {chain}{hook}", f"flush chain {at} {chain}"]
        script += [f"add rule {at} {chain} {line}" for line in lines]
    return script


def elements_script(table: str, wanted: HostPorts, family: int = 4) -> list[str]:
    """Replace what the maps hold, in one transaction."""
    at = f"{_WORDS[family]} {table}"
    script = []
    for name, entries in (
        (ANYWHERE, [f"{key} : {value}" for key, value in sorted(wanted.anywhere.items())]),
        (AT_ADDRESS, [f"{key} : {value}" for key, value in sorted(wanted.at_address.items())]),
        (HAIRPINS, sorted(wanted.hairpins)),
    ):
        script.append(f"flush {'set' if name == HAIRPINS else 'map'} {at} {name}")
        if entries:
            script.append(f"add element {at} {name} {{ {', '.join(entries)} }}")
    return script


async def run(client: Client, node_name: str, table: str, families: Sequence[int] = (4,)) -> None:
    """Keep the maps of each family in line with the node's pods until cancelled."""
    informer = Informer(client, PODS, fields=f"spec.nodeName={node_name}", transform=_slim)
    written: dict[int, HostPorts] = {}

    async def write() -> None:
        for family in families:
            wanted = host_ports_of(informer.list(), family)
            if wanted != written.get(family):
                await apply_script(elements_script(table, wanted, family))
                written[family] = wanted

    await follow("host ports", [informer], write)


def _slim(pod: Obj) -> Obj:
    """Only what host ports depend on."""
    kept = ("name", "namespace", "resourceVersion", "creationTimestamp", "deletionTimestamp")
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    containers = {
        part: [{"ports": one["ports"]} for one in spec.get(part) or () if one.get("ports")]
        for part in ("initContainers", "containers")
    }
    return {
        "metadata": {name: pod["metadata"][name] for name in kept if name in pod["metadata"]},
        "spec": {"hostNetwork": spec.get("hostNetwork"), **containers},
        "status": {"podIP": status.get("podIP"), "podIPs": status.get("podIPs"), "phase": status.get("phase")},
    }
