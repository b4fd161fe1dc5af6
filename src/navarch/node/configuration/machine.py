"""Whether the machine is one on which the kubelet may run as it is configured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from navarch.node.config import KubeletConfig

# What Kubernetes wants of the kernel where nobody may change it.
_KERNEL: Final = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}


def objections(config: KubeletConfig, root: Path = Path("/")) -> Iterator[str]:
    """What speaks against it, in Kubernetes' words. `root` is where /proc and /sys are."""
    if config.fail_swap_on and _swaps(root):
        yield "running with swap on is not supported, please disable swap or set --fail-swap-on flag to false"
    if config.fail_cgroup_v1 and not (root / "sys/fs/cgroup/cgroup.controllers").exists():
        yield (
            "kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported and will be "
            "removed in a future release"
        )
    if config.protect_kernel_defaults:
        for name, wanted in _KERNEL.items():
            actual = _number(root / "proc/sys" / name)
            if actual != wanted:
                yield f"invalid kernel flag: {name}, expected value: {wanted}, actual value: {actual}"


def _swaps(root: Path) -> bool:
    try:
        # The first line is the heading.
        return len((root / "proc/swaps").read_text().splitlines()) > 1
    except OSError:
        return False


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
