"""What a cluster is made of: its name, folders, addresses and sizes, settled once when it is created and kept in
`cluster.json` in its data folder, from which every process of the cluster reads it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import asdict, field, fields
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from navarch.api.version import DEFAULT_VERSION
from navarch.cluster import ranges
from navarch.records import frozen

DEFAULT_NAME = "default"
DEFAULT_PORT = 6443
RUNTIMES = ("containerd", "simulated")
LOAD_BALANCER: Final = "load-balancer"
INGRESS: Final = "ingress"
EMBEDDED: Final = (INGRESS, LOAD_BALANCER)
_PLAIN: dict[str, type] = {"str": str, "int": int}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")


class ConfigError(Exception):
    """The configuration cannot be used; the message names the setting and says what would do."""


def disabled_parts(texts: Iterable[str]) -> str:
    """What `--disable` says, as it is kept.  Raises ConfigError."""
    named = {name.strip() for text in texts for name in text.split(",")} - {""}
    if unknown := sorted(named - set(EMBEDDED)):
        raise ConfigError(f"--disable {unknown[0]!r}: there is {', '.join(EMBEDDED)}")
    return ",".join(sorted(named))


def further_names(texts: Iterable[str]) -> str:
    """What `--tls-san` says, as it is kept.  Raises ConfigError."""
    from navarch.api.validation import dns_subdomain_problems

    named = {name.strip().lower() for text in texts for name in text.split(",")} - {""}
    for name in sorted(named):
        if not is_address(name) and dns_subdomain_problems(name.removeprefix("*.")):
            raise ConfigError(f"--tls-san {name!r}: neither a name, such as k8s.example.com, nor an address")
    return ",".join(sorted(str(ip_address(name)) if is_address(name) else name for name in named))


def is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


POD_NETWORKS = ("auto", "routes", "vxlan")


@frozen
class ClusterConfig:
    """One cluster. `index` tells clusters on one machine apart and picks their networks; `nodes` counts the simulated
    ones; without a `bind_address` the API server listens where its clients need it and nowhere else; `store` is
    `sqlite`, `memory` or an etcd URL."""

    name: str
    data_dir: str
    index: int = 0
    port: int = DEFAULT_PORT
    bind_address: str = ""
    advertise_address: str = "127.0.0.1"
    runtime: str = "simulated"
    nodes: int = 0
    store: str = "sqlite"
    event_ttl_s: int = 3600
    kubernetes_version: str = DEFAULT_VERSION
    # Which versions of groups are served beside the stable ones, as `--runtime-config` spells it.
    runtime_config: str = ""
    # One range, or one of each IP family with a comma between.
    pod_cidr: str = "10.42.0.0/16"
    node_cidr_mask: int = 24
    service_cidr: str = "10.43.0.0/16"
    cluster_dns: str = "10.43.0.10"
    cluster_domain: str = "cluster.local"
    # How pods of other nodes are reached: auto, routes, vxlan.
    pod_network: str = "auto"
    node_port_range: str = "30000-32767"
    kubelet_port: int = 10250
    node_name: str = ""
    seed: int | None = None
    kubeconfig: str = ""
    static_pods: str = ""
    # Further names and addresses that the API server's certificate is good for, with commas between.
    tls_san: str = ""
    # Embedded parts that are left out, with commas between (`EMBEDDED`).
    disable: str = ""
    # How the real node proxies services: a mode, and a file of Kubernetes' form.
    proxy_mode: str = ""
    proxy_config: str = ""
    # Files for the real node's kubelet: its configuration, what its credential providers are, and where.
    kubelet_config: str = ""
    image_credential_provider_config: str = ""
    image_credential_provider_bin_dir: str = ""
    # A file for the scheduler, of Kubernetes' form.
    scheduler_config: str = ""
    # What the API server is told beside, by kube-apiserver's names.
    apiserver_flags: Mapping[str, str] = field(default_factory=dict)
    # What the controllers are told beside, by kube-controller-manager's names.
    controller_flags: Mapping[str, str] = field(default_factory=dict)
    # Further nodes on this machine, each in a network namespace of its own; their range, whose first is the machine's.
    workers: int = 0
    node_cidr: str = ""
    # `agent`: this is one node of a cluster whose API server is elsewhere, at `server`.
    role: str = "server"
    server: str = ""
    node_address: str = ""
    # The same of the other IP family.
    other_address: str = ""
    node_labels: Mapping[str, str] = field(default_factory=dict)
    # By commas.
    node_taints: str = ""

    @property
    def root(self) -> Path:
        return Path(self.data_dir)

    def has(self, part: str) -> bool:
        """Whether an embedded part is there that could be left out."""
        return part not in self.disable.split(",")

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def database(self) -> Path:
        """SQLite's file."""
        return self.root / "state.db"

    @property
    def shares_store(self) -> bool:
        """Whether other clusters' processes may serve the same objects."""
        return self.store.startswith("etcd")

    @property
    def store_record(self) -> Path:
        """How far the store has come, kept beside the keys: with these alone, the cluster is not a new one."""
        return self.pki / "store.record"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def manifests(self) -> Path:
        """Where the real node finds its static pods."""
        return Path(self.static_pods) if self.static_pods else self.root / "manifests"

    @property
    def run(self) -> Path:
        """Sockets, pids, state: what is meaningless after a reboot."""
        return self.root / "run"

    @property
    def containerd(self) -> Path:
        return self.root / "containerd"

    @property
    def listens_everywhere(self) -> bool:
        return self.bind_address in ("0.0.0.0", "::")

    @property
    def listen_addresses(self) -> list[str]:
        """Where the API server listens: on loopback always (the cluster's own kubeconfigs say so), and where asked,
        else with real containers at the pod network's address of this machine."""
        if self.listens_everywhere:
            return [self.bind_address]
        further = self.bind_address or (self.advertise_address if self.runtime == "containerd" else "")
        gateway = self.node_gateway if self.workers else ""
        return list(dict.fromkeys(["127.0.0.1", *(each for each in (further, gateway) if each)]))

    @property
    def on_pod_network(self) -> bool:
        """Whether pods and the API server reach this machine at an address that it has for them alone."""
        return any(ip_address(self.advertise_address) in each for each in ranges.listed(self.pod_cidr))

    @property
    def is_agent(self) -> bool:
        return self.role == "agent"

    @property
    def node_ip(self) -> str:
        """This machine's address as a node."""
        if self.node_address:
            return self.node_address
        if self.is_agent:
            return host_address(urlsplit(self.server).hostname or "")
        if self.on_pod_network:
            return self.advertise_address
        if self._listens_for_itself:
            return self.node_gateway if self.workers else host_address()
        return host_address() if self.listens_everywhere else self.advertise_address

    @property
    def other_ip(self) -> str:
        """This machine's address of the other IP family, where pods have one of it, too; empty where it has none."""
        if self.other_address:
            return self.other_address
        family = 4 if ":" in self.node_ip else 6
        network = ranges.of_family(self.pod_cidr, family)
        if network is None:
            return ""
        if self.workers and self.node_ip == self.node_gateway:
            return str(ip_network(self.node_network_ipv6)[1])
        if self.on_pod_network and not self.is_agent and not self.node_address:
            return str(network[1])
        found = host_address(family=family)
        return "" if ip_address(found).is_loopback else found

    @property
    def node_network(self) -> str:
        """The range of the nodes that are on this machine."""
        return self.node_cidr or str(networks_of(self.index)["node_cidr"])

    @property
    def node_network_ipv6(self) -> str:
        """Their IPv6 range, where pods have such addresses; else empty."""
        return f"fd6e:6176:6172:{self.index:x}::/64" if 6 in ranges.families(self.pod_cidr) else ""

    @property
    def node_gateway(self) -> str:
        """This machine's own address in it."""
        return str(ip_network(self.node_network)[1])

    @property
    def _listens_for_itself(self) -> bool:
        return not self.bind_address or ip_address(self.bind_address).is_loopback

    @property
    def server_url(self) -> str:
        """Where this machine reaches the API server."""
        return self.server or f"https://127.0.0.1:{self.port}"

    @property
    def context(self) -> str:
        """The name of this cluster's entries in the user's kubeconfig."""
        return f"navarch-{self.name}"

    def component_kubeconfig(self, component: str) -> Path:
        return self.pki / f"{component}.kubeconfig"

    @property
    def admin_kubeconfig(self) -> Path:
        return self.component_kubeconfig("admin")

    def save(self) -> None:
        """Write `cluster.json`, atomically."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        target = self.root / "cluster.json"
        partial = target.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=2) + "\n")
        partial.replace(target)

    @classmethod
    def load(cls, data_dir: Path) -> ClusterConfig:
        """Raises ConfigError where there is no cluster or its file cannot be read."""
        try:
            stored: dict[str, Any] = json.loads((data_dir / "cluster.json").read_text())
        except FileNotFoundError:
            raise ConfigError(f"there is no cluster in {data_dir}; create one with `navarch up`") from None
        except (OSError, ValueError) as error:
            raise _damaged(data_dir, str(error)) from error
        if not isinstance(stored, dict):
            raise _damaged(data_dir, "it holds no settings")
        # The folder may have been moved or copied since.
        stored["data_dir"] = str(data_dir.absolute())
        types = {entry.name: str(entry.type) for entry in fields(cls)}
        for key, value in stored.items():
            if types.get(key) in _PLAIN and type(value) is not _PLAIN[types[key]]:
                raise _damaged(data_dir, f"{key} is {value!r}")
        try:
            return cls(**{key: value for key, value in stored.items() if key in types})
        except TypeError:
            raise _damaged(data_dir, "settings are missing") from None


def _damaged(data_dir: Path, why: str) -> ConfigError:
    return ConfigError(
        f"cannot read {data_dir / 'cluster.json'}: {why}. Nothing was changed.\n"
        "Put the file back from a backup; or move it away, and `navarch up` writes it anew and keeps the objects."
    )


def check_name(name: str) -> str:
    """A cluster's name ends up in file names, network devices and tables, so it is a short DNS label."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"invalid cluster name {name!r}: up to 32 lower-case letters, digits and '-', starting and ending with a "
            "letter or digit"
        )
    return name


