"""The pytest plugin in somebody's project, whose settings are pytest's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, blocks_of

_MORE = """
import pytest

@pytest.fixture
def client(navarch_cluster):
    return navarch_cluster.client

class TestMine:
    @pytest.mark.parametrize("number", [1, 2])
    async def test_in_a_class(self, client, number):
        assert client is not None

def test_a_plain_function_may_look_at_it(navarch_cluster):
    assert navarch_cluster.config.nodes == 1

def test_a_plain_function_has_a_server(navarch_server):
    assert navarch_server.kubeconfig.exists()
"""


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_what_the_readme_shows_passes_as_it_is(mode: str, tmp_path: Path) -> None:
    (example,) = [block.text for block in blocks_of(ROOT / "README.md") if block.language == "python"]
    (tmp_path / "test_mine.py").write_text(example + _MORE)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nasyncio_mode = {mode}\n")

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False, timeout=110)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout
