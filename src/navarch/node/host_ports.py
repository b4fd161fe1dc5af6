"""Host ports: what is sent to a port of the node goes to the container that asked for it.

In: the node's pods. Out: elements of two maps in the pod network's table, for ports on every address of the node and
for those on one. The rules are ours instead of a plugin's, so that they follow the pods whatever became of their
sandboxes, survive a restart of the agent, and go with the cluster.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
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


class HostPorts(NamedTuple):
    """The elements of the maps and of the set of pods that may reach themselves by the node."""

    anywhere: dict[str, str]
    at_address: dict[str, str]
    hairpins: frozenset[str]


def host_ports_of(pods: Iterable[Obj]) -> HostPorts:
    """What the pods want; of two with the same port the one that stays, then the younger, has it."""
    result = HostPorts({}, {}, frozenset())
    addresses = set()
    ordered = sorted(pods, key=lambda pod: (not is_deleting(pod), pod["metadata"].get("creationTimestamp") or ""))
    for pod in ordered:
        spec, status = pod.get("spec") or {}, pod.get("status") or {}
        address = status.get("podIP") or ""
        if spec.get("hostNetwork") or not address or ":" in address or is_finished(pod):
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
                elif ":" not in host_ip:
                    result.at_address[f"{host_ip} . {key}"] = target
    return result._replace(hairpins=frozenset(f"{address} . {address}" for address in addresses))


def rules(table: str, pod_cidr: str) -> list[str]:
    """The part of the pod network's table that is about host ports; repeating it keeps the elements."""
    at = f"ip {table}"
    protocols = "meta l4proto { tcp, udp, sctp }"
    script = [
        f"add map {at} {ANYWHERE} {{ type inet_proto . inet_service : ipv4_addr . inet_service ; }}",
        f"add map {at} {AT_ADDRESS} {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service ; }}",
        f"add set {at} {HAIRPINS} {{ type ipv4_addr . ipv4_addr ; }}",
    ]
    chains = {
        "host-ports-to-pods": [
            f"{protocols} dnat ip to ip daddr . meta l4proto . th dport map @{AT_ADDRESS}",
            f"{protocols} dnat ip to meta l4proto . th dport map @{ANYWHERE}",
        ],
        "host-ports-masquerade": [
            f"ct status dnat ip saddr . ip daddr @{HAIRPINS} masquerade",
            f"ct status dnat ip saddr 127.0.0.0/8 ip daddr {pod_cidr} masquerade",
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


def elements_script(table: str, wanted: HostPorts) -> list[str]:
    """Replace what the maps hold, in one transaction."""
    at = f"ip {table}"
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


async def run(client: Client, node_name: str, table: str) -> None:
    """Keep the maps in line with the node's pods until cancelled."""
    informer = Informer(client, PODS, fields=f"spec.nodeName={node_name}", transform=_slim)
    written: HostPorts | None = None

    async def write() -> None:
        nonlocal written
        wanted = host_ports_of(informer.list())
        if wanted != written:
            await apply_script(elements_script(table, wanted))
            written = wanted

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
        "status": {"podIP": status.get("podIP"), "phase": status.get("phase")},
    }
