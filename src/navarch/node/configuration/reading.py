"""From a file of Kubernetes' form to what a kubelet of ours is told.

In: the file, and what the cluster says of the node.  Out: that with what the file says, or a ConfigurationError with
Kubernetes' words. What the file leaves open about addresses, certificates and DNS is the cluster's; all else has
Kubernetes' defaults.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from navarch.api import durations, quantity, yaml_reader
from navarch.api.config_files import ShapeError, fit
from navarch.api.meta import Obj
from navarch.node.config import (
    CgroupsConfig,
    EvictionConfig,
    KubeletConfig,
    ManagersConfig,
    ReservedConfig,
    ServingConfig,
    ShutdownPeriod,
)
from navarch.node.configuration import validation
from navarch.node.configuration.defaults import UNCONFIGURED, completed
from navarch.node.configuration.shape import API_VERSION, FIELDS, KIND, MAPS, WITHOUT_EFFECT
from navarch.node.resources import cpusets
from navarch.node.thresholds import thresholds_of

log = logging.getLogger(__name__)

_TYPES: Final[Mapping[type, str]] = {str: "a string", bool: "a boolean", list: "a list"}


class ConfigurationError(ValueError):
    """The file cannot be used; the message says why."""


def read(path: Path, version: str) -> Obj:
    """What a file says, checked.  Raises ConfigurationError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        why = error.strerror or error
        raise ConfigurationError(f"failed to load kubelet config file, path: {path}, error: {why}") from None
    try:
        document = checked(yaml_reader.load(data).value, version)
    except (ConfigurationError, ValueError) as error:
        raise ConfigurationError(f"failed to load kubelet config file, path: {path}, error: {error}") from None
    return document


def checked(document: Any, version: str) -> Obj:
    """The document, if it is one that can be used.  Raises ConfigurationError."""
    if not isinstance(document, dict):
        raise ConfigurationError("kubelet config file was empty" if document is None else "must be an object")
    kind, group_version = document.get("kind"), document.get("apiVersion")
    if not kind or not group_version:
        raise ConfigurationError(f"Object '{'Kind' if not kind else 'apiVersion'}' is missing in the file")
    if (group_version, kind) != (API_VERSION, KIND):
        raise ConfigurationError(f'no kind "{kind}" is registered for version "{group_version}", want {API_VERSION}')
    try:
        fit(document, FIELDS)
    except ShapeError as error:
        raise ConfigurationError(str(error)) from None
    wrong = [
        f"{field}.{name}: must be {_TYPES[shape]}"
        for field, shape in MAPS.items()
        for name, value in (document.get(field) or {}).items()
        if not isinstance(value, shape)
    ]
    wrong = wrong or list(validation.duration_problems(document))
    wrong = wrong or validation.problems(completed(document), version)
    if wrong:
        # As Go prints several errors.
        text = wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]"
        raise ConfigurationError(f"failed to validate kubelet configuration, error: {text}")
    return document


def warnings(document: Obj) -> list[str]:
    """What the file says that changes nothing here."""
    defaults = completed({})
    return [
        f"kubelet configuration: {name} has no effect here: {why}"
        for name, why in WITHOUT_EFFECT.items()
        if document.get(name) is not None and document[name] != defaults.get(name)
    ]


def configured(config: KubeletConfig, stated: Obj | None) -> KubeletConfig:
    """`config`, which has what the cluster says, with what a file says, or what nodes of ours have without one."""
    said = UNCONFIGURED if stated is None else stated
    full = completed(said)
    if stated is None:
        # One machine may have several nodes, and nobody asks this port; how many pods there may be, the caller says.
        full["healthzPort"], full["maxPods"] = 0, config.max_pods
    return _shown(_of_cluster(_machine(_own(config, full), full), said), full)


def _s(full: Obj, name: str) -> float:
    return durations.parse_s(full.get(name) or "0s")


