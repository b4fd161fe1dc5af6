"""Removing what a stopped cluster with real containers leaves on the machine: containers, mounts, network, rules."""

from __future__ import annotations

from navarch.cluster.config import ClusterConfig


def remove_traces(config: ClusterConfig, *, keep_images: bool = False) -> None:
    """Idempotent; the cluster's processes must have ended. `keep_images` is for a cluster that is to come back."""
    from navarch.cluster.run_node import agent_config
    from navarch.node.agent import purge_node

    purge_node(agent_config(config), keep_images=keep_images)
