"""How pods live and end: init containers, sidecars, restarts, probes, hooks, messages, deadlines, deletion."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from .batch import Batch, condition, container_status, is_ready
from .conftest import Cluster
from .objects import BUSYBOX
from .podnet import process_of

pytestmark = [pytest.mark.e2e, pytest.mark.containers]
BATCH = Batch()
FOREVER = "trap exit TERM; while :; do sleep 0.1; done"
# Less than any grace that is not to be waited for, more than kubectl takes on a busy machine.
LONG_S = 20


@pytest.fixture(scope="module")
def batch(containers: Cluster) -> Iterator[Batch]:
    yield from BATCH.run(containers)


def shell(name: str, script: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": BUSYBOX, "command": ["sh", "-c", script], **fields}


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


# Init containers and sidecars.

SHARED: dict[str, Any] = {"volumes": [{"name": "shared", "emptyDir": {}}]}
MOUNT: dict[str, Any] = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
BATCH.pod(
    "init-order",
    "cat /shared/log",
    **SHARED,
    container=MOUNT,
    initContainers=[
        shell("one", "sleep 0.3; echo one >> /shared/log", **MOUNT),
        shell("two", "echo two >> /shared/log", **MOUNT),
    ],
)
BATCH.pod("init-always", FOREVER, restartPolicy="Always", initContainers=[shell("one", "true"), shell("two", "true")])
BATCH.pod("init-fails-never", "echo ran", initContainers=[shell("bad", "exit 4"), shell("after", "true")])
BATCH.pod("init-fails-always", "echo ran", restartPolicy="Always", initContainers=[shell("bad", "exit 4")])
BATCH.pod(
    "sidecar",
    "cat /shared/log; echo main >> /shared/log",
    **SHARED,
    container=MOUNT,
    terminationGracePeriodSeconds=5,
    initContainers=[
        shell(
            "helper",
            f"echo helper > /shared/log; trap 'cat /shared/log; exit' TERM; while :; do sleep 0.1; done; {FOREVER}",
            restartPolicy="Always",
            startupProbe={"exec": {"command": ["test", "-e", "/shared/log"]}, "periodSeconds": 1},
            **MOUNT,
        ),
        shell("plain", "echo plain >> /shared/log", **MOUNT),
    ],
)
BATCH.pod(
    "sidecar-restarts",
    FOREVER,
    initContainers=[shell("helper", "sleep 1; exit 1", restartPolicy="Always")],
)
BATCH.pod(
    "starts-over",
    "if [ -e /shared/asked ]; then cat /shared/log; exec sleep 1000; else touch /shared/asked; exit 42; fi",
    **SHARED,
    container={
        **MOUNT,
        "restartPolicy": "Never",
        "restartPolicyRules": [{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}],
    },
    initContainers=[
        shell("first", "echo first >> /shared/log", **MOUNT),
        shell("side", FOREVER, restartPolicy="Always"),
    ],
)


def test_init_containers_run_in_order_before_the_others(batch: Batch) -> None:
    pod = batch.ended("init-order")

    assert batch.said("init-order") == "one\ntwo\n"
    one, two, main = (container_status(pod, name)["state"]["terminated"] for name in ("one", "two", "main"))
    assert one["finishedAt"] <= two["startedAt"] <= two["finishedAt"] <= main["startedAt"]
    pod = batch.ready("init-always")
    assert [one["ready"] for one in pod["status"]["initContainerStatuses"]] == [True, True]
    assert condition(pod, "Initialized") == "True"


def test_a_failed_init_container_fails_a_pod_that_is_never_restarted(batch: Batch) -> None:
    pod = batch.ended("init-fails-never")

    assert pod["status"]["phase"] == "Failed"
    assert container_status(pod, "bad")["state"]["terminated"]["exitCode"] == 4
    assert container_status(pod)["state"]["waiting"]["reason"] == "PodInitializing"
    assert condition(pod, "Initialized") == "False"
    assert "Init:Error" in batch.kubectl("get", "pod", "init-fails-never")


def test_a_failed_init_container_is_tried_again_otherwise(batch: Batch) -> None:
    pod = batch.until("init-fails-always", lambda pod: container_status(pod, "bad")["restartCount"] >= 1)

    assert pod["status"]["phase"] == "Pending"
    assert container_status(pod)["state"]["waiting"]["reason"] == "PodInitializing"


def test_a_sidecar_runs_beside_the_others_and_ends_after_them(batch: Batch) -> None:
    pod = batch.ended("sidecar")

    assert pod["status"]["phase"] == "Succeeded"
    assert batch.said("sidecar") == "helper\nplain\n"
    assert batch.said("sidecar", "helper") == "helper\nplain\nmain\n"


def test_a_container_may_have_all_of_its_pod_start_over(batch: Batch) -> None:
    def started_over(pod: dict[str, Any]) -> bool:
        counts = [container_status(pod, name)["restartCount"] for name in ("first", "side", "main")]
        return counts == [1, 1, 1] and is_ready(pod)

    # It starts twice, beside many others that start.
    pod = batch.until("starts-over", started_over, 90)

    batch.cluster.wait_until(lambda: batch.kubectl("logs", "starts-over", "-c", "main") == "first\nfirst\n")
    assert container_status(pod, "side")["lastState"]["terminated"]["reason"] == "RestartingAllContainers"
    assert condition(pod, "AllContainersRestarting") == "False"


def test_a_sidecar_that_ends_is_restarted(batch: Batch) -> None:
    pod = batch.until("sidecar-restarts", lambda pod: container_status(pod, "helper")["restartCount"] >= 1)

    assert container_status(pod)["restartCount"] == 0
    assert pod["status"]["phase"] == "Running"


# Restarts.

BATCH.pod(
    "on-failure",
    "[ -e /s/x ] && exit 0; touch /s/x; exit 5",
    restartPolicy="OnFailure",
    volumes=[{"name": "s", "emptyDir": {}}],
    container={"volumeMounts": [{"name": "s", "mountPath": "/s"}]},
)
BATCH.pod("always", "exit 0", restartPolicy="Always")
BATCH.pod("crashing", "echo crashed; exit 9", restartPolicy="Always")
BATCH.pod(
    "rules",
    "[ -e /s/x ] && exit 3; touch /s/x; exit 42",
    volumes=[{"name": "s", "emptyDir": {}}],
    container={
        "volumeMounts": [{"name": "s", "mountPath": "/s"}],
        "restartPolicy": "Never",
        "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}],
    },
)


def test_on_failure_only_failures_are_restarted(batch: Batch) -> None:
    pod = batch.ended("on-failure")

    status = container_status(pod)
    assert (pod["status"]["phase"], status["restartCount"]) == ("Succeeded", 1)
    assert status["lastState"]["terminated"]["exitCode"] == 5


def test_always_restarts_what_succeeded(batch: Batch) -> None:
    pod = batch.until("always", lambda pod: container_status(pod)["restartCount"] >= 1)

    assert pod["status"]["phase"] == "Running"


def test_a_crashing_container_is_restarted_later_and_later(batch: Batch) -> None:
    pod = batch.until(
        "crashing",
        lambda pod: container_status(pod)["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff",
    )

    status = container_status(pod)
    message = status["state"]["waiting"]["message"]
    assert message.startswith("back-off ")
    assert f"restarting failed container=main pod=crashing_{batch.namespace}({pod['metadata']['uid']})" in message
    assert status["lastState"]["terminated"]["exitCode"] == 9
    assert pod["status"]["phase"] == "Running"
    assert "CrashLoopBackOff" in batch.kubectl("get", "pod", "crashing")
    assert any(reason == "BackOff" for reason, _ in batch.events("crashing"))
    assert batch.kubectl("logs", "crashing", "--previous") == "crashed\n"


def test_restart_rules_decide_by_exit_code(batch: Batch) -> None:
    pod = batch.ended("rules")

    assert (pod["status"]["phase"], container_status(pod)["restartCount"]) == ("Failed", 1)
    assert container_status(pod)["state"]["terminated"]["exitCode"] == 3


# Probes.

FAST: dict[str, Any] = {"periodSeconds": 1, "failureThreshold": 1}
SERVE = "mkdir /w; echo fine > /w/index.html; httpd -p 8080 -h /w; "
PYTHON_HEALTH = """
import grpc, sys, concurrent.futures
def check(request, context):
    return b"\\x08\\x01" if request in (b"", b"\\x0a\\x02ok") else b"\\x08\\x02"
