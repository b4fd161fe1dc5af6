"""What a container finds around it: command, environment, names, security context, resources, namespaces."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from .batch import Batch, condition, container_status, ids
from .conftest import Cluster
from .objects import BUSYBOX

pytestmark = [pytest.mark.e2e, pytest.mark.containers]
BATCH = Batch()


@pytest.fixture(scope="module")
def batch(containers: Cluster) -> Iterator[Batch]:
    yield from BATCH.run(containers)


# Command, arguments, working directory.

BATCH.pod("command", container={"command": ["echo", "$(A)", "$$(A)", "$(B)"], "env": [{"name": "A", "value": "1"}]})
BATCH.pod("command-args", container={"command": ["echo", "from", "command"], "args": ["and", "args"]})
BATCH.pod("workdir", "pwd", container={"workingDir": "/made/for/it"})


def test_command_and_arguments_replace_those_of_the_image(batch: Batch) -> None:
    assert batch.said("command") == "1 $(A) $(B)\n"
    assert batch.said("command-args") == "from command and args\n"


def test_working_directory_is_made_and_entered(batch: Batch) -> None:
    assert batch.said("workdir") == "/made/for/it\n"


# Environment.

BATCH.need("ConfigMap", "settings", data={"one": "1", "two": "2", "with.dot": "3"})
BATCH.need("Secret", "hidden", stringData={"password": "pa$$word"})
BATCH.need(
    "Service",
    "foo-service",
    spec={"selector": {"app": "nobody"}, "ports": [{"name": "web", "port": 8765, "targetPort": 8080}]},
)
BATCH.pod(
    "env",
    metadata={"labels": {"app": "env", "tier": "x"}, "annotations": {"note": "well"}},
    container={
        "command": ["env"],
        "resources": {
            "requests": {"cpu": "100m", "memory": "16Mi", "ephemeral-storage": "1Mi"},
            "limits": {"cpu": "1500m", "memory": "32Mi"},
        },
        "envFrom": [
            {"configMapRef": {"name": "settings"}},
            {"prefix": "P_", "secretRef": {"name": "hidden"}},
            {"configMapRef": {"name": "missing", "optional": True}},
        ],
        "env": [
            {"name": "FIRST", "value": "first"},
            {"name": "EXPANDED", "value": "$(FIRST)/$(FOO_SERVICE_SERVICE_PORT)/$$(FIRST)/$(UNKNOWN)"},
            {"name": "two", "value": "own"},
            {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "one"}}},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "password"}}},
            {"name": "OPTIONAL", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "no", "optional": True}}},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
            {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['tier']"}}},
            {"name": "ANNOTATION", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['note']"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "ACCOUNT", "valueFrom": {"fieldRef": {"fieldPath": "spec.serviceAccountName"}}},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "POD_IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIPs"}}},
            {"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
            {"name": "HOST_IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIPs"}}},
            {"name": "CPU_LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "CPU_REQUEST", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}},
            {"name": "MEMORY_LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
            {
                "name": "MEMORY_REQUEST",
                "valueFrom": {"resourceFieldRef": {"resource": "requests.memory", "divisor": "1Mi"}},
            },
        ],
    },
)
BATCH.pod(
    "env-defaults",
    "env",
    container={
        "env": [
            {"name": "CPU_LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "MEMORY_LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
        ]
    },
    enableServiceLinks=False,
)
BATCH.pod("env-missing", "env", container={"envFrom": [{"configMapRef": {"name": "missing"}}]})
BATCH.pod(
    "env-missing-key",
    "env",
    container={"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "nope"}}}]},
)


def test_environment_from_objects_fields_and_resources(batch: Batch) -> None:
    pod = batch.ended("env")
    env = batch.said_by_name("env")

    status = pod["status"]
    expected = {
        "FIRST": "first",
        "EXPANDED": "first/8765/$(FIRST)/$(UNKNOWN)",
        "one": "1",
        "two": "own",
        "with.dot": "3",
        "P_password": "pa$$word",
        "KEY": "1",
        "SECRET": "pa$$word",
        "POD_NAME": "env",
        "POD_NAMESPACE": batch.namespace,
        "POD_UID": pod["metadata"]["uid"],
        "LABEL": "x",
        "ANNOTATION": "well",
        "NODE": pod["spec"]["nodeName"],
        "ACCOUNT": "default",
        "POD_IP": status["podIP"],
        "POD_IPS": status["podIP"],
        "HOST_IP": status["hostIP"],
        "HOST_IPS": status["hostIP"],
        "CPU_LIMIT": "2",
        "CPU_REQUEST": "100",
        "MEMORY_LIMIT": str(32 << 20),
        "MEMORY_REQUEST": "16",
        "HOSTNAME": "env",
    }
    assert {name: env.get(name) for name in expected} == expected
    assert "OPTIONAL" not in env


def test_services_are_in_the_environment(batch: Batch) -> None:
    env = batch.said_by_name("env")
    address = batch.get("service", "foo-service")["spec"]["clusterIP"]

    assert {name: value for name, value in env.items() if name.startswith("FOO_SERVICE_")} == {
        "FOO_SERVICE_SERVICE_HOST": address,
        "FOO_SERVICE_SERVICE_PORT": "8765",
        "FOO_SERVICE_SERVICE_PORT_WEB": "8765",
        "FOO_SERVICE_PORT": f"tcp://{address}:8765",
        "FOO_SERVICE_PORT_8765_TCP": f"tcp://{address}:8765",
        "FOO_SERVICE_PORT_8765_TCP_PROTO": "tcp",
        "FOO_SERVICE_PORT_8765_TCP_PORT": "8765",
        "FOO_SERVICE_PORT_8765_TCP_ADDR": address,
    }


def test_without_service_links_only_the_api_server_is_in_the_environment(batch: Batch) -> None:
    env = batch.said_by_name("env-defaults")

    assert "FOO_SERVICE_SERVICE_HOST" not in env
    assert env["KUBERNETES_SERVICE_PORT"] == "443"


def test_limits_that_are_not_set_read_as_what_the_node_can_give(batch: Batch) -> None:
    env = batch.said_by_name("env-defaults")
    allocatable = batch.get("nodes")["items"][0]["status"]["allocatable"]

    assert env["CPU_LIMIT"] == allocatable["cpu"]
    assert env["MEMORY_LIMIT"] == str(int(allocatable["memory"].removesuffix("Ki")) * 1024)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("env-missing", 'configmap "missing" not found'),
        ("env-missing-key", "couldn't find key nope in Secret {namespace}/hidden"),
    ],
)
def test_a_reference_that_leads_nowhere_keeps_the_container_waiting(batch: Batch, name: str, message: str) -> None:
    pod = batch.until(name, lambda pod: container_status(pod)["state"].get("waiting", {}).get("message"))

    waiting = {"reason": "CreateContainerConfigError", "message": message.format(namespace=batch.namespace)}
    assert container_status(pod)["state"]["waiting"] == waiting
    assert ("Failed", f"Error: {waiting['message']}") in batch.events(name)


# Names.

BATCH.need("Service", "sub", spec={"clusterIP": "None", "selector": {"group": "sub"}, "ports": [{"port": 80}]})
BATCH.pod(
    "named",
    "hostname; hostname -f; cat /etc/hosts",
    hostname="custom",
    subdomain="sub",
    hostAliases=[{"ip": "192.0.2.7", "hostnames": ["alias.example", "other.example"]}],
)
BATCH.pod("fqdn", "hostname", hostname="custom", subdomain="sub", setHostnameAsFQDN=True)
BATCH.pod("dns-first", "cat /etc/resolv.conf")
BATCH.pod(
    "dns-none",
    "cat /etc/resolv.conf",
    dnsPolicy="None",
    dnsConfig={
        "nameservers": ["192.0.2.53"],
        "searches": ["my.example"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    },
)
BATCH.pod("dns-default", "cat /etc/resolv.conf", dnsPolicy="Default")
BATCH.pod("dns-host", "cat /etc/resolv.conf", hostNetwork=True)
BATCH.pod("dns-host-first", "cat /etc/resolv.conf", hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet")


def test_a_pod_has_the_names_that_it_asks_for(batch: Batch) -> None:
    lines = batch.said("named").splitlines()
    address = batch.ended("named")["status"]["podIP"]
    full = f"custom.sub.{batch.namespace}.svc.cluster.local"

    assert lines[:2] == ["custom", full]
    hosts = [line.split() for line in lines[2:] if line and not line.startswith("#")]
    assert ["127.0.0.1", "localhost"] in hosts
    assert [address, full, "custom"] in hosts
    assert ["192.0.2.7", "alias.example", "other.example"] in hosts
    assert batch.said("fqdn").strip() == full


def test_names_are_resolved_as_the_policy_says(batch: Batch) -> None:
    cluster_dns = batch.cluster.config.cluster_dns
    searches = f"search {batch.namespace}.svc.cluster.local svc.cluster.local cluster.local"

    for name in ("dns-first", "dns-host-first"):
        lines = batch.said(name).splitlines()
        assert f"nameserver {cluster_dns}" in lines
        assert any(line.startswith(searches) for line in lines)
        assert "options ndots:5" in lines
    assert sorted(batch.said("dns-none").splitlines()) == [
        "nameserver 192.0.2.53",
        "options ndots:2 edns0",
        "search my.example",
    ]
    for name in ("dns-default", "dns-host"):
        assert cluster_dns not in batch.said(name)


# Security contexts.

STATE = "id; grep -E 'CapEff|Seccomp:|NoNewPrivs' /proc/self/status | tr ':' '='; touch /x 2>/dev/null && echo root=rw"
BATCH.pod("secured-default", STATE)
BATCH.pod(
    "secured",
    STATE,
    securityContext={
        "runAsUser": 1001,
        "runAsGroup": 2002,
        "supplementalGroups": [3003],
        "fsGroup": 4004,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
        "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}],
    },
    container={
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    },
)
BATCH.pod("container-user", "id", securityContext={"runAsUser": 1}, container={"securityContext": {"runAsUser": 77}})
BATCH.pod(
    "capable",
    STATE,
    container={"securityContext": {"capabilities": {"add": ["NET_ADMIN", "SYS_TIME"], "drop": ["CHOWN"]}}},
)
BATCH.pod(
    "privileged",
    f"{STATE}; ls /dev | wc -l; mkdir /m && mount -t tmpfs none /m && echo made=yes",
    container={"securityContext": {"privileged": True}},
)
BATCH.pod(
    "sysctl",
    "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced",
    securityContext={
        "sysctls": [
            {"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"},
            {"name": "kernel.shm_rmid_forced", "value": "1"},
        ]
    },
)
BATCH.pod("non-root-image", "id", securityContext={"runAsNonRoot": True})
BATCH.pod("non-root-user", "id", container={"securityContext": {"runAsNonRoot": True, "runAsUser": 0}})
# CAP_NET_ADMIN is bit 12, CAP_SYS_TIME 25, CAP_CHOWN 0.
ADDED = 1 << 12 | 1 << 25


def test_without_security_context_a_container_runs_as_its_image_says(batch: Batch) -> None:
    said = batch.said_by_name("secured-default")

    assert ids(batch.said("secured-default"))["uid"] == "0"
    assert said["root"] == "rw"
    assert int(said["CapEff"], 16) & ADDED == 0
    assert said["Seccomp"].strip() == "0"


def test_a_restricted_container_is_restricted(batch: Batch) -> None:
    who, said = ids(batch.said("secured")), batch.said_by_name("secured")

    assert (who["uid"], who["gid"]) == ("1001", "2002")
    assert {"3003", "4004"} <= set(who["groups"].split(","))
    assert int(said["CapEff"], 16) == 0
    assert said["NoNewPrivs"].strip() == "1"
    assert said["Seccomp"].strip() == "2"
    assert "root" not in said


def test_the_containers_security_context_wins_over_the_pods(batch: Batch) -> None:
    assert ids(batch.said("container-user"))["uid"] == "77"


def test_capabilities_are_added_and_dropped(batch: Batch) -> None:
    capabilities = int(batch.said_by_name("capable")["CapEff"], 16)

    assert capabilities & ADDED == ADDED
    assert capabilities & 1 == 0


def test_a_privileged_container_may_do_what_root_may(batch: Batch) -> None:
    said = batch.said("privileged")

    assert "made=yes" in said
    assert int(batch.said_by_name("privileged")["CapEff"], 16) & ADDED == ADDED


def test_safe_sysctls_are_set(batch: Batch) -> None:
    assert batch.said("sysctl").split() == ["80", "1"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("non-root-image", "container has runAsNonRoot and image will run as root"),
        ("non-root-user", "container's runAsUser breaks non-root policy"),
    ],
)
def test_root_is_refused_where_it_is_excluded(batch: Batch, name: str, message: str) -> None:
    pod = batch.until(name, lambda pod: container_status(pod)["state"].get("waiting", {}).get("message"))

    waiting = container_status(pod)["state"]["waiting"]
    assert waiting["reason"] == "CreateContainerConfigError"
    assert waiting["message"].startswith(message)


# Namespaces of the node and of the pod.

SHOW = "for kind in net ipc pid; do readlink /proc/self/ns/$kind; done; hostname"
BATCH.pod("host-all", SHOW, hostNetwork=True, hostPID=True, hostIPC=True)
BATCH.pod("host-none", SHOW)
BATCH.pod(
    "shared-pids",
    shareProcessNamespace=True,
    containers=[
        {
            "name": "main",
            "image": BUSYBOX,
            # The other one starts when it starts.
            "command": [
                "sh",
                "-c",
                "until ps -o args | grep -q '^sleep 123456'; do sleep 0.2; done; ps -o args; killall sleep",
            ],
        },
        {"name": "other", "image": BUSYBOX, "command": ["sh", "-c", "sleep 1234567; true"]},
    ],
)


def _own(kind: str) -> str:
    return os.readlink(f"/proc/self/ns/{kind}")


def test_a_pod_may_use_the_nodes_namespaces(batch: Batch) -> None:
    net, ipc, pid, hostname = batch.said("host-all").split()

    assert (net, ipc, pid) == (_own("net"), _own("ipc"), _own("pid"))
    assert hostname == socket.gethostname()
    status = batch.ended("host-all")["status"]
    assert status["podIP"] == status["hostIP"]


def test_otherwise_a_pod_has_namespaces_of_its_own(batch: Batch) -> None:
    net, ipc, pid, hostname = batch.said("host-none").split()

    assert net != _own("net")
    assert ipc != _own("ipc")
    assert pid != _own("pid")
    assert hostname == "host-none"


def test_containers_of_a_pod_may_share_their_processes(batch: Batch) -> None:
    said = batch.said("shared-pids")

    assert "sleep 1234567" in said
    assert "/pause" in said


# Resources.

CGROUP = """
cd /sys/fs/cgroup
if [ -e cgroup.controllers ]
then echo quota=$(cut -d" " -f1 cpu.max); echo memory=$(cat memory.max); echo shares=$(cat cpu.weight)
else
  echo quota=$(cat cpu/cpu.cfs_quota_us)
  echo memory=$(cat memory/memory.limit_in_bytes)
  echo shares=$(cat cpu/cpu.shares)
