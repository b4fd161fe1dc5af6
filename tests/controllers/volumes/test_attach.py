"""Volumes are attached to the nodes whose pods use them, one at a time where they must, and let go of in time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from navarch.api.meta import Obj, name_of
from navarch.client.base import PatchKind
from navarch.client.resources import (
    CSI_DRIVERS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    VOLUME_ATTACHMENTS,
)
from navarch.controllers.base import ControllerConfig
from navarch.kinds.storage.csi_names import attachment_name, unique_name
from tests.clocks import SteppedClock
from tests.controllers.conftest import Cluster, node, running
from tests.controllers.volumes.objects import claim, volume

DRIVER = "disks.example.com"
NAME = "data"


class Disks:
    """A cluster with the claim `data`, and what attacher and kubelets would do."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.client = cluster.client

    async def prepare(self, *nodes: str, modes: tuple[str, ...] = ("ReadWriteOnce",)) -> None:
        for name in nodes:
            made = node(name)
            made["metadata"]["annotations"] = {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
            await self.client.create(NODES, made)
        source = {"driver": DRIVER, "volumeHandle": "h"}
        offered = volume("disk", csi=source, accessModes=list(modes))
        del offered["spec"]["hostPath"]
        await self.client.create(PERSISTENT_VOLUMES, offered)
        await self.client.create(PERSISTENT_VOLUME_CLAIMS, claim(NAME, accessModes=list(modes)))
        await self.cluster.until_status(PERSISTENT_VOLUME_CLAIMS, NAME, phase="Bound")

    async def pod(self, name: str, on: str) -> None:
        spec = {
            "nodeName": on,
            "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": NAME}}],
        }
        made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}
        await self.client.create(PODS, made)

    async def delete(self, name: str) -> None:
        await self.client.delete(PODS, name, "default", grace_s=0)

    async def attachments(self) -> dict[str, Obj]:
        """By node."""
        return {one["spec"]["nodeName"]: one for one in (await self.client.list(VOLUME_ATTACHMENTS)).items}

    async def until_on(self, *nodes: str) -> dict[str, Obj]:
        async def there() -> bool:
            return sorted(await self.attachments()) == sorted(nodes)

        await self.cluster.until(there)
        return await self.attachments()

    async def attached(self, on: str) -> None:
        """The driver's attacher has done its work."""
        one = (await self.until_on(on))[on]
        await self.client.update(VOLUME_ATTACHMENTS, {**one, "status": {"attached": True}}, subresource="status")

    async def says(self, name: str, **status: Any) -> None:
        await self.client.patch(NODES, name, "", {"status": status}, kind=PatchKind.MERGE, subresource="status")

    async def until_event(self, pod: str, reason: str) -> str:
        async def told() -> str:
            return next((words for why, words in await self.cluster.events(pod) if why == reason), "")

        found: str = await self.cluster.until(told)
        return found


async def test_a_volume_is_attached_for_a_pod_and_let_go_after_it() -> None:
    async with running(kubelet=False) as cluster:
        disks = Disks(cluster)
        await disks.prepare("n2")
        await disks.pod("p", "n2")

        one = (await disks.until_on("n2"))["n2"]
        assert name_of(one) == attachment_name("h", DRIVER, "n2")
        source = {"persistentVolumeName": "disk"}
        assert one["spec"] == {"attacher": DRIVER, "nodeName": "n2", "source": source}
        await disks.attached("n2")
        assert await disks.until_event("p", "SuccessfulAttachVolume") == (
            'AttachVolume.Attach succeeded for volume "disk" '
        )

        async def said() -> bool:
            listed = ((await cluster.get(NODES, "n2")).get("status") or {}).get("volumesAttached")
            return bool(listed == [{"name": unique_name(DRIVER, "h"), "devicePath": ""}])

        await cluster.until(said)
        await disks.delete("p")

        await disks.until_on()
        assert not (await cluster.get(NODES, "n2"))["status"].get("volumesAttached")


async def test_a_driver_that_attaches_nothing_is_left_alone() -> None:
    async with running(kubelet=False) as cluster:
        disks = Disks(cluster)
        await cluster.create(CSI_DRIVERS, {"metadata": {"name": DRIVER}, "spec": {"attachRequired": False}})
        await disks.prepare("n2")
        await disks.pod("p", "n2")
        attacher = next(c for c in cluster.manager.controllers if c.name == "attachdetach")

        async def looked() -> bool:
            return bool(attacher.metrics.reconciles) and bool(await cluster.get(PODS, "p"))

        await cluster.until(looked)
        assert await disks.attachments() == {}


