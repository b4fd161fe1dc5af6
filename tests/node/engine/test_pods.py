"""Pods in real containers, driven by objects in an API server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import replace

import pytest

from navarch.node.config import CgroupsConfig, ManagersConfig, ReservedConfig
from navarch.node.resources.cpusets import parse as parse_cpus
from navarch.node.resources.numa import machine_of
from navarch.node.resources.pressure import Pressure
from tests.node.conftest import BUSYBOX, Node
from tests.node.engine.test_eviction import EVER_SHORT

pytestmark = pytest.mark.containers


def sh(script: str, **more: object) -> dict[str, object]:
    return {"name": "c", "command": ["sh", "-c", script], **more}


async def test_a_pod_runs_and_becomes_ready(node: Node) -> None:
    await node.pod("web", containers=[sh("echo hello; exec sleep 1000")])

    await node.ready("web")

    assert node.status("web")["phase"] == "Running"
    assert node.status("web")["podIP"].startswith("10.211.7.")
    assert node.container("web")["restartCount"] == 0
    assert node.log("web") == "hello"
    assert {"Pulled", "Created", "Started"} <= set(node.reasons("web"))


async def test_a_pod_that_ends_well_has_succeeded(node: Node) -> None:
    await node.pod("job", restartPolicy="Never", containers=[sh("exit 0")])

    assert await node.ended("job") == "Succeeded"
    assert node.container("job")["state"]["terminated"]["reason"] == "Completed"


async def test_a_deleted_pod_leaves_nothing(node: Node) -> None:
    pod = await node.pod("gone", containers=[sh("sleep 1000")])
    await node.ready("gone")

    await node.api.delete_gracefully("default", "gone")

    await node.until(lambda: node.api.get("pods", "default", "gone") is None)
    await node.until(lambda: not len(node.kubelet.pods))
    assert not node.config.pod_directory(pod["metadata"]["uid"]).exists()
    assert not await node.kubelet.runtime.list_sandboxes()


async def test_init_containers_run_one_after_another_before_the_others(node: Node) -> None:
    write = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    await node.pod(
        "init",
        volumes=[{"name": "v", "emptyDir": {}}],
        initContainers=[
            {"name": "a", "command": ["sh", "-c", "echo a >> /v/log; sleep 0.2"], **write},
            {"name": "b", "command": ["sh", "-c", "echo b >> /v/log"], **write},
        ],
        containers=[sh("cat /v/log; exec sleep 1000", **write)],
    )

    await node.ready("init")

    await node.until(lambda: node.log("init") == "a\nb")
    assert [s["state"]["terminated"]["reason"] for s in node.status("init")["initContainerStatuses"]] == [
        "Completed"
    ] * 2


async def test_a_failing_init_container_keeps_the_pod_pending(node: Node) -> None:
    await node.pod("stuck", initContainers=[{"name": "a", "command": ["false"]}], containers=[sh("sleep 1000")])

    await node.until(
        lambda: (
            node.container("stuck", field="initContainerStatuses").get("state", {}).get("waiting", {}).get("reason")
            == "CrashLoopBackOff"
        )
    )

    assert node.status("stuck")["phase"] == "Pending"
    assert node.condition("stuck", "Initialized") == "False"
    assert node.container("stuck")["state"]["waiting"]["reason"] == "PodInitializing"


async def test_a_failing_init_container_fails_a_pod_that_is_never_restarted(node: Node) -> None:
    await node.pod(
        "fail", restartPolicy="Never", initContainers=[{"name": "a", "command": ["false"]}], containers=[sh("true")]
    )

    assert await node.ended("fail") == "Failed"


async def test_a_sidecar_starts_first_and_ends_last(node: Node) -> None:
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    last = "echo side >> /v/log; cat /v/log > /dev/termination-log; exit 0"
    trap = f"trap '{last}' TERM; touch /v/up; while :; do sleep 0.1; done"
    await node.pod(
        "car",
        restartPolicy="Never",
        terminationGracePeriodSeconds=10,
        volumes=[{"name": "v", "emptyDir": {}}],
        initContainers=[
            {
                "name": "side",
                "restartPolicy": "Always",
                "command": ["sh", "-c", trap],
                "startupProbe": {"exec": {"command": ["test", "-e", "/v/up"]}, "periodSeconds": 1},
                **mount,
            }
        ],
        containers=[sh("test -e /v/up && echo main >> /v/log", **mount)],
    )

    assert await node.ended("car") == "Succeeded"
    side = await node.until(lambda: node.container("car", field="initContainerStatuses")["state"].get("terminated"))
    assert side["message"] == "main\nside\n"


async def test_a_crashing_container_backs_off_and_is_restarted(node: Node) -> None:
    await node.pod("crash", containers=[sh("echo last words > /dev/termination-log; exit 3")])

    await node.until(
        lambda: node.container("crash").get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff"
    )

    status = node.container("crash")
    assert status["restartCount"] == 1
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert status["lastState"]["terminated"]["message"] == "last words\n"
    assert status["state"]["waiting"]["message"].startswith(
        "back-off 10s restarting failed container=c pod=crash_default("
    )
    assert node.status("crash")["phase"] == "Running"


async def test_a_failing_pod_says_what_its_log_ends_with(node: Node) -> None:
    await node.pod(
        "logs",
        restartPolicy="Never",
        containers=[sh("echo why; exit 1", terminationMessagePolicy="FallbackToLogsOnError")],
    )

    assert await node.ended("logs") == "Failed"
    assert node.container("logs")["state"]["terminated"]["message"] == "why\n"


async def test_a_container_over_its_memory_is_oom_killed(node: Node) -> None:
    hog = "head -c 200m /dev/zero | tail"
    await node.pod(
        "oom", restartPolicy="Never", containers=[sh(f"exec sh -c '{hog}'", resources={"limits": {"memory": "20Mi"}})]
    )

    assert await node.ended("oom") == "Failed"
    assert node.container("oom")["state"]["terminated"]["reason"] == "OOMKilled"


async def test_limits_reach_the_cgroup(node: Node) -> None:
    files = "/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max"
    shares = "/sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/cpu.weight"
    await node.pod(
        "lim",
        containers=[
            sh(
                f"cat {files} {shares} 2>/dev/null; sleep 1000",
                resources={"limits": {"memory": "64Mi", "cpu": "500m"}, "requests": {"memory": "64Mi", "cpu": "500m"}},
            )
        ],
    )
    await node.ready("lim")

    limit, shares = await node.until(lambda: len(node.log("lim").split()) == 2 and node.log("lim").split())
    assert limit == str(64 << 20)
    assert shares in ("512", "20")
    assert node.status("lim")["qosClass"] == "Guaranteed"


async def test_environment_from_everywhere(node: Node) -> None:
    await node.api.put(
        "configmaps", {"metadata": {"name": "cm", "namespace": "default"}, "data": {"k": "v1", "j": "v2"}}
    )
    await node.api.put("secrets", {"metadata": {"name": "s", "namespace": "default"}, "data": {"p": "c2VjcmV0"}})
    await node.api.put(
        "services",
        {
            "metadata": {"name": "my-db", "namespace": "default"},
            "spec": {"clusterIP": "10.43.1.1", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]},
        },
    )
    env = [
        {"name": "A", "value": "a"},
        {"name": "B", "value": "$(A)-$(MY_DB_SERVICE_HOST)-$$(A)-$(NOPE)"},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
        {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}},
        {"name": "P", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}},
        {"name": "O", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "p", "optional": True}}},
    ]
    await node.pod(
        "env",
        restartPolicy="Never",
        containers=[
            {
                "name": "c",
                "command": ["env"],
                "env": env,
                "envFrom": [{"prefix": "X_", "configMapRef": {"name": "cm"}}],
                "resources": {"limits": {"cpu": "250m"}},
            }
        ],
    )
    await node.until(lambda: node.kubelet.services.list())

    await node.ended("env")

    got = dict(line.split("=", 1) for line in node.log("env").splitlines())
    expected = {
        "A": "a",
        "B": "a-10.43.1.1-$(A)-$(NOPE)",
        "NAME": "env",
        "IP": node.status("env")["podIP"],
        "CPU": "250",
        "K": "v1",
        "P": "secret",
        "X_k": "v1",
        "X_j": "v2",
        "MY_DB_SERVICE_PORT_SQL": "5432",
        "MY_DB_PORT_5432_TCP_ADDR": "10.43.1.1",
        "HOSTNAME": "env",
    }
    assert {key: got.get(key) for key in expected} == expected
    assert "O" not in got


async def test_a_missing_config_map_is_named(node: Node) -> None:
    env = [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "gone", "key": "k"}}}]
    await node.pod("miss", containers=[sh("true", env=env)])

    waiting = await node.until(
        lambda: (
            node.container("miss").get("state", {}).get("waiting", {}).get("message")
            and node.container("miss")["state"]["waiting"]
        )
    )

    assert waiting == {"reason": "CreateContainerConfigError", "message": 'configmap "gone" not found'}


async def test_liveness_failure_restarts_the_container(node: Node) -> None:
    probe = {"exec": {"command": ["test", "!", "-e", "/tmp/bad"]}, "periodSeconds": 1, "failureThreshold": 1}
    await node.pod("live", containers=[sh("sleep 1; touch /tmp/bad; sleep 1000", livenessProbe=probe)])

    await node.until(lambda: node.container("live").get("restartCount") == 1)

    assert "Unhealthy" in node.reasons("live")
    killing = next(e for e in node.api.events() if e["reason"] == "Killing")
    assert killing["message"] == "Container c failed liveness probe, will be restarted"


async def test_readiness_follows_its_probe(node: Node) -> None:
    probe = {"exec": {"command": ["test", "-e", "/tmp/ok"]}, "periodSeconds": 1}
    await node.pod(
        "rdy",
        containers=[
            sh(
                "sleep 1.5; touch /tmp/ok; sleep 2; rm /tmp/ok; sleep 1000",
                readinessProbe={**probe, "failureThreshold": 1},
            )
        ],
    )
    await node.until(lambda: node.container("rdy").get("started"))
    assert not node.container("rdy")["ready"]

    await node.ready("rdy")

    await node.until(lambda: node.condition("rdy", "Ready") == "False")


async def test_http_tcp_and_startup_probes(node: Node) -> None:
    ports = [{"name": "web", "containerPort": 8080}]
    script = "mkdir /w; echo hi > /w/index.html; sleep 0.5; exec httpd -f -p 8080 -h /w"
    await node.pod(
        "http",
        containers=[
            sh(
                script,
                ports=ports,
                startupProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 10},
                readinessProbe={"httpGet": {"path": "/index.html", "port": "web"}, "periodSeconds": 1},
            )
        ],
    )

    await node.ready("http")

    assert node.container("http")["started"] is True


async def test_hooks_run_after_start_and_before_stop(node: Node) -> None:
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo post >> /v/log"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo pre >> /v/log; sleep 0.3"]}},
    }
    host = node.config.data / "shared"
    await node.pod(
        "hook",
        volumes=[{"name": "v", "hostPath": {"path": str(host), "type": "DirectoryOrCreate"}}],
        terminationGracePeriodSeconds=5,
        containers=[sh("trap 'echo term >> /v/log; exit' TERM; while :; do sleep 0.1; done", lifecycle=hooks, **mount)],
    )
    await node.ready("hook")

    await node.api.delete_gracefully("default", "hook")
    await node.until(lambda: node.api.get("pods", "default", "hook") is None)

    assert (host / "log").read_text() == "post\npre\nterm\n"


async def test_a_failing_post_start_hook_kills_the_container(node: Node) -> None:
    await node.pod("bad", containers=[sh("sleep 1000", lifecycle={"postStart": {"exec": {"command": ["false"]}}})])

    await node.until(lambda: "FailedPostStartHook" in node.reasons("bad"))
    await node.until(lambda: node.container("bad").get("restartCount", 0) >= 1)


async def test_volumes_of_every_kind(node: Node) -> None:
    await node.api.put("configmaps", {"metadata": {"name": "cm", "namespace": "default"}, "data": {"k": "v", "l": "w"}})
    await node.api.put("secrets", {"metadata": {"name": "s", "namespace": "default"}, "data": {"p": "cXE="}})
    volumes = [
        {"name": "cm", "configMap": {"name": "cm", "items": [{"key": "k", "path": "deep/er", "mode": 0o400}]}},
        {"name": "s", "secret": {"secretName": "s", "defaultMode": 0o440}},
        {"name": "d", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {
            "name": "p",
            "projected": {
                "sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
                    {"configMap": {"name": "cm", "items": [{"key": "l", "path": "l"}]}},
                    {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
                ]
            },
        },
        {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "o", "configMap": {"name": "gone", "optional": True}},
    ]
    mounts = [{"name": v["name"], "mountPath": f"/{v['name']}"} for v in volumes]
    mounts.append({"name": "cm", "mountPath": "/one/file", "subPath": "deep/er"})
    script = (
        "cat /cm/deep/er; echo; stat -L -c %a /cm/deep/er /s/p; cat /s/p; echo; cat /d/labels; echo; "
        "cut -c1-6 /p/token; cat /p/l; "
        "echo; cat /p/ns; echo; grep -c '/m tmpfs' /proc/mounts; ls /o; cat /one/file"
    )
    await node.pod(
        "vol",
        restartPolicy="Never",
        metadata={"labels": {"a": "b"}},
        volumes=volumes,
        containers=[sh(script, volumeMounts=mounts)],
    )

    await node.ended("vol")

    assert node.log("vol").split("\n") == ["v", "400", "440", "qq", 'a="b"', "eyJhbG", "w", "default", "1", "v"]


async def test_a_config_map_volume_follows_its_object(node: Node) -> None:
    await node.api.put("configmaps", {"metadata": {"name": "cm", "namespace": "default"}, "data": {"k": "old"}})
    pod = await node.pod(
        "follow",
        volumes=[{"name": "cm", "configMap": {"name": "cm"}}],
        containers=[
            sh(
                "until grep -q new /cm/k; do sleep 0.1; done; echo seen; sleep 1000",
                volumeMounts=[{"name": "cm", "mountPath": "/cm"}],
            )
        ],
    )
    await node.ready("follow")

    await node.api.put("configmaps", {"metadata": {"name": "cm", "namespace": "default"}, "data": {"k": "new"}})
    node.kubelet.parts.source.renewed(pod)
    worker = node.kubelet.pods.get(pod["metadata"]["uid"])
    assert worker is not None
    worker.refresh_volumes()

    await node.until(lambda: node.log("follow") == "seen")


async def test_security_context_reaches_the_process(node: Node) -> None:
    await node.pod(
        "sec",
        restartPolicy="Never",
        securityContext={"runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000, "supplementalGroups": [4000]},
        volumes=[{"name": "v", "emptyDir": {}}],
        containers=[
            sh(
                "id; touch /v/x && stat -c %g /v/x; touch /y || echo read-only; "
                "grep NoNewPrivs /proc/self/status; grep CapBnd /proc/self/status",
                securityContext={
                    "readOnlyRootFilesystem": True,
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                volumeMounts=[{"name": "v", "mountPath": "/v"}],
            )
        ],
    )

    await node.ended("sec")

    log = node.log("sec")
    # Standard output and error are two streams: what of one comes before what of the other is chance.
    assert {"uid=1000 gid=2000 groups=2000,3000,4000", "3000"} <= set(log.splitlines())
    assert "read-only" in log
    assert "NoNewPrivs:\t1" in log
    assert "CapBnd:\t0000000000000000" in log


async def test_run_as_non_root_refuses_root(node: Node) -> None:
    await node.pod("root", containers=[sh("true", securityContext={"runAsNonRoot": True})])

    await node.until(
        lambda: node.container("root").get("state", {}).get("waiting", {}).get("reason") == "CreateContainerConfigError"
    )

    assert (
        "container has runAsNonRoot and image will run as root" in node.container("root")["state"]["waiting"]["message"]
    )


async def test_names_inside_the_pod(node: Node) -> None:
    await node.pod(
        "names",
        restartPolicy="Never",
        hostname="box",
        subdomain="sub",
        hostAliases=[{"ip": "1.2.3.4", "hostnames": ["foo", "bar"]}],
        dnsConfig={"options": [{"name": "ndots", "value": "2"}], "searches": ["extra.example"]},
        containers=[sh("hostname; cat /etc/hosts; cat /etc/resolv.conf")],
    )

    await node.ended("names")

    log = node.log("names")
    ip = node.status("names")["podIP"]
    assert log.startswith("box\n")
    assert f"{ip}\tbox.sub.default.svc.cluster.local\tbox" in log
    assert "1.2.3.4\tfoo\tbar" in log
    assert "nameserver 10.43.0.10" in log
    assert "search default.svc.cluster.local svc.cluster.local cluster.local" in log
    assert "extra.example" in log
    assert "options ndots:2" in log


async def test_host_network_has_the_nodes_address(node: Node) -> None:
    await node.pod("host", hostNetwork=True, dnsPolicy="ClusterFirst", containers=[sh("sleep 1000")])

    await node.ready("host")

    assert node.status("host")["podIP"] == node.status("host")["hostIP"] == node.kubelet.node.addresses()[0]


async def test_containers_share_processes_when_asked(node: Node) -> None:
    await node.pod(
        "share",
        shareProcessNamespace=True,
        containers=[sh("sleep 4321"), {"name": "d", "command": ["sh", "-c", "sleep 0.5; ps; sleep 1000"]}],
    )
    await node.ready("share")

    await node.until(lambda: "sleep 4321" in node.log("share", "d"))

    assert "/pause" in node.log("share", "d")


async def test_an_ephemeral_container_joins_a_running_pod(node: Node) -> None:
    pod = await node.pod("dbg", containers=[sh("sleep 4321")])
    await node.ready("dbg")

    debugger = {
        "name": "e",
        "image": pod["spec"]["containers"][0]["image"],
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", "ps; sleep 1000"],
        "targetContainerName": "c",
    }
    await node.api.patch_pod("dbg", {"spec": {"ephemeralContainers": [debugger]}}, "ephemeralcontainers")

    await node.until(lambda: node.container("dbg", field="ephemeralContainerStatuses").get("state", {}).get("running"))
    await node.until(lambda: "sleep 4321" in node.log("dbg", "e"))


async def test_the_deadline_fails_the_pod(node: Node) -> None:
    await node.pod("late", activeDeadlineSeconds=1, containers=[sh("sleep 1000")])

    assert await node.ended("late") == "Failed"
    assert node.status("late")["reason"] == "DeadlineExceeded"


async def test_restart_on_failure_ends_with_success(node: Node) -> None:
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    await node.pod(
        "again",
        restartPolicy="OnFailure",
        volumes=[{"name": "v", "emptyDir": {}}],
        containers=[sh("test -e /v/x && exit 0; touch /v/x; exit 1", **mount)],
    )

    assert await node.ended("again") == "Succeeded"
    assert node.container("again")["restartCount"] == 1


async def test_a_changed_image_restarts_the_container(node: Node) -> None:
    await node.pod("image", containers=[sh("sleep 1000")])
    await node.ready("image")

    image = "docker.io/navarch.local/busybox:none"
    await node.api.patch_pod("image", {"spec": {"containers": [{"name": "c", "image": image}]}})

    await node.until(lambda: any("definition changed, will be restarted" in e["message"] for e in node.api.events()))


async def test_a_dead_sandbox_is_replaced(node: Node) -> None:
    await node.pod("box", containers=[sh("sleep 1000")])
    await node.ready("box")
    (sandbox,) = await node.kubelet.runtime.list_sandboxes()
    before = node.container("box")["containerID"]

    # As it dies by itself: the container runs on, in a network that nobody looks after.
    os.kill(int(json.loads((await node.runtime.sandbox_info(sandbox.id))["info"])["pid"]), signal.SIGKILL)

    await node.until(lambda: node.container("box").get("restartCount") == 1)
    await node.ready("box")
    assert node.container("box")["containerID"] != before
    assert "SandboxChanged" in node.reasons("box")
    assert {one.id for one in await node.runtime.list_sandboxes() if one.ready}.isdisjoint({sandbox.id})


async def test_a_restarted_kubelet_adopts_what_runs(node: Node) -> None:
    await node.pod("keep", containers=[sh("echo started; exec sleep 1000")])
    await node.ready("keep")
    before = node.container("keep")["containerID"]

    await node.restart_kubelet()
    await asyncio.sleep(1)

    assert node.container("keep")["containerID"] == before
    assert node.container("keep")["restartCount"] == 0
    assert node.condition("keep", "Ready") == "True"
    await node.delete("keep")


async def test_a_pod_deleted_while_the_kubelet_was_away_is_stopped(node: Node) -> None:
    await node.pod("away", containers=[sh("sleep 1000")])
    await node.ready("away")

    await node.stop_kubelet()
    await node.api.remove("default", "away")
    await node.start_kubelet()

    await node.until_async(lambda: node.no_sandboxes())


async def test_a_pod_is_stopped_at_once_with_less_grace(node: Node) -> None:
    await node.pod(
        "slow", terminationGracePeriodSeconds=60, containers=[sh("trap '' TERM; while :; do sleep 0.1; done")]
    )
    await node.ready("slow")
    await node.api.delete_gracefully("default", "slow")
    await node.until(lambda: "Killing" in node.reasons("slow"))

    await node.api.delete_gracefully("default", "slow", 1)

    await node.until(lambda: node.api.get("pods", "default", "slow") is None, 8)


async def test_the_node_is_registered_with_a_lease(node: Node) -> None:
    found = await node.until(lambda: node.api.get("nodes", "", "n1"))

    await node.until(lambda: node.api.get("leases", "kube-node-lease", "n1"))
    await node.until(
        lambda: [
            c
            for c in node.api.get("nodes", "", "n1")["status"]["conditions"]
            if c["type"] == "Ready" and c["status"] == "True"
        ]
    )
    assert found["metadata"]["labels"]["kubernetes.io/hostname"] == "n1"
    assert int(found["status"]["capacity"]["cpu"]) >= 1


async def test_a_container_is_resized_in_place(node: Node) -> None:
    files = "/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max"
    resources = {"limits": {"memory": "64Mi", "cpu": "500m"}, "requests": {"memory": "64Mi", "cpu": "500m"}}
    await node.pod("big", containers=[sh(f"while :; do cat {files} 2>/dev/null; sleep 0.2; done", resources=resources)])
    await node.ready("big")

    larger = {"limits": {"memory": "128Mi", "cpu": "1"}, "requests": {"memory": "128Mi", "cpu": "1"}}
    await node.api.patch_pod("big", {"spec": {"containers": [{"name": "c", "resources": larger}]}}, "resize")

    await node.until(lambda: node.log("big").split()[-1:] == [str(128 << 20)])
    await node.until(lambda: node.container("big")["resources"] == larger)
    assert node.container("big")["restartCount"] == 0


async def test_a_pod_is_evicted_when_memory_runs_short(node: Node) -> None:
    await node.api.priority_class("a", 1)
    await node.api.priority_class("b", 2)
    await node.pod("low", containers=[sh("sleep 1000")], priorityClassName="a")
    await node.pod("high", containers=[sh("sleep 1000")], priorityClassName="b")
    await node.ready("low")
    await node.ready("high")
    usual = node.kubelet.node.pressure
    node.kubelet.node.pressure = Pressure(EVER_SHORT, node.kubelet.parts.clock)

    await node.kubelet.evictor.look()

    node.kubelet.node.pressure = usual
    assert await node.ended("low") == "Failed"
    assert node.status("low")["reason"] == "Evicted"
    assert node.status("low")["message"].startswith("The node was low on resource: memory.")
    assert node.condition("low", "DisruptionTarget") == "True"
    assert node.status("high")["phase"] == "Running"


async def test_a_volume_over_its_limit_evicts_its_pod(node: Node) -> None:
    await node.pod(
        "fat",
        volumes=[{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}],
        containers=[
            sh("dd if=/dev/urandom of=/v/x bs=1M count=2; sleep 1000", volumeMounts=[{"name": "v", "mountPath": "/v"}])
        ],
    )
    await node.ready("fat")
    await node.until(lambda: "2+0 records out" in node.log("fat"))

    node.kubelet.parts.config = replace(node.config, volume_stats_s=0)
    await node.kubelet.evictor.look()

    assert await node.ended("fat") == "Failed"
    assert node.status("fat")["message"] == 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '


async def test_safe_sysctls_are_set_and_others_refused(node: Node) -> None:
    def context(name: str, value: str) -> dict[str, object]:
        return {"sysctls": [{"name": name, "value": value}]}

    script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"
    await node.pod(
        "safe",
        restartPolicy="Never",
        securityContext=context("net.ipv4.ip_unprivileged_port_start", "77"),
        containers=[sh(script)],
    )
    await node.pod("unsafe", securityContext=context("kernel.msgmax", "1"), containers=[sh("true")])

    assert await node.ended("safe") == "Succeeded"
    assert await node.ended("unsafe") == "Failed"
    assert node.log("safe") == "77"
    assert node.status("unsafe")["reason"] == "SysctlForbidden"


async def test_a_pod_too_large_for_the_node_is_refused(node: Node) -> None:
    await node.pod("huge", containers=[sh("true", resources={"requests": {"cpu": "1000"}})])

    assert await node.ended("huge") == "Failed"
    assert node.status("huge")["reason"] == "OutOfcpu"


async def test_an_image_is_mounted_as_a_volume(node: Node) -> None:
    await node.pod(
        "pic",
        restartPolicy="Never",
        volumes=[{"name": "v", "image": {"reference": BUSYBOX, "pullPolicy": "IfNotPresent"}}],
        containers=[
            sh("cat /v/etc/group; touch /v/x || echo read-only", volumeMounts=[{"name": "v", "mountPath": "/v"}])
        ],
    )

    await node.ended("pic")

    assert "root:x:0:" in node.log("pic")
    assert "read-only" in node.log("pic")


async def test_containers_are_restarted_while_the_api_server_is_away(node: Node) -> None:
    await node.api.put("configmaps", {"metadata": {"name": "cm", "namespace": "default"}, "data": {"k": "v"}})
    host = node.config.data / "shared"
    volumes = [{"name": "cm", "configMap": {"name": "cm"}}, {"name": "h", "hostPath": {"path": str(host)}}]
    mounts = [{"name": "cm", "mountPath": "/cm"}, {"name": "h", "mountPath": "/h"}]
    env = [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]
    script = "echo started $K >> /h/log; while [ ! -e /h/die ]; do sleep 0.1; done; rm /h/die; exit 1"
    pod = await node.pod("away", volumes=volumes, containers=[sh(script, volumeMounts=mounts, env=env)])
    await node.ready("away")

    node.api.down = True
    worker = node.kubelet.pods.get(pod["metadata"]["uid"])
    assert worker is not None
    worker.refresh_volumes()
    (host / "die").touch()
    await node.until(lambda: (host / "log").exists() and (host / "log").read_text() == "started v\nstarted v\n")
    node.api.down = False

    await node.until(lambda: node.container("away")["restartCount"] == 1)


async def test_a_downward_volume_follows_the_pods_labels(node: Node) -> None:
    volumes = [{"name": "d", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]
    script = "until grep -q new /d/l; do sleep 0.1; done; echo seen; sleep 1000"
    await node.pod(
        "down",
        metadata={"labels": {"a": "old"}},
        volumes=volumes,
        containers=[sh(script, volumeMounts=[{"name": "d", "mountPath": "/d"}])],
    )
    await node.ready("down")

    await node.api.patch_pod("down", {"metadata": {"labels": {"a": "new"}}})

    await node.until(lambda: node.log("down") == "seen")


async def test_a_pod_has_no_more_processes_than_the_node_allows(node: Node) -> None:
    node.kubelet.parts.resources._config = replace(node.config, cgroups=CgroupsConfig(pod_pids=20))
    script = "for i in $(seq 40); do sleep 30 & done; echo all; sleep 1000"
    await node.pod("many", containers=[sh(script)], restartPolicy="Never")

    assert await node.ended("many") == "Failed"
    assert "can't fork" in node.log("many")
    assert "all" not in node.log("many").split()


@pytest.mark.skipif(len(machine_of().cpus) < 2, reason="the machine has one CPU, of which none can be given away")
async def test_a_guaranteed_pod_has_a_cpu_for_itself_and_others_leave_it(node: Node) -> None:
    await node.stop_kubelet()
    for manager in ("cpu", "memory"):
        # As whoever changes the policy has to.
        (node.config.data / f"{manager}_manager_state").unlink()
    first = min(machine_of().cpus)
    node.config = replace(
        node.config,
        managers=ManagersConfig(
            cpu_policy="static",
            memory_policy="Static",
            reserved_memory=[{"numaNode": min(machine_of().nodes), "limits": {"memory": "100Mi"}}],
            topology_policy="single-numa-node",
        ),
        reserved=ReservedConfig(cpus=frozenset({first})),
    )
    await node.start_kubelet()
    show = "while :; do grep -E '(Mem|Cpu)s_allowed_list' /proc/self/status; sleep 0.2; done"
    await node.pod("shares", containers=[sh(show)])
    await node.ready("shares")
    limits = {"limits": {"cpu": "1", "memory": "64Mi"}}

    await node.pod("owns", containers=[sh(show, resources=limits)])

    await node.ready("owns")
    pod = node.api.get("pods", "default", "owns")
    assert pod is not None
    own = node.kubelet.managers.cpus.cpuset(pod["metadata"]["uid"], "c")
    assert len(parse_cpus(own)) == 1
    assert first not in parse_cpus(own)

    def seen(name: str, what: str = "Cpus") -> frozenset[int]:
        lines = [line for line in node.log(name).splitlines() if line.startswith(f"{what}_allowed_list")]
        return parse_cpus(lines[-1].split()[-1]) if lines else frozenset()

    await node.until(lambda: seen("owns") == parse_cpus(own))
    # Its memory is that of one NUMA node.
    mems = node.kubelet.managers.memory.mems(pod["metadata"]["uid"], "c")
    assert len(parse_cpus(mems)) == 1
    await node.until(lambda: seen("owns", "Mems") == parse_cpus(mems))
    await node.until(lambda: seen("shares") == frozenset(machine_of().cpus) - parse_cpus(own))
