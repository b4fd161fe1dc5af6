"""Creating, starting, stopping and deleting a cluster from outside its processes: what the command line calls."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from navarch.cluster import config as settings
from navarch.cluster import locks, ranges, strays, workers
from navarch.cluster.config import ClusterConfig, ConfigError
from navarch.cluster.state import HOPELESS, ClusterState, ComponentState, alive, started_at
from navarch.cluster.supervisor import spawn
from navarch.kinds.core.kubelets import SIMULATED
from navarch.numbers import integer_or
from navarch.world import MACHINE

_LOOK_EVERY_S = 0.02
_GIVE_UP_AFTER = 5
_MANY_NODES = 200
_SETTLE_S = 1.5
_TAKEN_DOWN_S = 90.0
_STRAY_GRACE_S = 10.0
_ROUNDS = 5
# Settings that name files of the real node's kubelet.
KUBELET_FILES = ("kubelet_config", "image_credential_provider_config", "image_credential_provider_bin_dir")


class StartError(Exception):
    """The cluster did not come up; the message says what to look at."""


class PortTaken(StartError):
    """Somebody else listens on the API server's port."""


def choose_runtime(wanted: str) -> tuple[str, str]:
    """`auto` becomes containerd where containers can run, else simulated; with the reason, for people.

    Raises ConfigError where containerd is asked for and cannot run.
    """
    if wanted == "simulated":
        return wanted, "simulated nodes, as asked for"
    from navarch.node.containerd import why_unavailable

    why = why_unavailable()
    if not why:
        return "containerd", "real containers in containerd"
    if wanted == "containerd":
        raise ConfigError(f"cannot run containers here: {why}; use --runtime simulated")
    return "simulated", f"simulated nodes, because {why}"


def plan(name: str, data_dir: str | None, changes: dict[str, Any]) -> tuple[ClusterConfig, bool]:
    """The configuration to bring up and whether the cluster is new; `changes` holds what was stated explicitly.

    Raises ConfigError for a change that an existing cluster cannot take.
    """
    folder = settings.data_dir_of(settings.check_name(name), data_dir)
    changes = {**changes, **_ranges_in(changes)}
    if (folder / "cluster.json").exists():
        return _changed(ClusterConfig.load(folder), changes), False
    known = settings.data_dir_of(name)
    if (known / "cluster.json").exists():
        # What a cluster has on this machine is named after it.
        raise ConfigError(f"there is a cluster {name!r} already, in {known}; another --name makes a second one")
    return _fresh(name, folder, changes), True


def _ranges_in(changes: Mapping[str, Any]) -> dict[str, str]:
    """The ranges that were stated, as they are kept.  Raises ConfigError."""
    flags = {"pod_cidr": "--pod-cidr", "service_cidr": "--service-cidr"}
    try:
        return {key: ranges.stated(flag, changes[key]) for key, flag in flags.items() if key in changes}
    except ranges.RangeError as error:
        raise ConfigError(f"invalid {error}") from None


def _changed(existing: ClusterConfig, changes: dict[str, Any]) -> ClusterConfig:
    fixed = ("store", "pod_cidr", "service_cidr", "kubernetes_version")
    etcd = _same_etcd(str(changes.get("store", "")), existing.store)
    for key in fixed:
        # The members of an etcd change; that it is the same one is checked when it is opened.
        if key in changes and changes[key] != getattr(existing, key) and not (key == "store" and etcd):
            flag = "--" + key.replace("_", "-")
            raise ConfigError(
                f"cluster {existing.name!r} exists with {flag} {getattr(existing, key)}; "
                f"`navarch down{settings.flags_of(existing)} --purge` deletes it, another --name makes a second one"
            )
    runtime = changes.get("runtime", existing.runtime)
    if runtime != existing.runtime:
        raise ConfigError(
            f"cluster {existing.name!r} exists with --runtime {existing.runtime}; delete it with --purge to change that"
        )
    changeable = (
        *("nodes", "workers", "port", "bind_address", "tls_san", "static_pods", "kubeconfig", "event_ttl_s"),
        *("runtime_config", "apiserver_flags", "controller_flags", "disable", *KUBELET_FILES),
        *("proxy_mode", "proxy_config", "pod_network", "scheduler_config"),
    )
    kept: dict[str, Any] = {key: changes[key] for key in changeable if key in changes}
    if etcd:
        kept["store"] = changes["store"]
    if ClusterState.load(existing.run).supervisor_alive:
        for key in (
            "nodes",
            "workers",
            "port",
            "bind_address",
            "tls_san",
            "static_pods",
            "runtime_config",
            "apiserver_flags",
            "controller_flags",
            "disable",
            "proxy_mode",
            "proxy_config",
            "pod_network",
            "scheduler_config",
            *KUBELET_FILES,
        ):
            if key in kept and kept[key] != getattr(existing, key):
                flag = "--" + key.replace("_", "-")
                raise ConfigError(
                    f"cluster {existing.name!r} is running with {flag} {getattr(existing, key) or 'unset'}; "
                    f"stop it first: `navarch down{settings.flags_of(existing)}`"
                )
    changed = replace(existing, **kept)
    if (changed.bind_address, bool(changed.workers)) != (existing.bind_address, bool(existing.workers)):
        changed = replace(changed, advertise_address=_advertised(asdict(changed)))
    return _with_workers(changed)


