"""What runs now: `run/state.json`, written by the supervisor at each change, read by `status`, `down` and by a
supervisor that takes over. A process is known by its pid and its start time, so that a reused pid is not mistaken.

The file may be missing, old or impossible to write; the locks that the processes hold are not. `ClusterState.load`
reads the file and then believes the locks, so that whoever asks is told the truth.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, field, fields
from pathlib import Path
from typing import Any

from navarch.cluster import locks
from navarch.records import mutable

# A process that ends with this code says that another try will not help (EX_CONFIG of sysexits.h); what it is then.
HOPELESS = 78
FAILED = "failed"


@mutable
class ComponentState:
    """`state` is running, backoff, failed (and not tried again) or stopped; `since` and times are Unix seconds;
    `failures` counts the ends since it was last well for a while."""

    pid: int = 0
    start_ticks: int = 0
    state: str = "stopped"
    restarts: int = 0
    failures: int = 0
    since: float = 0.0
    last_exit: str = ""

    def begin_anew(self) -> None:
        """What was tried before is over."""
        self.failures = 0
        if self.state == FAILED:
            self.state = "stopped"

    def become(self, pid: int) -> None:
        """It is the living process `pid`, whatever was known of it."""
        self.pid, self.start_ticks, self.state, self.since = pid, start_ticks(pid), "running", started_at(pid)


@mutable
class ClusterState:
    supervisor_pid: int = 0
    supervisor_ticks: int = 0
    started: float = 0.0
    stopping: bool = False
    components: dict[str, ComponentState] = field(default_factory=dict)

    def save(self, run: Path) -> None:
        """Raises OSError; the file is then as it was, and a cluster that was deleted does not come back."""
        run.mkdir(exist_ok=True, mode=0o700)
        partial = run / "state.json.partial"
        partial.write_text(json.dumps(asdict(self)))
        partial.replace(run / "state.json")

    @classmethod
    def load(cls, run: Path) -> ClusterState:
        """The last state written, and what has become of it since; an empty one where there is nothing."""
        state = cls._read(run)
        state._believe_locks(run)
        return state

    @classmethod
    def _read(cls, run: Path) -> ClusterState:
        try:
            stored = json.loads((run / "state.json").read_text())
            components = {name: ComponentState(**_known(ComponentState, entry))
                          for name, entry in stored.pop("components").items()}  # fmt: skip
            return cls(**_known(cls, stored), components=components)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return cls()

    def _believe_locks(self, run: Path) -> None:
        pid = locks.holder(run, locks.SUPERVISOR)
        if pid > 0 and pid != self.supervisor_pid:
            # What the file says is of an earlier one.
            self.supervisor_pid, self.supervisor_ticks, self.started = pid, start_ticks(pid), started_at(pid)
            self.stopping = False
            for component in self.components.values():
                component.begin_anew()
        if locks.holder(run, locks.SUPERVISOR, locks.STOPPING):
            self.stopping = True
        for name in locks.names(run):
            pid = locks.holder(run, name)
            if pid > 0 and (pid != self.components.get(name, _NOTHING).pid or not alive(self.components[name])):
                self.components.setdefault(name, ComponentState()).become(pid)

    @property
    def supervisor_alive(self) -> bool:
        return is_alive(self.supervisor_pid, self.supervisor_ticks)

    @property
    def living(self) -> dict[str, ComponentState]:
        """The components that live, supervised or not."""
        return {name: component for name, component in self.components.items() if alive(component)}

    @property
    def failed(self) -> list[str]:
        """The components that cannot start, as long as somebody watches who would start them."""
        return [name for name, one in self.components.items() if one.state == FAILED and self.supervisor_alive]


_NOTHING = ComponentState()
_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


def _known(kind: Any, entry: dict[str, Any]) -> dict[str, Any]:
    """Without what another version wrote.  Raises TypeError where a value is none of its field."""
    types = {one.name: _TYPES.get(str(one.type), ()) for one in fields(kind)}
    known = {key: value for key, value in entry.items() if key in types}
    for key, value in known.items():
        if type(value) not in types[key]:
            raise TypeError(f"{key} is {value!r}")
    return known


def start_ticks(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 where there is no such process (or a zombie)."""
    try:
        # The command's name may hold blanks and parentheses, so fields are counted after the last one.
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if stat[0] in "ZX" else int(stat[19])


def started_at(pid: int) -> float:
    """When the process started, in Unix seconds; 0 where there is none."""
    try:
        return os.stat(f"/proc/{pid}").st_ctime
    except OSError:
        return 0.0


def is_alive(pid: int, ticks: int) -> bool:
    return pid > 0 and ticks > 0 and start_ticks(pid) == ticks


def alive(component: ComponentState) -> bool:
    return is_alive(component.pid, component.start_ticks)
