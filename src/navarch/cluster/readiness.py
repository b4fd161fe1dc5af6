"""Waiting until a cluster that was started can be used, or until it is plain that it cannot: what `navarch up` and
`navarch agent` do once there is a supervisor."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from navarch.cluster import config as settings
from navarch.cluster import workers
from navarch.cluster.config import ClusterConfig
from navarch.cluster.lifecycle import PortTaken, StartError, port_taken, running
from navarch.cluster.state import ClusterState, alive
from navarch.kinds.core.kubelets import SIMULATED
from navarch.numbers import integer_or
from navarch.world import MACHINE

if TYPE_CHECKING:
    import ssl

_LOOK_EVERY_S = 0.02
_GIVE_UP_AFTER = 5


class Probe:
    """Asks the API server how things are, on the standard library alone: with the admin's certificate, or as the node
    that this machine is."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._tls: ssl.SSLContext | None = None

    def get(self, path: str, timeout_s: float = 5.0, method: str = "GET", body: str | None = None) -> tuple[int, bytes]:
        """Status and body.  Raises OSError where no answer came."""
        # A command that has nothing to ask is spared them, and `up` loads them while the cluster starts.
        import http.client
        import ssl

        if self._tls is None:
            pki = self._config.pki
            # A node of a cluster elsewhere has nobody's certificate but its own.
            who = "kubelet" if self._config.is_agent else "admin"
            tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
            tls.load_cert_chain(str(pki / f"{who}.crt"), str(pki / f"{who}.key"))
            self._tls = tls
        server = urlsplit(self._config.server_url)
        connection = http.client.HTTPSConnection(
            server.hostname or "", server.port, timeout=timeout_s, context=self._tls
        )
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()

    def healthy(self) -> bool:
        with contextlib.suppress(OSError):
            return self.get("/readyz")[0] == 200
        return False

    def nodes(self) -> tuple[int, int]:
        """How many nodes are Ready, of how many; a node elsewhere counts itself alone."""
        own = self._config.is_agent
        status, body = self.get(f"/api/v1/nodes/{self._config.node_name}" if own else "/api/v1/nodes")
        if status != 200:
            return 0, 1 if own else 0
        items = [json.loads(body)] if own else json.loads(body)["items"]
        return sum(is_schedulable(node) for node in items), len(items)

    def remove_surplus_nodes(self) -> None:
        """Delete the simulated nodes and the further ones of this machine that are left over from a time when the
        cluster was to have more of them."""
        status, body = self.get("/api/v1/nodes")
        for node in json.loads(body)["items"] if status == 200 else ():
            metadata = node["metadata"]
            number = metadata["name"].removeprefix("node-")
            ours = (metadata.get("annotations") or {}).get(SIMULATED) == "true"
            further = workers.LABEL in (metadata.get("labels") or {})
            surplus = further and workers.number_of(self._config, metadata["name"]) > self._config.workers
            if surplus or (ours and integer_or(number, 0) > self._config.nodes):
                self.get(f"/api/v1/nodes/{metadata['name']}", method="DELETE")

    def has_default_namespace(self) -> bool:
        return self.get("/api/v1/namespaces/default/serviceaccounts/default")[0] == 200


def is_schedulable(node: dict[str, Any]) -> bool:
    """Ready, and the taint of nodes that are not yet has been taken away."""
    conditions = node.get("status", {}).get("conditions") or []
    ready = any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)
    taints = node.get("spec", {}).get("taints") or []
    return ready and not any(taint["key"] == "node.kubernetes.io/not-ready" for taint in taints)


def wait_joined(
    config: ClusterConfig,
    timeout_s: float,
    report: Callable[[str], None],
    process: subprocess.Popen[bytes] | None = None,
) -> None:
    """Until this machine is a Ready node of the cluster that it joins.  Raises StartError as `wait_ready` does."""
    probe = Probe(config)

    def missing() -> str:
        try:
            # What is said of it may be from before it was stopped.
            usable = probe.nodes()[0] > 0 and _kubelet_listens(config)
        except OSError:
            # Neither before the certificate is there, nor while it is written.
            return "its certificate"
        return "" if usable else "the node to be Ready"

    _wait_until_nothing(config, missing, timeout_s, report, process)


