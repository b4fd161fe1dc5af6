"""The check that every test can fail (`make lint` asks it about all): what it takes for a claim, and what not."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent

HELPERS = """
def holds(x): assert x
def passes_on(x): holds(x)
def quiet(x): return x
class Wire:
    def hears(self): assert self
    def write(self): assert self
"""


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_tests", ROOT / "tools" / "check_tests.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def silent(check: ModuleType, body: str) -> list[str]:
    test = f"from .helpers import holds, passes_on, quiet\n{body}"
    modules = {"tests.helpers": ast.parse(HELPERS), "tests.test_a": ast.parse(test)}
    return list(check.silent_tests(modules, {"write"}))


@pytest.mark.parametrize(
    "body",
    [
        "def test_a(): assert 1",
        "def test_a():\n  with pytest.raises(ValueError): f()",
        "async def test_a():\n  async with asyncio.timeout(1): await f()",
        "def test_a(): holds(1)",
        "def test_a(): passes_on(1)",
        "def test_a(): wait_for_it(holds)",
        "def test_a(wire): wire.hears()",
        "class TestA:\n  def test_a(self): assert self",
    ],
)
def test_what_claims_something_is_let_be(check: ModuleType, body: str) -> None:
    assert silent(check, body) == []


@pytest.mark.parametrize(
    "body",
    [
        "def test_a(): f()",
        "def test_a(): quiet(1)",
        "def test_a():\n  try: f()\n  except ValueError: return",
        "def test_a(client): client.write()",
        "def holds(x): return x\ndef test_a(): f()",
        "class TestA:\n  def test_a(self): f()",
    ],
)
def test_what_claims_nothing_is_found(check: ModuleType, body: str) -> None:
    assert [line.partition(": ")[2] for line in silent(check, body)] == ["test_a asserts nothing"]
