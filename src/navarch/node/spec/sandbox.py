"""A pod as a sandbox: the configuration of what its containers share. Pure."""

from __future__ import annotations

from navarch.api.meta import Obj, annotations_of, labels_of
from navarch.node import podspec
from navarch.node.config import KubeletConfig
from navarch.node.resources.amounts import cpu_quota, cpu_shares, pod_totals
from navarch.node.resources.cgroups import cgroup_parent
from navarch.node.runtime.base import (
    GRACE_PERIOD,
    POD_NAME,
    POD_NAMESPACE,
    POD_UID,
    IDRange,
    PortMapping,
    Resources,
    RuntimeFailure,
    SandboxConfig,
)
from navarch.node.spec.dns import Resolver
from navarch.node.spec.security import sandbox_security

# What the kernel has room for.
_LONGEST_HOSTNAME = 64


def pod_labels(pod: Obj) -> dict[str, str]:
    """The labels by which a runtime's things are known to belong to a pod."""
    metadata = pod["metadata"]
    return {POD_NAME: metadata["name"], POD_NAMESPACE: metadata["namespace"], POD_UID: metadata["uid"]}


def sandbox_config(
    pod: Obj, attempt: int, resolver: Resolver, config: KubeletConfig, users: IDRange | None = None
) -> SandboxConfig:
    """The configuration of the sandbox's `attempt`; containers are created with the same one. `users` are those of the
    pod's user namespace."""
    metadata = pod["metadata"]
    requests, cpu_limit, memory_limit = pod_totals(pod)
    return SandboxConfig(
        name=metadata["name"],
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        attempt=attempt,
        hostname=_hostname(pod, config.cluster_domain),
        log_directory=str(config.log_directory(metadata["namespace"], metadata["name"], metadata["uid"])),
        dns_servers=tuple(resolver.servers),
        dns_searches=tuple(resolver.searches),
        dns_options=tuple(resolver.options),
        port_mappings=_port_mappings(pod),
        labels={**labels_of(pod), **pod_labels(pod)},
        annotations={**annotations_of(pod), GRACE_PERIOD: str(podspec.grace_period_s(pod))},
        cgroup_parent=cgroup_parent(pod, config),
        security=sandbox_security(pod, users),
        sysctls={
            entry["name"].replace("/", "."): entry["value"]
            for entry in (pod["spec"].get("securityContext") or {}).get("sysctls") or []
        },
        resources=Resources(
            cpu_shares=cpu_shares(requests),
            cpu_period_us=config.cgroups.cpu_period_us if cpu_limit else 0,
            cpu_quota_us=cpu_quota(cpu_limit, config.cgroups.cpu_period_us) if config.cgroups.cpu_quota else 0,
            memory_limit_bytes=memory_limit,
        ),
    )


def _hostname(pod: Obj, cluster_domain: str) -> str:
    """Empty where the pod is on the host's network, and so has the host's name.  Raises RuntimeFailure where it does
    not fit: the runtime would only say that the kernel refused it."""
    if podspec.host_network(pod):
        return ""
    name, domain = podspec.hostname(pod), podspec.host_domain(pod, cluster_domain)
    if not (pod["spec"].get("setHostnameAsFQDN") and domain):
        return name
    full = f"{name}.{domain}"
    if len(full) > _LONGEST_HOSTNAME:
        raise RuntimeFailure(
            f"failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long "
            f"({_LONGEST_HOSTNAME} characters is the max, {len(full)} characters requested)"
        )
    return full


def _port_mappings(pod: Obj) -> tuple[PortMapping, ...]:
    if podspec.host_network(pod):
        return ()
    return tuple(
        PortMapping(
            port.get("protocol") or "TCP", port["containerPort"], port.get("hostPort") or 0, port.get("hostIP") or ""
        )
        for container in [*podspec.init_containers(pod), *podspec.containers(pod)]
        for port in container.get("ports") or []
    )
