"""`PodProbes`: the probes of one pod's running containers, and what their verdicts mean for them."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from navarch.api.meta import Obj
from navarch.node import podspec
from navarch.node.engine.podstate import PodState
from navarch.node.probes.prober import ContainerProbes, ready_without_probe

# As metrics name the kinds of probes.
_TYPES: Final = {"livenessProbe": "Liveness", "readinessProbe": "Readiness", "startupProbe": "Startup"}


class PodProbes:
    """Owned by a PodWorker."""

    def __init__(self, state: PodState) -> None:
        self._state = state
        self._running: dict[str, ContainerProbes] = {}

    def start(self, container: Obj, container_id: str, started_at: datetime, *, adopted: bool = False) -> None:
        """Probe a running instance."""
        name = container["name"]
        self.end(name)
        state, parts = self._state, self._state.parts
        probes = ContainerProbes(
            parts.prober,
            container,
            container_id,
            state.pod_ip(),
            started_at,
            parts.clock,
            parts.random,
            verdict=lambda kind, ok, _: self._verdict(container, container_id, kind, ok),
            told=lambda reason, message: state.event("Warning", reason, message, name),
            failures=parts.failures,
            counted=lambda kind, ok: self._count(name, kind, ok),
        )
        self._running[name] = probes
        probes.start(adopted=adopted, started=state.memory[name].started)

    def _count(self, name: str, kind: str, ok: bool) -> None:
        key = (name, _TYPES[kind], "successful" if ok else "failed")
        counts = self._state.probe_counts
        counts[key] = counts.get(key, 0) + 1

    def stopping(self, name: str) -> None:
        """The container is being stopped: it need not be alive or started any more, only its readiness still counts."""
        if name in self._running:
            self._running[name].stop(keep_readiness=True)

    def end(self, name: str) -> bool:
        """The container no longer runs. True where it was probed."""
        probes = self._running.pop(name, None)
        if probes is not None:
            probes.stop()
        return probes is not None

    def end_all(self) -> None:
        for name in list(self._running):
            self.end(name)

    def _verdict(self, container: Obj, container_id: str, kind: str, ok: bool) -> None:
        memory = self._state.memory[container["name"]]
        if memory.container_id != container_id:
            return
        before = (memory.ready, memory.started, memory.doomed)
        if kind == "readinessProbe":
            memory.ready = ok
        elif kind == "startupProbe" and ok:
            memory.started = True
            memory.ready = memory.ready or ready_without_probe(container)
        elif not ok:
            word = "liveness" if kind == "livenessProbe" else "startup"
            again = podspec.should_restart(self._state.pod, container, 137) or podspec.is_sidecar(container)
            memory.doomed = f"Container {container['name']} failed {word} probe" + (
                ", will be restarted" if again else ""
            )
            memory.doomed_by, memory.again = kind, again
        if (memory.ready, memory.started, memory.doomed) != before:
            self._state.wake()
