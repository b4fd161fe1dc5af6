"""CNI: the configuration that containerd reads (which plugins wire a pod, with which addresses), and taking down what
the plugins made for pods that nobody has ended in order.

Pods hang on a bridge of the cluster's own. Where the kernel cannot pass bridged packets through the rules (no
br_netfilter), an answer from a pod to its neighbour by way of a service would bypass the rewriting; there each pod gets
a routed link of its own (`ptp`) instead.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import logging
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

log = logging.getLogger(__name__)

DIRECTORIES: Final = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")
_VERSION: Final = "0.4.0"


def gateway_of(pod_cidr: str) -> str:
    """The node's own address among its pods: the first of the range, where the plugins put it too."""
    network = ip_network(pod_cidr)
    return str(network[1])


@dataclass(frozen=True, slots=True)
class CniConfig:
    """What one node's pods are wired with."""

    network: str
    bridge: str
    pod_cidrs: tuple[str, ...]
    ipam_dir: Path
    mtu: int = 1500
    bridged: bool = True

    def render(self) -> dict[str, Any]:
        """The conflist."""
        ipam = {
            "type": "host-local",
            "dataDir": str(self.ipam_dir),
            # One address of each.
            "ranges": [[{"subnet": each, "gateway": gateway_of(each)}] for each in self.pod_cidrs],
            "routes": [{"dst": "::/0" if ":" in each else "0.0.0.0/0"} for each in self.pod_cidrs],
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


# Where libcni writes down what it made; the path is its own, whoever uses it.
_RESULTS: Final = Path("/var/lib/cni/results")
_PLUGIN_LIMIT_S: Final = 20.0
_MNT_DETACH: Final = 2


def forget(network: str, places: Sequence[Path], *, results: Path = _RESULTS) -> None:
    """Undo what is left of a network, or of pods whose network namespace is in `places`, once the pods are gone: the
    plugins are told to delete it, the namespaces are unmounted, libcni's memory of it is removed. Idempotent."""
    made = {file: result for file in sorted(results.glob("*")) if (result := _read_result(file)) is not None}
    ours = {each.get("containerId") for each in made.values() if each.get("networkName") == network}
    for file, each in made.items():
        spaces = _namespaces(each)
        below = any(str(space).startswith(f"{place.resolve()}/") for space in spaces for place in places)
        # Each pod has a loopback network, too, which is called the same for everybody.
        if below or each.get("containerId") in ours:
            _delete(each)
            for space in spaces:
                _remove_namespace(space)
            file.unlink(missing_ok=True)


def _namespaces(made: Mapping[str, Any]) -> list[Path]:
    interfaces = (made.get("result") or {}).get("interfaces") or ()
    return [Path(each["sandbox"]) for each in interfaces if each.get("sandbox")]


def _read_result(file: Path) -> dict[str, Any] | None:
    try:
        made = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return made if isinstance(made, dict) and made.get("kind") == "cniCacheV1" else None


def _delete(made: Mapping[str, Any]) -> None:
    """Call the plugins as the runtime would, the last first."""
    binaries = directory()
    try:
        config = json.loads(base64.b64decode(made["config"]))
        plugins = config.get("plugins") or [config]
        environment = {
            **os.environ,
            "CNI_COMMAND": "DEL",
            "CNI_CONTAINERID": made["containerId"],
            "CNI_IFNAME": made["ifName"],
            "CNI_NETNS": "",
            "CNI_PATH": str(binaries),
            "CNI_ARGS": ";".join("=".join(pair) for pair in made.get("cniArgs") or ()),
        }
        if binaries is None:
            raise FileNotFoundError("the CNI plugins are not installed")
        head = {"cniVersion": config["cniVersion"], "name": config["name"]}
        for plugin in reversed(plugins):
            told = {**head, **plugin, "prevResult": made.get("result")}
            subprocess.run(
                [binaries / Path(plugin["type"]).name],
                input=json.dumps(told),
                env=environment,
                text=True,
                capture_output=True,
                check=False,
                timeout=_PLUGIN_LIMIT_S,
            )
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as error:
        log.warning("the network of %s could not be taken down: %s", made.get("containerId"), error)


def _remove_namespace(space: Path) -> None:
    """Only what a runtime made for a pod; a process in it would have to be gone."""
    if space.name.startswith("cni-"):
        ctypes.CDLL(None).umount2(str(space).encode(), _MNT_DETACH)
        with contextlib.suppress(OSError):
            space.unlink(missing_ok=True)


def directory() -> Path | None:
    """Where the CNI plugins are: the first of the usual places that has `host-local`."""
    places = [os.environ["CNI_BIN_DIR"]] if os.environ.get("CNI_BIN_DIR") else DIRECTORIES
    return next((Path(place) for place in places if (Path(place) / "host-local").exists()), None)
