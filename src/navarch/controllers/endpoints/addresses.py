"""What a pod contributes to a Service: its addresses, its conditions and the numbers behind the Service's ports.

Pure. A pod counts while it has an IP and has not finished; whether it is ready, serving or terminating is said per
endpoint, so that proxies can keep serving from terminating pods when nothing else is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from navarch.api.meta import Obj, is_deleting, labels_of, name_of, namespace_of, uid_of
from navarch.api.selectors import LabelSelector, from_map
from navarch.client.informer import Informer
from navarch.kinds.core.pod_state import is_finished, is_ready, is_sidecar
from navarch.numbers import is_digits, saturated

HEADLESS_LABEL = "service.kubernetes.io/headless"
_SAME_NODE = "PreferSameNode"
_CLOSE = ("PreferClose", "PreferSameZone", _SAME_NODE)


def selector_of(service: Obj) -> LabelSelector | None:
    """The Service's pods; None where endpoints are somebody else's business."""
    spec = service.get("spec") or {}
    if not spec.get("selector") or spec.get("type") == "ExternalName":
        return None
    return from_map(spec["selector"])


def is_headless(service: Obj) -> bool:
    return (service.get("spec") or {}).get("clusterIP") == "None"


def publishes_not_ready(service: Obj) -> bool:
    return bool((service.get("spec") or {}).get("publishNotReadyAddresses"))


def services_of(services: Informer, pod: Obj) -> list[Obj]:
    """The Services of the pod's namespace that select it."""
    labels = labels_of(pod)
    if not labels:
        return []
    return [
        service
        for service in services.list(namespace_of(pod))
        if (selector := (service.get("spec") or {}).get("selector"))
        and all(labels.get(name) == value for name, value in selector.items())
    ]


def selected_pods(pods: Informer, service: Obj) -> list[Obj]:
    """The Service's pods, found by one of its labels and not by walking the namespace."""
    selector: Mapping[str, str] = service["spec"]["selector"]
    namespace = namespace_of(service)
    buckets = [pods.by_index("label", f"{namespace}/{name}={value}") for name, value in selector.items()]
    smallest = min(buckets, key=len, default=[])
    return [pod for pod in smallest if all(labels_of(pod).get(name) == value for name, value in selector.items())]


def index_by_label(pods: Informer) -> None:
    pods.add_indexer("label", _labels)


def _labels(pod: Obj) -> Iterable[str]:
    namespace = namespace_of(pod)
    return [f"{namespace}/{name}={value}" for name, value in labels_of(pod).items()]


def addresses_of(pod: Obj, family: str) -> str:
    """The pod's address of one family (`IPv4`, `IPv6`), or nothing."""
    status = pod.get("status") or {}
    candidates = [entry.get("ip") or "" for entry in status.get("podIPs") or ()] or [status.get("podIP") or ""]
    return next((ip for ip in candidates if ip and family_of(ip) == family), "")


def family_of(address: str) -> str:
    return "IPv6" if ":" in address else "IPv4"


def families_of(service: Obj) -> list[str]:
    """The address families of a Service, as the API server settled them."""
    spec = service.get("spec") or {}
    if spec.get("ipFamilies"):
        return list(spec["ipFamilies"])
    cluster_ip = spec.get("clusterIP") or ""
    return [family_of(cluster_ip)] if cluster_ip not in ("", "None") else ["IPv4"]


def counts(pod: Obj) -> bool:
    """Whether the pod is an endpoint at all."""
    status = pod.get("status") or {}
    return not is_finished(pod) and bool(status.get("podIP") or status.get("podIPs"))


def target_port(service_port: Obj, pod: Obj) -> int | None:
    """The number behind a Service's port on this pod; None where the pod has no container port of that name."""
    wanted: Any = service_port.get("targetPort", service_port["port"])
    if isinstance(wanted, int):
        return wanted or int(service_port["port"])
    if isinstance(wanted, str) and is_digits(wanted):
        return saturated(wanted, 17)
    protocol = service_port.get("protocol", "TCP")
    spec = pod.get("spec") or {}
    sidecars = [c for c in spec.get("initContainers") or () if is_sidecar(c)]
    for container in [*(spec.get("containers") or ()), *sidecars]:
        for port in container.get("ports") or ():
            if port.get("name") == wanted and port.get("protocol", "TCP") == protocol:
                return int(port["containerPort"])
    return None


def endpoint_ports(service: Obj, pod: Obj) -> list[Obj]:
    """The Service's ports with this pod's numbers, as EndpointSlices and Endpoints write them."""
    ports: list[Obj] = []
    for service_port in service["spec"].get("ports") or ():
        number = target_port(service_port, pod)
        if number is None:
            continue
        port: Obj = {
            "name": service_port.get("name") or "",
            "port": number,
            "protocol": service_port.get("protocol", "TCP"),
        }
        if service_port.get("appProtocol"):
            port["appProtocol"] = service_port["appProtocol"]
        ports.append(port)
    return ports


def hostname_of(pod: Obj, service: Obj) -> str:
    """The pod's own DNS name within a headless Service whose subdomain it claims."""
    spec = pod.get("spec") or {}
    if spec.get("hostname") and spec.get("subdomain") == name_of(service):
        return str(spec["hostname"])
    return ""


def hints_for(service: Obj, endpoint: Obj) -> Obj:
    """Whom a ready endpoint is for by the Service's `trafficDistribution`; empty where it is for all."""
    distribution = (service.get("spec") or {}).get("trafficDistribution")
    hints: Obj = {}
    if distribution in _CLOSE and endpoint.get("zone"):
        hints["forZones"] = [{"name": endpoint["zone"]}]
    if distribution == _SAME_NODE and endpoint.get("nodeName"):
        hints["forNodes"] = [{"name": endpoint["nodeName"]}]
    return hints


def target_reference(pod: Obj) -> Obj:
    return {"kind": "Pod", "namespace": namespace_of(pod), "name": name_of(pod), "uid": uid_of(pod)}


def matters(old: Obj, new: Obj) -> bool:
    """Whether a pod's change can change an endpoint."""
    if is_deleting(old) != is_deleting(new) or is_ready(old) != is_ready(new):
        return True
    before, after = old.get("status") or {}, new.get("status") or {}
    if before.get("podIPs") != after.get("podIPs") or before.get("podIP") != after.get("podIP"):
        return True
    if is_finished(old) != is_finished(new) or labels_of(old) != labels_of(new):
        return True
    fields = ("nodeName", "hostname", "subdomain")
    return any((old.get("spec") or {}).get(f) != (new.get("spec") or {}).get(f) for f in fields)