def _own(config: KubeletConfig, full: Obj) -> KubeletConfig:
    """What concerns the kubelet itself."""
    longest = full["crashLoopBackOff"].get("maxContainerRestartPeriod")
    return replace(
        config,
        max_pods=full["maxPods"],
        pods_per_core=full.get("podsPerCore") or 0,
        node_taints=(*config.node_taints, *(full.get("registerWithTaints") or ())),
        provider_id=full.get("providerID") or "",
        register_node=full["registerNode"],
        sync_period_s=_s(full, "syncFrequency"),
        lease_duration_s=full["nodeLeaseDurationSeconds"],
        status_look_s=_s(full, "nodeStatusUpdateFrequency"),
        status_period_s=_s(full, "nodeStatusReportFrequency"),
        status_images=full["nodeStatusMaxImages"],
        container_log_max_bytes=quantity.value(full["containerLogMaxSize"]),
        container_log_max_files=full["containerLogMaxFiles"],
        container_log_workers=full["containerLogMaxWorkers"],
        container_log_check_s=_s(full, "containerLogMonitorInterval"),
        volume_stats_s=_s(full, "volumeStatsAggPeriod"),
        crash_back_off_s=durations.parse_s(longest) if longest else 300.0,
        unsafe_sysctls=tuple(full.get("allowedUnsafeSysctls") or ()),
        seccomp_default=full["seccompDefault"],
        shutdown_periods=_shutdown(full),
        ids_per_pod=(full.get("userNamespaces") or {}).get("idsPerPod") or 65536,
        static_pod_check_s=_s(full, "fileCheckFrequency"),
        static_pod_url_check_s=_s(full, "httpCheckFrequency"),
        features=validation.gates_of(full, config.kubernetes_version),
        serving=_serving(full),
    )


def _shutdown(full: Obj) -> tuple[ShutdownPeriod, ...]:
    stated = full.get("shutdownGracePeriodByPodPriority") or []
    if stated:
        return tuple(
            ShutdownPeriod(int(one.get("priority") or 0), float(one.get("shutdownGracePeriodSeconds") or 0))
            for one in stated
        )
    whole, critical = _s(full, "shutdownGracePeriod"), _s(full, "shutdownGracePeriodCriticalPods")
    if not whole:
        return ()
    return (ShutdownPeriod(0, whole - critical), ShutdownPeriod(2_000_000_000, critical))


def _serving(full: Obj) -> ServingConfig:
    who, may = full["authentication"], full["authorization"]
    return ServingConfig(
        enabled=full["enableServer"],
        debugging=full["enableDebuggingHandlers"],
        system_logs=full["enableSystemLogHandler"],
        log_queries=full.get("enableSystemLogQuery") or False,
        anonymous=who["anonymous"]["enabled"],
        tokens=who["webhook"]["enabled"],
        token_ttl_s=durations.parse_s(who["webhook"]["cacheTTL"]),
        authorization=may["mode"],
        allowed_ttl_s=durations.parse_s(may["webhook"]["cacheAuthorizedTTL"]),
        refused_ttl_s=durations.parse_s(may["webhook"]["cacheUnauthorizedTTL"]),
        tls_min_version=full.get("tlsMinVersion") or "",
        cipher_suites=tuple(full.get("tlsCipherSuites") or ()),
        tls_bootstrap=full.get("serverTLSBootstrap") or False,
        read_only_port=full.get("readOnlyPort") or 0,
        healthz_port=full["healthzPort"],
        healthz_address=full["healthzBindAddress"],
    )


