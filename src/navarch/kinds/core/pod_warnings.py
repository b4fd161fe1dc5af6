"""Warnings about pods: what is allowed but surely not meant; shown by kubectl, for pods and for templates.

In: a pod's spec and metadata, or a template's, and the path at which it stands.  Out: texts for `Warning` headers, in
Kubernetes' words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from navarch.api.meta import Obj
from navarch.api.validation import dns_label_problems
from navarch.kinds.core.node_warnings import DEPRECATED_NODE_LABELS, node_term_warnings
from navarch.kinds.core.pod_annotations import APP_ARMOR, annotated_profiles
from navarch.kinds.core.pod_validation_security import containers_with_paths
from navarch.kinds.core.storage_warnings import claim_warnings, fraction_warning
from navarch.kinds.core.volume_paths import overlapping_paths
from navarch.kinds.core.volume_sources import DEPRECATED_SOURCES

_DEPRECATED_ANNOTATIONS: Final = {
    "scheduler.alpha.kubernetes.io/critical-pod": 'use the "priorityClassName" field instead',
    "security.alpha.kubernetes.io/sysctls": 'use the "sysctls" field instead',
    "security.alpha.kubernetes.io/unsafe-sysctls": 'use the "sysctls" field instead',
}
_DEAD_ANNOTATIONS_SINCE: Final = {"scheduler.alpha.kubernetes.io/critical-pod": "v1.16+"}
_SECCOMP_POD: Final = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER: Final = "container.seccomp.security.alpha.kubernetes.io/"
_USE_THE_FIELD: Final = 'deprecated since v1.30; use the "appArmorProfile" field instead'
_BYTES: Final = ("memory", "ephemeral-storage")


def name_warnings(obj: Obj, where: str = "Pod names and hostnames") -> Iterator[str]:
    """Of a new object after whose name its pods are called: a name with dots makes odd names of hosts."""
    if problems := dns_label_problems(obj["metadata"].get("name") or ""):
        yield (
            f"metadata.name: this is used in {where}, which can result in surprising behavior; "
            f"a DNS label is recommended: [{' '.join(problems)}]"
        )


def pod_warnings(holder: Obj, path: str = "") -> Iterator[str]:
    """What a careful reader would say about a pod (whose path is empty) or a template: its annotations and its spec."""
    spec = holder.get("spec") or {}
    annotations = (holder.get("metadata") or {}).get("annotations")
    prefix = f"{path}." if path else ""
    if annotations:
        yield from annotation_warnings(annotations, spec, prefix)
        yield from _app_armor_warnings(annotations, spec, prefix)
    yield from pod_spec_warnings(spec, f"{prefix}spec")


def pod_spec_warnings(spec: Obj, path: str = "spec") -> Iterator[str]:
    """The same about the spec alone."""
    get = spec.get
    for key in get("nodeSelector") or ():
        if key in DEPRECATED_NODE_LABELS:
            yield f"{path}.nodeSelector[{key}]: {DEPRECATED_NODE_LABELS[key]}"
    if get("affinity"):
        yield from _node_affinity_warnings(spec["affinity"], f"{path}.affinity.nodeAffinity")
    for index, constraint in enumerate(get("topologySpreadConstraints") or ()):
        at, key = f"{path}.topologySpreadConstraints[{index}]", constraint.get("topologyKey") or ""
        if key in DEPRECATED_NODE_LABELS:
            yield f"{at}.topologyKey: {key} is {DEPRECATED_NODE_LABELS[key]}"
        if constraint.get("labelSelector") is None:
            yield f"{at}.labelSelector: a null labelSelector results in matching no pod"
    if get("volumes"):
        yield from _volume_warnings(spec["volumes"], f"{path}.volumes")
    yield from _repeated(get("hostAliases") or (), "ip", f"{path}.hostAliases")
    yield from _repeated(get("imagePullSecrets") or (), "name", f"{path}.imagePullSecrets")
    for index, secret in enumerate(get("imagePullSecrets") or ()):
        if not secret.get("name"):
            yield f'{path}.imagePullSecrets[{index}].name: invalid empty name ""'
    for name in _BYTES:
        yield from fraction_warning((get("overhead") or {}).get(name), f"{path}.overhead[{name}]")
    for container, at in containers_with_paths(spec, path):
        yield from _container_warnings(container, at)
    yield from _port_warnings(spec, path)
    seconds = get("terminationGracePeriodSeconds")
    if seconds is not None and seconds < 0:
        yield (
            f"{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        )
    if get("affinity"):
        yield from _pod_affinity_warnings(spec["affinity"], f"{path}.affinity")


def annotation_warnings(annotations: Mapping[str, str], spec: Obj, prefix: str = "") -> Iterator[str]:
    context, at = spec.get("securityContext") or {}, f"{prefix}metadata.annotations"
    for key, text in _DEPRECATED_ANNOTATIONS.items():
        if key in annotations:
            yield f"{at}[{key}]: non-functional in {_DEAD_ANNOTATIONS_SINCE.get(key, 'v1.11+')}; {text}"
    dead = 'non-functional in v1.27+; use the "seccompProfile" field instead'
    if _SECCOMP_POD in annotations and context.get("seccompProfile") is None:
        yield f"{at}[{_SECCOMP_POD}]: {dead}"
    for container, _ in containers_with_paths(spec, ""):
        own, name = container.get("securityContext") or {}, container.get("name") or ""
        if _SECCOMP_CONTAINER + name in annotations and own.get("seccompProfile") is None:
            yield f"{at}[{_SECCOMP_CONTAINER}{name}]: {dead}"


def taken_profile_warnings(annotations: Mapping[str, str], spec: Obj) -> Iterator[str]:
    """About profiles that a new pod has by an annotation, or would have; said even if it is then refused."""
    if (spec.get("os") or {}).get("name") != "windows":
        for key, _, _ in annotated_profiles(annotations, spec):
            yield f"metadata.annotations[{key}]: {_USE_THE_FIELD}"


def _app_armor_warnings(annotations: Mapping[str, str], spec: Obj, prefix: str) -> Iterator[str]:
    """The same of a template."""
    context, at = spec.get("securityContext") or {}, f"{prefix}metadata.annotations"
    for container, _ in containers_with_paths(spec, ""):
        own, name = container.get("securityContext") or {}, container.get("name") or ""
        armed = context.get("appArmorProfile") is not None or own.get("appArmorProfile") is not None
        if APP_ARMOR + name in annotations and not armed:
            yield f"{at}[{APP_ARMOR}{name}]: {_USE_THE_FIELD}"


def _node_affinity_warnings(affinity: Obj, path: str) -> Iterator[str]:
    node = affinity.get("nodeAffinity") or {}
    hard, soft = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
    for index, term in enumerate((node.get(hard) or {}).get("nodeSelectorTerms") or ()):
        yield from node_term_warnings(term, f"{path}.{hard}.nodeSelectorTerms[{index}]")
    for index, term in enumerate(node.get(soft) or ()):
        yield from node_term_warnings(term.get("preference") or {}, f"{path}.{soft}[{index}].preference", soft=True)


def _volume_warnings(volumes: Iterable[Obj], path: str) -> Iterator[str]:
    for index, volume in enumerate(volumes):
        for field in volume:
            if field in DEPRECATED_SOURCES:
                shown = "storageOS" if field == "storageos" else field
                yield f"{path}[{index}].{shown}: {DEPRECATED_SOURCES[field]}"
        template = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
        if template:
            at = f"{path}[{index}].ephemeral.volumeClaimTemplate.spec"
            yield from claim_warnings(template.get("spec") or {}, at)
    for volume in volumes:
        yield from overlapping_paths(volume)


def _repeated(items: Iterable[Obj], key: str, path: str) -> Iterator[str]:
    seen: set[str] = set()
    for index, item in enumerate(items):
        value = item.get(key) or ""
        if value in seen:
            yield f'{path}[{index}].{key}: duplicate {key} "{value}"'
        seen.add(value)


def _container_warnings(container: Obj, path: str) -> Iterator[str]:
    resources = container.get("resources")
    if resources:
        for name in _BYTES:
            for kind in ("limits", "requests"):
                value = (resources.get(kind) or {}).get(name)
                yield from fraction_warning(value, f"{path}.resources.{kind}[{name}]")
    seen: set[str] = set()
    for index, variable in enumerate(container.get("env") or ()):
        name = variable.get("name") or ""
        if name in seen and _hides(variable, f"$({name})"):
            text = f'hides previous definition of "{name}", which may be dropped when using apply'
            yield f"{path}.env[{index}]: {text}"
        seen.add(name)


def _hides(variable: Obj, reference: str) -> bool:
    """Whether a second definition is more than an addition to the first (`$(X):more`)."""
    value = variable.get("value") or ""
    return variable.get("valueFrom") is not None or value == reference or reference not in value


def _port_warnings(spec: Obj, path: str) -> Iterator[str]:
    """Ports of all containers of the pod together."""
    known: dict[tuple[Any, Any], list[tuple[str, Obj]]] = {}
    for container, at in containers_with_paths(spec, path):
        for index, port in enumerate(container.get("ports") or ()):
            here, key = f"{at}.ports[{index}]", (port.get("containerPort") or 0, port.get("protocol") or "")
            host, number = port.get("hostIP") or "", port.get("hostPort") or 0
            if host and not number:
                named = port.get("name") or ""
                shown = f"{{Name:{named} HostPort:0 ContainerPort:{key[0]} Protocol:{key[1]} HostIP:{host}}}"
                yield f"{here}: hostIP set without hostPort: {shown}"
            for place, other in known.get(key, ()):
                other_host, other_number = other.get("hostIP") or "", other.get("hostPort") or 0
                if (host, number) == (other_host, other_number):
                    yield f"{here}: duplicate port definition with {place}"
                elif not number or not other_number:
                    yield f"{here}: overlapping port definition with {place}"
                elif number == other_number and bool(host) != bool(other_host):
                    yield f"{here}: dangerously ambiguous port definition with {place}"
            known.setdefault(key, []).append((here, port))


def _pod_affinity_warnings(affinity: Obj, path: str) -> Iterator[str]:
    hard, soft = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
    for name in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(name) or {}
        terms = [(f"{hard}[{index}]", term) for index, term in enumerate(rules.get(hard) or ())]
        for index, weighted in enumerate(rules.get(soft) or ()):
            terms.append((f"{soft}[{index}].podAffinityTerm", weighted.get("podAffinityTerm") or {}))
        for where, term in terms:
            if term.get("labelSelector") is None:
                yield f"{path}.{name}.{where}.labelSelector: a null labelSelector results in matching no pod"
