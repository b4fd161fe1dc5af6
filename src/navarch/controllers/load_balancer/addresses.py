"""Which addresses a Service of type LoadBalancer gets: those of nodes that may serve, where its ports are free. Pure.

The proxy of every node takes what is sent to these addresses, so one address has a port once: who holds it keeps it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from navarch.api.meta import Obj, is_deleting, labels_of, name_of
from navarch.kinds.core.pod_state import condition_of

CLASS: Final = "navarch.dev/node"
"""What a Service names as its `loadBalancerClass` to be served here; without any it is, too."""
EXCLUDED: Final = "node.kubernetes.io/exclude-from-external-load-balancers"
GOING: Final = "ToBeDeletedByClusterAutoscaler"
_MOST_NODES: Final = 64


class Port(NamedTuple):
    protocol: str
    number: int


class Claim(NamedTuple):
    """A port at an address."""

    address: str
    port: Port


def is_ours(service: Obj) -> bool:
    """Whether the Service asks for a load balancer, and for no other than this one."""
    spec = service.get("spec") or {}
    return spec.get("type") == "LoadBalancer" and spec.get("loadBalancerClass") in (None, "", CLASS)


def may_serve(node: Obj) -> bool:
    """Whether load balancers may send to the node: it is ready, stays, and nobody has excluded it."""
    if is_deleting(node) or EXCLUDED in labels_of(node):
        return False
    if any(taint.get("key") == GOING for taint in (node.get("spec") or {}).get("taints") or ()):
        return False
    return (condition_of(node, "Ready") or {}).get("status") == "True"


def addresses_of(node: Obj, families: Sequence[str]) -> list[str]:
    """The node's addresses in the order of the families: those that it has outside, else those inside."""
    listed = (node.get("status") or {}).get("addresses") or ()
    for kind in ("ExternalIP", "InternalIP"):
        of_kind = [str(entry.get("address") or "") for entry in listed if entry.get("type") == kind]
        found = [address for family in families for address in of_kind if address and _family(address) == family]
        if found:
            return found
    return []


def _family(address: str) -> str:
    return "IPv6" if ":" in address else "IPv4"


def ports_of(service: Obj) -> list[Port]:
    return [Port(port.get("protocol") or "TCP", int(port["port"])) for port in service["spec"].get("ports") or ()]


def given(service: Obj) -> list[str]:
    """The addresses that the Service's status says it has."""
    entries = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return [str(entry["ip"]) for entry in entries if entry.get("ip")]


def claims_of(service: Obj) -> list[Claim]:
    return [Claim(address, port) for address in given(service) for port in ports_of(service)]


def own_ports(nodes: Iterable[Obj], api_slices: Iterable[Obj]) -> dict[Claim, str]:
    """Ports at nodes' addresses that are not to be given away, and to whom they belong: kubelets and API servers."""
    found: dict[Claim, str] = {}
    for node in nodes:
        endpoint = ((node.get("status") or {}).get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}
        if endpoint.get("Port"):
            for address in addresses_of(node, ("IPv4", "IPv6")):
                found[Claim(address, Port("TCP", int(endpoint["Port"])))] = f"the kubelet of {name_of(node)}"
    for each in api_slices:
        for entry in each.get("endpoints") or ():
            for address in entry.get("addresses") or ():
                for port in each.get("ports") or ():
                    found[Claim(address, Port("TCP", int(port.get("port") or 0)))] = "the API server"
    return found


class Outcome(NamedTuple):
    """What the Service gets, and who is in its way where that is less than it could have."""

    addresses: list[str]
    conflict: str = ""


def choose(
    service: Obj, nodes: Iterable[Obj], taken: Mapping[Claim, str], with_endpoints: Collection[str] | None = None
) -> Outcome:
    """`taken` says by whom; `with_endpoints` are the nodes that have a pod of the Service, where only these serve."""
    families = service["spec"].get("ipFamilies") or ["IPv4"]
    ports = ports_of(service)
    found: list[str] = []
    conflict = ""
    serving = sorted((node for node in nodes if may_serve(node)), key=name_of)
    for node in serving:
        if with_endpoints is not None and name_of(node) not in with_endpoints:
            continue
        for address in addresses_of(node, families):
            holder = next(((taken[claim], claim) for port in ports if (claim := Claim(address, port)) in taken), None)
            if holder is None:
                found.append(address)
            elif not conflict:
                who, claim = holder
                conflict = f"port {claim.port.number}/{claim.port.protocol} of {address} belongs to {who}"
        if len(found) >= _MOST_NODES * len(families):
            break
    return Outcome(list(dict.fromkeys(found)), conflict)
