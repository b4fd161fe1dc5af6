"""Pod validation: whether a pod's spec, or a pod template's, makes sense; what every workload kind relies on.

In: a defaulted spec and the dotted path at which it stands.  Out: field errors in Kubernetes' words. This module checks
what concerns the pod as a whole and calls one module per idea for the rest: `pod_validation_containers`, `…_volumes`,
`…_security`, `…_scheduling`, `…_resources`, `…_env`, `…_probes`, `…_windows`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from navarch.api.errors import (
    FieldError,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    too_long,
)
from navarch.api.meta import Obj
from navarch.api.validation import (
    dns_subdomain_underscore_problems,
    validate_annotations,
    validate_dns_label,
    validate_dns_subdomain,
    validate_ip,
    validate_labels,
    validate_qualified_name,
)
from navarch.kinds.core.pod_annotations import MIRROR, validate_pod_annotations, validate_profiles_agree
from navarch.kinds.core.pod_validation_containers import (
    validate_containers,
    validate_host_network_ports,
    validate_image_spaces,
)
from navarch.kinds.core.pod_validation_env import validate_file_key_volumes
from navarch.kinds.core.pod_validation_resources import validate_pod_resources, validate_resource_requirements
from navarch.kinds.core.pod_validation_scheduling import (
    validate_affinity,
    validate_gates,
    validate_spread,
    validate_tolerations,
)
from navarch.kinds.core.pod_validation_security import validate_host_users, validate_pod_security_context
from navarch.kinds.core.pod_validation_volumes import validate_volumes
from navarch.kinds.core.pod_validation_windows import validate_host_process, validate_os
from navarch.kinds.internal import internal

_RESTART_POLICIES: Final = ("Always", "OnFailure", "Never")
_DNS_POLICIES: Final = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_PREEMPTION_POLICIES: Final = ("PreemptLowerPriority", "Never")
_MAX_HOSTNAME: Final = 64
_MAX_NAMESERVERS: Final = 3
_MAX_SEARCH_PATHS: Final = 32
_MAX_SEARCH_CHARS: Final = 2048
_INT32_MAX: Final = 2**31 - 1


def validate_pod_template_spec(template: Obj | None, path: str) -> Iterator[FieldError]:
    """A workload's pod template at `path` (`spec.template`)."""
    template = template or {}
    metadata = template.get("metadata") or {}
    annotations = metadata.get("annotations")
    if metadata.get("labels"):
        yield from validate_labels(metadata["labels"], f"{path}.labels")
    spec = template.get("spec") or {}
    if annotations:
        yield from validate_annotations(annotations, f"{path}.annotations")
        yield from validate_pod_annotations(annotations, spec, f"{path}.annotations")
    yield from validate_pod_spec(spec, f"{path}.spec", in_pod=False)
    if annotations:
        yield from validate_profiles_agree(annotations, spec, f"{path}.spec")
    if spec.get("ephemeralContainers"):
        detail = "ephemeral containers not allowed in pod template"
        yield forbidden_field(f"{path}.spec.ephemeralContainers", detail)


def validate_pod(pod: Obj) -> Iterator[FieldError]:
    """A pod's spec, and what only pods have to observe, not templates."""
    spec, metadata = pod["spec"], pod["metadata"]
    mirror = MIRROR in (metadata.get("annotations") or ())
    yield from validate_pod_spec(spec, name=metadata.get("name") or "", mirror=mirror)
    if not spec.get("serviceAccountName"):
        for index, volume in enumerate(spec.get("volumes") or ()):
            for number, source in enumerate((volume.get("projected") or {}).get("sources") or ()):
                if source.get("serviceAccountToken") is not None:
                    at = f"spec.volumes[{index}].projected.sources[{number}].serviceAccountToken"
                    yield forbidden_field(at, "must not be specified when serviceAccountName is not set")
    for field in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(field) or ()):
            yield from validate_image_spaces(container, f"spec.{field}[{index}]")