def _with_workers(config: ClusterConfig) -> ClusterConfig:
    """Raises ConfigError where there can be none."""
    if config.workers and config.runtime != "containerd":
        raise ConfigError("--workers are real nodes, which need --runtime containerd; --nodes are simulated ones")
    return config


def _same_etcd(one: str, other: str) -> bool:
    """Whether the URLs may name the same objects; the store itself looks whether they do."""
    if not (one.startswith("etcd:") and other.startswith("etcd:")):
        return False
    from navarch.store.etcd.target import parse

    return parse(one).prefix == parse(other).prefix


def _fresh(name: str, folder: Any, changes: dict[str, Any]) -> ClusterConfig:
    others = settings.neighbours()
    index = settings.free_index(others)
    values: dict[str, Any] = {"runtime": "simulated", **settings.networks_of(index), **changes}
    taken = {cluster.port for cluster in others}
    if "port" not in changes:
        values["port"] = settings.free_port(settings.DEFAULT_PORT, taken)
    if values["runtime"] == "containerd":
        values.setdefault("node_name", settings.host_name())
        values["kubelet_port"] = settings.free_port(10250, {cluster.kubelet_port for cluster in others})
    elif "nodes" not in changes:
        values["nodes"] = 1
    if values["runtime"] == "simulated" and "pod_cidr" not in changes and values["nodes"] > _MANY_NODES:
        values.update(_wide_network(values["nodes"]))
    _check_ranges(values)
    values.setdefault("advertise_address", _advertised(values))
    values["cluster_dns"] = str(ranges.first(values["service_cidr"])[10])
    if (":" in values["advertise_address"]) != (":" in values["cluster_dns"]):
        raise ConfigError(
            f"--service-cidr {values['service_cidr']}: the first range is not of the IP family of the API server's "
            f"address, {values['advertise_address']}, which the service `kubernetes` leads to; put the other one first"
        )
    return _with_workers(ClusterConfig(name=name, data_dir=str(folder), index=index, **values))


def _check_ranges(values: Mapping[str, Any]) -> None:
    """Raises ConfigError."""
    pods, services = values["pod_cidr"], values["service_cidr"]
    try:
        ranges.check(pods, services)
    except ranges.RangeError as error:
        raise ConfigError(f"invalid {error}") from None
    if values["runtime"] == "containerd" and 6 in ranges.families(pods) and not ranges.has_ipv6():
        raise ConfigError(
            f"invalid --pod-cidr {pods}: this machine has no IPv6 (net.ipv6.conf.default.disable_ipv6 is 1, or its "
            "kernel was started without); leave the IPv6 ranges out"
        )


def _advertised(values: dict[str, Any]) -> str:
    """Where pods reach the API server: with real containers at this machine's address on the pod network, which no
    other machine reaches and which stays the same, or with further nodes here at that on their bridge; where it is to
    listen elsewhere, at that address."""
    bind = values.get("bind_address", "")
    if bind and bind not in ("0.0.0.0", "::"):
        return str(bind)
    family = ranges.families(values["service_cidr"])[0]
    address = settings.host_address(family=family)
    if values["runtime"] != "containerd" or (bind and not ip_address(address).is_loopback):
        return address
    if values.get("workers"):
        return str(ip_network(values["node_cidr"] or settings.networks_of(values["index"])["node_cidr"])[1])
    pods = ranges.of_family(values["pod_cidr"], family) or ranges.first(values["pod_cidr"])
    return str(pods[1])


def _wide_network(nodes: int) -> dict[str, Any]:
    """A pod range with room for many simulated nodes. Nothing is routed there, so clusters may overlap."""
    # 10.128.0.0/9 has 32,768 ranges of 256 addresses; with more nodes each gets the next smaller power of two.
    mask = 24
    while 2 ** (mask - 9) < nodes:
        mask += 1
    return {"pod_cidr": "10.128.0.0/9", "node_cidr_mask": mask}


def with_another_port(config: ClusterConfig) -> ClusterConfig:
    """For a new cluster whose port, free a moment ago, went to another program."""
    return replace(config, port=settings.free_port(config.port + 1, {other.port for other in settings.neighbours()}))


