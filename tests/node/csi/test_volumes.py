"""Volumes of CSI drivers: staged once per node, published for each pod, and all of it undone."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import grpc

from navarch.client.base import PatchKind
from navarch.client.resources import NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, SECRETS
from navarch.kinds.storage.csi_names import attachment_name
from navarch.node.volumes.csi.proto import csi_pb2 as csi
from tests.csi_driver import NAME, DirectoryDriver
from tests.node.csi.conftest import Storage

MODE = csi.VolumeCapability.AccessMode


def claimed(name: str, **options: Any) -> dict[str, Any]:
    """A pod's fields: the claim at `/v`."""
    mount = {"name": "v", "mountPath": "/v"}
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": name, **options}}
    return {"containers": [{"name": "c", "image": "web:1", "volumeMounts": [mount]}], "volumes": [volume]}


def inline(**options: Any) -> dict[str, Any]:
    mount = {"name": "v", "mountPath": "/v"}
    volume = {"name": "v", "csi": {"driver": NAME, **options}}
    return {"containers": [{"name": "c", "image": "web:1", "volumeMounts": [mount]}], "volumes": [volume]}


def counts(driver: DirectoryDriver) -> dict[str, int]:
    names = ("NodeStageVolume", "NodePublishVolume", "NodeUnpublishVolume", "NodeUnstageVolume")
    made = Counter(name for name, _ in driver.calls if name in names)
    return {name: made[name] for name in names}


async def gone(storage: Storage, name: str) -> None:
    await storage.node.api.delete_gracefully("default", name)
    await storage.node.until(lambda: storage.node.shown(name) is None)


async def test_a_claim_is_staged_published_and_undone_with_its_pod(storage: Storage) -> None:
    await storage.describe()
    await storage.claim("data", csi={"fsType": "ext4", "volumeAttributes": {"a": "b"}}, mountOptions=["noatime"])
    async with storage.serving() as driver:
        pod = await storage.node.pod("p", **claimed("data"))
        await storage.node.running("p")

        staged, published = driver.named("NodeStageVolume")[0], driver.named("NodePublishVolume")[0]
        root, uid = storage.node.config.data, pod["metadata"]["uid"]
        target = root / f"pods/{uid}/volumes/kubernetes.io~csi/pv-data/mount"
        assert published.target_path == str(target)
        assert published.staging_target_path == staged.staging_target_path
        assert Path(staged.staging_target_path).match(f"plugins/kubernetes.io/csi/{NAME}/*/globalmount")
        assert dict(staged.volume_context) == {"a": "b"}
        assert staged.volume_capability.mount.fs_type == "ext4"
        assert list(staged.volume_capability.mount.mount_flags) == ["noatime"]
        assert staged.volume_capability.access_mode.mode == MODE.SINGLE_NODE_MULTI_WRITER
        (target / "f").write_text("kept")
        assert (storage.place / "store/data/f").read_text() == "kept"

        await gone(storage, "p")

        assert set(counts(driver).values()) == {1}
        assert storage.mounts() == []
        assert storage.records() == []
        assert (storage.place / "store/data/f").read_text() == "kept"


async def test_two_pods_share_what_is_staged(storage: Storage) -> None:
    await storage.describe()
    await storage.claim("data")
    async with storage.serving() as driver:
        for name in ("one", "two"):
            await storage.node.pod(name, **claimed("data"))
        for name in ("one", "two"):
            await storage.node.running(name)
        assert counts(driver)["NodeStageVolume"] == 1
        assert counts(driver)["NodePublishVolume"] == 2

        await gone(storage, "one")
        assert counts(driver)["NodeUnstageVolume"] == 0
        await gone(storage, "two")

        assert counts(driver)["NodeUnstageVolume"] == 1
        assert storage.mounts() == []


async def test_a_driver_that_does_not_stage_is_not_asked_to(storage: Storage) -> None:
    await storage.describe()
    await storage.claim("data")
    async with storage.serving(stages=False) as driver:
        await storage.node.pod("p", **claimed("data"))
        await storage.node.running("p")
        await gone(storage, "p")

        assert counts(driver) == {
            "NodeStageVolume": 0,
            "NodePublishVolume": 1,
            "NodeUnpublishVolume": 1,
            "NodeUnstageVolume": 0,
        }


