"""Pod validation, containers: init containers, containers, ephemeral containers; their names, images and ports.

In: a pod's spec.  Out: field errors in Kubernetes' words. What has a module of its own (environment, mounts, probes,
resources, security) is called from `_validate_common`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from navarch.api.errors import (
    FieldError,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from navarch.api.meta import Obj
from navarch.api.validation import port_name_problems, port_number_problems, validate_dns_label
from navarch.kinds.core.pod_state import is_sidecar
from navarch.kinds.core.pod_validation_env import validate_env, validate_env_from
from navarch.kinds.core.pod_validation_probes import validate_lifecycle, validate_probes
from navarch.kinds.core.pod_validation_resources import validate_resize_policy, validate_resource_requirements
from navarch.kinds.core.pod_validation_security import validate_container_security_context
from navarch.kinds.core.pod_validation_volumes import validate_volume_mounts

_PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
_MESSAGE_POLICIES: Final = ("File", "FallbackToLogsOnError")
_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_RESTART_POLICIES: Final = ("Always", "Never", "OnFailure")
_NOT_IN_EPHEMERAL: Final = (
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resources",
    "resizePolicy",
)


@dataclass(frozen=True, slots=True)
class _Pod:
    """What the checks of a container need to know of its pod."""

    spec: Obj
    volumes: Mapping[str, Obj]
    claims: frozenset[str]
    grace_s: int


def validate_containers(spec: Obj, path: str) -> Iterator[FieldError]:
    """Every container of a pod's spec."""
    pod = _Pod(
        spec,
        {volume.get("name") or "": volume for volume in spec.get("volumes") or ()},
        frozenset(claim.get("name") or "" for claim in spec.get("resourceClaims") or ()),
        spec.get("terminationGracePeriodSeconds", 30),
    )
    containers = spec.get("containers") or ()
    if not containers:
        yield required(f"{path}.containers")
    names: set[str] = set()
    for index, container in enumerate(containers):
        at = f"{path}.containers[{index}]"
        yield from _validate_common(container, pod, at)
        yield from _unique_name(container, names, at)
        if container.get("restartPolicy") is not None:
            yield from _validate_restart_policy(container, at)
        if container.get("lifecycle") is not None:
            yield from validate_lifecycle(container["lifecycle"], f"{at}.lifecycle", pod.grace_s)
        yield from validate_probes(container, at, pod.grace_s)
    if spec.get("initContainers"):
        yield from _validate_init_containers(pod, names, path)
    if spec.get("ephemeralContainers"):
        yield from _validate_ephemeral_containers(pod, names, path)
    yield from _validate_host_ports(spec, path)


def _unique_name(container: Obj, names: set[str], path: str) -> Iterator[FieldError]:
    name = container.get("name") or ""
    if name and name in names:
        yield duplicate(f"{path}.name", name)
    names.add(name)


def _validate_restart_policy(container: Obj, path: str) -> Iterator[FieldError]:
    policy = container["restartPolicy"]
    if policy not in _RESTART_POLICIES:
        yield not_supported(f"{path}.restartPolicy", policy, _RESTART_POLICIES)


def _validate_init_containers(pod: _Pod, names: set[str], path: str) -> Iterator[FieldError]:
    for index, container in enumerate(pod.spec["initContainers"]):
        at = f"{path}.initContainers[{index}]"
        yield from _validate_common(container, pod, at)
        yield from _unique_name(container, names, at)
        if container.get("restartPolicy") is not None:
            yield from _validate_restart_policy(container, at)
        if is_sidecar(container):
            if container.get("lifecycle") is not None:
                yield from validate_lifecycle(container["lifecycle"], f"{at}.lifecycle", pod.grace_s)
            yield from validate_probes(container, at, pod.grace_s)
            continue
        for field in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
            if container.get(field) is not None:
                yield forbidden_field(
                    f"{at}.{field}", "may not be set for init containers without restartPolicy=Always"
                )


