"""What a pod's worker does whatever goes wrong, over simulated containers."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from navarch.client.base import PatchKind
from navarch.client.resources import NODES, RUNTIME_CLASSES, STATEFUL_SETS
from navarch.client.supervision import Delay
from navarch.node.engine import retries, start, stop, worker
from navarch.node.engine.worker import PodWorker
from navarch.node.probes.handlers import Outcome
from navarch.node.resources.capacity import Amount
from navarch.node.runtime.base import ExecResult, RuntimeFailure
from navarch.node.runtime.simulated import Life
from navarch.node.volumes import host_path, manager
from tests.node.engine.conftest import Simulated


class Gpus:
    """One device."""

    def amounts(self) -> dict[str, Amount]:
        return {"example.com/gpu": Amount(Fraction(1))}


@pytest.mark.parametrize("error", [KeyError("field"), TypeError("no such thing"), RecursionError(), Exception("?")])
async def test_no_error_of_a_turn_is_the_end_of_the_worker(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    run_sandbox, failing = simulated.runtime.run_sandbox, [error]

    async def broken(*arguments: Any) -> str:
        if failing:
            raise failing.pop()
        return await run_sandbox(*arguments)

    monkeypatch.setattr(simulated.runtime, "run_sandbox", broken)
    with caplog.at_level(logging.ERROR):
        await simulated.pod("unlucky")

        await simulated.running("unlucky")

    kind = type(error).__name__
    told = [event["message"] for event in simulated.api.events() if event["reason"] == "FailedSync"]
    assert told == [f"error syncing pod: {kind}: {error}"]
    assert simulated.kubelet.failures.counts == {kind: 1}
    assert kind in caplog.text


async def test_an_error_of_the_status_is_tried_again(simulated: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    from navarch.node.engine import publish

    pod_status, failing = publish.pod_status, [ZeroDivisionError("status")]

    def broken(inputs: Any) -> Any:
        if failing:
            raise failing.pop()
        return pod_status(inputs)

    monkeypatch.setattr(publish, "pod_status", broken)
    await simulated.pod("unlucky")

    await simulated.running("unlucky")
    assert simulated.kubelet.failures.counts == {"ZeroDivisionError": 1}


async def test_an_error_of_one_pod_is_nothing_to_another(simulated: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    run_sandbox = simulated.runtime.run_sandbox

    async def broken(config: Any, handler: str = "") -> str:
        if config.name == "cursed":
            raise AssertionError("always")
        return await run_sandbox(config, handler)

    monkeypatch.setattr(simulated.runtime, "run_sandbox", broken)
    await simulated.pod("cursed")
    await simulated.pod("blessed")

    await simulated.running("blessed")
    await simulated.until(lambda: "FailedSync" in simulated.reasons("cursed"))
    assert simulated.phase("cursed") == "Pending"
    # It can still be deleted.
    await simulated.api.delete_gracefully("default", "cursed")
    await simulated.until(lambda: simulated.shown("cursed") is None)


def test_the_delay_grows_with_failures_and_starts_over_with_a_success() -> None:
    delay = Delay(1.0, 5.0)

    waits = [delay.failed() for _ in range(4)]
    delay.succeeded()

    assert (waits, delay.failed()) == ([1.0, 2.0, 4.0, 5.0], 1.0)


async def test_a_pod_whose_host_port_is_taken_fails_at_once(simulated: Simulated) -> None:
    port = {"containerPort": 80, "hostPort": 8080}
    await simulated.pod("first", {"name": "c", "ports": [port]})
    await simulated.running("first")

    await simulated.pod("second", {"name": "c", "ports": [port]})

    await simulated.until(lambda: simulated.phase("second") == "Failed")
    status = simulated.shown("second")["status"]
    words = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
    assert (status["reason"], status["message"]) == ("NodePorts", f"Pod was rejected: {words}")
    told = [event["message"] for event in simulated.api.events() if event["reason"] == "NodePorts"]
    assert told == [words]
    # It has no containers whose waiting would be shown in place of the reason.
    assert "containerStatuses" not in status
    assert {condition["type"] for condition in status.get("conditions") or ()} <= {"PodScheduled"}
    assert len(await simulated.runtime.list_sandboxes()) == 1

    await simulated.restart()
    await simulated.pod("third")
    await simulated.running("third")
    assert simulated.shown("second")["status"] == status


async def test_a_pod_that_runs_is_not_refused_by_a_restarted_kubelet(simulated: Simulated) -> None:
    await simulated.pod("steady")
    await simulated.running("steady")
    await simulated.stop()
    taints = {"spec": {"taints": [{"key": "new", "effect": "NoExecute"}]}}
    await simulated.api.patch_node("n1", taints)

    await simulated.start_again()
    await simulated.pod("late")

    await simulated.until(lambda: simulated.phase("late") == "Failed")
    assert simulated.shown("late")["status"]["reason"] == "TaintToleration"
    assert simulated.phase("steady") == "Running"


async def test_a_pod_runs_to_its_end(simulated: Simulated) -> None:
    simulated.lives = {"good": Life(run_s=0.05), "bad": Life(run_s=0.05, exit_code=3)}

    await simulated.pod("well", {"name": "good"}, restartPolicy="Never")
    await simulated.pod("ill", {"name": "bad"}, restartPolicy="Never")

    await simulated.until(lambda: simulated.phase("well") == "Succeeded")
    await simulated.until(lambda: simulated.phase("ill") == "Failed")
    ended = simulated.shown("ill")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (3, "Error")


async def test_a_container_that_keeps_exiting_backs_off(simulated: Simulated) -> None:
    simulated.lives = {"c": Life(run_s=0.05, exit_code=1)}

    await simulated.pod("crash")

    def waits() -> str:
        statuses = (simulated.shown("crash").get("status") or {}).get("containerStatuses") or [{}]
        return str((statuses[0].get("state") or {}).get("waiting", {}).get("reason"))

    await simulated.until(lambda: waits() == "CrashLoopBackOff")
    assert simulated.phase("crash") == "Running"


@pytest.mark.parametrize("step", ["create_container", "start_container"])
async def test_a_sandbox_that_is_stopped_while_its_container_starts_anew_costs_one_restart(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    simulated.lives = {"c": Life(run_s=0.05, exit_code=1)}
    asked = getattr(simulated.runtime, step)
    calls = itertools.count(1)

    async def too_late(*args: Any) -> Any:
        if next(calls) != 2:
            return await asked(*args)
        simulated.lives = {}
        for sandbox in await simulated.runtime.list_sandboxes():
            await simulated.runtime.stop_sandbox(sandbox.id)
        raise RuntimeFailure("its namespaces are gone")

    monkeypatch.setattr(simulated.runtime, step, too_late)

    await simulated.pod("moved")

    def container() -> dict[str, Any]:
        return dict(((simulated.shown("moved").get("status") or {}).get("containerStatuses") or [{}])[0])

    await simulated.until(lambda: container().get("restartCount") == 1 and "running" in container()["state"])
    assert "Failed" not in simulated.reasons("moved")


async def test_a_container_that_somebody_killed_waits_for_what_becomes_of_its_sandbox(simulated: Simulated) -> None:
    simulated.lives = {"c": Life(run_s=0.01, exit_code=137)}
    await simulated.pod("killed")
    await simulated.until(lambda: simulated.told)
    simulated.lives = {}

    await simulated.until(lambda: len(simulated.told) >= 2)
    statuses = [await simulated.runtime.container_status(c.id) for c in await simulated.runtime.list_containers()]
    *_, ended, anew = sorted(statuses, key=lambda status: status.created_at_ns)
    assert anew.created_at_ns - ended.finished_at_ns >= 500_000_000


async def test_a_pod_whose_object_is_gone_leaves_its_room_while_it_still_stops(simulated: Simulated) -> None:
    simulated.lives = {"stubborn": Life(stop_s=60)}
    port = {"containerPort": 80, "hostPort": 8080}
    await simulated.pod("victim", {"name": "stubborn", "ports": [port]}, terminationGracePeriodSeconds=0)
    await simulated.running("victim")

    # As the scheduler removes one that is to make room: without grace, so that the object goes at once.
    await simulated.api.delete_gracefully("default", "victim")
    assert simulated.shown("victim") is None
    await simulated.pod("preemptor", {"name": "c", "ports": [port]})

    await simulated.running("preemptor")


async def test_a_pod_that_has_ended_leaves_its_room_while_its_sandbox_still_stops(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def takes_long(_: str) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(simulated.runtime, "stop_sandbox", takes_long)
    simulated.lives = {"step": Life(run_s=0.05)}
    port = {"containerPort": 80, "hostPort": 8080}
    await simulated.pod("first", {"name": "step", "ports": [port]}, restartPolicy="Never")
    await asyncio.wait_for(asked.wait(), 15)
    await simulated.until(lambda: simulated.phase("first") == "Succeeded")

    # As a Job has one pod follow on the other.
    await simulated.pod("second", {"name": "c", "ports": [port]})

    await simulated.running("second")


async def test_devices_are_given_out_once(simulated: Simulated) -> None:
    await simulated.stop()
    await simulated.start_again(devices=[Gpus()])
    await simulated.until(
        lambda: simulated.api.get("nodes", "", "n1")["status"]["allocatable"].get("example.com/gpu") == "1"
    )
    asking = {"name": "c", "resources": {"limits": {"example.com/gpu": "1"}}}

    await simulated.pod("first", asking)
    await simulated.running("first")
    await simulated.pod("second", asking)

    await simulated.until(lambda: simulated.phase("second") == "Failed")
    assert simulated.shown("second")["status"]["reason"] == "OutOfexample.com/gpu"


async def test_what_others_say_that_the_node_has_stays(simulated: Simulated) -> None:
    await simulated.until(lambda: simulated.api.get("nodes", "", "n1"))
    await simulated.api.patch_node("n1", {"status": {"capacity": {"example.com/dongle": "3"}}}, "status")

    simulated.kubelet.node.look_again()
    await simulated.pod("any")
    await simulated.running("any")

    assert simulated.api.get("nodes", "", "n1")["status"]["capacity"]["example.com/dongle"] == "3"


async def test_a_stateful_set_makes_a_refused_pod_anew_until_it_fits(controlled: Simulated) -> None:
    port = {"containerPort": 80, "hostPort": 8080}
    await controlled.pod("holder", {"name": "c", "ports": [port]})
    await controlled.running("holder")
    labels = {"app": "db"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "db:1", "ports": [port]}]},
    }
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "serviceName": "db", "template": template}
    stateful_set = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": spec}
    await controlled.api.admin.create(STATEFUL_SETS, stateful_set, namespace="default")
    await controlled.until(lambda: "NodePorts" in controlled.reasons("db-0"))

    await controlled.api.delete_gracefully("default", "holder")

    await controlled.running("db-0")


async def test_a_hook_that_cannot_even_be_tried_fails_and_the_pod_still_stops(simulated: Simulated) -> None:
    nowhere = {"tcpSocket": {"port": "nowhere"}}
    await simulated.pod("hooked", {"name": "c", "lifecycle": {"preStop": nowhere}})
    await simulated.running("hooked")

    await simulated.api.delete_gracefully("default", "hooked")

    await simulated.until(lambda: simulated.shown("hooked") is None)
    assert "FailedPreStopHook" in simulated.reasons("hooked")


async def test_a_broken_hook_is_a_failed_hook(simulated: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> Any:
        raise LookupError("hook")

    monkeypatch.setattr(start, "run_hook", broken)
    monkeypatch.setattr(stop, "run_hook", broken)
    hooks = {"postStart": {"sleep": {"seconds": 1}}, "preStop": {"sleep": {"seconds": 1}}}
    await simulated.pod("hooked", {"name": "c", "lifecycle": hooks})
    await simulated.until(lambda: "FailedPostStartHook" in simulated.reasons("hooked"))

    await simulated.api.delete_gracefully("default", "hooked")

    await simulated.until(lambda: simulated.shown("hooked") is None)


async def test_all_hooks_run_at_once_and_sidecars_stop_last(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooked, may_end, stopped = set[str](), asyncio.Event(), list[str]()
    stop_container = simulated.runtime.stop_container

    async def hook(runtime: Any, caller: Any, pod: Any, container: Any, *_: Any) -> Outcome:
        hooked.add(container["name"])
        await may_end.wait()
        return Outcome(True)

    async def stop_one(container_id: str, grace_s: int) -> None:
        stopped.append((await simulated.runtime.container_status(container_id)).name)
        await stop_container(container_id, grace_s)

    monkeypatch.setattr(stop, "run_hook", hook)
    monkeypatch.setattr(simulated.runtime, "stop_container", stop_one)
    late = {"lifecycle": {"preStop": {"exec": {"command": ["true"]}}}}
    sidecars = [{"name": name, "image": "web:1", "restartPolicy": "Always", **late} for name in ("one", "two")]
    await simulated.pod("hooked", {"name": "main", **late}, initContainers=sidecars, terminationGracePeriodSeconds=60)
    await simulated.running("hooked")

    await simulated.api.delete_gracefully("default", "hooked")

    await simulated.until(lambda: hooked == {"main", "one", "two"})
    assert stopped == []
    may_end.set()
    await simulated.until(lambda: simulated.shown("hooked") is None)
    assert stopped[:3] == ["main", "two", "one"]


async def test_what_cannot_be_stopped_is_tried_again_and_not_at_once(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_container, attempts = simulated.runtime.stop_container, []

    async def stubborn(container_id: str, grace_s: int) -> None:
        attempts.append(container_id)
        if len(attempts) < 2:
            raise RuntimeFailure("the shim does not answer")
        await stop_container(container_id, grace_s)

    monkeypatch.setattr(simulated.runtime, "stop_container", stubborn)
    await simulated.pod("stays")
    await simulated.running("stays")

    await simulated.api.delete_gracefully("default", "stays")

    await simulated.until(lambda: simulated.shown("stays") is None)
    assert len(attempts) == 2
    told = [event["message"] for event in simulated.api.events() if event["reason"] == "FailedKillPod"]
    assert told == ["error killing pod: the shim does not answer"]


async def test_a_pull_that_breaks_in_an_unknown_way_is_a_failed_pull(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulls = []

    async def broken(image: str, login: Any) -> str:
        pulls.append(image)
        raise AttributeError("'list' object has no attribute 'get'")

    monkeypatch.setattr(simulated.runtime, "pull_image", broken)
    await simulated.pod("unpulled", {"name": "c", "imagePullPolicy": "Always"})

    await simulated.until(lambda: "BackOff" in simulated.reasons("unpulled"))
    assert len(pulls) <= 2


async def test_a_probe_that_breaks_in_an_unknown_way_says_nothing_of_the_container(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    exec_sync, attempts = simulated.runtime.exec_sync, []

    async def broken(*arguments: Any) -> ExecResult:
        attempts.append(arguments)
        if len(attempts) == 1:
            raise IndexError("probe")
        return await exec_sync(*arguments)

    monkeypatch.setattr(simulated.runtime, "exec_sync", broken)
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1, "failureThreshold": 1}
    await simulated.pod("probed", {"name": "c", "livenessProbe": probe, "readinessProbe": probe})

    def ready() -> bool:
        statuses = (simulated.shown("probed").get("status") or {}).get("containerStatuses") or [{}]
        return bool(statuses[0].get("ready"))

    await simulated.until(ready)
    assert simulated.shown("probed")["status"]["containerStatuses"][0]["restartCount"] == 0


async def test_a_worker_that_breaks_down_as_a_whole_is_run_again(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken, failing = PodWorker.woken, [OverflowError("clock")]

    async def broken(self: PodWorker) -> None:
        if failing:
            raise failing.pop()
        await woken(self)

    monkeypatch.setattr(PodWorker, "woken", broken)
    await simulated.pod("unlucky")

    await simulated.running("unlucky")


async def test_a_volume_that_hangs_keeps_neither_others_nor_the_end_of_its_pod_waiting(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hangs, released = threading.Event(), threading.Event()

    def check(path: Path, kind: str) -> Path:
        hangs.set()
        assert released.wait(60)
        return path

    monkeypatch.setattr(host_path, "check_host_path", check)
    monkeypatch.setattr(manager, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(retries, "AGAIN", timedelta(seconds=0.1))
    try:
        await simulated.pod("stuck", volumes=[{"name": "h", "hostPath": {"path": str(tmp_path)}}])
        await simulated.until(hangs.is_set)
        await simulated.until(lambda: "FailedMount" in simulated.reasons("stuck"))
        await simulated.pod("free", volumes=[{"name": "e", "emptyDir": {}}])
        await simulated.running("free")

        await simulated.api.delete_gracefully("default", "stuck")

        await simulated.until(lambda: simulated.shown("stuck") is None)
    finally:
        released.set()


async def test_a_pod_that_must_be_confined_waits_where_nothing_confines(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    enabled = [False]
    monkeypatch.setattr(worker, "apparmor_is_enabled", lambda: enabled[0])
    monkeypatch.setattr(retries, "AGAIN", timedelta(milliseconds=50))
    profile = {"appArmorProfile": {"type": "RuntimeDefault"}}
    await simulated.pod("confined", {"name": "c", "securityContext": profile})
    await simulated.pod("free", {"name": "c", "securityContext": {"appArmorProfile": {"type": "Unconfined"}}})

    await simulated.running("free")
    await simulated.until(lambda: "reason" in simulated.shown("confined")["status"])
    status = simulated.shown("confined")["status"]
    words = "Cannot enforce AppArmor: AppArmor is not enabled on the host"
    assert (status["phase"], status["reason"], status["message"]) == ("Pending", "AppArmor", words)
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "Blocked"}}
    assert len(await simulated.runtime.list_sandboxes()) == 1

    enabled[0] = True

    await simulated.running("confined")
    assert "reason" not in simulated.shown("confined")["status"]


async def test_a_host_name_that_is_too_long_for_the_kernel_is_told(simulated: Simulated) -> None:
    name = "n" * 60
    await simulated.pod(name, subdomain="t", setHostnameAsFQDN=True)

    await simulated.until(lambda: "FailedCreatePodSandBox" in simulated.reasons(name))

    told = [event["message"] for event in simulated.api.events() if event["reason"] == "FailedCreatePodSandBox"]
    full = f"{name}.t.default.svc.cluster.local"
    words = f"FQDN {full} is too long (64 characters is the max, {len(full)} characters requested)"
    assert told == [
        f"Failed to create pod sandbox: failed to construct FQDN from pod hostname and cluster domain, {words}"
    ]
    assert simulated.shown(name)["status"]["phase"] == "Pending"


async def test_a_runtime_class_that_is_gone_is_told(simulated: Simulated) -> None:
    classes = simulated.api.admin
    body = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "odd"}, "handler": "odd"}
    await classes.create(RUNTIME_CLASSES, body)
    await simulated.stop()
    await simulated.pod("odd", runtimeClassName="odd")
    await classes.delete(RUNTIME_CLASSES, "odd", "")
    await simulated.start_again()

    await simulated.until(lambda: "FailedCreatePodSandBox" in simulated.reasons("odd"))

    told = [event["message"] for event in simulated.api.events() if event["reason"] == "FailedCreatePodSandBox"]
    assert told == ['Failed to create pod sandbox: runtimeclass.node.k8s.io "odd" not found']


async def test_a_runtime_that_cannot_leave_groups_away_takes_no_pod_that_demands_it(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = {"supplementalGroupsPolicy": "Strict"}
    await simulated.until(lambda: (simulated.api.get("nodes", "", "n1") or {}).get("status", {}).get("features"))
    await simulated.pod("able", securityContext=strict)
    await simulated.running("able")

    await simulated.api.patch_node("n1", {"status": {"features": {"supplementalGroupsPolicy": False}}}, "status")
    await simulated.until(
        lambda: not simulated.kubelet._own_node.list()[0]["status"]["features"]["supplementalGroupsPolicy"]
    )
    await simulated.pod("unable", securityContext=strict)

    await simulated.until(lambda: simulated.phase("unable") == "Failed")
    assert simulated.shown("unable")["status"]["reason"] == "SupplementalGroupsPolicyNotSupported"


async def test_a_container_that_was_not_alive_is_restarted_also_if_it_ends_well(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    exec_sync, stop_container = simulated.runtime.exec_sync, simulated.runtime.stop_container
    dead = [True]

    async def probed(container_id: str, command: Any, timeout_s: float) -> ExecResult:
        return ExecResult(1, b"") if dead[0] else await exec_sync(container_id, command, timeout_s)

    async def ends_well(container_id: str, grace_s: int) -> None:
        dead[0] = False
        simulated.runtime._exit(container_id, 0)

    monkeypatch.setattr(simulated.runtime, "exec_sync", probed)
    monkeypatch.setattr(simulated.runtime, "stop_container", ends_well)
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1, "failureThreshold": 1}

    await simulated.pod("polite", {"name": "c", "livenessProbe": probe}, restartPolicy="OnFailure")

    await simulated.until(
        lambda: ((simulated.shown("polite")["status"].get("containerStatuses") or [{}])[0]).get("restartCount") == 1
    )
    monkeypatch.setattr(simulated.runtime, "stop_container", stop_container)
    assert simulated.phase("polite") == "Running"


async def test_what_others_add_to_the_capacity_can_be_allocated_until_they_take_it_away(simulated: Simulated) -> None:
    await simulated.restart(status_look_s=0.05)
    client = simulated.api.client()

    async def add(dongles: str | None) -> None:
        change = {"status": {"capacity": {"example.com/dongle": dongles}}}
        await client.patch(NODES, "n1", "", change, kind=PatchKind.MERGE, subresource="status")

    def allocatable() -> Any:
        return ((simulated.api.get("nodes", "", "n1") or {}).get("status") or {}).get("allocatable") or {}

    await simulated.until(lambda: "cpu" in allocatable())
    await add("4")
    await simulated.until(lambda: allocatable().get("example.com/dongle") == "4")
    await add(None)
    await simulated.until(lambda: "example.com/dongle" not in allocatable())

    assert "cpu" in allocatable()