def validate_pod_spec(
    spec: Obj, path: str = "spec", *, in_pod: bool = True, name: str = "", mirror: bool = False
) -> Iterator[FieldError]:
    """A pod's spec at `path`; `name` and `mirror` tell of the pod, where it is one."""
    get = spec.get
    volumes: dict[str, Obj] = {}
    if get("volumes"):
        yield from validate_volumes(spec["volumes"], f"{path}.volumes", volumes, pod_name=name, in_pod=in_pod)
    if get("resourceClaims"):
        yield from _validate_claims(spec["resourceClaims"], f"{path}.resourceClaims", mirror=mirror)
    yield from validate_containers(spec, path, volumes)
    if get("resources"):
        yield from validate_pod_resources(spec, f"{path}.resources")
    if get("hostNetwork"):
        yield from validate_host_network_ports(spec, path, in_pod=in_pod)
    yield from _validate_policies(spec, path)
    if get("nodeSelector"):
        yield from validate_labels(spec["nodeSelector"], f"{path}.nodeSelector")
    yield from validate_pod_security_context(spec, path)
    if get("affinity"):
        yield from validate_affinity(spec["affinity"], f"{path}.affinity")
    if get("dnsPolicy") == "None" or get("dnsConfig"):
        yield from _validate_dns_config(spec, f"{path}.dnsConfig")
    if get("readinessGates"):
        for index, gate in enumerate(spec["readinessGates"]):
            at = f"{path}.readinessGates[{index}].conditionType"
            yield from validate_qualified_name(gate.get("conditionType") or "", at)
    if get("schedulingGates"):
        yield from validate_gates(spec["schedulingGates"], f"{path}.schedulingGates")
    if get("topologySpreadConstraints"):
        yield from validate_spread(spec["topologySpreadConstraints"], f"{path}.topologySpreadConstraints")
    yield from validate_host_process(spec, path)
    yield from validate_host_users(spec, path)
    yield from _validate_names(spec, path)
    if get("preemptionPolicy") is not None:
        yield from _validate_policy(spec["preemptionPolicy"], f"{path}.preemptionPolicy", _PREEMPTION_POLICIES)
    if get("overhead"):
        yield from validate_resource_requirements({"limits": spec["overhead"]}, f"{path}.overhead")
    if get("os") is not None:
        yield from validate_os(spec, path)
    yield from validate_file_key_volumes(spec, path)


def _validate_names(spec: Obj, path: str) -> Iterator[FieldError]:
    """What names something else, or the pod's own host; between them, as Kubernetes has it, numbers and tolerations."""
    get = spec.get
    if get("hostnameOverride") is not None:
        yield from _validate_hostname_override(spec, f"{path}.hostnameOverride")
    for field in ("serviceAccountName", "nodeName"):
        if get(field):
            yield from validate_dns_subdomain(spec[field], f"{path}.{field}")
    seconds = get("activeDeadlineSeconds")
    if seconds is not None and not 1 <= seconds <= _INT32_MAX:
        detail = f"must be between 1 and {_INT32_MAX}, inclusive"
        yield invalid_value(f"{path}.activeDeadlineSeconds", seconds, detail)
    for field in ("hostname", "subdomain"):
        if get(field):
            yield from validate_dns_label(spec[field], f"{path}.{field}")
    if get("tolerations"):
        yield from validate_tolerations(spec["tolerations"], f"{path}.tolerations")
    if get("hostAliases"):
        yield from _validate_host_aliases(spec["hostAliases"], f"{path}.hostAliases")
    if get("priorityClassName"):
        yield from validate_dns_subdomain(spec["priorityClassName"], f"{path}.priorityClassName")
    if get("runtimeClassName") is not None:
        yield from validate_dns_subdomain(spec["runtimeClassName"], f"{path}.runtimeClassName")


