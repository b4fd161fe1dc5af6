"""From Service and EndpointSlice objects to `ServicePort`s and `Endpoint`s; which endpoints get the traffic. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from navarch.api.meta import Key, Obj, key_of, labels_of, namespace_of
from navarch.node.proxy.base import Endpoint, PortName, ServicePort

SERVICE_NAME: Final = "kubernetes.io/service-name"
HEADLESS: Final = "service.kubernetes.io/headless"
PROXY_NAME: Final = "service.kubernetes.io/service-proxy-name"
_DEFAULT_AFFINITY_S: Final = 10800


@dataclass(frozen=True, slots=True)
class Place:
    """The node that proxies: its name, zone, and the IP family of its rules (4 or 6)."""

    node_name: str
    zone: str = ""
    family: int = 4


def _of_family(addresses: Iterable[str], family: int) -> tuple[str, ...]:
    # The API server has validated the addresses, so a colon is all that tells the families apart.
    return tuple(dict.fromkeys(address for address in addresses if address and (":" in address) == (family == 6)))


def is_proxied(service: Obj) -> bool:
    """Whether the service has a virtual IP for us to serve."""
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName" or PROXY_NAME in labels_of(service):
        return False
    return spec.get("clusterIP") not in (None, "", "None")


def service_ports(service: Obj, family: int = 4) -> tuple[ServicePort, ...]:
    """The ports that the service offers in one IP family; none for headless and ExternalName services."""
    if not is_proxied(service):
        return ()
    spec = service["spec"]
    cluster_ips = _of_family(spec.get("clusterIPs") or [spec["clusterIP"]], family)
    if not cluster_ips:
        return ()
    affinity_s = 0
    if spec.get("sessionAffinity") == "ClientIP":
        client_ip = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        affinity_s = client_ip.get("timeoutSeconds") or _DEFAULT_AFFINITY_S
    balancer_ips: tuple[str, ...] = ()
    if spec.get("type") == "LoadBalancer":
        ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
        # `Proxy` mode says that the balancer's address is not to be short-cut.
        direct = [entry.get("ip", "") for entry in ingress if entry.get("ipMode", "VIP") == "VIP"]
        balancer_ips = _of_family(direct, family)
    external_local = spec.get("externalTrafficPolicy") == "Local"
    key = key_of(service)
    return tuple(
        ServicePort(
            service=key,
            port_name=PortName(port.get("name") or "", port.get("protocol") or "TCP"),
            port=port["port"],
            cluster_ips=cluster_ips,
            node_port=port.get("nodePort") or 0,
            external_ips=_of_family(spec.get("externalIPs") or (), family),
            load_balancer_ips=balancer_ips,
            source_ranges=_of_family((text.strip() for text in spec.get("loadBalancerSourceRanges") or ()), family),
            affinity_s=affinity_s,
            internal_local=spec.get("internalTrafficPolicy") == "Local",
            external_local=external_local,
            health_check_node_port=(spec.get("healthCheckNodePort") or 0) if external_local else 0,
        )
        for port in spec.get("ports") or ()
    )


def service_of(endpoint_slice: Obj) -> Key | None:
    """The service that a slice belongs to, or None where it says none."""
    name = labels_of(endpoint_slice).get(SERVICE_NAME)
    return Key(namespace_of(endpoint_slice), name) if name else None


def endpoints_of(slices: Iterable[Obj], place: Place) -> dict[PortName, tuple[Endpoint, ...]]:
    """The endpoints of one service by port, sorted. An endpoint found twice (slices overlap while the controller moves
    it) counts once; the entry that is ready, or not terminating, wins."""
    address_type = "IPv6" if place.family == 6 else "IPv4"
    found: dict[PortName, dict[tuple[str, int], Endpoint]] = {}
    for each in slices:
        if each.get("addressType") != address_type:
            continue
        ports = [port for port in each.get("ports") or () if port.get("port")]
        for entry in each.get("endpoints") or ():
            addresses = entry.get("addresses")
            if not addresses:
                continue
            for port in ports:
                endpoint = _endpoint(entry, addresses[0], port["port"], place)
                known = found.setdefault(PortName(port.get("name") or "", port.get("protocol") or "TCP"), {})
                at = (endpoint.address, endpoint.port)
                if at not in known or _rank(endpoint) > _rank(known[at]):
                    known[at] = endpoint
    return {name: tuple(known[at] for at in sorted(known)) for name, known in found.items()}


def _rank(endpoint: Endpoint) -> tuple[bool, bool, bool]:
    return endpoint.ready, endpoint.serving, not endpoint.terminating


def _endpoint(entry: Obj, address: str, port: int, place: Place) -> Endpoint:
    conditions, hints = entry.get("conditions") or {}, entry.get("hints") or {}
    ready = conditions.get("ready") is not False
    serving = conditions.get("serving")
    return Endpoint(
        address=address,
        port=port,
        local=bool(place.node_name) and entry.get("nodeName") == place.node_name,
        ready=ready,
        serving=ready if serving is None else bool(serving),
        terminating=bool(conditions.get("terminating")),
        for_node=_names(hints.get("forNodes"), place.node_name),
        for_zone=_names(hints.get("forZones"), place.zone),
    )


def _names(hints: Sequence[Obj] | None, name: str) -> bool | None:
    """Whether hints name a node or zone; None where there are none, or it is not known what this one is called."""
    if not hints or not name:
        return None
    return any(hint.get("name") == name for hint in hints)


@dataclass(frozen=True, slots=True)
class Choice:
    """Where the traffic of one port goes: `cluster` under policy Cluster, `local` under policy Local; `any_known` says
    whether the port has usable endpoints anywhere (else connections are refused, not dropped)."""

    cluster: tuple[Endpoint, ...]
    local: tuple[Endpoint, ...]
    any_known: bool


def choose(endpoints: Sequence[Endpoint]) -> Choice:
    """Ready endpoints; where there are none, those that terminate but still serve, so that the last connections of a
    rollout are not lost."""
    ready = [endpoint for endpoint in endpoints if endpoint.ready]
    cluster = _near(ready) or _draining(endpoints)
    mine = [endpoint for endpoint in endpoints if endpoint.local]
    local = [endpoint for endpoint in mine if endpoint.ready] or _draining(mine)
    return Choice(tuple(cluster), tuple(local), bool(cluster or local))


def _near(ready: list[Endpoint]) -> list[Endpoint]:
    """Those that are meant for this node, else for its zone. As in Kubernetes, hints count only where each endpoint has
    them and they leave something: else traffic would pile up on some."""
    for hints in ([each.for_node for each in ready], [each.for_zone for each in ready]):
        if None not in hints and any(hints):
            return [endpoint for endpoint, meant in zip(ready, hints, strict=True) if meant]
    return ready


def _draining(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    return [endpoint for endpoint in endpoints if endpoint.serving and endpoint.terminating]
