"""What the kernel counts for a cgroup: CPU, memory, processes; for a pod's network namespace, its interfaces.

Works on cgroup v1 (a tree per controller) and v2 (one tree), below `root`, which tests prepare. A figure that is not
there is 0: kernels differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from navarch.numbers import is_digits

CGROUPS: Final = Path("/sys/fs/cgroup")
_TICKS_NS: Final = 10_000_000  # cpuacct.stat counts in USER_HZ, which is 100
_NO_LIMIT: Final = 1 << 62


class Interface(NamedTuple):
    """Received and sent, of a network interface: bytes, packets, errors, dropped."""

    name: str
    received: tuple[int, int, int, int]
    sent: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Reading:
    """Times in nanoseconds, memory in bytes; a limit of 0 is none."""

    cpu_ns: int = 0
    user_ns: int = 0
    system_ns: int = 0
    periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0
    memory: int = 0
    memory_most: int = 0
    memory_limit: int = 0
    memory_failures: int = 0
    working_set: int = 0
    rss: int = 0
    cache: int = 0
    swap: int = 0
    mapped: int = 0
    faults: int = 0
    major_faults: int = 0
    oom_kills: int = 0
    shares: int = 0
    quota_us: int = 0
    period_us: int = 0
    processes: int = 0
    threads: int = 0
    threads_most: int = 0
    pids: tuple[int, ...] = field(default_factory=tuple)


def read(cgroup: str, root: Path = CGROUPS) -> Reading | None:
    """Of a cgroup by its path; None where there is no such."""
    below = cgroup.strip("/")
    if (root / "cgroup.controllers").exists():
        place = root / below
        return _unified(place) if place.is_dir() else None
    if not (root / "memory" / below).is_dir() and not (root / "cpu" / below).is_dir():
        return None
    return _split(root, below)


def _unified(place: Path) -> Reading:
    cpu, memory = _table(place / "cpu.stat"), _table(place / "memory.stat")
    events = _table(place / "memory.events")
    quota, _, period = _text(place / "cpu.max").partition(" ")
    used = _number(place / "memory.current")
    pids = _pids(place)
    return Reading(
        cpu_ns=cpu.get("usage_usec", 0) * 1000,
        user_ns=cpu.get("user_usec", 0) * 1000,
        system_ns=cpu.get("system_usec", 0) * 1000,
        periods=cpu.get("nr_periods", 0),
        throttled_periods=cpu.get("nr_throttled", 0),
        throttled_ns=cpu.get("throttled_usec", 0) * 1000,
        memory=used,
        memory_most=_number(place / "memory.peak"),
        memory_limit=_number(place / "memory.max"),
        memory_failures=events.get("max", 0),
        working_set=max(used - memory.get("inactive_file", 0), 0),
        rss=memory.get("anon", 0),
        cache=memory.get("file", 0),
        swap=_number(place / "memory.swap.current"),
        mapped=memory.get("file_mapped", 0),
        faults=memory.get("pgfault", 0),
        major_faults=memory.get("pgmajfault", 0),
        oom_kills=events.get("oom_kill", 0),
        shares=_shares(_number(place / "cpu.weight")),
        quota_us=int(quota) if is_digits(quota) else 0,
        period_us=int(period) if is_digits(period) else 0,
        processes=len(pids),
        threads=_number(place / "pids.current"),
        threads_most=_number(place / "pids.max"),
        pids=pids,
    )


def _split(root: Path, below: str) -> Reading:
    cpu, account, memory, pids = (root / name / below for name in ("cpu", "cpuacct", "memory", "pids"))
    stat, table, times = _table(cpu / "cpu.stat"), _table(memory / "memory.stat"), _table(account / "cpuacct.stat")
    used, limit = _number(memory / "memory.usage_in_bytes"), _number(memory / "memory.limit_in_bytes")
    listed = _pids(memory if memory.is_dir() else cpu)
    return Reading(
        cpu_ns=_number(account / "cpuacct.usage"),
        user_ns=times.get("user", 0) * _TICKS_NS,
        system_ns=times.get("system", 0) * _TICKS_NS,
        periods=stat.get("nr_periods", 0),
        throttled_periods=stat.get("nr_throttled", 0),
        throttled_ns=stat.get("throttled_time", 0),
        memory=used,
        memory_most=_number(memory / "memory.max_usage_in_bytes"),
        # A cgroup without a limit says the largest number that it can.
        memory_limit=0 if limit >= _NO_LIMIT else limit,
        memory_failures=_number(memory / "memory.failcnt"),
        working_set=max(used - table.get("total_inactive_file", 0), 0),
        rss=table.get("total_rss", 0),
        cache=table.get("total_cache", 0),
        swap=table.get("total_swap", 0),
        mapped=table.get("total_mapped_file", 0),
        faults=table.get("total_pgfault", 0),
        major_faults=table.get("total_pgmajfault", 0),
        oom_kills=_table(memory / "memory.oom_control").get("oom_kill", 0),
        shares=_number(cpu / "cpu.shares"),
        quota_us=max(_number(cpu / "cpu.cfs_quota_us"), 0),
        period_us=_number(cpu / "cpu.cfs_period_us"),
        processes=len(listed),
        threads=_number(pids / "pids.current"),
        threads_most=_number(pids / "pids.max"),
        pids=listed,
    )


def interfaces(pid: int, proc: Path = Path("/proc")) -> list[Interface]:
    """Those that a process sees, but for the loopback."""
    found = []
    for line in _text(proc / str(pid) / "net" / "dev").splitlines():
        name, colon, numbers = line.partition(":")
        fields = numbers.split()
        if not colon or len(fields) < 12 or name.strip() == "lo":
            continue
        values = [int(word) for word in fields[:12]]
        found.append(Interface(name.strip(), (*values[:4],), (*values[8:12],)))  # type: ignore[arg-type]
    return found


def _shares(weight: int) -> int:
    """A weight of v2 as shares of v1."""
    return 2 + (weight - 1) * 262142 // 9999 if weight else 0


def _pids(place: Path) -> tuple[int, ...]:
    return tuple(int(word) for word in _text(place / "cgroup.procs").split())


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> int:
    text = _text(path)
    try:
        return int(text)
    except ValueError:
        # `max`: no limit.
        return 0


def _table(path: Path) -> Mapping[str, int]:
    found = {}
    for line in _text(path).splitlines():
        name, _, value = line.partition(" ")
        if is_digits(value.removeprefix("-")):
            found[name] = int(value)
    return found
