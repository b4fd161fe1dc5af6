"""A pod as a sandbox: the CRI configuration of what its containers share. Pure."""

from __future__ import annotations

from typing import Any, Final

from navarch.api.meta import Obj, annotations_of, labels_of
from navarch.node.config import KubeletConfig
from navarch.node.engine.observed import GRACE_PERIOD
from navarch.node.resources.amounts import cpu_quota, cpu_shares, pod_totals, qos_class
from navarch.node.runtime.cri import POD_NAME, POD_NAMESPACE, POD_UID
from navarch.node.runtime.proto import cri_pb2 as cri
from navarch.node.spec import podspec
from navarch.node.spec.dns import Resolver
from navarch.node.spec.security import sandbox_security

_PROTOCOLS: Final = {"TCP": cri.TCP, "UDP": cri.UDP, "SCTP": cri.SCTP}


def pod_labels(pod: Obj) -> dict[str, str]:
    """The labels by which a runtime's things are known to belong to a pod."""
    metadata = pod["metadata"]
    return {POD_NAME: metadata["name"], POD_NAMESPACE: metadata["namespace"], POD_UID: metadata["uid"]}


def cgroup_parent(pod: Obj, config: KubeletConfig) -> str:
    """`<root>/burstable/pod<uid>`; guaranteed pods are directly below the root."""
    qos = qos_class(pod)
    middle = "" if qos == "Guaranteed" else f"/{qos.lower()}"
    return f"{config.cgroup_root}{middle}/pod{pod['metadata']['uid']}"


def sandbox_config(pod: Obj, attempt: int, resolver: Resolver, config: KubeletConfig) -> Any:
    """The configuration of the sandbox's `attempt`; containers are created with the same one."""
    metadata = pod["metadata"]
    requests, cpu_limit, memory_limit = pod_totals(pod)
    result = cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(
            name=metadata["name"], uid=metadata["uid"], namespace=metadata["namespace"], attempt=attempt
        ),
        log_directory=str(config.log_directory(metadata["namespace"], metadata["name"], metadata["uid"])),
        dns_config=cri.DNSConfig(servers=resolver.servers, searches=resolver.searches, options=resolver.options),
        labels={**labels_of(pod), **pod_labels(pod)},
        annotations={**annotations_of(pod), GRACE_PERIOD: str(podspec.grace_period_s(pod))},
        linux=cri.LinuxPodSandboxConfig(
            cgroup_parent=cgroup_parent(pod, config),
            security_context=sandbox_security(pod),
            sysctls={
                entry["name"].replace("/", "."): entry["value"]
                for entry in (pod["spec"].get("securityContext") or {}).get("sysctls") or []
            },
            resources=cri.LinuxContainerResources(
                cpu_shares=cpu_shares(requests),
                cpu_period=100_000 if cpu_limit else 0,
                cpu_quota=cpu_quota(cpu_limit),
                memory_limit_in_bytes=memory_limit,
            ),
        ),
    )
    if not podspec.host_network(pod):
        name, domain = podspec.hostname(pod), podspec.host_domain(pod, config.cluster_domain)
        fully_qualified = pod["spec"].get("setHostnameAsFQDN") and domain
        result.hostname = f"{name}.{domain}" if fully_qualified else name
        for container in [*podspec.init_containers(pod), *podspec.containers(pod)]:
            for port in container.get("ports") or []:
                result.port_mappings.add(
                    protocol=_PROTOCOLS[port.get("protocol") or "TCP"],
                    container_port=port["containerPort"],
                    host_port=port.get("hostPort") or 0,
                    host_ip=port.get("hostIP") or "",
                )
    return result
