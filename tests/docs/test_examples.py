"""What the README and the guides tell people to type is typed here."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from navarch.api.version import DEFAULT_VERSION
from navarch.cli.config_file import read_agent_file, read_config_file
from navarch.node.configuration.reading import checked
from navarch.node.proxy.configuration import settings_of
from navarch.scheduler.configuration.reading import checked as checked_scheduler
from navarch.scheduler.configuration.reading import configured
from navarch.testing import EmbeddedCluster, ServedCluster
from tests.docs.blocks import ROOT, Block, blocks_of, documents

# Written for a machine of its own, measured and read; its commands are those of `make bench`.
_READ_ONLY = {"performance.md"}
_ALL = [block for file in documents() for block in blocks_of(file)]
_RUN = [block for block in _ALL if block.is_run and block.file.name not in _READ_ONLY]


def _named(block: Block) -> str:
    return block.name


def _with_commands() -> list[Path]:
    return list(dict.fromkeys(block.file for block in _RUN if block.language == "sh"))


@pytest.mark.e2e
@pytest.mark.parametrize("file", _with_commands(), ids=lambda file: str(file.relative_to(ROOT)))
def test_commands_do_what_the_text_says(file: Path, tmp_path: Path) -> None:
    """One shell session per document, in the order of its text, with the YAML files that the text names."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    env = {key: value for key, value in os.environ.items() if not key.startswith("NAVARCH_")}
    env |= {
        "NAVARCH_HOME": str(tmp_path / "clusters"),
        "NAVARCH_RUNTIME": "simulated",
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    try:
        for block in blocks_of(file):
            if block.language == "yaml" and block.saved_as:
                (tmp_path / block.saved_as).write_text(block.text)
            if block.language == "sh" and block.is_run:
                done = subprocess.run(
                    ["bash", "-eu", "-c", block.text],
                    env=env,
                    cwd=tmp_path,
                    text=True,
                    capture_output=True,
                    timeout=90,
                    check=False,
                )
                assert done.returncode == 0, f"{block.name}\n{block.text}\n{done.stdout}\n{done.stderr}"
    finally:
        for folder in (tmp_path / "clusters").glob("*/cluster.json"):
            command = [sys.executable, "-m", "navarch.cli.main", "down", "--purge", "--name", folder.parent.name]
            subprocess.run(command, env=env, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("block", [block for block in _RUN if block.language == "python"], ids=_named)
def test_python_does_what_the_text_says(block: Block) -> None:
    """The block's tests are called with the fixtures that they name; a block without tests runs as it is."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(block.text, block.name, "exec"), names)
    tests = [function for name, function in names.items() if name.startswith("test_")]
    assert tests or "run(" in block.text, "nothing in it is run"
    for function in tests:
        if inspect.iscoroutinefunction(function):
            asyncio.run(_call(function))
        else:
            with ServedCluster() as cluster:
                function(cluster)


async def _call(function: Any) -> None:
    if "navarch_cluster" in inspect.signature(function).parameters:
        async with EmbeddedCluster() as cluster:
            await function(cluster)
    else:
        await function()


@pytest.mark.parametrize("block", [block for block in _ALL if block.language == "yaml"], ids=_named)
def test_yaml_is_a_cluster_file_or_is_applied_by_the_text(block: Block, tmp_path: Path) -> None:
    documents = list(yaml.safe_load_all(block.text))
    if documents[0].get("kind") == "Agent":
        file = tmp_path / "agent.yaml"
        file.write_text(block.text)
        assert read_agent_file(str(file))
    elif documents[0].get("apiVersion") == "navarch.dev/v1":
        file = tmp_path / "cluster.yaml"
        file.write_text(block.text)
        assert read_config_file(str(file))
    elif documents[0].get("kind") == "KubeletConfiguration":
        assert checked(documents[0], DEFAULT_VERSION)
    elif documents[0].get("kind") == "KubeSchedulerConfiguration":
        assert configured(checked_scheduler(documents[0])).profiles
    elif documents[0].get("kind") == "KubeProxyConfiguration":
        assert settings_of(documents[0]).mode
    elif block.is_run:
        commands = "\n".join(other.text for other in blocks_of(block.file) if other.language == "sh" and other.is_run)
        assert block.saved_as, "a block of objects begins with the name of its file"
        assert f"-f {block.saved_as}" in commands


@pytest.mark.parametrize("block", [block for block in _ALL if block.language in ("sh", "python")], ids=_named)
def test_blocks_parse_even_where_they_are_not_run(block: Block) -> None:
    if block.language == "python":
        ast.parse(block.text)
    else:
        done = subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


def test_every_block_says_what_it_is_written_in() -> None:
    unmarked = [block.name for block in _ALL if block.language not in ("sh", "python", "yaml", "text", "")]

    assert unmarked == []
