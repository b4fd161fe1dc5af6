"""What docs/architecture.md says of the kinds that nothing acts on is true, and every module that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

from navarch.api.meta import Resource
from navarch.kinds import resources
from navarch.kinds.enablement import EVERYTHING
from navarch.kinds.registry import builtin

_ROOT = Path(__file__).parents[2]
_PARTS = ("apiserver", "controllers", "scheduler", "node", "sim")


def _listed() -> set[str]:
    text = (_ROOT / "docs/architecture.md").read_text()
    section = text.partition("## Stored, and nothing more")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| ")]
    return {kind for row in rows[1:] for kind in re.findall(r"[A-Z]\w+", row)}


def test_a_kind_that_no_part_names_is_listed_as_one_that_nothing_acts_on() -> None:
    sources = "\n".join(
        path.read_text() for part in _PARTS for path in sorted((_ROOT / "src/navarch" / part).rglob("*.py"))
    )
    names = {value: name for name, value in vars(resources).items() if isinstance(value, Resource)}
    stored = [kind.resource for kind in builtin().kinds() if not kind.virtual and kind.storage is None]
    unnamed = {
        resource.kind
        for resource in stored
        if not re.search(rf"\b{names[resource]}\b", sources) and not re.search(rf'"{resource.plural}"', sources)
    }

    assert stored
    assert unnamed <= _listed()


def test_what_is_listed_is_served() -> None:
    assert _listed() <= {kind.resource.kind for kind in builtin(config=EVERYTHING).kinds()}


def test_every_module_that_is_named_is_there() -> None:
    text = (_ROOT / "docs/architecture.md").read_text()
    package = _ROOT / "src/navarch"
    # Whole paths, of the package or of the repository, and the names of modules beside one that a paragraph names.
    known = {path.name for path in package.rglob("*") if "__pycache__" not in path.parts}
    named = re.findall(r"`((?:[\w.]+/)*[\w.]+(?:\.py|\.txt|\.proto|/))`", text)
    paths = [name for name in named if "/" in name]

    assert len(paths) > 200
    gone = [path for path in paths if not any((place / path).exists() for place in (package, _ROOT))]
    assert gone == []
    assert [name for name in named if "/" not in name and name not in known] == []
