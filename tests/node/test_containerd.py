"""containerd's configuration, by version and by what the machine allows, and what a stopped one leaves: nothing."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from navarch.node.containerd import (
    ContainerdConfig,
    ContainerdPaths,
    shims_of,
    unmount_below,
    why_unavailable,
)
from navarch.node.ending import running_containerd
from navarch.node.runtime.cri import CRIRuntime


def _config(version: tuple[int, ...], **more: object) -> dict[str, object]:
    given = {"snapshotter": "overlayfs", "restrict_oom_score": True, "cni_bin": Path("/usr/lib/cni"), **more}
    config = ContainerdConfig(ContainerdPaths(Path("/d"), Path("/r")), version, **given)  # type: ignore[arg-type]
    return tomllib.loads(config.text())


def test_the_first_generation_gets_format_two() -> None:
    config = _config((1, 6, 20))

    plugin = config["plugins"]["io.containerd.grpc.v1.cri"]  # type: ignore[index]
    assert config["version"] == 2
    assert config["grpc"]["address"] == "/r/containerd.sock"  # type: ignore[index]
    assert plugin["restrict_oom_score_adj"] is True
    assert plugin["cni"] == {"bin_dir": "/usr/lib/cni", "conf_dir": "/d/cni"}
    assert plugin["registry"]["config_path"] == "/d/registries"
    assert plugin["containerd"]["runtimes"]["runc"]["options"]["SystemdCgroup"] is False


def test_the_second_generation_gets_format_three() -> None:
    config = _config((2, 1, 0), snapshotter="native", restrict_oom_score=False)

    plugins = config["plugins"]
    assert config["version"] == 3
    assert plugins["io.containerd.cri.v1.images"]["snapshotter"] == "native"  # type: ignore[index]
    assert plugins["io.containerd.cri.v1.images"]["pinned_images"]["sandbox"] == "navarch.local/pause:1"  # type: ignore[index]
    assert plugins["io.containerd.cri.v1.runtime"]["restrict_oom_score_adj"] is False  # type: ignore[index]


@pytest.mark.containers
@pytest.mark.parametrize("folder", ["short", "long" * 30], ids=["short", "long"])
async def test_a_stopped_containerd_leaves_nothing(tmp_path: Path, folder: str) -> None:
    if why := why_unavailable():
        pytest.skip(why)
    (tmp_path / folder).mkdir()
    async with running_containerd(tmp_path / folder) as config:
        runtime = CRIRuntime(config.paths.socket)
        tags = [tag for image in await runtime.list_images() for tag in image.tags]
        await runtime.close()
        paths = config.paths

    assert tags == ["navarch.local/pause:1"]
    assert not paths.socket.exists()
    assert folder == "short" or not paths.socket.parent.exists()
    assert not shims_of(paths)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    unmount_below([tmp_path])


def test_devices_by_their_cdi_names_are_switched_on_where_containerd_has_them() -> None:
    assert "enable_cdi" not in _config((1, 6))["plugins"]["io.containerd.grpc.v1.cri"]  # type: ignore[index]
    assert _config((1, 7))["plugins"]["io.containerd.grpc.v1.cri"]["enable_cdi"] is True  # type: ignore[index]
