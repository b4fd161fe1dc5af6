"""The CNI configuration that containerd reads: which plugins wire a pod, with which addresses. Pure but for the file.

Pods hang on a bridge of the cluster's own. Where the kernel cannot pass bridged packets through the rules (no
br_netfilter), an answer from a pod to its neighbour by way of a service would bypass the rewriting; there each pod gets
a routed link of its own (`ptp`) instead.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Any, Final

_INTERFACE_MAX: Final = 15
_VERSION: Final = "0.4.0"


def bridge_name(cluster: str) -> str:
    """The network device of a cluster: at most 15 characters, distinct for distinct names."""
    plain = f"nv-{cluster}"
    if len(plain) <= _INTERFACE_MAX:
        return plain
    return f"nv-{cluster[:5]}-{hashlib.sha1(cluster.encode(), usedforsecurity=False).hexdigest()[:6]}"


def gateway_of(pod_cidr: str) -> str:
    """The node's own address among its pods: the first of the range, where the plugins put it too."""
    network = ip_network(pod_cidr)
    return str(network[1])


@dataclass(frozen=True, slots=True)
class CniConfig:
    """What one node's pods are wired with."""

    network: str
    bridge: str
    pod_cidr: str
    ipam_dir: Path
    mtu: int = 1500
    bridged: bool = True

    def render(self) -> dict[str, Any]:
        """The conflist."""
        ipam = {
            "type": "host-local",
            "dataDir": str(self.ipam_dir),
            "ranges": [[{"subnet": self.pod_cidr, "gateway": gateway_of(self.pod_cidr)}]],
            "routes": [{"dst": "0.0.0.0/0" if isinstance(ip_network(self.pod_cidr), IPv4Network) else "::/0"}],
        }
        # No `portmap`: host ports are the pod network's own rules.
        plugins: list[dict[str, Any]] = []
        if self.bridged:
            plugins.append(
                {
                    "type": "bridge",
                    "bridge": self.bridge,
                    "isGateway": True,
                    "ipMasq": False,
                    "hairpinMode": True,
                    "mtu": self.mtu,
                    "ipam": ipam,
                }
            )
        else:
            plugins.append({"type": "ptp", "ipMasq": False, "mtu": self.mtu, "ipam": ipam})
        return {"cniVersion": _VERSION, "name": self.network, "plugins": plugins}

    def write(self, directory: Path) -> Path:
        """Write `10-<network>.conflist`, atomically: containerd takes it over as soon as it is there."""
        directory.mkdir(parents=True, exist_ok=True)
        target = directory / f"10-{self.network}.conflist"
        partial = directory / f".{self.network}.partial"
        partial.write_text(json.dumps(self.render(), indent=2) + "\n")
        partial.replace(target)
        return target
