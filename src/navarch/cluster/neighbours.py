"""The clusters of one machine beside each other: which there are; the ports and networks that are left for one more.

What a cluster is given is chosen once, when it is made, and written down in its `cluster.json`; of two that are made at
the same moment the second sees what the first has taken (`planning`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from ipaddress import IPv4Network, ip_network
from pathlib import Path

from navarch.cluster import locks
from navarch.cluster.config import ClusterConfig, ConfigError, known_clusters, networks_of
from navarch.world import MACHINE

_STARTING_S = 120.0
# How many ranges there are for clusters of one machine.
_INDEXES = 100


@contextlib.contextmanager
def planning() -> Iterator[None]:
    """Hold this while a new cluster's ports and networks are chosen and written down: of two `up` at the same moment
    the second sees what the first has taken."""
    try:
        descriptor = os.open(_planning_file(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        # Somebody else's file of that name: better a rare clash than no cluster.
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _planning_file() -> Path:
    # Not for the processes of a cluster, which never need it: it brings every compression there is.
    import tempfile

    return Path(tempfile.gettempdir(), f"navarch-{os.geteuid()}.lock")


def neighbours() -> list[ClusterConfig]:
    """The clusters of this machine, wherever their folders are: those under `base_dir`, and those that were brought up
    by this user with folders elsewhere, whether they are up now or may be again."""
    found = {cluster.root.resolve(): cluster for cluster in known_clusters()}
    for root in _noted():
        with contextlib.suppress(ConfigError):
            found.setdefault(root, ClusterConfig.load(root))
    return list(found.values())


def note(config: ClusterConfig) -> None:
    """Have others see the cluster that plan theirs next, whatever their `base_dir`."""
    roots = dict.fromkeys([*_noted(), config.root.resolve()])
    with contextlib.suppress(OSError):
        descriptor = os.open(_planning_file(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.truncate(0)
            file.writelines(f"{root}\n" for root in roots)


def _noted() -> list[Path]:
    """Their folders, as far as there are still clusters in them."""
    try:
        descriptor = os.open(_planning_file(), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(descriptor, errors="replace") as file:
            # In /tmp it may be somebody else's, who could send us anywhere.
            ours = os.fstat(file.fileno()).st_uid == os.geteuid()
            lines = file.read().splitlines() if ours else []
    except OSError:
        return []
    return [Path(line) for line in lines if line and (Path(line) / "cluster.json").exists()]


def _is_up(cluster: ClusterConfig) -> bool:
    """Whether it runs, or was written down a moment ago and will."""
    try:
        age_s = MACHINE.now().timestamp() - (cluster.root / "cluster.json").stat().st_mtime
    except OSError:
        return False
    return age_s < _STARTING_S or locks.holder(cluster.run, locks.SUPERVISOR) != 0


def free_index(clusters: list[ClusterConfig]) -> int:
    """The first index that no cluster has and whose networks this machine does not already reach in another way (by a
    cluster of another data folder, a VPN)."""
    taken = {cluster.index for cluster in clusters}
    routed = _routed_networks()

    def is_free(index: int) -> bool:
        networks = networks_of(index)
        mine = [ip_network(networks[name]) for name in ("pod_cidr", "service_cidr", "node_cidr")]
        return index not in taken and not any(one.overlaps(other) for one in mine for other in routed)

    free = next((index for index in range(_INDEXES) if is_free(index)), None)
    if free is None:
        # Those that are down have the weakest claim.
        up = {cluster.index for cluster in clusters if _is_up(cluster)}
        free = next((index for index in range(_INDEXES) if index not in up), None)
    return free if free is not None else next(index for index in range(len(taken) + 1) if index not in taken)


def _routed_networks() -> list[IPv4Network]:
    """Where the machine has routes to, the default route aside; none where the system does not tell."""
    try:
        lines = Path("/proc/net/route").read_text().splitlines()[1:]
    except OSError:
        return []
    found = []
    for line in lines:
        words = line.split()
        # Addresses are in the byte order of the machine.
        address, mask = (int.from_bytes(int(words[at], 16).to_bytes(4, sys.byteorder), "big") for at in (1, 7))
        if mask:
            found.append(IPv4Network((address, mask.bit_count()), strict=False))
    return found


def free_port(preferred: int, taken: set[int]) -> int:
    """`preferred`, or the next port up that nobody listens on and no other cluster has."""
    for port in range(preferred, min(preferred + 1000, 65536)):
        if port in taken:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port
    raise ConfigError(f"no free port from {preferred} up")
