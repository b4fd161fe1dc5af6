"""`CSIVolumes`: a pod's volumes that CSI drivers serve: attached, staged once per node, published for each pod, and all
of it undone.

In: the pod, and the objects that say what its volume is. Out: calls to the driver, each written down before it is made
(`records.py`). Invariant: for one volume of this node one call runs at a time, and it is unstaged only when no pod on
the node uses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, name_of
from navarch.client.resources import CSI_DRIVERS, VOLUME_ATTACHMENTS
from navarch.kinds.storage.csi_names import attachment_name, unique_name
from navarch.node.plugins.sockets import PluginError
from navarch.node.volumes.base import InThread, VolumeContext, VolumeError, VolumePending, chown_group
from navarch.node.volumes.csi import records
from navarch.node.volumes.csi.driver import Driver, Use
from navarch.node.volumes.csi.drivers import Drivers
from navarch.node.volumes.csi.growing import Growing, needs_growing
from navarch.node.volumes.csi.records import Staged, Used
from navarch.node.volumes.mounts import detach, is_mount_point

log = logging.getLogger(__name__)

# How long after one look the next is taken for what a controller is doing.
_WAIT_S: Final = 0.5
_CSI: Final = "kubernetes.io/csi"
_MOUNT: Final = "MountVolume.SetUp"
_DEVICE: Final = "MountVolume.MountDevice"
_MAP: Final = "MapVolume.SetUpDevice"


class CSIVolumes:
    """`root` is the kubelet's folder, `pods` that of pods. `in_use_changed` is told when `in_use` has; `is_reported`
    says whether the Node says already that a volume is in use here, without which a controller may detach it."""

    def __init__(
        self, drivers: Drivers, growing: Growing, node_name: str, root: Path, pods: Path, in_thread: InThread
    ) -> None:
        self._drivers = drivers
        self._growing = growing
        self._node_name = node_name
        self._root = root
        self._pods = pods
        self._in_thread = in_thread
        self._locks: dict[str, _Turns] = {}
        # By pod, what has been begun for it and must be undone, whether or not it came to a publication.
        self._begun: dict[str, dict[str, Staged]] = {}
        self._in_use: set[str] = set()
        # What this kubelet has had set up; an earlier one's is set up again, which drivers take as it is.
        self._staged: set[str] = set()
        self._published: dict[Path, Path] = {}
        self.in_use_changed: Callable[[], None] = lambda: None
        self.is_reported: Callable[[str], bool] = lambda _: True

    async def prepare(self) -> None:
        """Find what an earlier kubelet had in use."""
        uses = await self._in_thread(records.all_uses, self._pods)
        self._in_use |= {used.unique_name for used in uses if used.attachment}

    def in_use(self) -> list[str]:
        """The volumes that must not be detached from this node, by their names in its status."""
        return sorted(self._in_use)

    # Setting up.

    async def publish_inline(self, context: VolumeContext, volume: Obj) -> Path:
        """A volume that the pod brings itself, and that goes with it."""
        stated, uid, name = volume["csi"], context.pod["metadata"]["uid"], volume["name"]
        driver, about = await self._driver(context, stated["driver"], "mounter.SetUpAt failed to get CSI client")
        if "Ephemeral" not in _modes(about):
            raise VolumeError(
                f'{_CSI}: mounter.SetupAt failed to check volume lifecycle mode: volume mode "Ephemeral" not supported '
                f"by driver {driver.name} (only supports {json.dumps(_modes(about))})"
            )
        use = Use(
            handle=records.inline_handle(uid, name),
            access_mode="ReadWriteOnce",
            fs_type=stated.get("fsType") or "",
            attributes=stated.get("volumeAttributes") or {},
            read_only=bool(stated.get("readOnly")),
        )
        place = records.place_of_use(self._pods / uid, name, block=False)
        used = Used(place, name, use.handle, driver.name, ephemeral=True)
        secret = stated.get("nodePublishSecretRef")
        reference = {"namespace": context.namespace, "name": secret["name"]} if secret else None
        gives_group = bool(use.fs_type) or _group_policy(about) == "File"
        async with self._turn(used.unique_name):
            return await self._publish(context, driver, about, use, used, None, reference, gives_group=gives_group)

    async def publish_persistent(self, context: VolumeContext, claimed: Obj, claim: Obj, volume: Obj) -> Path:
        """A PersistentVolume and its claim; `claimed` is how the pod asks for it."""
        source, name = volume["spec"]["csi"], name_of(volume)
        block = volume["spec"].get("volumeMode") == "Block"
        driver, about = await self._driver(
            context,
            source["driver"],
            "attacher.MountDevice failed to create newCsiDriverClient",
            operation=_MAP if block else _DEVICE,
        )
        place = records.place_of_use(self._pods / context.pod["metadata"]["uid"], name, block=block)
        used = Used(place, name, source["volumeHandle"], driver.name, self._attachment(about, source))
        modes = volume["spec"].get("accessModes") or ["ReadWriteOnce"]
        use = Use(
            handle=used.handle,
            access_mode=modes[0],
            block=block,
            fs_type=source.get("fsType") or "",
            mount_options=volume["spec"].get("mountOptions") or (),
            attributes=source.get("volumeAttributes") or {},
            read_only=bool(claimed.get("readOnly")),
        )
        known = self._published.get(place)
        if known is not None and not (about or {}).get("spec", {}).get("requiresRepublish"):
            async with self._turn(used.unique_name):
                await self._grow(context, driver, use, claim, volume, known)
            return known
        staged = Staged(self._staging(used).parent, used.handle, used.driver)
        self._begun.setdefault(used.pod, {})[used.unique_name] = staged
        if used.attachment:
            use = replace(use, publish_context=await self._attached(context, used))
        async with self._turn(used.unique_name):
            staging = await self._stage(context, driver, about, use, used, source)
            gives_group = _gives_group(about, use.fs_type, modes)
            secret = source.get("nodePublishSecretRef")
            path = await self._publish(context, driver, about, use, used, staging, secret, gives_group=gives_group)
            await self._grow(context, driver, use, claim, volume, path)
            return path

    async def _grow(
        self, context: VolumeContext, driver: Driver, use: Use, claim: Obj, volume: Obj, path: Path
    ) -> None:
        """Let the file system follow its volume."""
        source = volume["spec"]["csi"]
        secrets: dict[str, str] = {}
        if needs_growing(claim, (volume["spec"].get("capacity") or {}).get("storage") or "0"):
            what = "NodeExpandSecretRef"
            secrets = await self._secrets(
                context, source.get("nodeExpandSecretRef"), what, "MountVolume.NodeExpandVolume"
            )
        staging = records.staging_path(self._root, driver.name, use.handle)
        staged = unique_name(driver.name, use.handle) in self._staged
        await self._growing.grow(driver, use, context.pod, claim, volume, path, staging if staged else None, secrets)

    def _attachment(self, about: Obj | None, source: Obj) -> str:
        """The name of the VolumeAttachment that has to be there; empty for a driver that attaches nothing."""
        if about is not None and not about["spec"].get("attachRequired", True):
            return ""
        return attachment_name(source["volumeHandle"], source["driver"], self._node_name)

    async def _driver(
        self, context: VolumeContext, name: str, doing: str, *, operation: str = _MOUNT
    ) -> tuple[Driver, Obj | None]:
        driver = self._drivers.get(name)
        if driver is None:
            why = f"driver name {name} not found in the list of registered CSI drivers"
            raise VolumeError(f"{_CSI}: {doing}: {why}", operation=operation)
        return driver, await context.source.get(CSI_DRIVERS, "", name)

    async def _attached(self, context: VolumeContext, used: Used) -> Mapping[str, str]:
        """What the driver's controller said when it attached the volume.  Raises VolumePending until it has."""
        if used.unique_name not in self._in_use:
            self._in_use.add(used.unique_name)
            self.in_use_changed()
        if not self.is_reported(used.unique_name):
            raise VolumePending("the node has not said yet that it uses the volume", wait_s=_WAIT_S)
        try:
            attachment = await context.source.get(VOLUME_ATTACHMENTS, "", used.attachment)
        except StatusError as error:
            # One that is not there has no node that may see it.
            if error.code != 403:
                raise
            attachment = None
        status = (attachment or {}).get("status") or {}
        if attachment is None or attachment["metadata"].get("deletionTimestamp") or not status.get("attached"):
            raise VolumePending(f"volume {used.spec} is not attached to the node yet", wait_s=_WAIT_S)
        return dict(status.get("attachmentMetadata") or {})

    async def _stage(
        self, context: VolumeContext, driver: Driver, about: Obj | None, use: Use, used: Used, source: Obj
    ) -> Path | None:
        """Where the volume is staged; None of a driver that does not."""
        operation = _MAP if use.block else _DEVICE
        try:
            if not await driver.stages():
                return None
            staging = records.staging_path(self._root, driver.name, use.handle)
            if used.unique_name in self._staged:
                return staging
            secrets = await self._secrets(context, source.get("nodeStageSecretRef"), "NodeStageSecretRef", operation)
            group = context.fs_group if await driver.sets_group() else None
            staged = Staged(staging.parent, use.handle, driver.name)
            await self._in_thread(staged.save)
            await self._in_thread(staging.mkdir, mode=0o750, exist_ok=True)
            try:
                await driver.stage(replace(use, group=group), staging, secrets)
            except PluginError as error:
                if error.final and not await self._in_thread(is_mount_point, staging):
                    await self._in_thread(staged.remove)
                raise
        except PluginError as error:
            raise VolumeError(str(error), operation=operation) from error
        self._staged.add(used.unique_name)
        return staging

    async def _publish(
        self,
        context: VolumeContext,
        driver: Driver,
        about: Obj | None,
        use: Use,
        used: Used,
        staging: Path | None,
        secret: Obj | None,
        *,
        gives_group: bool,
    ) -> Path:
        target = self._target(used)
        attributes = {**use.attributes, **await self._told_of_pod(context, about, used)}
        secrets = await self._secrets(context, secret, "NodePublishSecretRef", _MOUNT)
        await self._in_thread(used.save, self._node_name)
        await self._in_thread(target.parent.mkdir, mode=0o750, parents=True, exist_ok=True)
        try:
            takes_group = await driver.sets_group()
            group = context.fs_group if takes_group else None
            await driver.publish(replace(use, attributes=attributes, group=group), target, staging, secrets)
        except PluginError as error:
            if error.final and used.place not in self._published:
                await self._in_thread(_let_go, target)
                await self._in_thread(used.remove)
            raise VolumeError(str(error), operation=_MAP if use.block else _MOUNT) from error
        first = used.place not in self._published
        wanted = context.fs_group
        if first and wanted is not None and gives_group and not (takes_group or use.read_only or use.block):
            await self._in_thread(_give, target, wanted, context.regroups_always)
        self._published[used.place] = target
        return target

    def _target(self, used: Used) -> Path:
        if used.block:
            return records.device_path(self._root, used.spec, used.pod)
        return used.place / "mount"

    async def _told_of_pod(self, context: VolumeContext, about: Obj | None, used: Used) -> dict[str, str]:
        """What the driver wants to know of the pod: who it is, and tokens of its account."""
        spec = (about or {}).get("spec") or {}
        metadata = context.pod["metadata"]
        account = context.pod["spec"].get("serviceAccountName") or "default"
        told = {}
        if spec.get("podInfoOnMount"):
            told = {
                "csi.storage.k8s.io/pod.name": name_of(context.pod),
                "csi.storage.k8s.io/pod.namespace": context.namespace,
                "csi.storage.k8s.io/pod.uid": metadata["uid"],
                "csi.storage.k8s.io/serviceAccount.name": account,
                "csi.storage.k8s.io/ephemeral": "true" if used.ephemeral else "false",
            }
        tokens = {}
        for request in spec.get("tokenRequests") or ():
            audience = request.get("audience") or ""
            token = await context.source.issued(context.pod, audience, int(request.get("expirationSeconds") or 3600))
            tokens[audience] = {"token": token.value, "expirationTimestamp": token.expires}
        if tokens:
            told["csi.storage.k8s.io/serviceAccount.tokens"] = json.dumps(tokens, separators=(",", ":"))
        return told

    @staticmethod
    async def _secrets(context: VolumeContext, reference: Obj | None, what: str, operation: str) -> dict[str, str]:
        if not reference:
            return {}
        namespace, name = reference.get("namespace") or context.namespace, reference["name"]
        found = await context.source.secret(namespace, name)
        if found is None:
            why = f'secrets "{name}" not found'
            raise VolumeError(f"fetching {what} {namespace}/{name} failed: {why}", operation=operation)
        return records.decoded(found.get("data") or {})

    # Taking away.

    async def unpublish(self, uid: str) -> None:
        """Take away what a pod has. Idempotent.  Raises VolumeError where a driver is away or refuses."""
        for used in await self._in_thread(records.uses_of_pod, self._pods / uid):
            async with self._turn(used.unique_name):
                driver = self._needed(used.driver)
                target = self._target(used)
                try:
                    await driver.unpublish(used.handle, target)
                except PluginError as error:
                    raise VolumeError(f"{_CSI}: Unmounter.TearDownAt failed: {error}") from error
                await self._in_thread(_let_go, target)
                self._published.pop(used.place, None)
                await self._in_thread(used.remove)
            if not used.ephemeral:
                staged = Staged(self._staging(used).parent, used.handle, used.driver)
                self._begun.setdefault(uid, {})[used.unique_name] = staged
        begun = self._begun.get(uid, {})
        for name, staged in list(begun.items()):
            async with self._turn(name):
                del begun[name]
                try:
                    await self._unstage_unused(staged)
                except BaseException:
                    begun[name] = staged
                    raise
        self._begun.pop(uid, None)

    async def tidy(self) -> None:
        """Unstage what no pod uses: the pods went while no kubelet ran."""
        for staged in await self._in_thread(records.all_staged, self._root):
            if self._drivers.get(staged.driver) is None:
                continue
            async with self._turn(unique_name(staged.driver, staged.handle)):
                try:
                    await self._unstage_unused(staged)
                except VolumeError as error:
                    log.warning("%s", error)

    async def _unstage_unused(self, staged: Staged) -> None:
        name = unique_name(staged.driver, staged.handle)
        others = await self._in_thread(records.all_uses, self._pods)
        if any(other.unique_name == name for other in others) or any(name in begun for begun in self._begun.values()):
            return
        staging = staged.place / "globalmount"
        if await self._in_thread((staged.place / records.FILE).exists):
            try:
                await self._needed(staged.driver).unstage(staged.handle, staging)
            except PluginError as error:
                raise VolumeError(f"{_CSI}: attacher.UnmountDevice failed: {error}") from error
            await self._in_thread(_let_go, staging)
            await self._in_thread(staged.remove)
        self._staged.discard(name)
        if name in self._in_use:
            self._in_use.discard(name)
            self.in_use_changed()

    def _staging(self, used: Used) -> Path:
        return records.staging_path(self._root, used.driver, used.handle)

    def _needed(self, name: str) -> Driver:
        driver = self._drivers.get(name)
        if driver is None:
            raise VolumeError(f"{_CSI}: driver name {name} not found in the list of registered CSI drivers")
        return driver

    @contextlib.asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[None]:
        """Be the only one who does something with the volume."""
        turns = self._locks.setdefault(name, _Turns())
        turns.waiting += 1
        try:
            async with turns.lock:
                yield
        finally:
            turns.waiting -= 1
            if not turns.waiting:
                self._locks.pop(name, None)


@dataclass(slots=True)
class _Turns:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


def _modes(about: Obj | None) -> list[str]:
    """Of a driver that says nothing of itself Kubernetes takes it that volumes are persistent."""
    return ((about or {}).get("spec") or {}).get("volumeLifecycleModes") or ["Persistent"]


def _group_policy(about: Obj | None) -> str:
    return ((about or {}).get("spec") or {}).get("fsGroupPolicy") or "ReadWriteOnceWithFSType"


def _gives_group(about: Obj | None, fs_type: str, modes: list[str]) -> bool:
    """Whether the kubelet gives the volume's files to the pod's group."""
    policy = _group_policy(about)
    if policy == "ReadWriteOnceWithFSType":
        return bool(fs_type) and not {"ReadWriteOnce", "ReadWriteOncePod"}.isdisjoint(modes)
    return policy == "File"


def _give(path: Path, group: int, always: bool) -> None:
    status = path.stat()
    if always or status.st_gid != group or not status.st_mode & 0o2000:
        chown_group(path, group)


def _let_go(target: Path) -> None:
    """Take away what a driver left at a place that it was to clear."""
    while is_mount_point(target) and detach(target):
        pass
    if target.is_symlink() or target.is_file():
        target.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        os.rmdir(target)