async def test_a_pod_waits_for_its_driver_and_is_told_of_it(storage: Storage) -> None:
    await storage.describe()
    await storage.claim("data")
    await storage.node.pod("p", **claimed("data"))

    def told() -> str:
        return next((e["message"] for e in storage.node.api.events() if e["reason"] == "FailedMount"), "")

    await storage.node.until(told)
    assert told() == (
        'MountVolume.MountDevice failed for volume "pv-data" : kubernetes.io/csi: attacher.MountDevice failed to '
        f"create newCsiDriverClient: driver name {NAME} not found in the list of registered CSI drivers"
    )
    async with storage.driver():
        await storage.node.running("p")
        await gone(storage, "p")


async def test_a_driver_that_refuses_leaves_nothing_mounted(storage: Storage) -> None:
    await storage.describe()
    await storage.claim("data")
    driver = storage.driver()
    driver.refuse["NodePublishVolume"] = (grpc.StatusCode.INTERNAL, "no room")
    async with storage.serving(driver):
        await storage.node.pod("p", **claimed("data"))
        await storage.node.until(lambda: "FailedMount" in storage.node.reasons("p"))

        messages = [event["message"] for event in storage.node.api.events() if event["reason"] == "FailedMount"]
        assert messages[0] == (
            'MountVolume.SetUp failed for volume "pv-data" : rpc error: code = Internal desc = no room'
        )
        await gone(storage, "p")

        assert counts(driver)["NodeUnstageVolume"] == 1
        assert storage.mounts() == []
        assert storage.records() == []


async def test_a_kubelet_that_starts_again_disturbs_nothing_and_undoes_everything(storage: Storage) -> None:
    await storage.describe()
    await storage.claim("data")
    async with storage.serving() as driver:
        await storage.node.pod("p", **claimed("data"))
        await storage.node.running("p")
        before = storage.mounts()
        await storage.node.restart()
        await storage.node.until(lambda: len(driver.told) == 2)

        assert storage.mounts() == before
        assert counts(driver)["NodeUnpublishVolume"] == 0
        await gone(storage, "p")

        assert storage.mounts() == []
        assert storage.records() == []


async def test_what_a_pod_left_while_no_kubelet_ran_is_taken_away(storage: Storage) -> None:
    await storage.describe()
    await storage.claim("data")
    async with storage.serving() as driver:
        pod = await storage.node.pod("p", **claimed("data"))
        await storage.node.running("p")
        await storage.node.stop()
        await storage.node.api.remove("default", "p")
        await storage.node.start_again()
        await storage.node.until(lambda: len(driver.told) == 2)

        await storage.node.kubelet.sweeper.adopt_orphans()
        await storage.node.kubelet.sweeper.remove_stale_volumes()

        assert not storage.node.config.pod_directory(pod["metadata"]["uid"]).exists()
        assert counts(driver)["NodeUnstageVolume"] == 1
        assert storage.mounts() == []


async def test_a_volume_is_not_set_up_before_it_is_attached(storage: Storage) -> None:
    await storage.describe(attachRequired=True)
    await storage.claim("data")
    unique = f"kubernetes.io/csi/{NAME}^data"

    async def in_use() -> list[str]:
        return ((await storage.admin.get(NODES, "n1")).get("status") or {}).get("volumesInUse") or []

    async with storage.serving() as driver:
        await storage.node.pod("p", **claimed("data"))

        async def told() -> bool:
            return await in_use() == [unique]

        await storage.node.until_async(told)
        assert counts(driver)["NodeStageVolume"] == 0

        await storage.attach("data", "pv-data", {"device": "sdx"})
        await storage.node.running("p")

        assert dict(driver.named("NodeStageVolume")[0].publish_context) == {"device": "sdx"}
        assert dict(driver.named("NodePublishVolume")[0].publish_context) == {"device": "sdx"}
        await gone(storage, "p")

        async def let_go() -> bool:
            return await in_use() == []

        await storage.node.until_async(let_go)
        assert attachment_name("data", NAME, "n1").startswith("csi-")


async def test_drivers_are_told_of_the_pod_where_they_want_to_be(storage: Storage) -> None:
    await storage.describe(podInfoOnMount=True, tokenRequests=[{"audience": "vault", "expirationSeconds": 600}])
    await storage.claim("data")
    async with storage.serving() as driver:
        pod = await storage.node.pod("p", **claimed("data"))
        await storage.node.running("p")

        told = dict(driver.named("NodePublishVolume")[0].volume_context)
        tokens = json.loads(told.pop("csi.storage.k8s.io/serviceAccount.tokens"))
        assert told == {
            "csi.storage.k8s.io/pod.name": "p",
            "csi.storage.k8s.io/pod.namespace": "default",
            "csi.storage.k8s.io/pod.uid": pod["metadata"]["uid"],
            "csi.storage.k8s.io/serviceAccount.name": "default",
            "csi.storage.k8s.io/ephemeral": "false",
        }
        assert tokens["vault"].keys() == {"token", "expirationTimestamp"}
        assert not driver.named("NodeStageVolume")[0].volume_context
        await gone(storage, "p")