def start(config: ClusterConfig) -> subprocess.Popen[bytes] | None:
    """Start the supervisor; None where one runs already.  Raises StartError."""
    _wait_until_down(config)
    state = ClusterState.load(config.run)
    if state.supervisor_alive:
        return None
    # Perhaps by a supervisor of this very cluster that has not come far, or by what one that was killed has left.
    give_up_s = MACHINE.monotonic() + _SETTLE_S
    while not ClusterState.load(config.run).living and (taken := _port_taken(config)):
        if ClusterState.load(config.run).supervisor_alive:
            return None
        if strays.processes_of(config.root):
            break
        if MACHINE.monotonic() > give_up_s:
            raise PortTaken(f"cannot listen on port {config.port}: {taken}; choose another with --port")
        MACHINE.pause(_LOOK_EVERY_S)
    try:
        config.save()
        settings.remember(config)
        settings.note(config)
        workers.retire_surplus(config)
        return spawn(config)
    except OSError as error:
        why = "it is no folder" if isinstance(error, FileExistsError) else error.strerror
        raise StartError(f"cannot write to {config.root}: {why}; choose another folder with --data-dir") from None


def _wait_until_down(config: ClusterConfig) -> None:
    """Raises StartError where somebody who takes the cluster down does not get done."""
    give_up_s = MACHINE.monotonic() + _TAKEN_DOWN_S
    while pid := locks.holder(config.run, locks.SUPERVISOR, locks.STOPPING):
        if MACHINE.monotonic() > give_up_s:
            raise StartError(
                f"cluster {config.name!r} is being taken down by process {pid}; try again when it has ended"
            )
        MACHINE.pause(_LOOK_EVERY_S)


def _port_taken(config: ClusterConfig) -> str:
    """Why the API server's port cannot be listened on; empty where it can, or where the API server is elsewhere."""
    if config.is_agent:
        return ""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.bind_address if config.listens_everywhere else "127.0.0.1", config.port))
        except OSError as error:
            return str(error.strerror)
    return ""


