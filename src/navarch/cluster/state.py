"""What runs now: `run/state.json`, written by the supervisor at each change, read by `status`, `down` and by a
supervisor that takes over. A process is known by its pid and its start time, so that a reused pid is not mistaken."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(slots=True)
class ComponentState:
    """`state` is starting, running, backoff or stopped; `since` and times are Unix seconds; `restarts_before` are
    those under earlier supervisors."""

    pid: int = 0
    start_ticks: int = 0
    state: str = "stopped"
    restarts: int = 0
    restarts_before: int = 0
    since: float = 0.0
    last_exit: str = ""


@dataclass(slots=True)
class ClusterState:
    supervisor_pid: int = 0
    supervisor_ticks: int = 0
    started: float = 0.0
    stopping: bool = False
    components: dict[str, ComponentState] = field(default_factory=dict)

    def save(self, run: Path) -> None:
        run.mkdir(parents=True, exist_ok=True)
        partial = run / "state.json.partial"
        partial.write_text(json.dumps(asdict(self)))
        partial.replace(run / "state.json")

    @classmethod
    def load(cls, run: Path) -> ClusterState:
        """The last state written; an empty one where there is none."""
        try:
            stored = json.loads((run / "state.json").read_text())
            components = {name: ComponentState(**entry) for name, entry in stored.pop("components").items()}
            return cls(**stored, components=components)
        except (OSError, ValueError, TypeError, KeyError):
            return cls()

    @property
    def supervisor_alive(self) -> bool:
        return is_alive(self.supervisor_pid, self.supervisor_ticks)


def start_ticks(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 where there is no such process (or a zombie)."""
    try:
        # The command's name may hold blanks and parentheses, so fields are counted after the last one.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])


def is_alive(pid: int, ticks: int) -> bool:
    return pid > 0 and ticks > 0 and start_ticks(pid) == ticks


def alive(component: ComponentState) -> bool:
    return is_alive(component.pid, component.start_ticks)
