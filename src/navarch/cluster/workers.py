"""Further nodes on the cluster's own machine (`navarch up --workers K`): each a node like one that has joined from
another machine, with a containerd, a kubelet, a proxy and a pod network of its own, in a network namespace of its own.

In: the cluster's configuration. Out: a configuration per worker, which differs in name, folder and addresses; the
worker's processes are the cluster's, called `node@NAME` and `containerd@NAME`. Everything of one is in
`workers/NAME` of the cluster's folder.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

from navarch.cluster import ranges
from navarch.cluster.config import ClusterConfig
from navarch.numbers import integer_or

ROLE = "worker"
LABEL = "navarch.dev/worker"
KUBELET_PORT = 10250


def name_of(config: ClusterConfig, number: int) -> str:
    return f"{config.name}-worker-{number}"


def number_of(config: ClusterConfig, name: str) -> int:
    """0 for what is no worker's name."""
    digits = name.removeprefix(f"{config.name}-worker-")
    return integer_or(digits, 0) if digits != name else 0


def names(config: ClusterConfig) -> list[str]:
    return [name_of(config, number) for number in range(1, config.workers + 1)]


def folder(config: ClusterConfig) -> Path:
    return config.root / "workers"


def config_of(config: ClusterConfig, name: str) -> ClusterConfig:
    """The worker's own."""
    place = 1 + number_of(config, name)
    address = ip_network(config.node_network)[place]
    other = str(ip_network(config.node_network_ipv6)[place]) if config.node_network_ipv6 else ""
    return replace(
        config,
        data_dir=str(folder(config) / name),
        role=ROLE,
        server=f"https://{config.node_gateway}:{config.port}",
        node_name=name,
        node_address=str(address),
        other_address=other,
        kubelet_port=KUBELET_PORT,
        workers=0,
        static_pods="",
        node_labels={LABEL: "true"},
    )


def left(config: ClusterConfig) -> list[str]:
    """The workers that there are or were, by their folders."""
    found = folder(config).iterdir() if folder(config).is_dir() else ()
    return sorted({*names(config), *(each.name for each in found if number_of(config, each.name))})


def enter(config: ClusterConfig, name: str) -> None:
    """Have this process run where the worker does.  Raises OSError."""
    from navarch.node.names import HostNames
    from navarch.node.place import Place

    own = config_of(config, name)
    place = Place(
        HostNames(config.name, name),
        config.node_network,
        own.node_address,
        folder(config) / "lock",
        tuple(map(str, (*ranges.listed(config.pod_cidr), *ranges.listed(config.service_cidr)))),
        config.node_network_ipv6,
        own.other_address,
    )
    place.ensure()
    place.enter()


@contextlib.contextmanager
def removing_traces(
    config: ClusterConfig, which: Iterable[str], *, keep_images: bool, grace_s: float
) -> Iterator[None]:
    """What workers leave on the machine when their processes have ended, their folders aside, is removed while the
    block runs, and gone after it. Idempotent."""
    from navarch.node.names import HostNames
    from navarch.node.place import Place

    # Each in a process of its own: hooks of pods are called from within the worker's network.
    keep = "keep" if keep_images else "all"
    purging = [
        (name, subprocess.Popen([sys.executable, "-m", __name__, str(config.root), name, keep, f"{grace_s}"]))
        for name in which
    ]
    try:
        yield
    finally:
        for name, process in purging:
            process.wait()
            address = config_of(config, name).node_address
            Place(HostNames(config.name, name), config.node_network, address, folder(config) / "lock").remove()


def remove_bridge(config: ClusterConfig) -> None:
    from navarch.node.place import remove_bridge as remove

    remove(config.name)


def retire_surplus(config: ClusterConfig) -> None:
    """End and forget the workers that are left over from a time when the cluster was to have more of them."""
    surplus = [name for name in left(config) if name not in names(config)]
    if surplus:
        with removing_traces(config, surplus, keep_images=False, grace_s=0.0):
            pass
        for name in surplus:
            shutil.rmtree(folder(config) / name, ignore_errors=True)


def _purge(config: ClusterConfig, name: str, *, keep_images: bool, grace_s: float) -> None:
    from navarch.cluster.run_node import agent_config
    from navarch.node.agent import purge_node

    own = config_of(config, name)
    if own.root.is_dir():
        enter(config, name)
        purge_node(agent_config(own), keep_images=keep_images, grace_s=grace_s)


if __name__ == "__main__":
    _purge(
        ClusterConfig.load(Path(sys.argv[1])),
        sys.argv[2],
        keep_images=sys.argv[3] == "keep",
        grace_s=float(sys.argv[4]),
    )
