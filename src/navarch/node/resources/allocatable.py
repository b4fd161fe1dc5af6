"""What all pods may have together, and what is reserved, enforced by cgroups: `enforceNodeAllocatable`.

Pods are bounded by the node's own cgroup. Those for the system and for Kubernetes' programs are somebody else's: they
have to be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from navarch.node.config import KubeletConfig
from navarch.node.resources.amounts import milli_cpu, whole
from navarch.node.resources.capacity import reserved
from navarch.node.resources.cgroups import ROOT, bound

_COMPRESSIBLE: Final = "-compressible"


def enforce(config: KubeletConfig, memory_bytes: int, cpus: int, root: Path = ROOT) -> None:
    """Write the bounds.  Raises OSError with Kubernetes' words."""
    kept = config.reserved
    if "pods" in kept.enforced and (kept.kube or kept.system or kept.cpus):
        memory = memory_bytes - int(reserved(config, "memory"))
        cpu = cpus * 1000 - int(reserved(config, "cpu") * 1000)
        kept_pids = int(reserved(config, "pid"))
        pids = max(_most_pids() - kept_pids, 1) if kept_pids else 0
        _make(config.cgroup_root, root)
        bound(config.cgroup_root, memory=memory, milli_cpu=cpu, pids=pids, root=root)
    for name, amounts, cgroup in (
        ("system", kept.system, kept.system_cgroup),
        ("kube", kept.kube, kept.kube_cgroup),
    ):
        for suffix in ("", _COMPRESSIBLE):
            if f"{name}-reserved{suffix}" in kept.enforced:
                _bound_reserved(name, amounts, cgroup, compressible=bool(suffix), root=root)


def _bound_reserved(name: str, amounts: Mapping[str, str], cgroup: str, *, compressible: bool, root: Path) -> None:
    memory = 0 if compressible else whole(amounts.get("memory", 0))
    pids = 0 if compressible else whole(amounts.get("pid", 0))
    try:
        bound(cgroup, memory=memory, milli_cpu=milli_cpu(amounts.get("cpu", 0)), pids=pids, root=root)
    except OSError as error:
        title = name.capitalize()
        raise OSError(f'failed to enforce {title} Reserved Cgroup Limits on "{cgroup}": {error}') from None


def _make(cgroup: str, root: Path) -> None:
    below = cgroup.lstrip("/")
    if (root / "cgroup.controllers").exists():
        (root / below).mkdir(parents=True, exist_ok=True)
        return
    for name in ("cpu", "memory", "pids"):
        if (root / name).is_dir():
            (root / name / below).mkdir(parents=True, exist_ok=True)


def _most_pids() -> int:
    return int(Path("/proc/sys/kernel/pid_max").read_text())
