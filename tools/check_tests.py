"""Checks that every test can fail: it asserts something itself, or by a function of `tests/` that does.

Run by `check_layout.py`. Functions are followed to where they come from; methods only by their names, and where the
product has one of that name, it is taken for the product's. `weak_tests.py` points at more, less surely.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Function = ast.FunctionDef | ast.AsyncFunctionDef
Modules = Mapping[str, ast.Module]
# A function's module and name; of a method, whatever its class, the name alone.
Name = tuple[str, str]
# What fails where a claim is wrong: pytest's, and what bounds how long something is waited for.
_CLAIMS = frozenset({"raises", "warns", "fail", "timeout", "wait_for"})


@dataclass(frozen=True, slots=True)
class _Found:
    name: Name
    line: int
    asserts: bool
    uses: frozenset[Name]


def _modules() -> dict[str, ast.Module]:
    """By their names as they are imported."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text())
        for path in sorted((ROOT / "tests").rglob("*.py"))
    }


def _functions(module: str, tree: ast.Module) -> Iterator[_Found]:
    places: dict[str, Name] = {node.name: (module, node.name) for node in tree.body if isinstance(node, Function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            places |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            package = ".".join(module.split(".")[: -node.level])
            origin = f"{package}.{node.module}" if node.module else package
            places |= {alias.asname or alias.name: (origin, alias.name) for alias in node.names}
    for owner in (tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))):
        for node in owner.body:
            if not isinstance(node, Function):
                continue
            asserts, uses = False, set[Name]()
            for part in ast.walk(node):
                if isinstance(part, ast.Assert | ast.Raise):
                    asserts = True
                elif isinstance(part, ast.Name) and part.id in places:
                    uses.add(places[part.id])
                elif isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute):
                    asserts = asserts or part.func.attr in _CLAIMS
                    uses.add(("", part.func.attr))
            name = (module, node.name) if owner is tree or node.name.startswith("test_") else ("", node.name)
            yield _Found(name, node.lineno, asserts, frozenset(uses))


def silent_tests(tests: Modules, others: Collection[str]) -> Iterator[str]:
    """The tests that assert nothing; `others` are functions of the product."""
    taken = {("", name) for name in others}
    rest = [found for module, tree in tests.items() for found in _functions(module, tree)]
    asserting: set[Name] = set()
    while more := {found.name for found in rest if found.asserts or found.uses & asserting}:
        asserting |= more - taken
        rest = [found for found in rest if found.name not in more]
    for found in rest:
        module, name = found.name
        if name.startswith("test_"):
            yield f"{module.replace('.', '/')}.py:{found.line}: {name} asserts nothing"


def problems() -> Iterator[str]:
    product = (ROOT / "src").rglob("*.py")
    others = {name for path in product for name in re.findall(r"\bdef (\w+)", path.read_text())}
    yield from silent_tests(_modules(), others)