async def test_secrets_go_to_the_driver_and_nowhere_else(storage: Storage) -> None:
    await storage.admin.create(
        SECRETS, {"metadata": {"name": "key"}, "stringData": {"password": "hunter2"}}, namespace="default"
    )
    await storage.describe()
    reference = {"name": "key", "namespace": "default"}
    await storage.claim("data", csi={"nodeStageSecretRef": reference, "nodePublishSecretRef": reference})
    async with storage.serving() as driver:
        await storage.node.pod("p", **claimed("data"))
        await storage.node.running("p")

        assert dict(driver.named("NodeStageVolume")[0].secrets) == {"password": "hunter2"}
        assert dict(driver.named("NodePublishVolume")[0].secrets) == {"password": "hunter2"}
        assert not any("hunter2" in path.read_text() for path in storage.records())
        await gone(storage, "p")


async def test_the_pods_group_gets_the_files_where_the_policy_says_so(storage: Storage) -> None:
    await storage.describe(fsGroupPolicy="File")
    await storage.claim("data")
    data = storage.place / "store/data"
    data.mkdir(parents=True)
    (data / "f").write_text("")
    async with storage.serving():
        await storage.node.pod("p", securityContext={"fsGroup": 4321}, **claimed("data"))
        await storage.node.running("p")

        assert (data / "f").stat().st_gid == 4321
        await gone(storage, "p")


async def test_a_driver_that_gives_groups_itself_is_told_which(storage: Storage) -> None:
    await storage.describe(fsGroupPolicy="File")
    await storage.claim("data")
    async with storage.serving(groups=True) as driver:
        await storage.node.pod("p", securityContext={"fsGroup": 4321}, **claimed("data"))
        await storage.node.running("p")

        assert driver.named("NodePublishVolume")[0].volume_capability.mount.volume_mount_group == "4321"
        assert (storage.place / "store/data").stat().st_gid == 0
        await gone(storage, "p")


async def test_a_volume_without_a_type_of_file_system_keeps_its_owners(storage: Storage) -> None:
    await storage.describe(fsGroupPolicy="ReadWriteOnceWithFSType")
    await storage.claim("data")
    async with storage.serving():
        await storage.node.pod("p", securityContext={"fsGroup": 4321}, **claimed("data"))
        await storage.node.running("p")

        assert (storage.place / "store/data").stat().st_gid == 0
        await gone(storage, "p")


async def test_a_pod_brings_its_own_volume(storage: Storage) -> None:
    await storage.describe(volumeLifecycleModes=["Ephemeral"], podInfoOnMount=True)
    async with storage.serving() as driver:
        pod = await storage.node.pod("p", **inline(volumeAttributes={"size": "small"}, readOnly=True))
        await storage.node.running("p")

        published = driver.named("NodePublishVolume")[0]
        assert published.volume_id.startswith("csi-")
        assert published.readonly
        assert published.volume_context["size"] == "small"
        assert published.volume_context["csi.storage.k8s.io/ephemeral"] == "true"
        assert published.target_path.endswith(f"{pod['metadata']['uid']}/volumes/kubernetes.io~csi/v/mount")
        await gone(storage, "p")

        assert counts(driver)["NodeStageVolume"] == 0
        assert counts(driver)["NodeUnpublishVolume"] == 1
        assert storage.mounts() == []


async def test_a_driver_of_persistent_volumes_serves_no_pods_own(storage: Storage) -> None:
    await storage.describe()
    async with storage.serving():
        await storage.node.pod("p", **inline())
        await storage.node.until(lambda: "FailedMount" in storage.node.reasons("p"))

        messages = [event["message"] for event in storage.node.api.events() if event["reason"] == "FailedMount"]
        assert 'volume mode "Ephemeral" not supported by driver' in messages[0]
        await gone(storage, "p")


async def test_a_driver_in_a_container_is_told_paths_as_it_knows_them(storage: Storage) -> None:
    await storage.describe()
    await storage.claim("data")
    endpoint = f"/var/lib/kubelet/plugins/{NAME}/csi.sock"
    driver = storage.driver(endpoint=endpoint)
    driver.refuse["NodeStageVolume"] = (grpc.StatusCode.INTERNAL, "no")
    async with storage.serving(driver):
        await storage.node.pod("p", **claimed("data"))
        await storage.node.until(lambda: driver.named("NodeStageVolume"))

        told = driver.named("NodeStageVolume")[0].staging_target_path
        assert told.startswith("/var/lib/kubelet/plugins/kubernetes.io/csi/")
        await gone(storage, "p")


