"""What external-provisioner, -attacher and -resizer do beside a CSI driver, as far as the cluster sees it.

They know the cluster only through its API and the driver only through its socket, as the real ones do.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from navarch.api import quantity
from navarch.api.errors import StatusError
from navarch.api.meta import Obj, annotations_of, is_deleting, labels_of, name_of
from navarch.client.base import Client, PatchKind
from navarch.client.config import load_kubeconfig
from navarch.client.resources import (
    CSI_NODES,
    CSI_STORAGE_CAPACITIES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
    VOLUME_ATTACHMENTS,
)
from navarch.node.plugins.sockets import PluginChannel, PluginError
from navarch.node.volumes.csi.proto import csi_pb2 as csi
from tests.csi_driver import DirectoryDriver

_LOOK_EVERY_S = 0.1
_SERVICE = "/csi.v1.Controller/"
_SELECTED = "volume.kubernetes.io/selected-node"
_PROVISIONER = "volume.kubernetes.io/storage-provisioner"
_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"


class Sidecars:
    """`run` looks every tenth of a second at all that is there: tests have little."""

    def __init__(self, client: Client, driver: str, socket: Path) -> None:
        self._client = client
        self._driver = driver
        self._channel = PluginChannel(socket)
        self.errors: list[str] = []

    async def __aenter__(self) -> Sidecars:
        self._task = asyncio.create_task(self.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._channel.close()

    async def run(self) -> None:
        while True:
            await self._each(await self._all(PERSISTENT_VOLUME_CLAIMS), self._provision)
            await self._each(await self._all(PERSISTENT_VOLUMES), self._reclaim)
            await self._each(await self._all(VOLUME_ATTACHMENTS), self._attach)
            await self._each(await self._all(PERSISTENT_VOLUME_CLAIMS), self._resize)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _all(self, resource: Any) -> list[Obj]:
        return (await self._client.list(resource)).items

    async def _each(self, objects: list[Obj], do: Callable[[Obj], Awaitable[None]]) -> None:
        for obj in objects:
            try:
                await do(obj)
            except (StatusError, PluginError) as error:
                self.errors.append(str(error))

    async def _call(self, method: str, request: Any) -> Any:
        answer = getattr(csi, f"{method}Response")
        return await self._channel.call(_SERVICE + method, request, answer.FromString, timeout_s=10)

    # Provisioner.

    async def _provision(self, claim: Obj) -> None:
        if annotations_of(claim).get(_PROVISIONER) != self._driver or claim["spec"].get("volumeName"):
            return
        storage_class = await self._client.get(STORAGE_CLASSES, claim["spec"]["storageClassName"])
        selected = annotations_of(claim).get(_SELECTED)
        if storage_class.get("volumeBindingMode") == "WaitForFirstConsumer" and not selected:
            return
        name = f"pvc-{claim['metadata']['uid']}"
        asked = claim["spec"]["resources"]["requests"]["storage"]
        request = csi.CreateVolumeRequest(
            name=name,
            capacity_range=csi.CapacityRange(required_bytes=quantity.value(asked)),
            parameters=storage_class.get("parameters") or {},
        )
        request.accessibility_requirements.CopyFrom(await self._requirement(selected))
        source = claim["spec"].get("dataSource") or {}
        if source.get("kind") == "PersistentVolumeClaim":
            request.volume_content_source.volume.volume_id = await self._handle_of(claim, source["name"])
        volume = (await self._call("CreateVolume", request)).volume
        await self._client.create(PERSISTENT_VOLUMES, self._volume(claim, storage_class, name, asked, volume))

    async def _requirement(self, node: str | None) -> csi.TopologyRequirement:
        if not node:
            return csi.TopologyRequirement()
        about = await self._client.get(CSI_NODES, node)
        labels = labels_of(await self._client.get(NODES, node))
        keys = next(
            (one.get("topologyKeys") or [] for one in about["spec"]["drivers"] if one["name"] == self._driver), []
        )
        topology = csi.Topology(segments={key: labels[key] for key in keys})
        return csi.TopologyRequirement(requisite=[topology], preferred=[topology])

    async def _handle_of(self, claim: Obj, name: str) -> str:
        origin = await self._client.get(PERSISTENT_VOLUME_CLAIMS, name, claim["metadata"]["namespace"])
        volume = await self._client.get(PERSISTENT_VOLUMES, origin["spec"]["volumeName"])
        return str(volume["spec"]["csi"]["volumeHandle"])

    def _volume(self, claim: Obj, storage_class: Obj, name: str, size: str, volume: Any) -> Obj:
        spec: Obj = {
            "capacity": {"storage": size},
            "accessModes": claim["spec"]["accessModes"],
            "volumeMode": claim["spec"].get("volumeMode") or "Filesystem",
            "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy") or "Delete",
            "storageClassName": name_of(storage_class),
            "csi": {
                "driver": self._driver,
                "volumeHandle": volume.volume_id,
                "volumeAttributes": dict(volume.volume_context),
            },
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": claim["metadata"]["namespace"],
                "name": name_of(claim),
                "uid": claim["metadata"]["uid"],
            },
        }
        terms = [
            {
                "matchExpressions": [
                    {"key": key, "operator": "In", "values": [value]} for key, value in sorted(one.segments.items())
                ]
            }
            for one in volume.accessible_topology
        ]
        if terms:
            spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": terms}}
        return {"metadata": {"name": name, "annotations": {_PROVISIONED_BY: self._driver}}, "spec": spec}

    async def _reclaim(self, volume: Obj) -> None:
        spec = volume["spec"]
        ours = annotations_of(volume).get(_PROVISIONED_BY) == self._driver
        released = (volume.get("status") or {}).get("phase") == "Released"
        if not ours or not released or spec.get("persistentVolumeReclaimPolicy") != "Delete" or is_deleting(volume):
            return
        if any(
            one["spec"]["source"].get("persistentVolumeName") == name_of(volume)
            for one in await self._all(VOLUME_ATTACHMENTS)
        ):
            return
        await self._call("DeleteVolume", csi.DeleteVolumeRequest(volume_id=spec["csi"]["volumeHandle"]))
        await self._client.delete(PERSISTENT_VOLUMES, name_of(volume))

    async def publish_capacity(self, namespace: str, storage_class: str, labels: dict[str, str], capacity: str) -> None:
        """What the provisioner says of the room that there is in one place."""
        made = {
            "metadata": {"name": f"csisc-{storage_class}-{'-'.join(labels.values())}", "namespace": namespace},
            "storageClassName": storage_class,
            "nodeTopology": {"matchLabels": labels},
            "capacity": capacity,
        }
        await self._client.create(CSI_STORAGE_CAPACITIES, made, namespace=namespace)

    # Attacher.

    async def _attach(self, attachment: Obj) -> None:
        if attachment["spec"]["attacher"] != self._driver:
            return
        finalizer = f"external-attacher/{self._driver.replace('.', '-')}"
        finalizers = attachment["metadata"].get("finalizers") or []
        volume = await self._client.get(PERSISTENT_VOLUMES, attachment["spec"]["source"]["persistentVolumeName"])
        handle, node = volume["spec"]["csi"]["volumeHandle"], await self._node_id(attachment["spec"]["nodeName"])
        if is_deleting(attachment):
            await self._call(
                "ControllerUnpublishVolume", csi.ControllerUnpublishVolumeRequest(volume_id=handle, node_id=node)
            )
            metadata = {**attachment["metadata"], "finalizers": [one for one in finalizers if one != finalizer]}
            await self._client.update(VOLUME_ATTACHMENTS, {**attachment, "metadata": metadata})
            return
        if finalizer not in finalizers:
            metadata = {**attachment["metadata"], "finalizers": [*finalizers, finalizer]}
            attachment = await self._client.update(VOLUME_ATTACHMENTS, {**attachment, "metadata": metadata})
        if (attachment.get("status") or {}).get("attached"):
            return
        answer = await self._call(
            "ControllerPublishVolume", csi.ControllerPublishVolumeRequest(volume_id=handle, node_id=node)
        )
        status = {"attached": True, "attachmentMetadata": dict(answer.publish_context)}
        await self._client.update(VOLUME_ATTACHMENTS, {**attachment, "status": status}, subresource="status")

    async def _node_id(self, node: str) -> str:
        about = await self._client.get(CSI_NODES, node)
        return str(next(one["nodeID"] for one in about["spec"]["drivers"] if one["name"] == self._driver))

    # Resizer.

    async def _resize(self, claim: Obj) -> None:
        if not claim["spec"].get("volumeName") or (claim.get("status") or {}).get("phase") != "Bound":
            return
        volume = await self._client.get(PERSISTENT_VOLUMES, claim["spec"]["volumeName"])
        asked = claim["spec"]["resources"]["requests"]["storage"]
        has = volume["spec"]["capacity"]["storage"]
        if (volume["spec"].get("csi") or {}).get("driver") != self._driver or quantity.parse(asked) <= quantity.parse(
            has
        ):
            return
        request = csi.ControllerExpandVolumeRequest(
            volume_id=volume["spec"]["csi"]["volumeHandle"],
            capacity_range=csi.CapacityRange(required_bytes=quantity.value(asked)),
        )
        answer = await self._call("ControllerExpandVolume", request)
        pending = {"type": "FileSystemResizePending", "status": "True"}
        state = "NodeResizePending"
        status: Obj = {"conditions": [pending], "allocatedResourceStatuses": {"storage": state}}
        if not answer.node_expansion_required:
            status = {"capacity": {"storage": asked}}
        await self._client.patch(
            PERSISTENT_VOLUME_CLAIMS,
            name_of(claim),
            claim["metadata"]["namespace"],
            {"status": status},
            kind=PatchKind.MERGE,
            subresource="status",
        )
        await self._client.patch(PERSISTENT_VOLUMES, name_of(volume), "", {"spec": {"capacity": {"storage": asked}}})


LIMIT: Final = 3
"""So many volumes fit on a node."""


async def _serve(kubeconfig: Path, kubelet: Path, store: Path, name: str) -> None:
    client = Client(load_kubeconfig(kubeconfig))
    driver = DirectoryDriver(store, kubelet, name=name, topology={f"{name}/host": "here"}, limit=LIMIT)
    try:
        async with driver, Sidecars(client, name, driver.socket):
            await asyncio.Event().wait()
    finally:
        driver.free_devices()
        await client.close()


if __name__ == "__main__":
    # A driver with its sidecars as a process of its own: kubeconfig, the kubelet's folder, a place for volumes, a name.
    asyncio.run(_serve(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]))