def base_dir() -> Path:
    """Where clusters live: `$NAVARCH_HOME`, else /var/lib/navarch for root, else the user's data folder."""
    if configured := os.environ.get("NAVARCH_HOME"):
        return Path(configured)
    if os.geteuid() == 0:
        return Path("/var/lib/navarch")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share", "navarch")


def data_dir_of(name: str, data_dir: str | None = None) -> Path:
    """Where a cluster lives: where it is said to, else where it was put when it was made, else below `base_dir`."""
    if data_dir:
        return Path(data_dir).absolute()
    place = base_dir() / check_name(name)
    return place.resolve() if place.is_symlink() else place


def remember(config: ClusterConfig) -> None:
    """Have a cluster that lives elsewhere found by its name: a link below `base_dir`, made anew whenever it comes up.

    Where it cannot be made, `--data-dir` finds the cluster.
    """
    link = base_dir() / config.name
    if link.resolve() == config.root.resolve() or (link.exists() and (link / "cluster.json").exists()):
        return
    with contextlib.suppress(OSError):
        base_dir().mkdir(parents=True, exist_ok=True, mode=0o700)
        if link.is_symlink():
            link.unlink()
        link.symlink_to(config.root.resolve(), target_is_directory=True)


def forget(config: ClusterConfig) -> None:
    link = base_dir() / config.name
    if link.is_symlink() and link.resolve() == config.root.resolve():
        link.unlink()


