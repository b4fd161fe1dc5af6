"""Where a Service is for a connection of this process: one of its ready endpoints.

In: a Service's namespace, name and port.  Out: a host and port to connect to. As kube-apiserver does with
`--enable-aggregator-routing`, not by the cluster IP: the rules that lead from there to endpoints may be on another
machine, or, where nodes are simulated, nowhere.

Invariant: what a Service or a URL says cannot lead this process to the link-local addresses at which clouds keep
their machines' credentials, nor a Service to this machine itself.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from navarch.api.meta import Obj
from navarch.apiserver.caches import Caches
from navarch.apiserver.handlers.targets import refuse_simulated
from navarch.kinds.resources import ENDPOINT_SLICES, SERVICES
from navarch.world import World

SERVICE_LABEL: Final = "kubernetes.io/service-name"
# Where clouds other than by link-local addresses tell a machine its credentials.
_METADATA: Final = frozenset({"fd00:ec2::254", "100.100.100.200", "168.63.129.16"})


class NowhereError(Exception):
    """There is no way to the service; the text says why, in Kubernetes' words."""


class Services:
    """One server's; asked anew for each connection."""

    def __init__(self, caches: Caches, world: World) -> None:
        self._caches = caches
        self._world = world

    def address(self, namespace: str, name: str, port: int) -> tuple[str, int]:
        """A ready endpoint, any of them.  Raises NowhereError, StatusError 503 for what is only simulated."""
        cached = self._caches.of(SERVICES).get(namespace, name)
        if cached is None:
            raise NowhereError(f'service "{name}" not found')
        spec = cached.obj().get("spec") or {}
        if spec.get("type") == "ExternalName":
            return str(spec.get("externalName") or ""), port
        ports = [entry for entry in spec.get("ports") or () if entry.get("port") == port]
        if not ports:
            raise NowhereError(f'no service port {port} found for service "{name}"')
        found = self._endpoints(namespace, name, ports[0].get("name") or "")
        if not found:
            raise NowhereError(f'no endpoints available for service "{name}"')
        endpoint, number = self._world.random("services", name).choice(found)
        behind = (endpoint.get("targetRef") or {}).get("name") or name
        refuse_simulated(self._caches, endpoint.get("nodeName") or "", behind)
        return str(endpoint["addresses"][0]), number

    def _endpoints(self, namespace: str, name: str, port_name: str) -> list[tuple[Obj, int]]:
        found: list[tuple[Obj, int]] = []
        for cached in self._caches.of(ENDPOINT_SLICES).items(namespace):
            if cached.labels.get(SERVICE_LABEL) != name:
                continue
            endpoint_slice = cached.obj()
            ports = endpoint_slice.get("ports") or ()
            number = next((p["port"] for p in ports if (p.get("name") or "") == port_name and p.get("port")), None)
            if number is None:
                continue
            found.extend(
                (endpoint, int(number))
                for endpoint in endpoint_slice.get("endpoints") or ()
                if (endpoint.get("conditions") or {}).get("ready", True) and endpoint.get("addresses")
            )
        return found


def is_allowed(address: str, *, here: bool) -> bool:
    """Whether a connection may go to this address; `here`: also to this machine."""
    ip: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    if ip.version == 6 and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_link_local or ip.is_unspecified or ip.is_multicast or str(ip) in _METADATA or str(ip) == "255.255.255.255":
        return False
    return here or not ip.is_loopback
