"""Where a proxied request goes: a node's kubelet, a pod's port, one of a service's ready endpoints."""

from __future__ import annotations

import random
import ssl
from ipaddress import IPv4Address, IPv6Address, ip_address

from navarch.api.errors import StatusError, bad_request, not_found, unavailable
from navarch.api.meta import Obj
from navarch.apiserver.caches import Caches
from navarch.kinds.core.kubelets import is_simulated
from navarch.kinds.resources import ENDPOINT_SLICES, NODES, PODS, SERVICES
from navarch.numbers import integer_or, is_digits
from navarch.records import frozen

# Kubernetes' order, but for the host name: one that nothing resolves would be in the way of the address.
_ADDRESS_TYPES = ("InternalDNS", "InternalIP", "Hostname", "ExternalDNS", "ExternalIP")
_KUBELET_PORT = 10250
_SERVICE_LABEL = "kubernetes.io/service-name"


@frozen
class Target:
    """`tls` None is plain HTTP. `server_name` is what the certificate is for, where that is not the host."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    server_name: str | None = None

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{'https' if self.tls is not None else 'http'}://{self.authority}"


def kubelet_of(node: Obj, tls: ssl.SSLContext | None) -> Target:
    """Raises StatusError 503 for a node that has not said where it is, 400 for one that says it is where no kubelet can
    be: nodes write their addresses themselves."""
    status = node.get("status") or {}
    # Of a node with two IP families the first counts.
    addresses = {address.get("type"): address.get("address") for address in reversed(status.get("addresses") or ())}
    host = next((addresses[kind] for kind in _ADDRESS_TYPES if addresses.get(kind)), "")
    if not host:
        raise unavailable(f"no preferred addresses found; known addresses: []: node {node['metadata']['name']}")
    # A kubelet may well be on this machine; who it is, its certificate proves.
    if (ip := _ip_of(str(host))) is not None and _is_nobodys(ip):
        raise bad_request("address not allowed")
    port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or _KUBELET_PORT
    return Target(str(host), int(port), tls if tls is not None else unverified_tls())


def node_target(node: Obj, text: str, tls: ssl.SSLContext | None) -> Target:
    """The node's kubelet, or what else listens there at the port that is asked for.  Raises StatusError 400, 503."""
    scheme, _, port = scheme_name_port(text, "node")
    kubelet = kubelet_of(node, tls)
    if port in ("", str(kubelet.port)):
        return kubelet
    return Target(_checked(kubelet.host), _number(port), unverified_tls() if scheme == "https" else None)


def unverified_tls() -> ssl.SSLContext:
    """For backends whose certificate nobody here can judge, as Kubernetes treats them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _checked(address: str) -> str:
    """An address that a proxied request may go to: pods and endpoints say themselves where they are, and that must not
    be this machine's loopback or the cloud's metadata.  Raises StatusError 400."""
    ip = _ip_of(address)
    if ip is None:
        raise bad_request(f"address not allowed: {address}")
    if ip.is_loopback or _is_nobodys(ip) or address == "255.255.255.255":
        raise bad_request("address not allowed")
    return address


def _ip_of(text: str) -> IPv4Address | IPv6Address | None:
    """None for what is no address, but perhaps a name."""
    try:
        ip = ip_address(text)
    except ValueError:
        return None
    return ip.ipv4_mapped if ip.version == 6 and ip.ipv4_mapped is not None else ip


def _is_nobodys(ip: IPv4Address | IPv6Address) -> bool:
    """Whether nobody in a cluster can have it: among these are those where clouds keep their machines' credentials."""
    return ip.is_link_local or ip.is_unspecified or ip.is_multicast


def refuse_simulated(caches: Caches, node_name: str, pod_name: str) -> None:
    """A pod on a simulated node has an address that means nothing: what is sent there would leave the machine.

    Raises StatusError 503."""
    node = caches.of(NODES).get("", node_name) if node_name else None
    if node is not None and is_simulated(node.obj()):
        raise unavailable(f'pod "{pod_name}" runs on the simulated node "{node_name}" and has no containers')


