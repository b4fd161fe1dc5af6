"""What the kubelet clears away: overlong logs, unused images, traces of pods that have gone."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace
from pathlib import Path

import pytest

from navarch.node.config import ImagesConfig
from navarch.node.images.archives import LayerFile, Platform, host_architecture, load_image, write_image
from tests.node.conftest import Node
from tests.node.engine.test_pods import sh
from tests.node.server.test_app import get

pytestmark = pytest.mark.containers


async def test_a_long_log_is_rotated_and_goes_on(node: Node) -> None:
    pod = await node.pod("talk", containers=[sh("i=0; while :; do i=$((i+1)); echo line $i; sleep 0.01; done")])
    await node.ready("talk")
    place = node.config.log_directory("default", "talk", pod["metadata"]["uid"]) / "c"
    first, second = place / "0.log.20200101-000000", place / "0.log.20200101-000001"
    first.write_text("the oldest\n")
    second.write_text("an older one\n")
    await node.until(lambda: len(node.log("talk").splitlines()) > 20)
    node.kubelet.parts.config = replace(node.config, container_log_max_bytes=100, container_log_max_files=3)

    await node.kubelet.logs.look()

    await node.until(lambda: len(node.log("talk").splitlines()) > 3)
    kept, newest = sorted(place.glob("0.log.*"))
    assert kept.name == f"{second.name}.gz"
    assert gzip.decompress(kept.read_bytes()) == b"an older one\n"
    assert re.fullmatch(r"0\.log\.\d{8}-\d{6}", newest.name)
    assert "line 1\n" in newest.read_text()
    assert "line 1\n" not in (await get(node, "/containerLogs/default/talk/c"))[1]


async def test_only_unused_images_are_removed(node: Node, tmp_path: Path) -> None:
    archive = tmp_path / "spare.tar"
    write_image(archive, "navarch.local/spare:1", [Platform(host_architecture(), [LayerFile("f", b"x" * 1000)])])
    await load_image(node.config.runtime_socket, archive)
    await node.pod("user", containers=[sh("sleep 1000")])
    await node.ready("user")
    node.kubelet.parts.config = replace(node.config, images=ImagesConfig(min_age_s=0))

    async def tags() -> set[str]:
        return {tag for image in await node.runtime.list_images() for tag in image.tags}

    await node.until_async(lambda: _contains(node, "navarch.local/spare:1"))
    await node.kubelet.sweeper.remove_unused_images(1 << 40)

    assert await tags() >= {"navarch.local/pause:1", "navarch.local/busybox:1"}
    assert "navarch.local/spare:1" not in await tags()


async def _contains(node: Node, tag: str) -> bool:
    return any(tag in image.tags for image in await node.runtime.list_images())


async def test_traces_of_pods_that_have_gone_are_removed(node: Node) -> None:
    (node.config.pods / "old-uid" / "volumes").mkdir(parents=True)
    (node.config.logs / "default_old_old-uid").mkdir(parents=True)
    await node.pod("stay", containers=[sh("sleep 1000")])
    await node.ready("stay")

    await node.kubelet.sweeper.remove_stale_volumes()
    await node.kubelet.sweeper.remove_stale_directories()

    assert len(list(node.config.pods.iterdir())) == 1
    assert [place.name.split("_")[1] for place in node.config.logs.iterdir()] == ["stay"]