async def test_a_volume_for_one_node_goes_to_the_second_when_it_has_left_the_first() -> None:
    async with running(kubelet=False) as cluster:
        disks = Disks(cluster)
        await disks.prepare("n2", "n3")
        await disks.pod("p", "n2")
        await disks.attached("n2")
        await disks.pod("q", "n3")

        assert await disks.until_event("q", "FailedAttachVolume") == (
            'Multi-Attach error for volume "disk" Volume is already used by pod(s) p'
        )
        await disks.delete("p")

        await disks.until_on("n3")


async def test_a_volume_for_many_nodes_is_attached_to_each() -> None:
    async with running(kubelet=False) as cluster:
        disks = Disks(cluster)
        await disks.prepare("n2", "n3", modes=("ReadWriteMany",))
        await disks.pod("p", "n2")
        await disks.pod("q", "n3")

        await disks.until_on("n2", "n3")


async def test_what_the_attacher_complains_of_is_told() -> None:
    async with running(kubelet=False) as cluster:
        disks = Disks(cluster)
        await disks.prepare("n2")
        await disks.pod("p", "n2")
        one = (await disks.until_on("n2"))["n2"]
        status = {"attached": False, "attachError": {"message": "no slot", "time": "2026-01-01T00:00:00Z"}}
        await cluster.client.update(VOLUME_ATTACHMENTS, {**one, "status": status}, subresource="status")

        message = await disks.until_event("p", "FailedAttachVolume")

        assert message == 'AttachVolume.Attach failed for volume "disk" : no slot'


async def test_a_volume_in_use_stays_attached_until_the_node_lets_go() -> None:
    async with running(kubelet=False) as cluster:
        disks = Disks(cluster)
        await disks.prepare("n2")
        await disks.pod("p", "n2")
        await disks.attached("n2")
        await disks.says("n2", volumesInUse=[unique_name(DRIVER, "h")])
        attacher = next(c for c in cluster.manager.controllers if c.name == "attachdetach")

        async def noticed() -> bool:
            return unique_name(DRIVER, "h") in attacher._in_use["n2"]

        await cluster.until(noticed)
        before = attacher.metrics.reconciles
        await disks.delete("p")

        async def looked() -> bool:
            return attacher.metrics.reconciles > before

        await cluster.until(looked)
        assert list(await disks.attachments()) == ["n2"]
        await disks.says("n2", volumesInUse=None)

        await disks.until_on()


async def test_a_node_out_of_service_loses_its_volumes_at_once() -> None:
    async with running(kubelet=False) as cluster:
        disks = Disks(cluster)
        await disks.prepare("n2")
        await disks.pod("p", "n2")
        await disks.attached("n2")
        await disks.says("n2", volumesInUse=[unique_name(DRIVER, "h")])
        taint = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
        await cluster.patch(NODES, "n2", {"spec": {"taints": [taint]}})
        await disks.delete("p")

        await disks.until_on()


async def test_a_node_that_is_unwell_for_six_minutes_loses_its_volumes() -> None:
    clock = SteppedClock()
    config = ControllerConfig(disabled=frozenset({"node-lifecycle", "taint-eviction", "pod-garbage-collector"}))
    async with running(config, kubelet=False, clock=clock) as cluster:
        disks = Disks(cluster)
        await disks.prepare("n2")
        await disks.pod("p", "n2")
        await disks.attached("n2")
        await disks.says("n2", volumesInUse=[unique_name(DRIVER, "h")])
        unwell = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
        await disks.says("n2", conditions=[unwell])
        await disks.delete("p")
        attacher = next(c for c in cluster.manager.controllers if c.name == "attachdetach")

        async def waits() -> bool:
            return attachment_name("h", DRIVER, "n2") in attacher._unwanted

        await cluster.until(waits)
        assert list(await disks.attachments()) == ["n2"]
        clock.ahead = timedelta(seconds=361)
        # Its next look, for which it would wait half a minute.
        await cluster.patch(NODES, "n2", {"spec": {"taints": [{"key": "example.com/x", "effect": "NoSchedule"}]}})

        await disks.until_on()
