"""The fenced code blocks of a Markdown file, and which of them are run.

Blocks in `sh`, `python` and `yaml` are run, unless their first line is a comment that ends with `(not run by the
tests)`: readers see it, too. Such blocks must still parse.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOT_RUN = "(not run by the tests)"
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    file: Path
    line: int
    language: str
    text: str

    @property
    def is_run(self) -> bool:
        return not self.text.partition("\n")[0].rstrip().endswith(NOT_RUN)

    @property
    def name(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}"

    @property
    def saved_as(self) -> str:
        """The file that the block says it is: a YAML block may begin with `# web.yaml`."""
        found = re.match(r"# ([\w./-]+\.ya?ml)\n", self.text)
        return found.group(1) if found else ""


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(file: Path) -> list[Block]:
    text = file.read_text()
    return [
        Block(file, text.count("\n", 0, found.start()) + 1, found.group(1), found.group(2))
        for found in _FENCE.finditer(text)
    ]
