"""What the documents point to is there: files they link, and modules they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, documents

_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
_SOURCE = re.compile(
    r"`((?:api|kinds|store|client|apiserver|controllers|scheduler|node|sim|cluster|cli|testing)/[^`\s]*)`"
)
_ROOTED = re.compile(r"`((?:src|tests|docs|examples|tools|benchmarks)/[^`\s<]*)`")


@pytest.mark.parametrize("file", documents(), ids=lambda file: str(file.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(file: Path) -> None:
    text = file.read_text()

    missing = [link for link in _LINK.findall(text) if not (file.parent / link).exists()]
    missing += [
        path for path in _SOURCE.findall(text) if "<" not in path and not (ROOT / "src/navarch" / path).exists()
    ]
    missing += [path for path in _ROOTED.findall(text) if "…" not in path and not (ROOT / path).exists()]

    assert missing == []
