"""What the API server fills into a pod's spec, for pods and for the pod templates of every workload kind.

`default_pod_spec` is what both share; `default_pod` adds what only real pods get (requests from limits, host ports of
the host network, service links), so that a Deployment's template reads back as its author wrote it. In: a JSON object
that has passed its type check; it is changed in place. Invariant: defaulting twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from navarch.api.memo import memo
from navarch.api.meta import Obj
from navarch.kinds.core.resource_lists import containers_quantities, is_hugepage, pod_level_resource

DEFAULT_SCHEDULER: Final = "default-scheduler"
DEFAULT_GRACE_S: Final = 30
_FILE_MODE: Final = 0o644


def default_pod_spec(spec: Obj) -> None:
    """Fill in the defaults of a pod's or a template's spec."""
    default = spec.setdefault
    default("restartPolicy", "Always")
    default("terminationGracePeriodSeconds", DEFAULT_GRACE_S)
    # Kubernetes reads an empty policy as an unset one.
    if not spec.get("dnsPolicy"):
        spec["dnsPolicy"] = "ClusterFirst"
    if not spec.get("schedulerName"):
        spec["schedulerName"] = DEFAULT_SCHEDULER
    default("securityContext", {})
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        # `serviceAccount` is the deprecated name of the same field; readers see both.
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for container in containers_of(spec):
        _default_container(container)
    for volume in spec.get("volumes") or ():
        default_volume(volume)


def default_pod_template(template: Obj | None) -> None:
    """Fill in the defaults of a pod template (`spec.template` of a workload)."""
    if template is None:
        return
    template.setdefault("metadata", {})
    default_pod_spec(template.setdefault("spec", {}))


def default_pod(pod: Obj) -> None:
    """Fill in the defaults of a Pod."""
    spec = pod.setdefault("spec", {})
    default_pod_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    for field in ("containers", "initContainers"):
        for container in spec.get(field) or ():
            _requests_from_limits(container["resources"])
    if "resources" in spec:
        _default_pod_resources(spec)
    if spec.get("hostNetwork"):
        _default_host_ports(spec)


def containers_of(spec: Obj) -> Iterator[Obj]:
    """Every container of a pod spec: init containers, containers, ephemeral containers."""
    yield from spec.get("initContainers") or ()
    yield from spec.get("containers") or ()
    yield from spec.get("ephemeralContainers") or ()


@memo(4096)
def pull_policy_of(image: str) -> str:
    """`Always` for an image without tag and digest or with the tag `latest`, else `IfNotPresent`."""
    reference, _, digest = image.partition("@")
    tag = reference.rpartition("/")[2].partition(":")[2]
    if tag == "latest" or (not tag and not digest):
        return "Always"
    return "IfNotPresent"


def _default_container(container: Obj) -> None:
    default = container.setdefault
    if not container.get("terminationMessagePath"):
        container["terminationMessagePath"] = "/dev/termination-log"
    if not container.get("terminationMessagePolicy"):
        container["terminationMessagePolicy"] = "File"
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = pull_policy_of(container.get("image") or "")
    default("resources", {})
    for port in container.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
    for variable in container.get("env") or ():
        source = variable.get("valueFrom")
        if source:
            _default_env_source(source)
    for probe_name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(probe_name)
        if probe is not None:
            _default_probe(probe)
    lifecycle = container.get("lifecycle")
    if lifecycle:
        for handler in (lifecycle.get("postStart"), lifecycle.get("preStop")):
            if handler and "httpGet" in handler:
                _default_http_get(handler["httpGet"])


def _default_env_source(source: Obj) -> None:
    if "fieldRef" in source:
        source["fieldRef"].setdefault("apiVersion", "v1")
    if "resourceFieldRef" in source:
        source["resourceFieldRef"].setdefault("divisor", "0")
    if "fileKeyRef" in source:
        source["fileKeyRef"].setdefault("optional", False)


_PROBE_DEFAULTS: Final = (
    ("timeoutSeconds", 1),
    ("periodSeconds", 10),
    ("successThreshold", 1),
    ("failureThreshold", 3),
)


def _default_probe(probe: Obj) -> None:
    for field, value in _PROBE_DEFAULTS:
        if not probe.get(field):
            probe[field] = value
    if "httpGet" in probe:
        _default_http_get(probe["httpGet"])
    if "grpc" in probe:
        probe["grpc"].setdefault("service", "")


def _default_http_get(action: Obj) -> None:
    if not action.get("path"):
        action["path"] = "/"
    if not action.get("scheme"):
        action["scheme"] = "HTTP"


def _requests_from_limits(resources: Obj) -> None:
    limits = resources.get("limits")
    if not limits:
        return
    requests = resources.setdefault("requests", {})
    for name, limit in limits.items():
        requests.setdefault(name, limit)


def _default_pod_resources(spec: Obj) -> None:
    """What is not stated for the whole pod, where something is: huge pages are limited to what its containers may use;
    with a limit, its requests are what its containers ask for, else its limits."""
    resources = spec["resources"]
    if not resources.get("limits") and not resources.get("requests"):
        return
    stated = resources.get("requests") or {}
    for name, limit in containers_quantities(spec, "limits").items():
        if is_hugepage(name) and name not in stated:
            resources.setdefault("limits", {}).setdefault(name, limit)
    limits = resources.get("limits")
    if not limits:
        return
    requests = {**stated}
    for name, asked in containers_quantities(spec, "requests").items():
        if pod_level_resource(name) and not is_hugepage(name):
            requests.setdefault(name, asked)
    for name, limit in limits.items():
        if pod_level_resource(name):
            requests.setdefault(name, limit)
    if requests:
        resources["requests"] = requests


def _default_host_ports(spec: Obj) -> None:
    """On the host's network a container port is a host port."""
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        for port in container.get("ports") or ():
            if not port.get("hostPort"):
                port["hostPort"] = port.get("containerPort", 0)