def flags_of(config: ClusterConfig) -> str:
    """How commands name this cluster: ` --name N`, and ` --data-dir D` where it is not found without."""
    try:
        if data_dir_of(config.name).resolve() == config.root.resolve():
            return f" --name {config.name}"
    except OSError:
        pass
    return f" --name {config.name} --data-dir {config.root}"


def known_clusters() -> list[ClusterConfig]:
    """The clusters under `base_dir`, by name; unreadable ones are left out."""
    found: list[ClusterConfig] = []
    folder = base_dir()
    for path in sorted(folder.glob("*/cluster.json")) if folder.is_dir() else []:
        try:
            found.append(ClusterConfig.load(path.parent.resolve() if path.parent.is_symlink() else path.parent))
        except ConfigError:
            continue
    return found


def networks_of(index: int) -> dict[str, str]:
    """Pod and service ranges that no other cluster of this machine has: 10.42/10.43, then 10.44/10.45 and so on; and
    the range of its nodes on this machine."""
    second = 42 + 2 * (index % 100)
    services = f"10.{second + 1}.0.0/16"
    return {
        "node_cidr": f"10.41.{index % 100}.0/24",
        "pod_cidr": f"10.{second}.0.0/16",
        "service_cidr": services,
        "cluster_dns": str(ip_network(services)[10]),
    }


def host_address(towards: str = "", family: int = 4) -> str:
    """The address other machines reach this one at: the one that it uses `towards` another, else the one of the default
    route, else loopback."""
    nowhere, loopback = ("2001:db8::1", "::1") if family == 6 else ("192.0.2.1", "127.0.0.1")
    try:
        with socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # Nothing is sent: connecting a datagram socket only asks the routing table.
            probe.connect((towards or nowhere, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return loopback


def host_name() -> str:
    return re.sub(r"[^-a-z0-9.]", "-", socket.gethostname().lower()).strip("-.") or "node"
