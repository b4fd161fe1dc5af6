"""Checks that time, chance and identifiers come from `navarch.world` alone, and threads in what sees the API only.

Run by `check_layout.py`. What is named in `KEYS` makes keys, certificates or secrets, which have to be
unpredictable and valid by the machine's own calendar whatever the world says.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "navarch"

# Its two ends: the machine, and virtual time.
WORLD = {"world.py", "sim/virtual.py"}
KEYS = {"cluster/pki.py", "store/encryption/kms.py", "store/encryption/providers.py"}
# Where a thread of one's own is no business of the host's: these run in virtual time too.
NO_THREADS = ("controllers/", "scheduler/", "sim/", "client/", "kinds/", "api/")

MODULES = {"time", "random", "secrets"}
NAMES = {
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
    ("uuid", "uuid1"),
    ("uuid", "uuid4"),
    ("os", "urandom"),
    ("os", "getrandom"),
}
# The type of a stream, not a stream.
TYPES = {("random", "Random")}
THREADS = {"to_thread", "run_in_executor"}


def violations(tree: ast.AST, name: str) -> Iterator[tuple[int, str]]:
    """Line and text of everything in a module that must come from its world."""
    modules = _modules(tree)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    may_thread = not name.startswith(NO_THREADS)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                if node.module in MODULES or (node.module, alias.name) in NAMES:
                    yield node.lineno, f"from {node.module} import {alias.name}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            base = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            module = modules.get(base, base) if isinstance(node.value, ast.Name) else base
            whole = (module, node.attr)
            of_module = module in MODULES and base in modules and isinstance(node.value, ast.Name)
            is_type = whole in TYPES and id(node) not in called
            if (of_module and not is_type) or whole in NAMES:
                yield node.lineno, f"{module}.{node.attr}"
            elif node.attr in THREADS and not may_thread:
                yield node.lineno, f"{module}.{node.attr}: `World.in_thread` calls what would block"


def _modules(tree: ast.AST) -> dict[str, str]:
    """Modules by the name under which they were imported."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.split(".")[0]] = alias.name
    return found


def problems() -> Iterator[str]:
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if name in WORLD | KEYS or path.name.endswith("_pb2.py"):
            continue
        for line, what in violations(ast.parse(path.read_text()), name):
            yield f"src/navarch/{name}:{line}: {what}; it has to come from navarch.world"
