"""The node: its status, lease, statistics and metrics; and pods through the official and other client libraries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import kr8s
import lightkube
import pytest
from kr8s.objects import Pod as Kr8sPod
from kubernetes import client as official
from kubernetes import config as official_config
from kubernetes.stream import portforward, stream
from lightkube.core.client import Client as LightClient

from .batch import Batch, condition
from .conftest import BUSYBOX, Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.containers]
BATCH = Batch()
FOREVER = "trap exit TERM; while :; do sleep 0.1; done"
BATCH.pod(
    "busy",
    f"echo said; mkdir /w; echo fine > /w/index.html; httpd -p 8080 -h /w; {FOREVER}",
    container={"resources": {"limits": {"memory": "64Mi", "cpu": "500m"}}},
)


@pytest.fixture(scope="module")
def batch(containers: Cluster) -> Iterator[Batch]:
    yield from BATCH.run(containers)


@pytest.fixture
def core(batch: Batch) -> official.CoreV1Api:
    return official.CoreV1Api(official_config.new_client_from_config(str(batch.cluster.config.admin_kubeconfig)))


def test_the_node_says_how_it_is(batch: Batch) -> None:
    (node,) = batch.get("nodes")["items"]
    status = node["status"]

    conditions = {one["type"]: one["status"] for one in status["conditions"]}
    assert conditions == {
        "MemoryPressure": "False",
        "DiskPressure": "False",
        "PIDPressure": "False",
        "Ready": "True",
    }
    assert {"cpu", "memory", "pods", "ephemeral-storage"} <= set(status["capacity"]) & set(status["allocatable"])
    assert {one["type"] for one in status["addresses"]} == {"InternalIP", "Hostname"}
    info = status["nodeInfo"]
    assert info["containerRuntimeVersion"].startswith("containerd://")
    assert info["kubeletVersion"].startswith("v1.37")
    assert info["operatingSystem"] == "linux"
    assert status["daemonEndpoints"]["kubeletEndpoint"]["Port"] == batch.cluster.config.kubelet_port
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == node["metadata"]["name"]


def test_the_node_lists_its_images(batch: Batch) -> None:
    def listed() -> bool:
        (node,) = batch.get("nodes")["items"]
        return any("localhost/busybox:1" in image["names"] for image in node["status"]["images"])

    batch.cluster.wait_until(listed, 30)


def test_the_node_renews_its_lease(batch: Batch) -> None:
    (node,) = batch.get("nodes")["items"]
    lease = batch.cluster.get("lease", "-n", "kube-node-lease", node["metadata"]["name"])

    renewed = datetime.fromisoformat(lease["spec"]["renewTime"])
    assert (datetime.now(UTC) - renewed).total_seconds() < 40
    assert lease["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]


def test_statistics_and_metrics_are_read_through_the_api_server(batch: Batch) -> None:
    batch.ready("busy")
    (node,) = batch.get("nodes")["items"]
    base = f"/api/v1/nodes/{node['metadata']['name']}/proxy"

    summary = json.loads(batch.cluster.kubectl("get", "--raw", f"{base}/stats/summary"))
    pod = next(one for one in summary["pods"] if one["podRef"]["name"] == "busy")
    assert summary["node"]["memory"]["workingSetBytes"] > 1 << 20
    assert 0 < pod["containers"][0]["memory"]["workingSetBytes"] < 64 << 20
    assert pod["containers"][0]["cpu"]["usageCoreNanoSeconds"] > 0
    metrics = batch.cluster.kubectl("get", "--raw", f"{base}/metrics")
    assert "\nkubelet_running_pods " in metrics
    resource = batch.cluster.kubectl("get", "--raw", f"{base}/metrics/resource")
    assert f'namespace="{batch.namespace}",pod="busy"' in resource
    assert json.loads(batch.cluster.kubectl("get", "--raw", f"{base}/configz"))["kubeletconfig"]["maxPods"] == 110
    names = {
        one["metadata"]["name"] for one in json.loads(batch.cluster.kubectl("get", "--raw", f"{base}/pods"))["items"]
    }
    assert "busy" in names


def test_official_client_reads_logs_and_runs_commands(batch: Batch, core: official.CoreV1Api) -> None:
    batch.ready("busy")

    assert core.read_namespaced_pod_log("busy", batch.namespace) == "said\n"
    command = ["sh", "-c", "echo out; echo err >&2; read line; echo got $line; exit 3"]
    session = stream(
        core.connect_get_namespaced_pod_exec, "busy", batch.namespace, command=command,
        stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False,
    )  # fmt: skip
    session.write_stdin("words\n")
    session.run_forever(timeout=10)
    assert session.read_stdout() == "out\ngot words\n"
    assert session.read_stderr() == "err\n"
    assert session.returncode == 3


def test_official_client_forwards_ports(batch: Batch, core: official.CoreV1Api) -> None:
    batch.ready("busy")

    forward = portforward(core.connect_get_namespaced_pod_portforward, "busy", batch.namespace, ports="8080")
    connection = forward.socket(8080)
    connection.setblocking(True)
    connection.settimeout(10)
    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
    answer = b""
    while data := connection.recv(4096):
        answer += data
    forward.close()

    assert answer.endswith(b"fine\n")


def test_kr8s_reads_logs_and_runs_commands(batch: Batch) -> None:
    batch.ready("busy")
    api = kr8s.api(kubeconfig=str(batch.cluster.config.admin_kubeconfig))

    pod = Kr8sPod.get("busy", namespace=batch.namespace, api=api)

    assert list(pod.logs()) == ["said"]
    done = pod.exec(["sh", "-c", "echo out; echo err >&2; exit 2"], check=False)
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 2)


def test_lightkube_reads_logs(batch: Batch) -> None:
    batch.ready("busy")
    config = lightkube.KubeConfig.from_file(str(batch.cluster.config.admin_kubeconfig))
    client = LightClient(config=config.get(), namespace=batch.namespace)

    assert list(client.log("busy")) == ["said\n"]


def test_a_pods_status_can_be_patched(batch: Batch, core: official.CoreV1Api) -> None:
    batch.ready("busy")
    mine = {"status": {"conditions": [{"type": "example.org/Mine", "status": "True"}]}}

    core.patch_namespaced_pod_status("busy", batch.namespace, mine)

    assert condition(batch.get("pod", "busy"), "example.org/Mine") == "True"
    batch.kubectl("annotate", "pod", "busy", "touch=it")
    batch.until("busy", lambda pod: condition(pod, "example.org/Mine") == "True" and condition(pod, "Ready") == "True")


def test_a_static_pod_runs_from_its_manifest_and_shows_as_its_mirror(batch: Batch) -> None:
    cluster = batch.cluster
    (node,) = batch.get("nodes")["items"]
    name = f"static-{node['metadata']['name']}"
    container = {
        "name": "c",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", f"echo said; {FOREVER}"],
    }
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "static"},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
    }
    path = cluster.config.manifests / "static.json"
    path.write_text(json.dumps(manifest))
    try:
        cluster.wait_until(lambda: cluster.get("pod", name)["status"]["phase"] == "Running")
        assert "said" in cluster.wait_until(lambda: cluster.kubectl("logs", name))
        assert cluster.kubectl("exec", name, "--", "echo", "fine") == "fine\n"
        before = cluster.get("pod", name)

        cluster.kubectl("delete", "pod", name)

        after = cluster.wait_until(lambda: cluster.get("pod", name))
        assert after["metadata"]["uid"] != before["metadata"]["uid"]
        cluster.wait_until(lambda: cluster.get("pod", name)["status"].get("containerStatuses"))
        ids = [one["status"]["containerStatuses"][0]["containerID"] for one in (before, cluster.get("pod", name))]
        assert ids[0] == ids[1]
    finally:
        path.unlink()
    cluster.wait_until(lambda: not cluster.kubectl("get", "pod", name, "--ignore-not-found"))


def test_two_pods_cannot_have_one_host_port(batch: Batch) -> None:
    cluster = batch.cluster
    (node,) = batch.get("nodes")["items"]

    def pod(name: str) -> dict[str, object]:
        container = {
            "name": "c",
            "image": BUSYBOX,
            "imagePullPolicy": "Never",
            "command": ["sh", "-c", FOREVER],
            "ports": [{"containerPort": 80, "hostPort": 30999}],
        }
        spec = {
            "nodeName": node["metadata"]["name"],
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "containers": [container],
        }
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}

    try:
        cluster.apply(pod("port-one"))
        cluster.wait_until(lambda: cluster.get("pod", "port-one")["status"]["phase"] == "Running")
        cluster.apply(pod("port-two"))

        cluster.wait_until(lambda: cluster.get("pod", "port-two")["status"]["phase"] == "Failed")
        status = cluster.get("pod", "port-two")["status"]
        assert status["reason"] == "NodePorts"
        assert "didn't have free ports for the requested pod ports" in status["message"]
    finally:
        cluster.kubectl("delete", "pod", "port-one", "port-two", "--ignore-not-found")


def test_what_the_node_and_its_pods_use_is_shown_by_kubectl(batch: Batch) -> None:
    batch.ready("busy")

    def top(*arguments: str) -> list[str]:
        return batch.cluster.kubectl("top", *arguments, "--no-headers").split()

    pod, container, cpu, memory = batch.cluster.wait_until(
        lambda: top("pods", "busy", "--containers", "-n", batch.namespace), 60
    )
    assert (pod, container) == ("busy", "main")
    # It may use half of a core, and looks at nothing ten times a second.
    assert 0 < int(cpu.removesuffix("m")) < 550
    assert 0 <= int(memory.removesuffix("Mi")) < 64
    (told,) = batch.get("pods.metrics.k8s.io", "busy")["containers"]
    assert told["usage"]["memory"] != "0"
    name, cores, _, used, percent = batch.cluster.wait_until(lambda: top("nodes"), 60)
    (node,) = batch.get("nodes")["items"]
    assert name == node["metadata"]["name"]
    assert int(cores.removesuffix("m")) > 0
    assert int(used.removesuffix("Mi")) > 50
    assert 0 < int(percent.removesuffix("%")) <= 100
