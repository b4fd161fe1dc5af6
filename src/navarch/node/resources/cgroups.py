"""Cgroups of pods: each has one, named by its quality of service and uid, whose limits bound all of its containers.

The runtime makes the containers' own below it. Works on cgroup v1 (a tree per controller) and v2 (one tree). A limit
that cannot be set is left to the containers' own: it bounds the same processes more closely.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from navarch.api.meta import Obj
from navarch.kinds.core.resource_lists import qos_class
from navarch.node.config import CgroupsConfig, KubeletConfig
from navarch.node.resources.amounts import cpu_quota, cpu_shares, has_unified_cgroups, hugepage_limits, pod_totals
from navarch.node.resources.capacity import HUGE_PAGES

log = logging.getLogger(__name__)

ROOT: Final = Path("/sys/fs/cgroup")


def _write(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except OSError as error:
        log.debug("%s: %s", path, error)


def cgroup_parent(pod: Obj, config: KubeletConfig) -> str:
    """`<root>/burstable/pod<uid>`; guaranteed pods are directly below the root. Without cgroups for pods and their
    quality of service all containers are there."""
    if not config.cgroups.per_qos:
        return config.cgroup_root
    qos = qos_class(pod["spec"])
    middle = "" if qos == "Guaranteed" else f"/{qos.lower()}"
    return f"{config.cgroup_root}{middle}/pod{pod['metadata']['uid']}"


def make_pod_cgroup(pod: Obj, parent: str, settings: CgroupsConfig | None = None, root: Path | None = None) -> None:
    """Make a pod's cgroup with the sum of its containers' limits. `root` is where cgroups are."""
    settings = settings or CgroupsConfig()
    unified = has_unified_cgroups() if root is None else (root / "cgroup.controllers").exists()
    root = root or ROOT
    requests, cpu_limit, memory_limit = pod_totals(pod)
    period_us = settings.cpu_period_us
    quota = cpu_quota(cpu_limit, period_us) if cpu_limit and settings.cpu_quota else 0
    pids = str(settings.pod_pids) if settings.pod_pids > 0 else "max"
    if unified:
        place = root / parent.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        _delegate(place, root)
        _write(place / "cpu.weight", str(_weight(cpu_shares(requests))))
        _write(place / "cpu.max", f"{quota or 'max'} {period_us}")
        _write(place / "memory.max", str(memory_limit) if memory_limit else "max")
        _write(place / "pids.max", pids)
        if "hugetlb" in (_offered(root) or ()):
            _limit_hugepages(place, pod, "max")
        return
    if (root / "hugetlb").is_dir():
        place = root / "hugetlb" / parent.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        _limit_hugepages(place, pod, "limit_in_bytes")
    for controller, files in (
        (
            "cpu",
            {
                "cpu.shares": str(cpu_shares(requests)),
                "cpu.cfs_period_us": str(period_us),
                "cpu.cfs_quota_us": str(quota or -1),
            },
        ),
        ("memory", {"memory.limit_in_bytes": str(memory_limit or -1)}),
        ("pids", {"pids.max": pids}),
    ):
        if (root / controller).is_dir():
            place = root / controller / parent.lstrip("/")
            place.mkdir(parents=True, exist_ok=True)
            for name, value in files.items():
                _write(place / name, value)


def _limit_hugepages(place: Path, pod: Obj, field: str) -> None:
    """A pod has the huge pages that its containers ask for, and none of another size."""
    limits = dict.fromkeys(_page_sizes(), 0) | hugepage_limits(pod)
    for size, limit in limits.items():
        _write(place / f"hugetlb.{size}.{field}", str(limit))
        # Newer kernels count also what is reserved and not in use yet.
        reserved = place / f"hugetlb.{size}.rsvd.{field}"
        if reserved.exists():
            _write(reserved, str(limit))


def _page_sizes() -> list[str]:
    """The sizes that the kernel has, as its files call them: 2048 kB are `2MB`."""
    sizes: list[str] = []
    for place in HUGE_PAGES.glob("hugepages-*kB"):
        size, unit = int(place.name.removeprefix("hugepages-").removesuffix("kB")), "KB"
        for larger in ("MB", "GB"):
            if size >= 1024:
                size, unit = size // 1024, larger
        sizes.append(f"{size}{unit}")
    return sizes


def bound(cgroup: str, *, memory: int, milli_cpu: int, pids: int = 0, root: Path = ROOT) -> None:
    """Bound a cgroup that is there, and all below it: its memory, its part of a busy CPU, its processes; 0 leaves as it
    is.  Raises FileNotFoundError."""
    below, unified = cgroup.lstrip("/"), (root / "cgroup.controllers").exists()
    places = [root / below] if unified else [root / name / below for name in ("cpu", "memory", "pids")]
    if not any(place.is_dir() for place in places):
        raise FileNotFoundError(f'"{cgroup}" cgroup does not exist')
    for place in places:
        if memory:
            _write(place / ("memory.max" if unified else "memory.limit_in_bytes"), str(memory))
        if milli_cpu:
            shares = cpu_shares(milli_cpu)
            name, value = ("cpu.weight", _weight(shares)) if unified else ("cpu.shares", shares)
            _write(place / name, str(value))
        if pids:
            _write(place / "pids.max", str(pids))


def set_cpu_shares(parent: str, shares: int) -> None:
    """What a cgroup has of a busy CPU beside its neighbours; it is made where it is not there."""
    if has_unified_cgroups():
        place = ROOT / parent.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        _write(place / "cpu.weight", str(_weight(shares)))
    elif (ROOT / "cpu").is_dir():
        place = ROOT / "cpu" / parent.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        _write(place / "cpu.shares", str(shares))


def _weight(shares: int) -> int:
    """Shares of v1 as a weight of v2."""
    return 1 + (shares - 2) * 9999 // 262142


def _delegate(place: Path, root: Path = ROOT) -> None:
    """Enable the controllers all the way down: a v2 cgroup has only those that its parent passes on."""
    above = [directory for directory in reversed(place.parents) if directory.is_relative_to(root)]
    for directory in [*above, place]:
        offered = _offered(directory)
        if offered is None:
            continue
        wanted = " ".join(
            f"+{name}" for name in offered if name in ("cpu", "cpuset", "memory", "pids", "io", "hugetlb")
        )
        _write(directory / "cgroup.subtree_control", wanted)


def _offered(place: Path) -> list[str] | None:
    """The controllers that a v2 cgroup may have; None where it is not one."""
    try:
        return (place / "cgroup.controllers").read_text().split()
    except OSError:
        return None


def _hierarchies() -> Iterator[Path]:
    if has_unified_cgroups():
        yield ROOT
        return
    for place in ROOT.iterdir():
        # On v1 some names are links to joined controllers (cpu → cpu,cpuacct).
        if place.is_dir() and not place.is_symlink():
            yield place


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def working_set(parent: str) -> int | None:
    """The memory of a cgroup and all below it, without what of the page cache would go first."""
    below = parent.lstrip("/")
    unified = has_unified_cgroups()
    place = ROOT / below if unified else ROOT / "memory" / below
    used = _number(place / ("memory.current" if unified else "memory.usage_in_bytes"))
    if used is None:
        return None
    wanted = "inactive_file" if unified else "total_inactive_file"
    with contextlib.suppress(OSError, ValueError):
        for line in (place / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == wanted:
                return max(used - int(value), 0)
    return used


def processes(parent: str) -> int:
    """How many processes and threads there are in a cgroup and below it."""
    place = ROOT if has_unified_cgroups() else ROOT / "pids"
    return _number(place / parent.lstrip("/") / "pids.current") or 0


def remove_pod_cgroup(parent: str) -> bool:
    """Remove a pod's cgroup and what is below it; one with processes in it stays. Returns whether it is gone.
    Idempotent."""
    places = [hierarchy / parent.lstrip("/") for hierarchy in _hierarchies()]
    for place in places:
        remove_cgroup(place)
    return not any(place.is_dir() for place in places)


def remove_cgroup(place: Path) -> None:
    """Remove a cgroup directory, children first; cgroups are removed by `rmdir` alone. Others may be at it, too."""
    for child in _below(place):
        if child.is_dir():
            remove_cgroup(child)
    with contextlib.suppress(OSError):
        place.rmdir()


def _below(place: Path) -> list[Path]:
    """What a directory holds; nothing if there is none, any more perhaps."""
    try:
        return list(place.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        # A cgroup that goes while it is read.
        if error.errno == errno.ENODEV:
            return []
        raise


def remove_root(root: str) -> None:
    """Remove the cgroup root of a kubelet that has gone, with all that is left below it."""
    remove_pod_cgroup(root)


def pod_uids(root: str) -> set[str]:
    """The uids of the pods that have cgroups below a kubelet's root."""
    found: set[str] = set()
    for hierarchy in _hierarchies():
        for middle in ("", "burstable", "besteffort"):
            names = [child.name for child in _below(hierarchy / root.lstrip("/") / middle)]
            found |= {name.removeprefix("pod") for name in names if name.startswith("pod")}
    return found
