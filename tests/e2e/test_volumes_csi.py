"""Volumes of a CSI driver in real containers: made, attached and mounted for pods, and gone with their claims."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.csi_sidecars import LIMIT

from .batch import Batch
from .conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.containers]
BATCH = Batch()
DRIVER = "dirs.example.com"
ROOT = Path(__file__).resolve().parent.parent.parent
STORE = Path("/tmp/navarch-e2e-csi")


@pytest.fixture(scope="module")
def batch(containers: Cluster) -> Iterator[Batch]:
    kubelet = next(containers.home.rglob("plugins_registry")).parent
    kubeconfig = str(containers.config.admin_kubeconfig)
    STORE.mkdir()
    about = {"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": DRIVER}}
    modes = {"volumeLifecycleModes": ["Persistent", "Ephemeral"], "podInfoOnMount": True, "fsGroupPolicy": "File"}
    made = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "e2e-dirs"},
        "provisioner": DRIVER,
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    containers.apply({**about, "spec": modes}, made)
    arguments = [sys.executable, "-m", "tests.csi_sidecars", kubeconfig, str(kubelet), str(STORE), DRIVER]
    with tempfile.TemporaryFile() as said, subprocess.Popen(arguments, cwd=ROOT, stdout=said, stderr=said) as driver:
        try:

            def registered() -> bool:
                said.seek(0)
                assert driver.poll() is None, said.read().decode()
                nodes = containers.get("csinodes")["items"]
                return any(one["name"] == DRIVER for node in nodes for one in node["spec"].get("drivers") or ())

            containers.wait_until(registered, 30, "the driver registered")
            yield from BATCH.run(containers)
        finally:
            # It frees its devices on the way out.
            driver.send_signal(signal.SIGINT)
            driver.wait(30)
            containers.kubectl("delete", "storageclass", "e2e-dirs", "--wait=false")
            containers.kubectl("delete", "csidriver", DRIVER, "--wait=false")
    shutil.rmtree(STORE)


def claim(name: str, **spec: Any) -> str:
    asked = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "e2e-dirs",
        "resources": {"requests": {"storage": "1Mi"}},
        **spec,
    }
    return BATCH.need("PersistentVolumeClaim", name, spec=asked)


BATCH.pod(
    "csi-files",
    "echo lasting > /v/f; stat -c '%g %a' /v; sleep 600 & wait",
    volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": claim("files")}}],
    container={"volumeMounts": [{"name": "v", "mountPath": "/v"}]},
    securityContext={"fsGroup": 1234},
)
BATCH.pod(
    "csi-device",
    "test -b /dev/disk && echo block > /dev/disk && head -c 5 /dev/disk",
    volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": claim("device", volumeMode="Block")}}],
    container={"volumeDevices": [{"name": "v", "devicePath": "/dev/disk"}]},
)
BATCH.pod(
    "csi-own",
    "echo mine > /v/f; cat /v/f",
    volumes=[{"name": "v", "csi": {"driver": DRIVER}}],
    container={"volumeMounts": [{"name": "v", "mountPath": "/v"}]},
)
BATCH.pod(
    "csi-too-many",
    "true",
    volumes=[{"name": f"v{i}", "persistentVolumeClaim": {"claimName": claim(f"many-{i}")}} for i in range(LIMIT + 1)],
)


BATCH.pod(
    "csi-mounter",
    "mkdir -p /k/plugins/e2e && mount -t tmpfs none /k/plugins/e2e && echo seen > /k/plugins/e2e/f; sleep 600 & wait",
    volumes=[{"name": "k", "hostPath": {"path": "/var/lib/kubelet", "type": "Directory"}}],
    container={
        "volumeMounts": [{"name": "k", "mountPath": "/k", "mountPropagation": "Bidirectional"}],
        "securityContext": {"privileged": True},
    },
)


def test_what_a_driver_in_a_pod_mounts_below_the_kubelets_folder_is_mounted_on_the_node(batch: Batch) -> None:
    batch.ready("csi-mounter", 60)
    place = next(batch.cluster.home.rglob("plugins_registry")).parent / "plugins" / "e2e"
    batch.cluster.wait_until((place / "f").exists, 20, "the mount seen")
    assert (place / "f").read_text() == "seen\n"

    batch.kubectl("exec", "csi-mounter", "--", "umount", "/k/plugins/e2e")

    assert not (place / "f").exists()
    batch.kubectl("delete", "pod", "csi-mounter", "--grace-period=1")


def test_a_claim_is_made_attached_mounted_and_gone_with_all_that_was_set_up(batch: Batch) -> None:
    cluster = batch.cluster
    batch.ready("csi-files", 60)
    name = batch.get("pvc", "files")["spec"]["volumeName"]
    volume = batch.get("pv", name)
    handle = volume["spec"]["csi"]["volumeHandle"]
    assert (STORE / handle / "f").read_text() == "lasting\n"
    assert (STORE / handle).stat().st_gid == 1234
    (attachment,) = [
        one
        for one in cluster.get("volumeattachments")["items"]
        if one["spec"]["source"]["persistentVolumeName"] == name
    ]
    assert attachment["status"]["attached"]
    (term,) = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [{"key": f"{DRIVER}/host", "operator": "In", "values": ["here"]}]
    (node,) = cluster.get("nodes", "-l", f"{DRIVER}/host=here")["items"]
    assert node["metadata"]["name"] == batch.get("pod", "csi-files")["spec"]["nodeName"]

    batch.kubectl("delete", "pod", "csi-files", "--grace-period=1")
    batch.kubectl("delete", "pvc", "files", "--wait=false")

    cluster.wait_until(lambda: cluster.try_kubectl("get", "pv", name).returncode != 0, 60, "the volume gone")
    assert not (STORE / handle).exists()
    assert handle not in Path("/proc/self/mountinfo").read_text()


def test_a_block_device_is_a_device_in_the_container(batch: Batch) -> None:
    assert batch.ended("csi-device", 60)["status"]["phase"] == "Succeeded"
    assert batch.said("csi-device") == "block"


def test_a_node_takes_no_more_volumes_than_its_driver_says(batch: Batch) -> None:
    def said() -> str:
        conditions = batch.get("pod", "csi-too-many")["status"].get("conditions") or ()
        return next((one.get("message", "") for one in conditions if one["type"] == "PodScheduled"), "")

    batch.cluster.wait_until(lambda: "1 node(s) exceed max volume count" in said(), 60, "told why it waits")
    batch.kubectl("delete", "pod", "csi-too-many", "--wait=false")


def test_a_pod_brings_its_own_volume(batch: Batch) -> None:
    assert batch.ended("csi-own", 60)["status"]["phase"] == "Succeeded"
    assert batch.said("csi-own").strip() == "mine"
