"""What a kubelet is told about its node and its cluster; where it keeps things on disk follows from `data`.

A file of Kubernetes' form (`node/configuration/`) says most of it; what is here without one is what a node of ours has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from navarch.api.features import Features, parse
from navarch.api.version import DEFAULT_VERSION
from navarch.node.thresholds import Threshold, thresholds_of

# Of a node that nobody configures: a machine that somebody works on, whose disk may well be fuller than a server's.
USUAL_THRESHOLDS: Final = {
    "memory.available": "100Mi",
    "nodefs.available": "5%",
    "nodefs.inodesFree": "5%",
    "imagefs.available": "5%",
    "imagefs.inodesFree": "5%",
}


class ShutdownPeriod(NamedTuple):
    """How long pods of a priority, or of a higher one, have when the machine shuts down."""

    priority: int
    seconds: float


@dataclass(frozen=True, slots=True)
class EvictionConfig:
    """When pods must go. Conditions stay for `transition_s` after their cause; pods that go because of a soft threshold
    have at most `longest_grace_s`."""

    thresholds: Sequence[Threshold] = field(default_factory=lambda: thresholds_of(USUAL_THRESHOLDS))
    transition_s: float = 300.0
    longest_grace_s: int = 0
    local_storage: bool = True


@dataclass(frozen=True, slots=True)
class ReservedConfig:
    """What of the node is not for pods, by resource (`cpu`, `memory`, `ephemeral-storage`, `pid`) as quantities; what
    of that is enforced, and on which cgroups."""

    kube: Mapping[str, str] = field(default_factory=dict)
    system: Mapping[str, str] = field(default_factory=dict)
    cpus: frozenset[int] = frozenset()
    enforced: Sequence[str] = ("pods",)
    kube_cgroup: str = ""
    system_cgroup: str = ""

    def amounts(self, resource: str) -> Sequence[str]:
        """The quantities that are reserved of a resource."""
        return [kept[resource] for kept in (self.kube, self.system) if resource in kept]


@dataclass(frozen=True, slots=True)
class ImagesConfig:
    """Pulling images, and which of them go. `parallel_pulls` of 0 is no limit; `pulls_per_s` of 0, too."""

    parallel_pulls: int = 4
    pulls_per_s: int = 0
    pull_burst: int = 10
    high_percent: int = 85
    low_percent: int = 80
    min_age_s: float = 120.0
    max_age_s: float = 0.0
    verification: str = "NeverVerifyPreloadedImages"
    allowlist: Sequence[str] = ()
    credential_providers: Path | None = None
    credential_provider_bin: Path | None = None


@dataclass(frozen=True, slots=True)
class ManagersConfig:
    """How CPUs, memory nodes and devices are given to containers for themselves."""

    cpu_policy: str = "none"
    cpu_options: Mapping[str, str] = field(default_factory=dict)
    memory_policy: str = "None"
    reserved_memory: Sequence[Mapping[str, Any]] = ()
    topology_policy: str = "none"
    topology_scope: str = "container"
    topology_options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CgroupsConfig:
    """What cgroups of pods and containers say beside requests and limits."""

    per_qos: bool = True
    cpu_quota: bool = True
    cpu_period_us: int = 100_000
    pod_pids: int = -1
    # Kills the processes of a cgroup one by one, where cgroup v2 would kill them together.
    single_process_oom_kill: bool = False
    swap: str = "NoSwap"
    memory_qos: bool = False
    memory_throttling: float = 0.9
    memory_reservation: str = "None"


@dataclass(frozen=True, slots=True)
class ServingConfig:
    """Who may ask the kubelet, and how."""

    enabled: bool = True
    debugging: bool = True
    # The machine's own logs are shown.
    system_logs: bool = True
    # And can be asked for by the name of who wrote them.
    log_queries: bool = False
    anonymous: bool = False
    tokens: bool = True
    token_ttl_s: float = 120.0
    # `AlwaysAllow`, or by `Webhook` at the API server.
    authorization: str = "Webhook"
    allowed_ttl_s: float = 300.0
    refused_ttl_s: float = 30.0
    tls_min_version: str = ""
    cipher_suites: Sequence[str] = ()
    tls_bootstrap: bool = False
    read_only_port: int = 0
    healthz_port: int = 0
    healthz_address: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class KubeletConfig:
    """Everything that can be chosen about a kubelet.

    `data` holds pod directories, volumes and logs and survives restarts; `cgroup_root` is the cgroup below which all
    containers of this kubelet live. `serving_cert` and `serving_key` are PEM files; client certificates are checked
    against `client_ca`. With port 0 no server is started. `document` is the configuration as `/configz` shows it.
    """

    node_name: str
    data: Path
    runtime_socket: Path
    cgroup_root: str = "/navarch"
    node_ip: str = ""
    # The address of the other IP family, where the node has one.
    other_ip: str = ""
    port: int = 10250
    addresses: tuple[str, ...] = ("0.0.0.0",)
    serving_cert: Path | None = None
    serving_key: Path | None = None
    client_ca: Path | None = None
    cluster_dns: tuple[str, ...] = ("10.43.0.10",)
    cluster_domain: str = "cluster.local"
    max_pods: int = 110
    pods_per_core: int = 0
    node_labels: Mapping[str, str] = field(default_factory=dict)
    node_taints: tuple[Mapping[str, str], ...] = ()
    provider_id: str = ""
    register_node: bool = True
    sync_period_s: float = 60.0
    lease_duration_s: int = 40
    status_look_s: float = 10.0
    status_period_s: float = 300.0
    status_images: int = 50
    container_log_max_bytes: int = 10 << 20
    container_log_max_files: int = 5
    container_log_workers: int = 1
    container_log_check_s: float = 10.0
    volume_stats_s: float = 60.0
    crash_back_off_s: float = 300.0
    unsafe_sysctls: tuple[str, ...] = ()
    seccomp_default: bool = False
    shutdown_periods: tuple[ShutdownPeriod, ...] = ()
    fail_swap_on: bool = False
    fail_cgroup_v1: bool = False
    protect_kernel_defaults: bool = False
    ids_per_pod: int = 65536
    eviction: EvictionConfig = field(default_factory=EvictionConfig)
    reserved: ReservedConfig = field(default_factory=ReservedConfig)
    images: ImagesConfig = field(default_factory=ImagesConfig)
    managers: ManagersConfig = field(default_factory=ManagersConfig)
    cgroups: CgroupsConfig = field(default_factory=CgroupsConfig)
    serving: ServingConfig = field(default_factory=ServingConfig)
    features: Features = field(default_factory=lambda: parse((), DEFAULT_VERSION))
    document: Mapping[str, Any] = field(default_factory=dict)
    # Static pods: a folder of manifests (or one of them; `<data>/manifests` where None), and a URL.
    static_pod_path: Path | None = None
    static_pod_url: str = ""
    static_pod_headers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    static_pod_check_s: float = 1.0
    static_pod_url_check_s: float = 20.0
    # The version of Kubernetes that the node says it is of: the cluster's.
    kubernetes_version: str = DEFAULT_VERSION
    host_resolv_conf: Path = Path("/etc/resolv.conf")

    @property
    def pods(self) -> Path:
        return self.data / "pods"

    @property
    def logs(self) -> Path:
        """`<namespace>_<name>_<uid>/<container>/<restart>.log`, as below /var/log/pods."""
        return self.data / "logs"

    @property
    def manifests(self) -> Path:
        """Where manifests of static pods are looked for."""
        return self.static_pod_path or self.data / "manifests"

    @property
    def seccomp(self) -> Path:
        return self.data / "seccomp"

    @property
    def device_plugins(self) -> Path:
        """Where device plugins find the kubelet's socket and put their own."""
        return self.data / "device-plugins"

    @property
    def pod_resources_socket(self) -> Path:
        """Where monitoring agents ask which pod has which devices."""
        return self.data / "pod-resources" / "kubelet.sock"

    def pod_directory(self, uid: str) -> Path:
        return self.pods / uid

    def log_directory(self, namespace: str, name: str, uid: str) -> Path:
        return self.logs / f"{namespace}_{name}_{uid}"
