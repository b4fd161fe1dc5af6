"""Removing what a stopped cluster with real containers leaves on the machine: containers, mounts, network, rules."""

from __future__ import annotations

from navarch.cluster.config import ClusterConfig


def remove_traces(config: ClusterConfig) -> None:
    """Idempotent; the cluster's processes must have ended."""
    from navarch.cluster.run_node import agent_config
    from navarch.node.agent import purge_node

    purge_node(agent_config(config))
