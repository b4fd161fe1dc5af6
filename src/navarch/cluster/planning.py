"""Which cluster is to be brought up: what was stated, put together with what there is already and what is free here.

In: settings, as flags and files give them.  Out: a `ClusterConfig`; nothing is written down or started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from ipaddress import ip_address, ip_network
from typing import Any

from navarch.cluster import config as settings
from navarch.cluster import ranges
from navarch.cluster.config import ClusterConfig, ConfigError
from navarch.cluster.neighbours import free_index, free_port, neighbours
from navarch.cluster.state import ClusterState

_MANY_NODES = 200
# Settings that name files of the real node's kubelet.
KUBELET_FILES = ("kubelet_config", "image_credential_provider_config", "image_credential_provider_bin_dir")
_FOR_GOOD = ("store", "pod_cidr", "service_cidr", "kubernetes_version")
# What is changed by stopping a cluster and starting it again.
_AT_A_START = (
    *("nodes", "workers", "port", "bind_address", "tls_san", "static_pods"),
    *("runtime_config", "apiserver_flags", "controller_flags", "disable"),
    *("proxy_mode", "proxy_config", "pod_network", "scheduler_config"),
    *KUBELET_FILES,
)


def choose_runtime(wanted: str, instead: str = "; use --runtime simulated") -> tuple[str, str]:
    """`auto` becomes containerd where containers can run, else simulated; with the reason, for people.

    Raises ConfigError where containerd is asked for and cannot run, which says what to do `instead`.
    """
    if wanted == "simulated":
        return wanted, "simulated nodes, as asked for"
    from navarch.node.containerd import why_unavailable

    why = why_unavailable()
    if not why:
        return "containerd", "real containers in containerd"
    if wanted == "containerd":
        raise ConfigError(f"cannot run containers here: {why}{instead}")
    return "simulated", f"simulated nodes, because {why}"


def plan(name: str, data_dir: str | None, changes: dict[str, Any]) -> tuple[ClusterConfig, bool]:
    """The configuration to bring up and whether the cluster is new; `changes` holds what was stated explicitly.

    Raises ConfigError for a change that an existing cluster cannot take.
    """
    folder = settings.data_dir_of(settings.check_name(name), data_dir)
    changes = {**changes, **_ranges_in(changes)}
    if (folder / "cluster.json").exists():
        return _changed(ClusterConfig.load(folder), changes), False
    known = settings.data_dir_of(name)
    if (known / "cluster.json").exists():
        # What a cluster has on this machine is named after it.
        raise ConfigError(f"there is a cluster {name!r} already, in {known}; another --name makes a second one")
    return _fresh(name, folder, changes), True


def _ranges_in(changes: Mapping[str, Any]) -> dict[str, str]:
    """The ranges that were stated, as they are kept.  Raises ConfigError."""
    flags = {"pod_cidr": "--pod-cidr", "service_cidr": "--service-cidr"}
    try:
        return {key: ranges.stated(flag, changes[key]) for key, flag in flags.items() if key in changes}
    except ranges.RangeError as error:
        raise ConfigError(f"invalid {error}") from None


def _changed(existing: ClusterConfig, changes: dict[str, Any]) -> ClusterConfig:
    etcd = _same_etcd(str(changes.get("store", "")), existing.store)
    _refuse_fixed(existing, changes, etcd=etcd)
    kept: dict[str, Any] = {key: changes[key] for key in (*_AT_A_START, "kubeconfig", "event_ttl_s") if key in changes}
    if etcd:
        kept["store"] = changes["store"]
    if ClusterState.load(existing.run).supervisor_alive:
        for key in _AT_A_START:
            if key in kept and kept[key] != getattr(existing, key):
                flag = "--" + key.replace("_", "-")
                raise ConfigError(
                    f"cluster {existing.name!r} is running with {flag} {getattr(existing, key) or 'unset'}; "
                    f"stop it first: `navarch down{settings.flags_of(existing)}`"
                )
    changed = replace(existing, **kept)
    if (changed.bind_address, bool(changed.workers)) != (existing.bind_address, bool(existing.workers)):
        changed = replace(changed, advertise_address=_advertised(asdict(changed)))
    return _with_workers(changed)


def _refuse_fixed(existing: ClusterConfig, changes: Mapping[str, Any], *, etcd: bool) -> None:
    """Raises ConfigError for what a cluster has for good."""
    for key in _FOR_GOOD:
        # The members of an etcd change; that it is the same one is checked when it is opened.
        if key in changes and changes[key] != getattr(existing, key) and not (key == "store" and etcd):
            flag = "--" + key.replace("_", "-")
            raise ConfigError(
                f"cluster {existing.name!r} exists with {flag} {getattr(existing, key)}; "
                f"`navarch down{settings.flags_of(existing)} --purge` deletes it, another --name makes a second one"
            )
    runtime = changes.get("runtime", existing.runtime)
    if runtime != existing.runtime:
        raise ConfigError(
            f"cluster {existing.name!r} exists with --runtime {existing.runtime}; delete it with --purge to change that"
        )


def _with_workers(config: ClusterConfig) -> ClusterConfig:
    """Raises ConfigError where there can be none."""
    if config.workers and config.runtime != "containerd":
        raise ConfigError("--workers are real nodes, which need --runtime containerd; --nodes are simulated ones")
    return config


def _same_etcd(one: str, other: str) -> bool:
    """Whether the URLs may name the same objects; the store itself looks whether they do."""
    if not (one.startswith("etcd:") and other.startswith("etcd:")):
        return False
    from navarch.store.etcd.target import parse

    return parse(one).prefix == parse(other).prefix


def _fresh(name: str, folder: Any, changes: dict[str, Any]) -> ClusterConfig:
    others = neighbours()
    index = free_index(others)
    values: dict[str, Any] = {"runtime": "simulated", **settings.networks_of(index), **changes}
    taken = {cluster.port for cluster in others}
    if "port" not in changes:
        values["port"] = free_port(settings.DEFAULT_PORT, taken)
    if values["runtime"] == "containerd":
        values.setdefault("node_name", settings.host_name())
        values["kubelet_port"] = free_port(10250, {cluster.kubelet_port for cluster in others})
    elif "nodes" not in changes:
        values["nodes"] = 1
    if values["runtime"] == "simulated" and "pod_cidr" not in changes and values["nodes"] > _MANY_NODES:
        values.update(_wide_network(values["nodes"]))
    _check_ranges(values)
    values.setdefault("advertise_address", _advertised(values))
    values["cluster_dns"] = str(ranges.first(values["service_cidr"])[10])
    if (":" in values["advertise_address"]) != (":" in values["cluster_dns"]):
        raise ConfigError(
            f"--service-cidr {values['service_cidr']}: the first range is not of the IP family of the API server's "
            f"address, {values['advertise_address']}, which the service `kubernetes` leads to; put the other one first"
        )
    return _with_workers(ClusterConfig(name=name, data_dir=str(folder), index=index, **values))


def _check_ranges(values: Mapping[str, Any]) -> None:
    """Raises ConfigError."""
    pods, services = values["pod_cidr"], values["service_cidr"]
    try:
        ranges.check(pods, services)
    except ranges.RangeError as error:
        raise ConfigError(f"invalid {error}") from None
    if values["runtime"] == "containerd" and 6 in ranges.families(pods) and not ranges.has_ipv6():
        raise ConfigError(
            f"invalid --pod-cidr {pods}: this machine has no IPv6 (net.ipv6.conf.default.disable_ipv6 is 1, or its "
            "kernel was started without); leave the IPv6 ranges out"
        )


def _advertised(values: dict[str, Any]) -> str:
    """Where pods reach the API server: with real containers at this machine's address on the pod network, which no
    other machine reaches and which stays the same, or with further nodes here at that on their bridge; where it is to
    listen elsewhere, at that address."""
    bind = values.get("bind_address", "")
    if bind and bind not in ("0.0.0.0", "::"):
        return str(bind)
    family = ranges.families(values["service_cidr"])[0]
    address = settings.host_address(family=family)
    if values["runtime"] != "containerd" or (bind and not ip_address(address).is_loopback):
        return address
    if values.get("workers"):
        return str(ip_network(values["node_cidr"] or settings.networks_of(values["index"])["node_cidr"])[1])
    pods = ranges.of_family(values["pod_cidr"], family) or ranges.first(values["pod_cidr"])
    return str(pods[1])


def _wide_network(nodes: int) -> dict[str, Any]:
    """A pod range with room for many simulated nodes. Nothing is routed there, so clusters may overlap."""
    # 10.128.0.0/9 has 32,768 ranges of 256 addresses; with more nodes each gets the next smaller power of two.
    mask = 24
    while 2 ** (mask - 9) < nodes:
        mask += 1
    return {"pod_cidr": "10.128.0.0/9", "node_cidr_mask": mask}


def with_another_port(config: ClusterConfig) -> ClusterConfig:
    """For a new cluster whose port, free a moment ago, went to another program."""
    return replace(config, port=free_port(config.port + 1, {other.port for other in neighbours()}))
