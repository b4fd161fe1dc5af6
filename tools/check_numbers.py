"""Checks that text is read as numbers by `navarch.numbers` alone, and that patterns mean ASCII by their classes.

Run by `check_layout.py`. `str.isdigit()` and its siblings, and classes like `\\d` in a pattern of text without
`re.ASCII`, also take what clients send of other scripts, which `int()` then reads or refuses. Where that is meant, the
pattern says `re.UNICODE`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "navarch"
METHODS = {"isdigit", "isdecimal", "isnumeric"}
FUNCTIONS = {"compile", "match", "fullmatch", "search", "sub", "split", "findall", "finditer"}
_CLASS = re.compile(r"(?<!\\)(?:\\\\)*\\[dDwWsSbB]")


def violations(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr in METHODS:
            yield node.lineno, f".{node.func.attr}() takes digits of every script; use navarch.numbers"
        elif isinstance(node.func.value, ast.Name) and node.func.value.id == "re" and node.func.attr in FUNCTIONS:
            texts = [part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant)]
            classes = any(isinstance(text, str) and _CLASS.search(text) for text in texts)
            flags = [*node.args[1:], *(keyword.value for keyword in node.keywords)]
            named = {getattr(part, "attr", "") for flag in flags for part in ast.walk(flag)}
            if classes and named.isdisjoint({"ASCII", "UNICODE"}):
                yield node.lineno, "a pattern with a class needs re.ASCII"


def problems() -> Iterator[str]:
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if name == "numbers.py" or path.name.endswith("_pb2.py"):
            continue
        for line, what in violations(ast.parse(path.read_text())):
            yield f"src/navarch/{name}:{line}: {what}"