server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
handler = grpc.unary_unary_rpc_method_handler(check)
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler})])
server.add_insecure_port("[::]:5000")
server.start()
server.wait_for_termination()
"""
# The health service runs on this machine's own Python, seen from within the pod.
GRPC: dict[str, Any] = {
    "command": ["chroot", "/host", sys.executable, "-c", PYTHON_HEALTH],
    "volumeMounts": [{"name": "host", "mountPath": "/host", "readOnly": True}],
}
HOST: dict[str, Any] = {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}
# As many failures as a server needs to come up.
PATIENT: dict[str, Any] = {"periodSeconds": 1, "failureThreshold": 5}
BATCH.pod(
    "live-exec", FOREVER, container={"livenessProbe": {"exec": {"command": ["true"]}, "timeoutSeconds": 20, **PATIENT}}
)
BATCH.pod(
    "live-http", SERVE + FOREVER, container={"livenessProbe": {"httpGet": {"path": "/", "port": 8080}, **PATIENT}}
)
BATCH.pod("live-tcp", SERVE + FOREVER, container={"livenessProbe": {"tcpSocket": {"port": 8080}, **PATIENT}})
BATCH.pod(
    "live-grpc",
    **HOST,
    container={
        **GRPC,
        # Python takes its time to load gRPC where everybody wants the processor.
        "startupProbe": {"grpc": {"port": 5000}, "periodSeconds": 1, "failureThreshold": 60},
        "livenessProbe": {"grpc": {"port": 5000, "service": "ok"}, **PATIENT},
        "readinessProbe": {"grpc": {"port": 5000}, "periodSeconds": 1},
    },
)
BATCH.pod(
    "dead-exec",
    f"sleep 1; touch /bad; {FOREVER}",
    restartPolicy="Always",
    container={"livenessProbe": {"exec": {"command": ["sh", "-c", "[ ! -e /bad ]"]}, **FAST}},
)
BATCH.pod(
    "dead-http",
    f"{SERVE} sleep 1; rm /w/index.html; {FOREVER}",
    restartPolicy="Always",
    container={
        "ports": [{"name": "web", "containerPort": 8080}],
        "livenessProbe": {"httpGet": {"path": "/index.html", "port": "web"}, **FAST, "initialDelaySeconds": 1},
    },
)
BATCH.pod(
    "dead-tcp",
    FOREVER,
    restartPolicy="Always",
    container={"livenessProbe": {"tcpSocket": {"port": 8080}, **FAST, "initialDelaySeconds": 1}},
)
BATCH.pod(
    "dead-grpc",
    FOREVER,
    restartPolicy="Always",
    container={"livenessProbe": {"grpc": {"port": 2333}, **FAST, "initialDelaySeconds": 1}},
)
BATCH.pod("dead-never", FOREVER, container={"livenessProbe": {"exec": {"command": ["false"]}, **FAST}})
BATCH.pod(
    "readiness",
    FOREVER,
    container={"readinessProbe": {"exec": {"command": ["test", "-e", "/ok"]}, "periodSeconds": 1}},
)
BATCH.pod("never-ready", FOREVER, container={"readinessProbe": {"exec": {"command": ["false"]}, **FAST}})
BATCH.pod(
    "slow-start",
    f"sleep 2; touch /up; {FOREVER}",
    container={
        "startupProbe": {"exec": {"command": ["test", "-e", "/up"]}, "periodSeconds": 1, "failureThreshold": 20},
        "livenessProbe": {"exec": {"command": ["test", "-e", "/up"]}, **FAST},
    },
)
BATCH.pod(
    "no-start",
    FOREVER,
    restartPolicy="Always",
    container={"startupProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 2}},
)
BATCH.pod(
    "slow-probe",
    FOREVER,
    container={"readinessProbe": {"exec": {"command": ["sleep", "9"]}, **FAST, "timeoutSeconds": 1}},
)
BATCH.pod("gated", FOREVER, readinessGates=[{"conditionType": "example.org/ok"}])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dead-exec", "Liveness probe failed: "),
        ("dead-http", "Liveness probe failed: HTTP probe failed with statuscode: 404"),
        ("dead-tcp", "Liveness probe failed: dial tcp {ip}:8080: connect: connection refused"),
        ("dead-grpc", 'Liveness probe failed: timeout: failed to connect service "{ip}:2333" within 1s'),
    ],
)
def test_a_container_that_is_not_alive_is_restarted(batch: Batch, name: str, message: str) -> None:
    pod = batch.until(name, lambda pod: container_status(pod)["restartCount"] >= 1)

    told = batch.events(name)
    wanted = message.format(ip=pod["status"]["podIP"])
    assert any(reason == "Unhealthy" and text.startswith(wanted) for reason, text in told), told
    assert ("Killing", "Container main failed liveness probe, will be restarted") in told


def test_a_container_that_is_not_alive_ends_a_pod_that_is_never_restarted(batch: Batch) -> None:
    pod = batch.ended("dead-never")

    assert (pod["status"]["phase"], container_status(pod)["restartCount"]) == ("Failed", 0)


def test_a_container_is_not_ready_before_its_probe_says_so(batch: Batch) -> None:
    pod = batch.until("readiness", lambda pod: any(r == "Unhealthy" for r, _ in batch.events("readiness")))
    assert (condition(pod, "Ready"), condition(pod, "ContainersReady")) == ("False", "False")

    batch.exec("readiness", "touch /ok")
    pod = batch.ready("readiness")
    batch.exec("readiness", "rm /ok")

    assert _at(next(c for c in pod["status"]["conditions"] if c["type"] == "Ready")["lastTransitionTime"])
    batch.until("readiness", lambda pod: not is_ready(pod))
    never = batch.get("pod", "never-ready")
    assert (condition(never, "Ready"), container_status(never)["restartCount"]) == ("False", 0)


def test_other_probes_wait_for_the_startup_probe(batch: Batch) -> None:
    pod = batch.ready("slow-start")

    assert container_status(pod)["restartCount"] == 0
    assert container_status(pod)["started"] is True
    pod = batch.until("no-start", lambda pod: container_status(pod)["restartCount"] >= 1)
    assert ("Killing", "Container main failed startup probe, will be restarted") in batch.events("no-start")


def test_a_probe_that_takes_too_long_has_failed(batch: Batch) -> None:
    batch.until(
        "slow-probe", lambda _: any(r == "Unhealthy" and "timed out" in m for r, m in batch.events("slow-probe"))
    )


def test_a_readiness_gate_holds_the_pod_back(batch: Batch) -> None:
    batch.until("gated", lambda pod: condition(pod, "ContainersReady") == "True")
    assert condition(batch.get("pod", "gated"), "Ready") == "False"

    patch = '{"status": {"conditions": [{"type": "example.org/ok", "status": "True"}]}}'
    batch.kubectl("patch", "pod", "gated", "--subresource=status", "-p", patch)

    batch.ready("gated")


# Hooks.

BATCH.pod("server", "while :; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\nok' | nc -l -p 8080 >> /tmp/got; done")
HOOKS = {
    "postStart": {"exec": {"command": ["sh", "-c", "echo started > /started"]}},
    "preStop": {"exec": {"command": ["sh", "-c", "cat /started > /h/stopping; sleep 0.5; echo hook >> /h/stopping"]}},
}
BATCH.pod(
    "hooked",
    "trap 'echo term >> /h/stopping; exit' TERM; while :; do sleep 0.1; done",
    terminationGracePeriodSeconds=10,
    volumes=[{"name": "h", "hostPath": {"path": "/tmp/navarch-e2e-hooks", "type": "DirectoryOrCreate"}}],
    container={"lifecycle": HOOKS, "volumeMounts": [{"name": "h", "mountPath": "/h"}]},
)
BATCH.pod(
    "bad-hook",
    FOREVER,
    restartPolicy="Always",
    container={"lifecycle": {"postStart": {"exec": {"command": ["sh", "-c", "echo no; exit 1"]}}}},
)
BATCH.pod(
    "hook-sleeps",
    FOREVER,
    terminationGracePeriodSeconds=60,
    container={"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}},
)


def test_hooks_run_after_the_start_and_before_the_end(batch: Batch) -> None:
    from pathlib import Path

    told = Path("/tmp/navarch-e2e-hooks/stopping")
    try:
        batch.ready("hooked")
        batch.kubectl("delete", "pod", "hooked")

        assert told.read_text() == "started\nhook\nterm\n"
    finally:
        told.unlink(missing_ok=True)
        told.parent.rmdir()


def test_an_http_hook_reaches_another_pod(batch: Batch) -> None:
    address = batch.ready("server")["status"]["podIP"]
    hook = {"httpGet": {"host": address, "port": 8080, "path": "/stopping"}}
    spec = {
        "terminationGracePeriodSeconds": 5,
        "containers": [shell("main", FOREVER, lifecycle={"preStop": hook, "postStart": {**hook}})],
    }
    batch.cluster.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "http-hook"}, "spec": spec}, namespace=batch.namespace
    )
    batch.ready("http-hook")

    batch.kubectl("delete", "pod", "http-hook")

    assert batch.exec("server", "cat /tmp/got").count("GET /stopping HTTP/1.1") == 2


def test_a_container_whose_start_hook_fails_is_restarted(batch: Batch) -> None:
    batch.until("bad-hook", lambda pod: container_status(pod)["restartCount"] >= 1)

    told = batch.events("bad-hook")
    assert any(reason == "FailedPostStartHook" for reason, _ in told), told


def test_a_hook_may_sleep(batch: Batch) -> None:
    batch.ready("hook-sleeps")
    began_s = time.monotonic()

    batch.kubectl("delete", "pod", "hook-sleeps")

    assert 1 <= time.monotonic() - began_s < LONG_S


# Termination messages.

BATCH.pod("message", "echo -n done > /dev/termination-log")
BATCH.pod("message-path", "echo -n there > /words", container={"terminationMessagePath": "/words"})
BATCH.pod(
    "message-user",
    "echo -n mine > /words",
    securityContext={"runAsUser": 1000},
    container={"terminationMessagePath": "/words", "terminationMessagePolicy": "FallbackToLogsOnError"},
)
FALLBACK = {"terminationMessagePolicy": "FallbackToLogsOnError"}
BATCH.pod("message-log", "echo said; exit 1", container=FALLBACK)
BATCH.pod("message-file", "echo said; echo -n written > /dev/termination-log; exit 1", container=FALLBACK)
BATCH.pod("message-none", "echo said", container=FALLBACK)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("message", "done"),
        ("message-path", "there"),
        ("message-user", "mine"),
        ("message-log", "said\n"),
        ("message-file", "written"),
        ("message-none", None),
    ],
)
def test_a_containers_last_words_are_in_its_status(batch: Batch, name: str, message: str | None) -> None:
    assert container_status(batch.ended(name))["state"]["terminated"].get("message") == message


# Deadlines and deletion.

BATCH.pod("deadline", FOREVER, activeDeadlineSeconds=2)
BATCH.pod("deadline-later", FOREVER)
BATCH.pod("stubborn", "trap '' TERM; while :; do sleep 0.1; done", terminationGracePeriodSeconds=2)
BATCH.pod("stubborn-forced", "trap '' TERM; while :; do sleep 0.1; done", terminationGracePeriodSeconds=60)
BATCH.pod("polite", "trap 'exit 0' TERM; while :; do sleep 0.1; done", terminationGracePeriodSeconds=30)
BATCH.pod("bad-command", container={"command": ["/no/such/program"]}, restartPolicy="Always")
BATCH.pod("killed", FOREVER, restartPolicy="Always")


def test_a_pod_past_its_deadline_has_failed(batch: Batch) -> None:
    batch.ready("deadline-later")
    batch.kubectl("patch", "pod", "deadline-later", "-p", '{"spec": {"activeDeadlineSeconds": 1}}')

    for name in ("deadline", "deadline-later"):
        status = batch.ended(name)["status"]
        assert (status["phase"], status["reason"]) == ("Failed", "DeadlineExceeded")


def test_a_pod_is_given_time_to_end(batch: Batch) -> None:
    for name in ("polite", "stubborn"):
        batch.ready(name)

    began_s = time.monotonic()
    batch.kubectl("delete", "pod", "polite")
    polite_s = time.monotonic() - began_s
    batch.kubectl("delete", "pod", "stubborn")
    stubborn_s = time.monotonic() - began_s - polite_s

    assert polite_s < LONG_S, "who ends when told to is not waited for"
    assert 2 <= stubborn_s < LONG_S


def test_a_pod_is_deleted_at_once_when_forced(batch: Batch) -> None:
    batch.ready("stubborn-forced")
    began_s = time.monotonic()

    batch.kubectl("delete", "pod", "stubborn-forced", "--force", "--grace-period=0")

    assert time.monotonic() - began_s < LONG_S


def test_an_ended_pod_can_be_deleted(batch: Batch) -> None:
    batch.ended("message")

    batch.kubectl("delete", "pod", "message-none", "--timeout=10s")

    assert batch.cluster.try_kubectl("-n", batch.namespace, "get", "pod", "message-none").returncode == 1


def test_a_command_that_does_not_exist_is_told(batch: Batch) -> None:
    pod = batch.until("bad-command", lambda pod: "no such file" in str(container_status(pod)))

    state = container_status(pod)
    reasons = {
        state["state"].get("waiting", {}).get("reason"),
        *((one.get("terminated") or {}).get("reason") for one in (state["state"], state["lastState"])),
    }
    assert reasons & {"RunContainerError", "StartError"}
    assert any(reason == "Failed" and "/no/such/program" in text for reason, text in batch.events("bad-command"))


def test_a_killed_process_is_restarted(batch: Batch) -> None:
    status = container_status(batch.ready("killed"))
    before = status["restartCount"]

    # From outside: a signal from within is ignored while the first process has no handler for it yet.
    os.kill(process_of(status["containerID"]), signal.SIGKILL)

    pod = batch.until("killed", lambda pod: container_status(pod)["restartCount"] == before + 1 and is_ready(pod))
    assert container_status(pod)["lastState"]["terminated"]["exitCode"] == 137


def test_healthy_containers_are_not_restarted(batch: Batch) -> None:
    for name in ("live-exec", "live-http", "live-tcp", "live-grpc"):
        assert container_status(batch.ready(name))["restartCount"] == 0, name
