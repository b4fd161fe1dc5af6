"""Pod validation: whether a pod's spec, or a pod template's, makes sense; what every workload kind relies on.

In: a defaulted spec and the dotted path at which it stands.  Out: field errors in Kubernetes' words. This module checks
what concerns the pod as a whole and calls one module per idea for the rest: `pod_validation_containers`, `…_volumes`,
`…_security`, `…_scheduling`, `…_resources`, `…_env`, `…_probes`.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from navarch.api.validation import (
    validate_annotations,
    validate_dns_label,
    validate_dns_subdomain,
    validate_ip,
    validate_labels,
    validate_qualified_name,
)
from navarch.kinds.core.pod_validation_containers import validate_containers
from navarch.kinds.core.pod_validation_resources import validate_pod_resources, validate_resource_value
from navarch.kinds.core.pod_validation_scheduling import validate_scheduling
from navarch.kinds.core.pod_validation_security import validate_pod_security_context
from navarch.kinds.core.pod_validation_volumes import validate_volumes

_RESTART_POLICIES: Final = ("Always", "OnFailure", "Never")
_DNS_POLICIES: Final = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_MAX_NAMESERVERS: Final = 3
_MAX_SEARCH_PATHS: Final = 32
_MAX_SEARCH_CHARS: Final = 2048
_INT32_MAX: Final = 2**31 - 1


def validate_pod_template_spec(template: Obj | None, path: str) -> Iterator[FieldError]:
    """A workload's pod template at `path` (`spec.template`)."""
    template = template or {}
    metadata = template.get("metadata") or {}
    if metadata.get("labels"):
        yield from validate_labels(metadata["labels"], f"{path}.labels")
    if metadata.get("annotations"):
        yield from validate_annotations(metadata["annotations"], f"{path}.annotations")
    spec = template.get("spec") or {}
    yield from validate_pod_spec(spec, f"{path}.spec")
    if spec.get("ephemeralContainers"):
        detail = "ephemeral containers not allowed in pod template"
        yield forbidden_field(f"{path}.spec.ephemeralContainers", detail)


def validate_pod_spec(spec: Obj, path: str = "spec") -> Iterator[FieldError]:
    """A pod's spec at `path`."""
    get = spec.get
    if get("volumes"):
        yield from validate_volumes(get("volumes") or (), f"{path}.volumes")
    if get("resourceClaims"):
        yield from _validate_claims(spec["resourceClaims"], f"{path}.resourceClaims")
    yield from validate_containers(spec, path)
    yield from _validate_policies(spec, path)
    yield from validate_scheduling(spec, path)
    yield from validate_pod_security_context(spec, path)
    if get("readinessGates"):
        for index, gate in enumerate(spec["readinessGates"]):
            yield from validate_qualified_name(
                gate.get("conditionType") or "", f"{path}.readinessGates[{index}].conditionType"
            )
    for field in ("serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"):
        if get(field):
            yield from validate_dns_subdomain(spec[field], f"{path}.{field}")
    seconds = get("activeDeadlineSeconds")
    if seconds is not None and not 1 <= seconds <= _INT32_MAX:
        detail = f"must be between 1 and {_INT32_MAX}, inclusive"
        yield invalid_value(f"{path}.activeDeadlineSeconds", seconds, detail)
    for field in ("hostname", "subdomain"):
        if get(field):
            yield from validate_dns_label(spec[field], f"{path}.{field}")
    if get("hostAliases"):
        yield from _validate_host_aliases(spec["hostAliases"], f"{path}.hostAliases")
    if get("dnsPolicy") == "None" or get("dnsConfig"):
        yield from _validate_dns_config(spec, f"{path}.dnsConfig")
    if get("overhead"):
        for name, value in spec["overhead"].items():
            yield from validate_resource_value(name, value, f"{path}.overhead[{name}]")
    if get("resources"):
        yield from validate_pod_resources(spec, f"{path}.resources")
    if get("os"):
        yield from _validate_os(spec, path)


def _validate_policies(spec: Obj, path: str) -> Iterator[FieldError]:
    for field, supported in (("restartPolicy", _RESTART_POLICIES), ("dnsPolicy", _DNS_POLICIES)):
        policy = spec.get(field)
        if policy in supported:
            continue
        if policy:
            yield not_supported(f"{path}.{field}", policy, supported)
        else:
            yield required(f"{path}.{field}")
    preemption = spec.get("preemptionPolicy")
    if preemption is not None and preemption not in ("Never", "PreemptLowerPriority"):
        yield not_supported(f"{path}.preemptionPolicy", preemption, ("Never", "PreemptLowerPriority"))


def _validate_claims(claims: list[Obj], path: str) -> Iterator[FieldError]:
    seen: set[str] = set()
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
            yield invalid_value(at, claim, detail)
        elif not given:
            detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            yield invalid_value(at, claim, detail)


def _validate_host_aliases(aliases: list[Obj], path: str) -> Iterator[FieldError]:
    for index, alias in enumerate(aliases):
        yield from validate_ip(alias.get("ip") or "", f"{path}[{index}].ip")
        for number, name in enumerate(alias.get("hostnames") or ()):
            yield from validate_dns_subdomain(name, f"{path}[{index}].hostnames[{number}]")


def _validate_dns_config(spec: Obj, path: str) -> Iterator[FieldError]:
    config = spec.get("dnsConfig") or {}
    servers = config.get("nameservers") or ()
    if spec.get("dnsPolicy") == "None" and not servers:
        if not config:
            detail = "must provide `dnsConfig` when `dnsPolicy` is None"
            yield required(path, detail)
            return
        detail = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        yield required(f"{path}.nameservers", detail)
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
        # A search path may be "." or end in a dot, and its labels may begin with an underscore.
        if search == ".":
            continue
        plain = ".".join(label.lstrip("_") for label in search.removesuffix(".").split("."))
        yield from validate_dns_subdomain(plain, f"{path}.searches[{index}]")
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            yield required(f"{path}.options[{index}]", "must not be empty")


def _validate_os(spec: Obj, path: str) -> Iterator[FieldError]:
    name = spec["os"].get("name") or ""
    if not name:
        yield required(f"{path}.os.name", "cannot be empty")
    elif name not in ("linux", "windows"):
        yield not_supported(f"{path}.os", name, ("linux", "windows"))
    context = spec.get("securityContext") or {}
    if name == "linux" and context.get("windowsOptions") is not None:
        detail = "windows options cannot be set for a linux pod"
        yield forbidden_field(f"{path}.securityContext.windowsOptions", detail)
    if name == "windows":
        for field in ("hostPID", "hostIPC", "shareProcessNamespace"):
            if spec.get(field):
                yield forbidden_field(f"{path}.{field}", "cannot be set for a windows pod")
