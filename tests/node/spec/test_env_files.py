"""Variables from a file that a container wrote (`fileKeyRef`): whatever it left there, the node goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from navarch.api.meta import Obj
from navarch.node.fieldref import PodFacts
from navarch.node.podspec import ConfigError
from navarch.node.spec.env import environment
from navarch.world import RealWorld
from tests.node.objects import pod
from tests.node.volumes.test_manager import Objects

FACTS = PodFacts(("10.0.0.1",), ("192.0.2.1",), {})


async def variables(volume: Path, path: str = "env", *, optional: bool = False) -> dict[str, str]:
    reference: Obj = {"volumeName": "v", "path": path, "key": "KEY", "optional": optional}
    container = {"name": "c", "env": [{"name": "A", "valueFrom": {"fileKeyRef": reference}}]}
    return await environment(pod(container), container, [], Objects(), FACTS, {"v": volume}, RealWorld().in_thread)


async def test_a_variable_has_the_value_of_its_line(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "env").write_text("OTHER=1\nKEY='it is'\n")
    (tmp_path / "link").symlink_to("inner/env")

    assert await variables(tmp_path, "inner/env") == {"A": "it is"}
    assert await variables(tmp_path, "link") == {"A": "it is"}, "a link that stays in its volume is followed"


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"KEY=1\n")
        file.truncate(1 << 40)


def _no_text(path: Path) -> None:
    path.write_bytes(b"KEY=\xff\xfe\n")


def _nul(path: Path) -> None:
    path.write_bytes(b"KEY=a\0b\n")


def _link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_pipe, "not a regular file"),
        (Path.mkdir, "not a regular file"),
        (_endless, "it is larger than 65536 bytes"),
        (_no_text, "it is not UTF-8"),
        (_nul, "a variable may not contain a NUL byte"),
        (_link, "the path leads out of its volume"),
    ],
)
async def test_what_is_no_file_of_variables_is_told(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    make(tmp_path / "env")

    for optional in (False, True):
        with pytest.raises(ConfigError, match=f"^couldn't read env: {words}$"):
            await variables(tmp_path, optional=optional)


async def test_a_missing_file_or_key_is_a_fault_only_where_it_is_needed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("OTHER=1\n")

    for path in ("env", "other", "other/env"):
        assert await variables(tmp_path, path, optional=True) == {}
        with pytest.raises(ConfigError, match=path):
            await variables(tmp_path, path)
