"""What a kubelet is told about its node and its cluster; where it keeps things on disk follows from `data`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from navarch.api.version import DEFAULT_VERSION


@dataclass(frozen=True, slots=True)
class KubeletConfig:
    """Everything that can be chosen about a kubelet.

    `data` holds pod directories, volumes and logs and survives restarts; `cgroup_root` is the cgroup below which all
    containers of this kubelet live. `serving_cert` and `serving_key` are PEM files; client certificates are checked
    against `client_ca`. With port 0 no server is started.
    """

    node_name: str
    data: Path
    runtime_socket: Path
    cgroup_root: str = "/navarch"
    node_ip: str = ""
    port: int = 10250
    addresses: tuple[str, ...] = ("0.0.0.0",)
    serving_cert: Path | None = None
    serving_key: Path | None = None
    client_ca: Path | None = None
    cluster_dns: tuple[str, ...] = ("10.43.0.10",)
    cluster_domain: str = "cluster.local"
    max_pods: int = 110
    node_labels: Mapping[str, str] = field(default_factory=dict)
    node_taints: tuple[Mapping[str, str], ...] = ()
    register_node: bool = True
    sync_period_s: float = 60.0
    lease_duration_s: int = 40
    status_period_s: float = 300.0
    image_gc_high_percent: int = 85
    image_gc_low_percent: int = 80
    container_log_max_bytes: int = 10 << 20
    container_log_max_files: int = 5
    system_reserved_milli_cpu: int = 0
    system_reserved_memory: int = 0
    eviction_memory_available: int = 100 << 20
    eviction_nodefs_available_percent: int = 5
    # Static pods: a folder of manifests (or one of them; `<data>/manifests` where None), and a URL.
    static_pod_path: Path | None = None
    static_pod_url: str = ""
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

    def pod_directory(self, uid: str) -> Path:
        return self.pods / uid

    def log_directory(self, namespace: str, name: str, uid: str) -> Path:
        return self.logs / f"{namespace}_{name}_{uid}"