def _machine(config: KubeletConfig, full: Obj) -> KubeletConfig:
    """What concerns the machine's resources."""
    swap = (full.get("memorySwap") or {}).get("swapBehavior") or "NoSwap"
    return replace(
        config,
        fail_swap_on=full["failSwapOn"],
        fail_cgroup_v1=full["failCgroupV1"],
        protect_kernel_defaults=full.get("protectKernelDefaults") or False,
        eviction=EvictionConfig(
            thresholds=thresholds_of(
                full["evictionHard"],
                full.get("evictionSoft"),
                full.get("evictionSoftGracePeriod"),
                full.get("evictionMinimumReclaim"),
            ),
            transition_s=_s(full, "evictionPressureTransitionPeriod"),
            longest_grace_s=full.get("evictionMaxPodGracePeriod") or 0,
            local_storage=full["localStorageCapacityIsolation"],
        ),
        reserved=ReservedConfig(
            kube=full.get("kubeReserved") or {},
            system=full.get("systemReserved") or {},
            cpus=cpusets.parse(full.get("reservedSystemCPUs") or ""),
            enforced=tuple(full["enforceNodeAllocatable"]),
            kube_cgroup=full.get("kubeReservedCgroup") or "",
            system_cgroup=full.get("systemReservedCgroup") or "",
        ),
        images=replace(
            config.images,
            parallel_pulls=1 if full["serializeImagePulls"] else full.get("maxParallelImagePulls") or 0,
            pulls_per_s=full["registryPullQPS"],
            pull_burst=full["registryBurst"],
            high_percent=full["imageGCHighThresholdPercent"],
            low_percent=full["imageGCLowThresholdPercent"],
            min_age_s=_s(full, "imageMinimumGCAge"),
            max_age_s=_s(full, "imageMaximumGCAge"),
            verification=full["imagePullCredentialsVerificationPolicy"],
            allowlist=tuple(full.get("preloadedImagesVerificationAllowlist") or ()),
        ),
        managers=ManagersConfig(
            cpu_policy=full["cpuManagerPolicy"],
            cpu_options=full.get("cpuManagerPolicyOptions") or {},
            memory_policy=full["memoryManagerPolicy"],
            reserved_memory=tuple(full.get("reservedMemory") or ()),
            topology_policy=full["topologyManagerPolicy"],
            topology_scope=full["topologyManagerScope"],
            topology_options=full.get("topologyManagerPolicyOptions") or {},
        ),
        cgroups=CgroupsConfig(
            per_qos=full["cgroupsPerQOS"],
            cpu_quota=full["cpuCFSQuota"],
            cpu_period_us=durations.parse_ns(full["cpuCFSQuotaPeriod"]) // 1000,
            pod_pids=full["podPidsLimit"],
            single_process_oom_kill=full.get("singleProcessOOMKill") or False,
            swap=swap,
            memory_qos=config.features.on("MemoryQoS"),
            memory_throttling=float(full["memoryThrottlingFactor"]),
            memory_reservation=full["memoryReservationPolicy"],
        ),
    )


def _of_cluster(config: KubeletConfig, said: Obj) -> KubeletConfig:
    """What the cluster says unless the file does."""
    found: dict[str, Any] = {}
    if said.get("address"):
        found["addresses"] = (said["address"],)
    if said.get("port"):
        found["port"] = said["port"]
    if said.get("clusterDNS"):
        found["cluster_dns"] = tuple(said["clusterDNS"])
    if said.get("clusterDomain"):
        found["cluster_domain"] = said["clusterDomain"]
    if said.get("staticPodPath"):
        found["static_pod_path"] = Path(said["staticPodPath"])
    if said.get("staticPodURL"):
        found["static_pod_url"] = said["staticPodURL"]
        found["static_pod_headers"] = said.get("staticPodURLHeader") or {}
    if said.get("resolvConf") is not None:
        # Without one, pods have the names of the cluster alone.
        found["host_resolv_conf"] = Path(said["resolvConf"] or "/dev/null")
    if said.get("tlsCertFile") and said.get("tlsPrivateKeyFile"):
        found["serving_cert"], found["serving_key"] = Path(said["tlsCertFile"]), Path(said["tlsPrivateKeyFile"])
    authority = ((said.get("authentication") or {}).get("x509") or {}).get("clientCAFile")
    if authority:
        found["client_ca"] = Path(authority)
    return replace(config, **found)


def _shown(config: KubeletConfig, full: Obj) -> KubeletConfig:
    """As `/configz` tells it: what is in force, whoever said it."""
    told = dict(full)
    told["address"] = config.addresses[0] if config.addresses else ""
    told["port"] = config.port
    told["clusterDNS"] = list(config.cluster_dns)
    told["clusterDomain"] = config.cluster_domain
    told["staticPodPath"] = str(config.manifests)
    told["cgroupRoot"] = config.cgroup_root
    told["cgroupDriver"] = "cgroupfs"
    told["resolvConf"] = str(config.host_resolv_conf)
    told["containerRuntimeEndpoint"] = f"unix://{config.runtime_socket}"
    told["podLogsDir"] = str(config.logs)
    for name, path in (("tlsCertFile", config.serving_cert), ("tlsPrivateKeyFile", config.serving_key)):
        if path is not None:
            told[name] = str(path)
    if config.client_ca is not None:
        told["authentication"] = {**told["authentication"], "x509": {"clientCAFile": str(config.client_ca)}}
    return replace(config, document=told)
