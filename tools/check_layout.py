"""Checks the rules that no linter knows: sizes of files, a docstring for each module, tests where they belong, and that
time, chance and identifiers come from one place (`check_world.py`), numbers in text from another (`check_numbers.py`),
and that every test asserts something (`check_tests.py`).

Exits with 1 and a line per violation.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import check_numbers
import check_tests
import check_world

MAX_LINES = 500
ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    problems: list[str] = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        if path.name.endswith("_pb2.py"):
            continue
        text = path.read_text()
        name = path.relative_to(ROOT)
        lines = text.count("\n")
        if lines > MAX_LINES:
            problems.append(f"{name}: {lines} lines; above {MAX_LINES} a file is two ideas")
        if text.strip() and ast.get_docstring(ast.parse(text)) is None:
            problems.append(f"{name}: the module has no docstring")
    packages = {path.name for path in (ROOT / "src" / "navarch").iterdir() if path.is_dir() and path.name[0] != "_"}
    known = packages | {"e2e", "docs", "golden", "crashes"}
    folders = [path.name for path in sorted((ROOT / "tests").iterdir()) if path.is_dir() and path.name[0] != "_"]
    problems += [f"tests/{name}: mirrors no package of src/navarch" for name in folders if name not in known]
    problems += check_world.problems()
    problems += check_numbers.problems()
    problems += check_tests.problems()
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
