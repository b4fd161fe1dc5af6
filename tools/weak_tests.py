"""Finds tests that may pass whatever happens: a reader's help, not a judge.

Reported are test functions that assert nothing (themselves, or by a helper of the same module), asserts that only a
condition or a caught error reaches, and asserts right after a sleep of fixed length.
"""

from __future__ import annotations

import ast
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Function = ast.FunctionDef | ast.AsyncFunctionDef
# Calls that fail by themselves where the claim is wrong.
_CLAIMS = ("raises", "ok", "until", "wait", "eventually", "check", "assert", "expect", "refused", "fail", "run")


def _calls(node: ast.AST) -> Iterator[str]:
    for found in ast.walk(node):
        if isinstance(found, ast.Call):
            match found.func:
                case ast.Name(id=name) | ast.Attribute(attr=name):
                    yield name


def _asserts(function: Function) -> bool:
    if any(isinstance(node, ast.Assert) for node in ast.walk(function)):
        return True
    return any(claim in name.lower() for name in _calls(function) for claim in _CLAIMS)


def _always(statements: list[ast.stmt]) -> bool:
    """Whether something is claimed however the test goes."""
    for statement in statements:
        match statement:
            case ast.Assert():
                return True
            case ast.With() | ast.AsyncWith():
                if any("raises" in name for item in statement.items for name in _calls(item.context_expr)):
                    return True
                if _always(statement.body):
                    return True
            case ast.For() | ast.AsyncFor():
                if isinstance(statement.iter, ast.Tuple | ast.List | ast.Call) and _always(statement.body):
                    return True
            case ast.Try():
                if _always(statement.body) or _always(statement.finalbody):
                    return True
            case ast.If():
                if _always(statement.body) and _always(statement.orelse):
                    return True
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                continue
            case _:
                if any(claim in name.lower() for name in _calls(statement) for claim in _CLAIMS):
                    return True
    return False


def _sleeps(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    call = value.value if isinstance(value, ast.Await) else value
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or call.func.attr != "sleep":
        return False
    first = call.args[0] if call.args else None
    return not (isinstance(first, ast.Constant) and first.value == 0)


def _after_sleep(function: Function) -> Iterator[int]:
    for node in ast.walk(function):
        for body in (getattr(node, "body", None), getattr(node, "orelse", None)):
            if not isinstance(body, list):
                continue
            for before, after in itertools.pairwise(body):
                if _sleeps(before) and isinstance(after, ast.Assert):
                    yield after.lineno


def findings(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if not isinstance(node, Function) or not node.name.startswith("test_"):
            continue
        where = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        if not _asserts(node):
            yield f"{where}: asserts nothing"
        elif not _always(node.body):
            yield f"{where}: asserts only under a condition"
        for line in _after_sleep(node):
            yield f"{where}: asserts after a sleep, line {line}"


def main() -> int:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for line in findings(path):
            print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
