"""`Drivers`: the CSI drivers that are registered on this node, and what the cluster is told of them.

In: plugins that register and go (`plugins/registry.py`). Out: CSINode, with a driver's id for this node, its limit and
the keys of its topology; the Node's labels of these keys and its annotation of ids, as sidecars and the scheduler look
for them.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Final

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, annotations_of, labels_of
from navarch.client.base import Client, PatchKind
from navarch.client.resources import CSI_NODES, NODES
from navarch.node.plugins.registry import Plugin, PluginRefused, supports
from navarch.node.volumes.csi.driver import Driver, NodeInfo

log = logging.getLogger(__name__)

_NODE_ID: Final = "csi.volume.kubernetes.io/nodeid"
_TRIES: Final = 8
_RETRY_S: Final = 1.0


class Drivers:
    """A `PluginHandler`. `root` is the kubelet's folder."""

    def __init__(self, client: Client, node_name: str, root: Path) -> None:
        self._client = client
        self._node_name = node_name
        self._root = root
        self._drivers: dict[str, Driver] = {}
        # Both objects are read, changed and written: one after another.
        self._writing = asyncio.Lock()

    def get(self, name: str) -> Driver | None:
        return self._drivers.get(name)

    async def prepare(self) -> None:
        """Have a CSINode, which the scheduler takes for the word that this node knows of drivers."""
        while True:
            try:
                async with self._writing:
                    await self._csi_node()
                return
            except (StatusError, OSError) as error:
                log.debug("CSINode: %s", error)
                await asyncio.sleep(_RETRY_S)

    # Registration.

    async def register(self, plugin: Plugin) -> None:
        if not supports(plugin.versions, 1):
            stated = ", ".join(plugin.versions)
            raise PluginRefused(
                f"failed to get highest supported version: None of the CSI versions reported by this driver are "
                f"supported: [{stated}]"
            )
        driver = Driver(plugin.name, plugin.endpoint, self._root)
        try:
            info = await driver.info()
            if not info.node_id:
                raise PluginRefused(f"error adding CSI driver node info: nodeID of {plugin.name} is empty")
            async with self._writing:
                await self._publish(plugin.name, info)
        except (StatusError, OSError) as error:
            await driver.close()
            raise PluginRefused(f"error updating CSINode object with CSI driver node info: {error}") from error
        except BaseException:
            await driver.close()
            raise
        old = self._drivers.get(plugin.name)
        self._drivers[plugin.name] = driver
        if old is not None:
            await old.close()
        log.info("CSI driver %s at %s", plugin.name, plugin.endpoint)

    async def deregister(self, plugin: Plugin) -> None:
        driver = self._drivers.get(plugin.name)
        if driver is None or driver.endpoint != plugin.endpoint:
            return
        del self._drivers[plugin.name]
        await driver.close()
        async with self._writing:
            await self._withdraw(plugin.name)

    async def close(self) -> None:
        for driver in self._drivers.values():
            await driver.close()

    # What the cluster is told.

    async def _publish(self, name: str, info: NodeInfo) -> None:
        node = await self._client.get(NODES, self._node_name)
        ids = _ids(node)
        labels = {key: value for key, value in info.topology.items() if labels_of(node).get(key) != value}
        if labels or ids.get(name) != info.node_id:
            noted = json.dumps({**ids, name: info.node_id}, separators=(",", ":"), sort_keys=True)
            patch = {"metadata": {"labels": labels, "annotations": {_NODE_ID: noted}}}
            await self._client.patch(NODES, self._node_name, "", patch, kind=PatchKind.MERGE)
        entry: Obj = {"name": name, "nodeID": info.node_id, "topologyKeys": sorted(info.topology) or None}
        if info.max_volumes > 0:
            entry["allocatable"] = {"count": info.max_volumes}
        await self._write_drivers(name, {key: value for key, value in entry.items() if value is not None})

    async def _withdraw(self, name: str) -> None:
        await self._write_drivers(name, None)
        node = await self._client.find(NODES, self._node_name)
        if node is None:
            return
        ids = _ids(node)
        if ids.pop(name, None) is not None:
            noted = json.dumps(ids, separators=(",", ":"), sort_keys=True) if ids else None
            patch = {"metadata": {"annotations": {_NODE_ID: noted}}}
            await self._client.patch(NODES, self._node_name, "", patch, kind=PatchKind.MERGE)

    async def _csi_node(self) -> Obj:
        found = await self._client.find(CSI_NODES, self._node_name)
        if found is not None:
            return found
        node = await self._client.get(NODES, self._node_name)
        owner = {"apiVersion": "v1", "kind": "Node", "name": self._node_name, "uid": node["metadata"]["uid"]}
        metadata = {"name": self._node_name, "ownerReferences": [owner]}
        made = {"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": metadata, "spec": {"drivers": []}}
        return await self._client.create(CSI_NODES, made)

    async def _write_drivers(self, name: str, entry: Obj | None) -> None:
        """Have this entry for the driver, or none, whoever else writes meanwhile."""
        for left in reversed(range(_TRIES)):
            try:
                found = await self._csi_node()
                drivers = found["spec"].get("drivers") or []
                wanted = [one for one in drivers if one["name"] != name]
                if entry is not None:
                    wanted.append(entry)
                if wanted != drivers:
                    await self._client.update(CSI_NODES, {**found, "spec": {**found["spec"], "drivers": wanted}})
                return
            except StatusError as error:
                if error.code not in (404, 409) or not left:
                    raise


def _ids(node: Obj) -> dict[str, str]:
    """Drivers' ids for the node, as its annotation has them."""
    try:
        stated = json.loads(annotations_of(node).get(_NODE_ID) or "{}")
    except ValueError:
        return {}
    return stated if isinstance(stated, dict) else {}