fi
echo oom=$(cat /proc/self/oom_score_adj)
"""
AMOUNT = {"cpu": "250m", "memory": "64Mi"}
BATCH.pod("guaranteed", CGROUP, container={"resources": {"limits": AMOUNT}})
BATCH.pod("burstable", CGROUP, container={"resources": {"requests": AMOUNT}})
BATCH.pod("best-effort", CGROUP)
BATCH.pod("oom", container={"resources": {"limits": {"memory": "12Mi"}}, "command": ["tail", "/dev/zero"]})


def test_resources_reach_the_cgroup(batch: Batch) -> None:
    guaranteed, burstable = batch.said_by_name("guaranteed"), batch.said_by_name("burstable")

    assert guaranteed["quota"] == "25000"
    assert guaranteed["memory"] == str(64 << 20)
    # v1 counts shares of 1024 for a core, v2 weights.
    assert guaranteed["shares"] in ("256", "10")
    assert burstable["quota"] in ("-1", "max")
    assert burstable["shares"] in ("256", "10")


def test_the_quality_of_service_follows_from_resources(batch: Batch) -> None:
    found = {name: batch.ended(name)["status"]["qosClass"] for name in ("guaranteed", "burstable", "best-effort")}
    adjustments = {name: int(batch.said_by_name(name)["oom"]) for name in found}

    assert found == {"guaranteed": "Guaranteed", "burstable": "Burstable", "best-effort": "BestEffort"}
    assert adjustments["guaranteed"] <= adjustments["burstable"] <= adjustments["best-effort"] == 1000


def test_a_container_over_its_memory_limit_is_killed(batch: Batch) -> None:
    def told(pod: dict[str, Any]) -> bool:
        # The runtime learns why a moment after it learns that; the status is corrected then.
        return container_status(pod)["state"].get("terminated", {}).get("reason") == "OOMKilled"

    batch.ended("oom")
    pod = batch.until("oom", told, 10)

    assert container_status(pod)["state"]["terminated"]["exitCode"] == 137
    assert pod["status"]["phase"] == "Failed"


# Phases and conditions.

BATCH.pod("succeeded", "true")
BATCH.pod("failed", "exit 7")


def _conditions(pod: dict[str, Any]) -> dict[str, str]:
    kinds = ("Initialized", "Ready", "ContainersReady", "PodScheduled", "PodReadyToStartContainers")
    return {kind: condition(pod, kind) for kind in kinds}


def test_a_pod_whose_containers_ended_has_ended(batch: Batch) -> None:
    well, badly = batch.ended("succeeded"), batch.ended("failed")

    assert (well["status"]["phase"], badly["status"]["phase"]) == ("Succeeded", "Failed")
    ended = container_status(well)["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("Completed", 0)
    assert ended["startedAt"] <= ended["finishedAt"]
    ended = container_status(badly)["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("Error", 7)
    batch.until("succeeded", lambda pod: condition(pod, "PodReadyToStartContainers") == "False")
    assert _conditions(batch.get("pod", "succeeded")) == {
        "Initialized": "True",
        "Ready": "False",
        "ContainersReady": "False",
        "PodScheduled": "True",
        "PodReadyToStartContainers": "False",
    }
    reasons = {one["type"]: one.get("reason") for one in well["status"]["conditions"]}
    assert reasons["Ready"] == reasons["ContainersReady"] == reasons["Initialized"] == "PodCompleted"
