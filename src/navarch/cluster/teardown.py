"""Removing what a stopped cluster with real containers leaves on the machine: containers, mounts, network, rules."""

from __future__ import annotations

import asyncio

from navarch.cluster.config import ClusterConfig


def remove_traces(config: ClusterConfig) -> None:
    """Idempotent; the cluster's processes must have ended."""
    from navarch.cluster.run_node import agent_config
    from navarch.node.agent import purge_node
    from navarch.node.network import PodNetwork
    from navarch.node.proxy.runner import cleanup as remove_proxy_rules

    agent = agent_config(config)
    purge_node(agent)
    asyncio.run(remove_proxy_rules(agent.cluster))
    PodNetwork(agent.cluster, agent.data).cleanup(config.pod_cidr)