def _kubelet_listens(config: ClusterConfig) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", config.kubelet_port)) == 0


def wait_ready(
    config: ClusterConfig,
    timeout_s: float,
    report: Callable[[str], None],
    process: subprocess.Popen[bytes] | None = None,
) -> None:
    """Until the supervised API server is ready, the default namespace is usable and every expected node is Ready.

    Raises StartError after `timeout_s`, or at once where `process`, the supervisor that was started, has failed.
    """
    probe = Probe(config)
    expected = config.nodes + config.workers + (1 if config.runtime == "containerd" else 0)
    waiting_for = "the API server"
    swept = False

    def missing() -> str:
        nonlocal waiting_for, swept
        # Not listening yet, or the keys are still being made.
        with contextlib.suppress(OSError):
            if probe.get("/readyz")[0] == 200 and _is_supervised(config):
                waiting_for = "the default namespace"
                if probe.has_default_namespace():
                    if not swept:
                        probe.remove_surplus_nodes()
                        swept = True
                    ready, _ = probe.nodes()
                    waiting_for = f"nodes ({ready} of {expected} ready)"
                    if ready >= expected:
                        if expected:
                            report(waiting_for)
                        return ""
        return waiting_for

    _wait_until_nothing(config, missing, timeout_s, report, process)


def _wait_until_nothing(
    config: ClusterConfig,
    missing: Callable[[], str],
    timeout_s: float,
    report: Callable[[str], None],
    process: subprocess.Popen[bytes] | None,
) -> None:
    """Until nothing is `missing`, telling what is.  Raises StartError."""
    give_up_s = MACHINE.monotonic() + timeout_s
    while waiting_for := missing():
        report(waiting_for)
        _look_after(config, process)
        if MACHINE.monotonic() > give_up_s:
            raise _too_late(config, timeout_s, waiting_for)
        MACHINE.pause(_LOOK_EVERY_S)


def _look_after(config: ClusterConfig, process: subprocess.Popen[bytes] | None) -> None:
    """Raises StartError where waiting longer would not help."""
    # Where another supervisor was quicker, that one counts; and what one that was killed has started ends, or starts
    # another.
    if process is not None and process.poll() and not running(config):
        failure = PortTaken if port_taken(config) else StartError
        raise failure(f"the supervisor ended; its last words in {last_words(config, 'supervisor')}")
    _refuse_hopeless(config)


def _too_late(config: ClusterConfig, timeout_s: float, waiting_for: str) -> StartError:
    return StartError(
        f"timed out after {timeout_s:g} s waiting for {waiting_for} (--wait); "
        f"`navarch status{settings.flags_of(config)}` shows the processes, "
        f"`navarch logs{settings.flags_of(config)}` what they say"
    )


def _is_supervised(config: ClusterConfig) -> bool:
    """Whether who answers is known to a living supervisor: one that nobody watched answers until it is ended."""
    state = ClusterState.load(config.run)
    return state.supervisor_alive and "apiserver" in state.living


def _refuse_hopeless(config: ClusterConfig) -> None:
    """Raises StartError where a process keeps ending, or says that it cannot start: waiting longer would not help, its
    last words may."""
    state = ClusterState.load(config.run)
    if not state.supervisor_alive:
        # What is written there is from an earlier run.
        return
    for name in state.failed:
        raise StartError(f"{name} cannot start; its last words in {last_words(config, name)}")
    for name, component in state.components.items():
        if component.failures >= _GIVE_UP_AFTER and not alive(component):
            raise StartError(
                f"{name} keeps ending ({component.last_exit}); its last words in {last_words(config, name)}"
            )


def last_words(config: ClusterConfig, name: str, lines: int = 1) -> str:
    """The end of a process's log, under the log's name."""
    log = config.logs / f"{name}.log"
    said = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n  ".join([f"{log}:", *said[-lines:]])
