"""docs/dependencies.md names what pyproject.toml asks for, and nothing else."""

from __future__ import annotations

import re
import tomllib

from tests.docs.blocks import ROOT

_TEXT = (ROOT / "docs/dependencies.md").read_text()
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", requirement)[0] for requirement in requirements}


def _rows(heading: str) -> set[str]:
    """What stands in the first column of the table below the heading."""
    table = _TEXT.partition(heading)[2].lstrip().partition("\n\n")[0]
    firsts = [line.split("|")[1] for line in table.splitlines()[2:]]
    return {name.strip() for first in firsts for name in first.split(",")}


def test_the_table_has_each_library_that_is_needed_and_no_other() -> None:
    needed = _names(_PROJECT["project"]["dependencies"]) | _names(_PROJECT["build-system"]["requires"])

    listed = _rows("what was weighed against it.\n")

    assert listed == needed - {"hatchling"}
    assert "hatchling" in _rows("pip's own configuration does.\n")


def test_what_development_needs_is_named() -> None:
    paragraph = _TEXT.partition("For development:")[2].partition("\n\n")[0]

    missing = [name for name in _names(_PROJECT["project"]["optional-dependencies"]["dev"]) if name not in paragraph]

    assert missing == []