def scheme_name_port(text: str, what: str) -> tuple[str, str, str]:
    """`[scheme:]name[:port]` to its parts.  Raises StatusError 400."""
    parts = text.split(":")
    if len(parts) < 3:
        parts = ["", *parts, ""][:3]
    if len(parts) == 3 and parts[0] in ("", "http", "https") and parts[1]:
        return parts[0], parts[1], parts[2]
    raise bad_request(f'invalid {what} request "{text}"')


def _number(port: str) -> int:
    """Raises StatusError 400."""
    if not 0 < (number := integer_or(port, 0)) < 65536:
        raise bad_request(f"port {port[:16]} is out of range")
    return number


def pod_target(pod: Obj, text: str) -> Target:
    """Raises StatusError 400, 503."""
    scheme, name, port = scheme_name_port(text, "pod")
    address = (pod.get("status") or {}).get("podIP")
    if not address:
        raise bad_request("address not allowed")
    containers = (pod.get("spec") or {}).get("containers") or ()
    if not port:
        port = next((str(p["containerPort"]) for c in containers for p in c.get("ports") or ()), "80")
    elif not is_digits(port):
        ports = [p for c in containers for p in c.get("ports") or () if p.get("name") == port]
        if not ports:
            raise bad_request(f'no port "{port}" in pod {name}')
        port = str(ports[0]["containerPort"])
    return Target(_checked(str(address)), _number(port), unverified_tls() if scheme == "https" else None)


def service_target(caches: Caches, namespace: str, text: str, dice: random.Random) -> Target:
    """A ready endpoint of the service, any of them, which is a pod of its namespace: whoever may write endpoints must
    not have this server talk to others in its stead.  Raises StatusError 404, 503."""
    scheme, name, port = scheme_name_port(text, "service")
    service = caches.of(SERVICES).get(namespace, name)
    if service is None:
        raise not_found("services", "", name)
    wanted = _service_port((service.obj().get("spec") or {}).get("ports") or [], port, name)
    found: list[tuple[Obj, int]] = []
    for cached in caches.of(ENDPOINT_SLICES).items(namespace):
        if cached.labels.get(_SERVICE_LABEL) != name:
            continue
        each = cached.obj()
        number = next((p.get("port") for p in each.get("ports") or () if (p.get("name") or "") == wanted), None)
        if number:
            ready = (e for e in each.get("endpoints") or () if (e.get("conditions") or {}).get("ready", True))
            found += [(endpoint, int(number)) for endpoint in ready]
    dice.shuffle(found)
    for endpoint, number in found:
        pod = _pod_behind(caches, namespace, endpoint)
        if pod is not None:
            refuse_simulated(caches, endpoint.get("nodeName") or "", pod["metadata"]["name"])
            address = _checked(str(endpoint["addresses"][0]))
            return Target(address, number, unverified_tls() if scheme == "https" else None)
    raise unavailable(f'no endpoints available for service "{text}"')


def _pod_behind(caches: Caches, namespace: str, endpoint: Obj) -> Obj | None:
    reference = endpoint.get("targetRef") or {}
    if reference.get("kind") != "Pod" or reference.get("namespace") != namespace:
        return None
    cached = caches.of(PODS).get(namespace, str(reference.get("name") or ""))
    pod = cached.obj() if cached is not None else {}
    status = pod.get("status") or {}
    addresses = {status.get("podIP"), *(each.get("ip") for each in status.get("podIPs") or ())}
    return pod if (endpoint.get("addresses") or [""])[0] in addresses else None


def _service_port(ports: list[Obj], stated: str, name: str) -> str:
    """The name of the service's port that is meant; empty for one without a name.  Raises StatusError 503."""
    if not stated and len(ports) == 1:
        return str(ports[0].get("name") or "")
    if not is_digits(stated):
        return stated
    for port in ports:
        if stated == str(port.get("port")):
            return str(port.get("name") or "")
    error: StatusError = unavailable(f'no service port {stated} found for service "{name}"')
    raise error