class Probe:
    """Asks the API server how things are, on the standard library alone: with the admin's certificate, or as the node
    that this machine is."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._tls: ssl.SSLContext | None = None

    def get(self, path: str, timeout_s: float = 5.0, method: str = "GET", body: str | None = None) -> tuple[int, bytes]:
        """Status and body.  Raises OSError where no answer came."""
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
    give_up_s = MACHINE.monotonic() + timeout_s
    before = {name: component.restarts for name, component in ClusterState.load(config.run).components.items()}
    while True:
        waiting_for = "its certificate"
        # Neither before the certificate is there, nor while it is written.
        with contextlib.suppress(OSError):
            ready, _ = probe.nodes()
            waiting_for = "the node to be Ready"
            # What is said of it may be from before it was stopped.
            if ready and _kubelet_listens(config):
                return
        report(waiting_for)
        _look_after(config, process, before)
        if MACHINE.monotonic() > give_up_s:
            raise _too_late(config, timeout_s, waiting_for)
        MACHINE.pause(_LOOK_EVERY_S)


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
    give_up_s = MACHINE.monotonic() + timeout_s
    expected = config.nodes + config.workers + (1 if config.runtime == "containerd" else 0)
    waiting_for = "the API server"
    swept = False
    before = {name: component.restarts for name, component in ClusterState.load(config.run).components.items()}
    while True:
        try:
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
                            report(f"nodes ({ready} of {expected} ready)")
                        return
        except (OSError, FileNotFoundError):
            # Not listening yet, or the keys are still being made.
            pass
        report(waiting_for)
        _look_after(config, process, before)
        if MACHINE.monotonic() > give_up_s:
            raise _too_late(config, timeout_s, waiting_for)
        MACHINE.pause(_LOOK_EVERY_S)


def _look_after(config: ClusterConfig, process: subprocess.Popen[bytes] | None, before: Mapping[str, int]) -> None:
    """Raises StartError where waiting longer would not help."""
    # Where another supervisor was quicker, that one counts.
    if process is not None and process.poll() and not ClusterState.load(config.run).supervisor_alive:
        failure = PortTaken if _port_taken(config) else StartError
        raise failure(f"the supervisor ended; its last words in {_last_words(config, 'supervisor')}")
    _refuse_hopeless(config, before)


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


def _refuse_hopeless(config: ClusterConfig, before: Mapping[str, int]) -> None:
    """Raises StartError where a process keeps ending, or says that it cannot start: waiting longer would not help, its
    last words may. `before` are the restarts of which nothing follows: they were earlier."""
    state = ClusterState.load(config.run)
    if not state.supervisor_alive:
        # What is written there is from an earlier run.
        return
    for name, component in state.components.items():
        if component.last_exit == f"exit code {HOPELESS}" and component.restarts > before.get(name, 0):
            raise StartError(f"{name} cannot start; its last words in {_last_words(config, name)}")
        if component.failures >= _GIVE_UP_AFTER and not alive(component):
            raise StartError(
                f"{name} keeps ending ({component.last_exit}); its last words in {_last_words(config, name)}"
            )


def _last_words(config: ClusterConfig, name: str, lines: int = 1) -> str:
    log = config.logs / f"{name}.log"
    said = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n  ".join([f"{log}:", *said[-lines:]])


@contextlib.contextmanager
def taking_down(config: ClusterConfig) -> Iterator[None]:
    """While this is held no supervisor of the cluster starts.  Raises StartError where another process holds it."""
    if not config.run.is_dir():
        # It was never started, or somebody has removed what tells.
        yield
        return
    give_up_s = MACHINE.monotonic() + _TAKEN_DOWN_S
    while True:
        try:
            locks.hold(config.run, locks.SUPERVISOR, locks.STOPPING)
            break
        except locks.HeldError as error:
            if MACHINE.monotonic() > give_up_s:
                raise StartError(f"cluster {config.name!r} is being taken down by another process: {error}") from None
            MACHINE.pause(_LOOK_EVERY_S)
        except OSError:
            # A full disk. What runs is ended all the same; should a supervisor start meanwhile, so is that.
            yield
            return
    try:
        yield
    finally:
        locks.release(config.run, locks.SUPERVISOR, locks.STOPPING)


def stop(config: ClusterConfig, timeout_s: float = 60.0) -> bool:
    """Stop the supervisor and with it the processes, and whatever else of the cluster runs; False where nothing ran.

    Raises StartError where a process does not end.
    """
    with taking_down(config):
        state = current(config)
        ran = state.supervisor_alive or bool(state.living)
        if state.supervisor_alive:
            supervisor = strays.Stray(locks.SUPERVISOR, state.supervisor_pid, state.supervisor_ticks)
            strays.end([supervisor], grace_s=timeout_s)
        _say_stopping(config)
        left: list[strays.Stray] = []
        for _ in range(_ROUNDS):
            # Each look may find a process that one of those before has started.
            found = running(config)
            if not found:
                return ran
            ran = True
            left = strays.end(found, grace_s=_STRAY_GRACE_S)
        left = left or running(config)
        if left:
            raise StartError("; ".join(f"{stray.name}, process {stray.pid}, does not end" for stray in left))
        return ran


def current(config: ClusterConfig) -> ClusterState:
    """What of the cluster runs: by its record, by the locks, and by the command lines of the machine's processes."""
    state = ClusterState.load(config.run)
    for stray in strays.processes_of(config.root):
        if stray.name == locks.SUPERVISOR:
            if not state.supervisor_alive:
                state.supervisor_pid, state.supervisor_ticks = stray.pid, stray.ticks
                state.started = started_at(stray.pid)
        elif stray.name not in state.living:
            state.components.setdefault(stray.name, ComponentState()).become(stray.pid)
    return state


def running(config: ClusterConfig) -> list[strays.Stray]:
    """The same as a list of processes, those that are there twice included."""
    state = current(config)
    known = {strays.Stray(name, one.pid, one.start_ticks) for name, one in state.living.items()}
    if state.supervisor_alive:
        known.add(strays.Stray(locks.SUPERVISOR, state.supervisor_pid, state.supervisor_ticks))
    return sorted(known | set(strays.processes_of(config.root)))


def _say_stopping(config: ClusterConfig) -> None:
    """Written down, so that no process that is left starts another supervisor."""
    state = ClusterState.load(config.run)
    state.stopping = True
    if config.run.is_dir():
        # On a full disk the processes are ended all the same.
        with contextlib.suppress(OSError):
            state.save(config.run)


def delete(config: ClusterConfig) -> None:
    """Remove the stopped cluster's folder and its entries in the user's kubeconfig.

    Raises StartError, with nothing removed, while anybody uses what is in the folder.
    """
    from navarch.cluster import kubeconfig
    from navarch.store.lock import holder

    if users := running(config):
        raise StartError(
            f"nothing was deleted: {users[0].name}, process {users[0].pid}, of cluster {config.name!r} still runs"
        )
    pid = holder(config.database)
    if pid is not None:
        who = f"process {pid}" if pid else "another process"
        raise StartError(f"nothing was deleted: {who} has {config.database} open")
    kubeconfig.remove(config)
    settings.forget(config)
    shutil.rmtree(config.root, ignore_errors=False)
