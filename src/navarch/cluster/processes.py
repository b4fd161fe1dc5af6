"""The processes that make up a cluster, in the order in which they start."""

from __future__ import annotations

import sys
from dataclasses import field
from pathlib import Path

from navarch.cluster import workers
from navarch.cluster.config import ClusterConfig
from navarch.records import frozen


@frozen
class ProcessSpec:
    """`listens`: gets the API port's listening sockets as descriptors; `needs_keys`: may not live before the cluster's
    keys are there; `piped`: cannot rotate its own log; `shares`: much of what it loads, others load too."""

    name: str
    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    listens: bool = False
    needs_keys: bool = True
    piped: bool = False
    shares: bool = False


def component_argv(name: str, data_dir: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", "navarch.cluster.component", name, str(data_dir))


def specs(config: ClusterConfig) -> list[ProcessSpec]:
    found = []
    if not config.is_agent:
        found = [
            ProcessSpec("apiserver", component_argv("apiserver", config.root), listens=True, shares=True),
            ProcessSpec("controllers", component_argv("controllers", config.root), shares=True),
        ]
    if config.runtime == "containerd":
        # Not the binary itself: its configuration depends on the machine and is written right before it starts.
        found.append(ProcessSpec("containerd", component_argv("containerd", config.root), needs_keys=False, piped=True))
        found.append(ProcessSpec("node", component_argv("node", config.root), shares=True))
    for worker in workers.names(config):
        containerd, node = f"containerd@{worker}", f"node@{worker}"
        found.append(ProcessSpec(containerd, component_argv(containerd, config.root), needs_keys=False, piped=True))
        found.append(ProcessSpec(node, component_argv(node, config.root), shares=True))
    return found
