"""Removing what a stopped cluster with real containers leaves on the machine: containers, mounts, network, rules."""

from __future__ import annotations

from pathlib import Path

from navarch.cluster import workers
from navarch.cluster.config import ClusterConfig, ConfigError


def remove_traces(config: ClusterConfig, *, keep_images: bool = False, grace_s: float = 10.0) -> None:
    """Idempotent; the cluster's processes must have ended. Pods are given their grace period to end, `grace_s` at most.
    `keep_images` is for a cluster that is to come back."""
    from navarch.cluster.run_node import agent_config
    from navarch.node.agent import purge_node

    further = workers.left(config)
    with workers.removing_traces(config, further, keep_images=keep_images, grace_s=grace_s):
        purge_node(agent_config(config), keep_images=keep_images, grace_s=grace_s)
    if further:
        workers.remove_bridge(config)
    left = _mounted_below(config.root)
    if left and not keep_images:
        # The folder is removed next, and what is mounted in it may be somebody else's data.
        raise ConfigError(f"cannot remove {config.root}: {left[0]} is still mounted")


def _mounted_below(folder: Path) -> list[str]:
    prefix = f"{folder.resolve()}/"
    places = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [place for place in places if place.startswith(prefix)]
