"""Cgroups of pods and of their classes, in the trees of both versions, prepared in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from navarch.node.config import KubeletConfig
from navarch.node.resources import cgroups
from navarch.node.resources.manager import ResourceManager
from navarch.world import RealWorld
from tests.node.objects import Obj, pod, resources


class Tree:
    """A cgroup tree as the kernel shows it; `cpu` reads a cgroup's share of the CPU."""

    def __init__(self, root: Path, *, unified: bool) -> None:
        self.root = root
        self.unified = unified

    def place(self, name: str, controller: str) -> Path:
        return self.root / name if self.unified else self.root / controller / name

    def cpu(self, name: str) -> str:
        return (self.place(name, "cpu") / ("cpu.weight" if self.unified else "cpu.shares")).read_text()

    def memory(self, name: str) -> str:
        file = "memory.max" if self.unified else "memory.limit_in_bytes"
        return (self.place(name, "memory") / file).read_text()


@pytest.fixture(params=["v1", "v2"])
def tree(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    unified = request.param == "v2"
    for controller in () if unified else ("cpu", "memory"):
        (tmp_path / controller).mkdir()
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    monkeypatch.setattr(cgroups, "has_unified_cgroups", lambda: unified)
    return Tree(tmp_path, unified=unified)


def of(uid: str, container: Obj) -> Obj:
    made = pod(container)
    made["metadata"]["uid"] = uid
    return made


async def test_classes_share_the_cpu_by_what_their_pods_request(tree: Tree, tmp_path: Path) -> None:
    config = KubeletConfig(node_name="n", data=tmp_path, runtime_socket=tmp_path / "s", cgroup_root="/kubepods")
    here: list[Obj] = []
    manager = ResourceManager(config, RealWorld(), lambda: here)
    most = {"cpu": "1", "memory": "64Mi"}
    best = of("best", {"name": "c"})
    some, more = (of(uid, resources({"cpu": cpu})) for uid, cpu in (("some", "250m"), ("more", "500m")))
    guaranteed = of("sure", resources(most, most))

    for one in (best, some, more, guaranteed):
        here.append(one)
        await manager.publish(one)

    assert tree.cpu("kubepods/burstable") == ("30" if tree.unified else "768")
    assert tree.cpu("kubepods/besteffort") == ("1" if tree.unified else "2")
    assert tree.cpu("kubepods/burstable/podmore") == ("20" if tree.unified else "512")
    assert tree.cpu("kubepods/besteffort/podbest") == ("1" if tree.unified else "2")
    assert tree.cpu("kubepods/podsure") == ("39" if tree.unified else "1024")
    assert tree.memory("kubepods/podsure") == str(64 << 20)
    assert tree.memory("kubepods/burstable/podmore") == ("max" if tree.unified else "-1")

    here.remove(more)
    for file in tree.root.rglob("podmore/*"):
        # The kernel's own files go with their folder.
        file.unlink()
    assert await manager.unpublish(more)

    assert tree.cpu("kubepods/burstable") == ("10" if tree.unified else "256")
