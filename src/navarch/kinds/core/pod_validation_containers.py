"""Pod validation, containers: init containers, containers, ephemeral containers; their names, images and ports.

In: a pod's spec.  Out: field errors in Kubernetes' words. What has a module of its own (environment, mounts, probes,
resources, security) is called from `_validate_common`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from navarch.api.errors import (
    FieldError,
    duplicate,
    field_not_found,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    too_many,
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
# In the order of the type's fields.
_NOT_IN_EPHEMERAL: Final = (
    *("ports", "resources", "resizePolicy", "restartPolicy", "restartPolicyRules"),
    *("livenessProbe", "readinessProbe", "startupProbe", "lifecycle"),
)
_RULE_ACTIONS: Final = ("Restart", "RestartAllContainers")
_MAX_RULES: Final = 20
_MAX_EXIT_CODES: Final = 255


@dataclass(frozen=True, slots=True)
class _Pod:
    """What the checks of a container need to know of its pod."""

    spec: Obj
    volumes: Mapping[str, Obj]
    claims: frozenset[str]
    grace_s: int


def validate_containers(spec: Obj, path: str, volumes: Mapping[str, Obj]) -> Iterator[FieldError]:
    """Every container of a pod's spec; `volumes` are those of the pod that can be mounted, by name."""
    pod = _Pod(
        spec,
        volumes,
        frozenset(claim["name"] for claim in spec.get("resourceClaims") or () if claim.get("name")),
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
        if container.get("lifecycle") is not None:
            yield from validate_lifecycle(container["lifecycle"], f"{at}.lifecycle", pod.grace_s, spec.get("os"))
        yield from validate_probes(container, at, pod.grace_s)
        if container.get("restartPolicy") is not None or container.get("restartPolicyRules"):
            yield from _validate_restart_policy(container, at)
    yield from _validate_host_ports(containers, f"{path}.containers")
    if spec.get("initContainers"):
        yield from _validate_init_containers(pod, names, path)
    if spec.get("ephemeralContainers"):
        yield from _validate_ephemeral_containers(pod, names, path)


def _unique_name(container: Obj, names: set[str], path: str) -> Iterator[FieldError]:
    """No name counts as a name too: of two containers without one Kubernetes says that the second repeats the first."""
    name = container.get("name") or ""
    if name in names:
        yield duplicate(f"{path}.name", name)
    names.add(name)


def _validate_restart_policy(container: Obj, path: str) -> Iterator[FieldError]:
    policy, rules = container.get("restartPolicy"), container.get("restartPolicyRules") or ()
    if policy is None:
        yield required(f"{path}.restartPolicy", "must specify restartPolicy when restart rules are used")
    elif policy not in _RESTART_POLICIES:
        yield not_supported(f"{path}.restartPolicy", policy, _RESTART_POLICIES)
    if len(rules) > _MAX_RULES:
        yield too_many(f"{path}.restartPolicyRules", len(rules), _MAX_RULES)
    for index, rule in enumerate(rules):
        at, codes = f"{path}.restartPolicyRules[{index}]", rule.get("exitCodes")
        if rule.get("action") not in _RULE_ACTIONS:
            yield not_supported(f"{at}.action", rule.get("action") or "", _RULE_ACTIONS)
        if codes is None:
            yield required(f"{at}.exitCodes", "must be specified")
            continue
        if codes.get("operator") not in ("In", "NotIn"):
            yield not_supported(f"{at}.exitCodes.operator", codes.get("operator") or "", ("In", "NotIn"))
        if len(codes.get("values") or ()) > _MAX_EXIT_CODES:
            yield too_many(f"{at}.exitCodes.values", len(codes["values"]), _MAX_EXIT_CODES)


def _validate_init_containers(pod: _Pod, names: set[str], path: str) -> Iterator[FieldError]:
    for index, container in enumerate(pod.spec["initContainers"]):
        at = f"{path}.initContainers[{index}]"
        yield from _validate_common(container, pod, at)
        if container.get("restartPolicy") is not None or container.get("restartPolicyRules"):
            yield from _validate_restart_policy(container, at)
        yield from _unique_name(container, names, at)
        # One after another they run: their ports are no concern of each other.
        yield from _validate_host_ports((container,), f"{path}.initContainers")
        if is_sidecar(container):
            if container.get("lifecycle") is not None:
                system = pod.spec.get("os")
                yield from validate_lifecycle(container["lifecycle"], f"{at}.lifecycle", pod.grace_s, system)
            yield from validate_probes(container, at, pod.grace_s)
            continue
        for field in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
            if container.get(field) is not None:
                detail = "may not be set for init containers without restartPolicy=Always"
                yield forbidden_field(f"{at}.{field}", detail)
        for number, policy in enumerate(container.get("resizePolicy") or ()):
            if policy.get("restartPolicy") == "RestartContainer":
                detail = "must not be set to 'RestartContainer' for non-sidecar initContainers"
                yield invalid_value(f"{at}.resizePolicy[{number}].restartPolicy", "RestartContainer", detail)


def _validate_ephemeral_containers(pod: _Pod, names: set[str], path: str) -> Iterator[FieldError]:
    known = {
        container.get("name") or ""
        for field in ("containers", "initContainers")
        for container in pod.spec.get(field) or ()
    }
    for index, container in enumerate(pod.spec["ephemeralContainers"]):
        at = f"{path}.ephemeralContainers[{index}]"
        yield from _validate_common(container, pod, at)
        yield from validate_image_spaces(container, at)
        yield from _unique_name(container, names, at)
        target = container.get("targetContainerName")
        if target and target not in known:
            yield field_not_found(f"{at}.targetContainerName", target)
        for field in _NOT_IN_EPHEMERAL:
            # Of these the resources alone are no pointer: nothing in them is the same as none.
            if container.get(field) is not None and (field != "resources" or container[field]):
                yield forbidden_field(f"{at}.{field}", "cannot be set for an Ephemeral Container")
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


def validate_image_spaces(container: Obj, path: str) -> Iterator[FieldError]:
    """Of real pods: in templates there are images that somebody fills in later."""
    image = container.get("image") or ""
    if image != image.strip():
        yield invalid_value(f"{path}.image", image, "must not have leading or trailing whitespace")


def validate_container_ports(ports: list[Obj], path: str) -> Iterator[FieldError]:
    """`ports` of a container."""
    names: set[str] = set()
    for index, port in enumerate(ports):
        at = f"{path}[{index}]"
        name = port.get("name")
        if name:
            if problems := port_name_problems(name):
                for problem in problems:
                    yield invalid_value(f"{at}.name", name, problem)
            elif name in names:
                yield duplicate(f"{at}.name", name)
            else:
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


def _validate_host_ports(containers: Sequence[Obj], path: str) -> Iterator[FieldError]:
    """No two containers want the same port of the host."""
    taken: set[str] = set()
    for index, container in enumerate(containers):
        for number, port in enumerate(container.get("ports") or ()):
            if not (host_port := port.get("hostPort")):
                continue
            what = f"{port.get('protocol')}/{port.get('hostIP', '')}/{host_port}"
            if what in taken:
                yield duplicate(f"{path}[{index}].ports[{number}].hostPort", what)
            taken.add(what)


def validate_host_network_ports(spec: Obj, path: str, *, in_pod: bool) -> Iterator[FieldError]:
    """On the host's network a container's port is the host's; in a template it may still be unsaid."""
    if not spec.get("hostNetwork"):
        return
    for index, container in enumerate(spec.get("containers") or ()):
        for number, port in enumerate(container.get("ports") or ()):
            host_port = port.get("hostPort") or 0
            if (in_pod or host_port) and host_port != (port.get("containerPort") or 0):
                at = f"{path}.containers[{index}].ports[{number}].hostPort"
                yield invalid_value(at, host_port, "must match `containerPort` when `hostNetwork` is true")