def _validate_hostname_override(spec: Obj, path: str) -> Iterator[FieldError]:
    name = spec["hostnameOverride"]
    for field in ("setHostnameAsFQDN", "hostNetwork"):
        if spec.get(field):
            yield forbidden_field(path, f"may not be specified when {field} is true")
    if len(name) > _MAX_HOSTNAME:
        yield too_long(path, _MAX_HOSTNAME)
    yield from validate_dns_subdomain(name, path)


def _validate_policies(spec: Obj, path: str) -> Iterator[FieldError]:
    for field, supported in (("restartPolicy", _RESTART_POLICIES), ("dnsPolicy", _DNS_POLICIES)):
        yield from _validate_policy(spec.get(field) or "", f"{path}.{field}", supported)


def _validate_policy(policy: str, path: str, supported: Sequence[str]) -> Iterator[FieldError]:
    if policy in supported:
        return
    if policy:
        yield not_supported(path, policy, supported)
    else:
        yield required(path)


def _validate_claims(claims: list[Obj], path: str, *, mirror: bool) -> Iterator[FieldError]:
    seen: set[str] = set()
    if mirror:
        for _ in claims:
            yield forbidden_field("", "static pods do not support resource claims")
        return
    for index, claim in enumerate(claims):
        at, name = f"{path}[{index}]", claim.get("name") or ""
        if not name:
            yield required(f"{at}.name")
        elif name in seen:
            yield duplicate(f"{at}.name", name)
        else:
            yield from validate_dns_label(name, f"{at}.name")
        seen.add(name)
        given = [f for f in ("resourceClaimName", "resourceClaimTemplateName") if claim.get(f) is not None]
        if len(given) > 1:
            detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            yield invalid_value(at, internal(claim, "PodResourceClaim"), detail)
        elif not given:
            detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            yield invalid_value(at, internal(claim, "PodResourceClaim"), detail)
        for field in given:
            yield from validate_dns_subdomain(claim[field], f"{at}.{field}")


def _validate_host_aliases(aliases: list[Obj], path: str) -> Iterator[FieldError]:
    for index, alias in enumerate(aliases):
        yield from validate_ip(alias.get("ip") or "", f"{path}[{index}].ip")
        for number, name in enumerate(alias.get("hostnames") or ()):
            yield from validate_dns_subdomain(name, f"{path}[{index}].hostnames[{number}]")


def _validate_dns_config(spec: Obj, path: str) -> Iterator[FieldError]:
    config = spec.get("dnsConfig") or {}
    servers = config.get("nameservers") or ()
    if spec.get("dnsPolicy") == "None" and not servers:
        if spec.get("dnsConfig") is None:
            detail = "must provide `dnsConfig` when `dnsPolicy` is None"
            yield required(path, detail)
            return
        detail = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        yield required(f"{path}.nameservers", detail)
        return
    if len(servers) > _MAX_NAMESERVERS:
        detail = f"must not have more than {_MAX_NAMESERVERS} nameservers"
        yield invalid_value(f"{path}.nameservers", list(servers), detail)
    for index, server in enumerate(servers):
        yield from validate_ip(server, f"{path}.nameservers[{index}]")
    searches = config.get("searches") or ()
    if len(searches) > _MAX_SEARCH_PATHS:
        detail = f"must not have more than {_MAX_SEARCH_PATHS} search paths"
        yield invalid_value(f"{path}.searches", list(searches), detail)
    if len(" ".join(searches)) > _MAX_SEARCH_CHARS:
        detail = f"must not have more than {_MAX_SEARCH_CHARS} characters (including spaces) in the search list"
        yield invalid_value(f"{path}.searches", list(searches), detail)
    for index, search in enumerate(searches):
        if search != ".":
            for problem in dns_subdomain_underscore_problems(search.removesuffix(".")):
                yield invalid_value(f"{path}.searches[{index}]", search.removesuffix("."), problem)
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            yield required(f"{path}.options[{index}]", "must not be empty")