# ---------------------------------------------------------------------------------------------------------- volumes


def default_volume(volume: Obj) -> None:
    """Fill in the defaults of one pod volume; a volume without source is an `emptyDir`."""
    found = False
    for field in volume:
        if field != "name":
            found = True
            source = volume[field]
            fill = _VOLUME_DEFAULTS.get(field)
            if fill is not None and source is not None:
                fill(source)
    if not found:
        volume["emptyDir"] = {}


def _file_mode(source: Obj) -> None:
    source.setdefault("defaultMode", _FILE_MODE)


def _downward(source: Obj) -> None:
    _file_mode(source)
    _downward_items(source.get("items") or ())


def _downward_items(items: Iterable[Obj]) -> None:
    for item in items:
        if "fieldRef" in item:
            item["fieldRef"].setdefault("apiVersion", "v1")
        if "resourceFieldRef" in item:
            item["resourceFieldRef"].setdefault("divisor", "0")


def _projected(source: Obj) -> None:
    _file_mode(source)
    for part in source.get("sources") or ():
        if "serviceAccountToken" in part:
            part["serviceAccountToken"].setdefault("expirationSeconds", 3600)
        if "downwardAPI" in part:
            _downward_items(part["downwardAPI"].get("items") or ())


def _host_path(source: Obj) -> None:
    source.setdefault("type", "")


def _fields(**defaults: Any) -> Callable[[Obj], None]:
    def fill(source: Obj) -> None:
        for field, value in defaults.items():
            source.setdefault(field, value)

    return fill


def _ephemeral(source: Obj) -> None:
    template = source.get("volumeClaimTemplate")
    if template is not None:
        default_claim_spec(template.setdefault("spec", {}))


def _image(source: Obj) -> None:
    if not source.get("pullPolicy"):
        source["pullPolicy"] = pull_policy_of(source.get("reference") or "")


def default_claim_spec(spec: Obj) -> None:
    """Defaults of a persistent volume claim's spec, on its own or as a template in a pod or a StatefulSet."""
    spec.setdefault("volumeMode", "Filesystem")
    spec.setdefault("resources", {})


_rbd = _fields(pool="rbd", user="admin", keyring="/etc/ceph/keyring")
_iscsi = _fields(iscsiInterface="default")
_azure_disk = _fields(cachingMode="ReadWrite", kind="Shared", fsType="ext4", readOnly=False)
_scale_io = _fields(storageMode="ThinProvisioned", fsType="xfs")

# What pods and persistent volumes have in common, by the field that names the source.
SHARED_VOLUME_DEFAULTS: Final[dict[str, Callable[[Obj], None]]] = {
    "hostPath": _host_path,
    "rbd": _rbd,
    "iscsi": _iscsi,
    "azureDisk": _azure_disk,
    "scaleIO": _scale_io,
}
_VOLUME_DEFAULTS: Final[dict[str, Callable[[Obj], None]]] = {
    **SHARED_VOLUME_DEFAULTS,
    "secret": _file_mode,
    "configMap": _file_mode,
    "downwardAPI": _downward,
    "projected": _projected,
    "ephemeral": _ephemeral,
    "image": _image,
}