def _validate_ephemeral_containers(pod: _Pod, names: set[str], path: str) -> Iterator[FieldError]:
    known = {container.get("name") or "" for container in pod.spec.get("containers") or ()}
    for index, container in enumerate(pod.spec["ephemeralContainers"]):
        at = f"{path}.ephemeralContainers[{index}]"
        yield from _validate_common(container, pod, at)
        yield from _unique_name(container, names, at)
        target = container.get("targetContainerName")
        if target and target not in known:
            yield FieldError("FieldValueNotFound", f"{at}.targetContainerName", "", target)
        for field in _NOT_IN_EPHEMERAL:
            if container.get(field):
                yield forbidden_field(f"{at}.{field}", "cannot be set for an Ephemeral Container")
        if container.get("restartPolicy") is not None:
            yield forbidden_field(f"{at}.restartPolicy", "cannot be set for an Ephemeral Container")
        for number, mount in enumerate(container.get("volumeMounts") or ()):
            for field in ("subPath", "subPathExpr"):
                if mount.get(field):
                    detail = "cannot be set for an Ephemeral Container"
                    yield forbidden_field(f"{at}.volumeMounts[{number}].{field}", detail)


def _validate_common(container: Obj, pod: _Pod, path: str) -> Iterator[FieldError]:
    name = container.get("name")
    if not name:
        yield required(f"{path}.name")
    else:
        yield from validate_dns_label(name, f"{path}.name")
    if not container.get("image"):
        yield required(f"{path}.image")
    policy = container.get("terminationMessagePolicy")
    if policy not in _MESSAGE_POLICIES:
        if policy:
            yield not_supported(f"{path}.terminationMessagePolicy", policy, _MESSAGE_POLICIES)
        else:
            yield required(f"{path}.terminationMessagePolicy")
    if container.get("ports"):
        yield from validate_container_ports(container["ports"], f"{path}.ports")
    if container.get("env"):
        yield from validate_env(container["env"], f"{path}.env")
    if container.get("envFrom"):
        yield from validate_env_from(container["envFrom"], f"{path}.envFrom")
    if container.get("volumeMounts") or container.get("volumeDevices"):
        yield from validate_volume_mounts(container, pod.volumes, path)
    policy = container.get("imagePullPolicy")
    if policy not in _PULL_POLICIES:
        if policy:
            yield not_supported(f"{path}.imagePullPolicy", policy, _PULL_POLICIES)
        else:
            yield required(f"{path}.imagePullPolicy")
    if container.get("resources"):
        yield from validate_resource_requirements(container["resources"], f"{path}.resources", pod.claims)
    if container.get("resizePolicy"):
        restart = pod.spec.get("restartPolicy") or ""
        yield from validate_resize_policy(container["resizePolicy"], f"{path}.resizePolicy", restart)
    if container.get("securityContext"):
        yield from validate_container_security_context(
            container["securityContext"], f"{path}.securityContext", pod.spec
        )


def validate_container_ports(ports: list[Obj], path: str) -> Iterator[FieldError]:
    """`ports` of a container."""
    names: set[str] = set()
    for index, port in enumerate(ports):
        at = f"{path}[{index}]"
        name = port.get("name")
        if name:
            problems = port_name_problems(name)
            for problem in problems:
                yield invalid_value(f"{at}.name", name, problem)
            if not problems and name in names:
                yield duplicate(f"{at}.name", name)
            names.add(name)
        number = port.get("containerPort", 0)
        if number == 0:
            yield required(f"{at}.containerPort")
        else:
            for problem in port_number_problems(number):
                yield invalid_value(f"{at}.containerPort", number, problem)
        host_port = port.get("hostPort", 0)
        if host_port:
            for problem in port_number_problems(host_port):
                yield invalid_value(f"{at}.hostPort", host_port, problem)
        protocol = port.get("protocol") or ""
        if not protocol:
            yield required(f"{at}.protocol")
        elif protocol not in _PROTOCOLS:
            yield not_supported(f"{at}.protocol", protocol, _PROTOCOLS)


def _validate_host_ports(spec: Obj, path: str) -> Iterator[FieldError]:
    """No two containers want the same port of the host; on the host's network the two numbers agree."""
    taken: set[str] = set()
    host_network = spec.get("hostNetwork")
    for field in ("containers", "initContainers"):
        seen = taken if field == "containers" else set()
        for index, container in enumerate(spec.get(field) or ()):
            for number, port in enumerate(container.get("ports") or ()):
                at = f"{path}.{field}[{index}].ports[{number}]"
                host_port = port.get("hostPort", 0)
                if host_network and host_port and host_port != port.get("containerPort"):
                    detail = "must match `hostPort` when `hostNetwork` is true"
                    yield invalid_value(f"{at}.containerPort", port.get("containerPort"), detail)
                if not host_port:
                    continue
                what = f"{port.get('protocol')}/{port.get('hostIP', '')}/{host_port}"
                if what in seen:
                    yield duplicate(f"{at}.hostPort", what)
                seen.add(what)
