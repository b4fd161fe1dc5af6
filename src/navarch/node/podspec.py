"""Reading a pod: small questions that many parts of the kubelet ask of the object, answered in one place. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Final

from navarch.api.meta import Obj, annotations_of
from navarch.kinds.core.pod_state import is_finished as is_finished
from navarch.kinds.core.pod_state import is_sidecar as is_sidecar
from navarch.kinds.core.pod_state import phase_of as phase_of
from navarch.kinds.core.pod_state import restart_rule as restart_rule
from navarch.kinds.core.pod_state import restarts_whole as restarts_whole

_SYSTEM_CRITICAL: Final = 2_000_000_000
CONFIG_SOURCE: Final = "kubernetes.io/config.source"
CONFIG_HASH: Final = "kubernetes.io/config.hash"
CONFIG_SEEN: Final = "kubernetes.io/config.seen"
CONFIG_MIRROR: Final = "kubernetes.io/config.mirror"


class ConfigError(Exception):
    """A container cannot be made from what the pod and the objects that it refers to say
    (`CreateContainerConfigError`)."""


def init_containers(pod: Obj) -> list[Obj]:
    return pod["spec"].get("initContainers") or []


def containers(pod: Obj) -> list[Obj]:
    return pod["spec"].get("containers") or []


def ephemeral_containers(pod: Obj) -> list[Obj]:
    return pod["spec"].get("ephemeralContainers") or []


def all_containers(pod: Obj) -> Iterator[Obj]:
    """Init, regular and ephemeral containers, in that order."""
    yield from init_containers(pod)
    yield from containers(pod)
    yield from ephemeral_containers(pod)


def find_container(pod: Obj, name: str) -> Obj | None:
    return next((container for container in all_containers(pod) if container["name"] == name), None)


def restart_policy(pod: Obj) -> str:
    return str(pod["spec"].get("restartPolicy") or "Always")


def should_restart(pod: Obj, container: Obj, exit_code: int) -> bool:
    """Whether a container that ended with `exit_code` is started again: its own policy and rules before the pod's."""
    if restart_rule(container, exit_code):
        return True
    policy = container.get("restartPolicy") or restart_policy(pod)
    if policy == "Always":
        return True
    return bool(policy == "OnFailure" and exit_code != 0)


def container_hash(container: Obj) -> str:
    """What of a container may not change while it runs: name and image, as Kubernetes hashes them."""
    text = json.dumps([container["name"], container.get("image", "")])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def host_network(pod: Obj) -> bool:
    return bool(pod["spec"].get("hostNetwork"))


def grace_period_s(pod: Obj) -> int:
    """Seconds that a pod being deleted has; else those of its spec."""
    deletion = pod["metadata"].get("deletionGracePeriodSeconds")
    if deletion is not None:
        return int(deletion)
    period = pod["spec"].get("terminationGracePeriodSeconds")
    return 30 if period is None else int(period)


def is_mirror(pod: Obj) -> bool:
    """Whether the object only mirrors a static pod."""
    return CONFIG_MIRROR in annotations_of(pod)


def is_critical(pod: Obj) -> bool:
    """Whether the system needs the pod more than the room that it takes (`system-cluster-critical` and above)."""
    return int(pod["spec"].get("priority") or 0) >= _SYSTEM_CRITICAL


def hostname(pod: Obj) -> str:
    """The pod's host name: `spec.hostname`, else its name, at most 63 characters, not ending in `-` or `.`."""
    override = pod["spec"].get("hostnameOverride")
    if override:
        return str(override)
    name = pod["spec"].get("hostname") or pod["metadata"]["name"]
    return str(name)[:63].rstrip("-.")


def host_domain(pod: Obj, cluster_domain: str) -> str:
    """The domain after the host name where the pod has a subdomain; else empty."""
    subdomain = pod["spec"].get("subdomain")
    if not subdomain or pod["spec"].get("hostnameOverride"):
        return ""
    return f"{subdomain}.{pod['metadata']['namespace']}.svc.{cluster_domain}"


def quoted(pod: Obj) -> str:
    """`name_namespace(uid)`: how the kubelet names pods in its messages."""
    metadata = pod["metadata"]
    return f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"


def field_path(pod: Obj, name: str) -> str:
    """Where a container stands in its pod (`spec.containers{web}`), as events about it say."""
    for field in ("containers", "initContainers", "ephemeralContainers"):
        if any(one["name"] == name for one in pod["spec"].get(field) or []):
            return f"spec.{field}{{{name}}}"
    return ""


def merged_security(pod: Obj, container: Obj, field: str) -> Any:
    """A field of the container's security context, or of the pod's where the container leaves it open."""
    own = (container.get("securityContext") or {}).get(field)
    if own is not None:
        return own
    return (pod["spec"].get("securityContext") or {}).get(field)