# Growing.


async def grown(storage: Storage, name: str, size: str) -> None:
    """What the driver's controller and external-resizer have done."""
    await storage.admin.patch(PERSISTENT_VOLUMES, f"pv-{name}", "", {"spec": {"capacity": {"storage": size}}})
    pending = {"type": "FileSystemResizePending", "status": "True"}
    status = {"conditions": [pending], "allocatedResourceStatuses": {"storage": "NodeResizePending"}}
    await storage.admin.patch(
        PERSISTENT_VOLUME_CLAIMS, name, "default", {"status": status}, kind=PatchKind.MERGE, subresource="status"
    )


async def status_of(storage: Storage, name: str) -> dict[str, Any]:
    return dict((await storage.admin.get(PERSISTENT_VOLUME_CLAIMS, name, "default"))["status"])


async def test_a_volume_grows_under_a_running_pod(storage: Storage) -> None:
    await storage.describe()
    await storage.node.restart(sync_period_s=0.1)
    await storage.claim("data")
    async with storage.serving() as driver:
        await storage.node.pod("p", **claimed("data"))
        await storage.node.running("p")
        await grown(storage, "data", "2Gi")

        async def done() -> bool:
            return (await status_of(storage, "data"))["capacity"] == {"storage": "2Gi"}

        await storage.node.until_async(done)
        status = await status_of(storage, "data")
        assert "conditions" not in status
        assert "allocatedResourceStatuses" not in status
        asked = driver.named("NodeExpandVolume")
        assert [one.capacity_range.required_bytes for one in asked] == [2 << 30]
        assert asked[0].volume_path == driver.named("NodePublishVolume")[0].target_path
        await storage.node.until(lambda: "FileSystemResizeSuccessful" in storage.node.reasons("p"))
        await gone(storage, "p")


async def test_a_volume_that_grew_while_nobody_used_it_is_big_when_the_pod_starts(storage: Storage) -> None:
    await storage.describe()
    await storage.claim("data")
    await grown(storage, "data", "2Gi")
    async with storage.serving():
        await storage.node.pod("p", **claimed("data"))
        await storage.node.running("p")

        assert (await status_of(storage, "data"))["capacity"] == {"storage": "2Gi"}
        await gone(storage, "p")


async def test_a_size_that_the_driver_calls_impossible_is_not_asked_for_again(storage: Storage) -> None:
    await storage.describe()
    await storage.claim("data")
    await grown(storage, "data", "2Gi")
    driver = storage.driver()
    driver.refuse["NodeExpandVolume"] = (grpc.StatusCode.OUT_OF_RANGE, "too big")
    async with storage.serving(driver):
        await storage.node.pod("p", **claimed("data"))
        await storage.node.running("p")

        status = await status_of(storage, "data")
        assert status["allocatedResourceStatuses"] == {"storage": "NodeResizeInfeasible"}
        assert status["capacity"] == {"storage": "1Gi"}
        messages = [e["message"] for e in storage.node.api.events() if e["reason"] == "VolumeResizeFailed"]
        assert messages == [
            'MountVolume.NodeExpandVolume failed for volume "pv-data" : rpc error: code = OutOfRange desc = too big'
        ]
        await gone(storage, "p")


async def test_drivers_that_want_to_be_asked_again_are(storage: Storage) -> None:
    await storage.describe(requiresRepublish=True)
    await storage.node.restart(sync_period_s=0.1)
    await storage.claim("data")
    async with storage.serving() as driver:
        await storage.node.pod("p", **claimed("data"))
        await storage.node.running("p")

        await storage.node.until(lambda: counts(driver)["NodePublishVolume"] >= 3)

        assert counts(driver)["NodeStageVolume"] == 1
        await gone(storage, "p")
        assert storage.mounts() == []


async def test_a_directory_that_is_not_there_is_told_of(storage: Storage) -> None:
    place = storage.place / "absent"
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}
    affinity = {"required": {"nodeSelectorTerms": [term]}}
    await storage.claim("data", local={"path": str(place)}, nodeAffinity=affinity)
    await storage.node.pod("p", **claimed("data"))

    def told() -> list[str]:
        return [event["message"] for event in storage.node.api.events() if event["reason"] == "FailedMount"]

    await storage.node.until(told)
    words = 'MountVolume.NewMounter initialization failed for volume "pv-data" : path'
    assert told()[0] == f'{words} "{place}" does not exist'

    place.mkdir()
    await storage.node.running("p")
