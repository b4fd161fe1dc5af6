"""A pod's volumes as a whole: each has its own retry, and disks keep nobody else waiting."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from navarch.api.meta import Obj, Resource
from navarch.node.config import KubeletConfig
from navarch.node.containerd import unmount_below
from navarch.node.fieldref import PodFacts
from navarch.node.volumes import host_path
from navarch.node.volumes import manager as module
from navarch.node.volumes.base import VolumeError
from navarch.node.volumes.manager import VolumeManager
from navarch.node.volumes.mounts import mount
from navarch.world import RealWorld
from tests.node.objects import NOW, pod

FACTS = PodFacts(("10.0.0.1",), ("192.0.2.1",), {})


class Moment(RealWorld):
    """Real threads; time passes when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds_s = 100.0

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return self.seconds_s


class Objects:
    """Where volumes find objects; counts what is asked for."""

    def __init__(self) -> None:
        self.config_maps: dict[str, Obj] = {}
        self.asked: list[str] = []
        self.trust_bundles: list[Obj] = []

    async def config_map(self, namespace: str, name: str) -> Obj | None:
        self.asked.append(name)
        return self.config_maps.get(name)

    async def secret(self, namespace: str, name: str) -> Obj | None:
        return None

    async def token(self, pod: Obj, audience: str, expiration_s: int) -> str:
        return "token"

    async def listed(self, resource: Resource, fields: str) -> list[Obj]:
        return [one for one in self.trust_bundles if f"spec.signerName={one['spec'].get('signerName', '')}" == fields]

    async def get(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        return next((one for one in self.trust_bundles if one["metadata"]["name"] == name), None)


@pytest.fixture
def config(tmp_path: Path) -> Iterator[KubeletConfig]:
    yield KubeletConfig(node_name="n1", data=tmp_path / "data", runtime_socket=tmp_path / "none.sock")
    unmount_below([tmp_path])


def settings(name: str) -> Obj:
    return {"name": name, "configMap": {"name": name}}


async def failure(volumes: VolumeManager, of: Obj) -> VolumeError:
    with pytest.raises(VolumeError) as caught:
        await volumes.publish(of, FACTS)
    return caught.value


async def test_a_volume_that_fails_waits_longer_each_time_and_the_others_are_published(config: KubeletConfig) -> None:
    world, objects = Moment(), Objects()
    volumes = VolumeManager(config, objects, world)
    host = config.data / "host"
    one = pod({"name": "c"}, volumes=[settings("missing"), {"name": "h", "hostPath": {"path": str(host)}}])

    first = await failure(volumes, one)
    again = await failure(volumes, one)

    assert str(first) == 'MountVolume.SetUp failed for volume "missing" : configmap "missing" not found'
    assert again is first, "nothing was tried: the next attempt is not due"
    assert objects.asked == ["missing"]
    assert host.is_dir(), "the other volume is there all the same"

    waits = []
    for _ in range(12):
        error = await failure(volumes, one)
        world.seconds_s += error.retry_s
        waits.append(error.retry_s)
    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert waits[-1] == 122.0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
async def test_a_volume_is_published_once_what_it_needs_is_there(config: KubeletConfig) -> None:
    world, objects = Moment(), Objects()
    volumes = VolumeManager(config, objects, world)
    one = pod({"name": "c"}, volumes=[settings("late")])
    error = await failure(volumes, one)

    objects.config_maps["late"] = {"data": {"a": "1"}}
    world.seconds_s += error.retry_s
    paths = await volumes.publish(one, FACTS)

    assert (paths["late"] / "a").read_text() == "1"
    objects.config_maps["late"] = {"data": {"a": "2"}}
    assert await volumes.publish(one, FACTS) == paths
    assert (paths["late"] / "a").read_text() == "2", "it follows its object"


async def test_a_disk_that_hangs_keeps_only_its_volume_waiting(
    config: KubeletConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes = VolumeManager(config, Objects(), RealWorld())
    hangs, released = threading.Event(), threading.Event()

    def remove(directory: Path) -> bool:
        hangs.set()
        assert released.wait(60)
        return True

    monkeypatch.setattr(module, "_remove", remove)
    removal = asyncio.create_task(volumes.unpublish("gone"))
    while not hangs.is_set():
        await asyncio.sleep(0)

    try:
        paths = await volumes.publish(pod({"name": "c"}, volumes=[{"name": "e", "emptyDir": {}}]), FACTS)
        assert paths["e"].is_dir()
        assert not removal.done()
    finally:
        released.set()
    assert await removal


async def test_a_volume_that_hangs_is_told_and_gives_its_place_to_others(
    config: KubeletConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    checked = host_path.check_host_path

    def check(path: Path, kind: str) -> Path:
        assert path.name != "hung" or released.wait(60)
        return checked(path, kind)

    monkeypatch.setattr(host_path, "check_host_path", check)
    for limit, value in (("_THREADS", 1), ("_LENT_S", 0.05), ("_PATIENCE_S", 1.0), ("_ENDING_S", 0.01)):
        monkeypatch.setattr(module, limit, value)
    volumes = VolumeManager(config, Objects(), RealWorld())
    hung = {"name": "h", "hostPath": {"path": str(config.data / "hung")}}
    one = pod({"name": "c"}, volumes=[hung, {"name": "e", "emptyDir": {}}])

    try:
        waiting = asyncio.create_task(failure(volumes, one))
        await asyncio.sleep(0)
        assert not await volumes.unpublish("u"), "an attempt that runs might still write there"
        error = await waiting
        words = "Unable to attach or mount volumes: unmounted volumes=[h]: timed out waiting for the condition"
        assert str(error) == words
        before = threading.active_count()
        assert str(await failure(volumes, one)) == words
        assert threading.active_count() == before, "the attempt that hangs is not made again"
    finally:
        released.set()
    assert (await volumes.publish(one, FACTS))["h"].is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
async def test_everything_of_a_pod_is_taken_away_mounts_first(config: KubeletConfig) -> None:
    volumes = VolumeManager(config, Objects(), RealWorld())
    one = pod({"name": "c"}, volumes=[{"name": "m", "emptyDir": {"medium": "Memory"}}])
    paths = await volumes.publish(one, FACTS)
    (paths["m"] / "file").write_text("x")

    assert await volumes.unpublish("u")
    assert await volumes.unpublish("u"), "twice is no failure"

    assert not config.pod_directory("u").exists()
    assert str(config.data) not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
async def test_what_cannot_be_unmounted_is_left_and_told(
    config: KubeletConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes = VolumeManager(config, Objects(), RealWorld())
    elsewhere = config.pod_directory("u") / "volumes" / "x"
    elsewhere.mkdir(parents=True)
    mount("tmpfs", elsewhere)
    (elsewhere / "precious").write_text("x")

    def unable(places: Any) -> None:
        """As where the kernel says no."""

    with monkeypatch.context() as patched:
        patched.setattr(module, "unmount_below", unable)
        assert not await volumes.unpublish("u")
    assert (elsewhere / "precious").read_text() == "x"

    assert await volumes.unpublish("u"), "once it lets go, the next attempt succeeds"


# Trust bundles.

ONE, TWO = (f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n" for body in ("QUFB", "QkJC"))


def bundle(name: str, text: str, signer: str = "", **labels: str) -> Obj:
    spec = {"trustBundle": text, **({"signerName": signer} if signer else {})}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec}


def trusting(**source: Any) -> Obj:
    stated = {"sources": [{"clusterTrustBundle": {"path": "ca.pem", **source}}]}
    return pod({"name": "c"}, volumes=[{"name": "v", "projected": stated}])


async def shown(config: KubeletConfig, source: Objects, of: Obj) -> str:
    paths = await VolumeManager(config, source, Moment()).publish(of, FACTS)
    return (paths["v"] / "ca.pem").read_text()


async def test_a_trust_bundle_is_a_file(config: KubeletConfig) -> None:
    objects = Objects()
    objects.trust_bundles = [bundle("roots", f"a comment\n{TWO}{ONE}{TWO}")]

    assert await shown(config, objects, trusting(name="roots")) == ONE + TWO


async def test_the_bundles_of_a_signer_are_one_file(config: KubeletConfig) -> None:
    objects = Objects()
    objects.trust_bundles = [
        bundle("a", ONE, "example.com/s", use="live"),
        bundle("b", TWO, "example.com/s", use="live"),
        bundle("c", "", "example.com/s", use="test"),
        bundle("d", "", "example.com/other", use="live"),
    ]
    source = {"signerName": "example.com/s", "labelSelector": {"matchLabels": {"use": "live"}}}

    assert await shown(config, objects, trusting(**source)) == ONE + TWO


async def test_a_trust_bundle_that_is_not_there_is_told_of_or_empty(config: KubeletConfig) -> None:
    objects = Objects()
    manager = VolumeManager(config, objects, Moment())

    assert 'clustertrustbundle.certificates.k8s.io "roots" not found' in str(
        await failure(manager, trusting(name="roots"))
    )
    assert await shown(config, objects, {**trusting(name="roots", optional=True)}) == ""
