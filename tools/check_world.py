"""Checks that time, chance, identifiers and threads come from `navarch.world` alone.

Run by `check_layout.py`. What is named in `KEYS` makes keys, certificates or secrets, which have to be
unpredictable and valid by the machine's own calendar whatever the world says; what is named in `OWN_THREADS` has
threads for a reason that `World.in_thread` does not know. `loop.time()` is the world's already: in
virtual time the loop is another one.
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
_NO_LOOP = "a process without an event loop: gRPC's and sockets' blocking servers"
OWN_THREADS = {
    "store/sqlite.py": "one thread writes and one reads, each in order, and neither waits for what else is in threads",
    "node/place.py": "the thread enters a network namespace and is not to be used for anything else afterwards",
    "node/network.py": "on the way down, outside the event loop: pyroute2's calls bring one of their own",
    "testing/served.py": "the thread has an event loop of its own, for tests that have none",
    "cli/steps.py": "turns the sign of a command that waits, without an event loop",
    "cluster/kube/warm.py": _NO_LOOP,
    "cluster/kube/etcd.py": _NO_LOOP,
    "cluster/kube/etcd_leases.py": _NO_LOOP,
    "cluster/kube/etcd_service.py": _NO_LOOP,
}

# Modules and names with all that is below them.
FORBIDDEN = {
    "time",
    "random",
    "secrets",
    "numpy.random",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
    "os.urandom",
    "os.getrandom",
    "ssl.RAND_bytes",
    "email.utils.formatdate",
    "email.utils.localtime",
    "email.utils.make_msgid",
    *(f"uuid.uuid{version}" for version in (1, 4, 6, 7, 8)),
    "uuid.getnode",
}
# The type of a stream, not a stream.
TYPES = {"random.Random"}
THREADS = {"to_thread", "run_in_executor"}
THREAD_TYPES = {"threading.Thread", "threading.Timer", "concurrent.futures.ThreadPoolExecutor"}
_IMPORTERS = {"__import__", "importlib.import_module"}


def violations(tree: ast.AST, name: str) -> Iterator[tuple[int, str]]:
    """Line and text of everything in a module that must come from its world."""
    imported = _imported(tree)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    # Of `a.b.c`, what is looked at is all of it.
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    may_thread = name in OWN_THREADS
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                if _is_forbidden(f"{node.module}.{alias.name}"):
                    yield node.lineno, f"from {node.module} import {alias.name}"
        elif isinstance(node, ast.Name | ast.Attribute) and id(node) not in inner:
            if not isinstance(node.ctx, ast.Load):
                continue
            whole = _dotted(node, imported)
            is_type = whole in TYPES and id(node) not in called
            if whole is not None and _is_forbidden(whole) and not is_type:
                yield node.lineno, whole
            elif not may_thread and (_last(node, whole) in THREADS or whole in THREAD_TYPES):
                yield node.lineno, f"{ast.unparse(node)}: `World.in_thread` calls what would block"
        elif isinstance(node, ast.Call):
            if (hidden := _hidden(node, imported)) and _is_forbidden(hidden):
                yield node.lineno, hidden


def _last(node: ast.Name | ast.Attribute, whole: str | None) -> str:
    if whole is not None:
        return whole.rpartition(".")[2]
    return node.attr if isinstance(node, ast.Attribute) else ""


def _is_forbidden(whole: str) -> bool:
    """Whether it is something forbidden, or something of it."""
    return any(whole == name or whole.startswith(f"{name}.") for name in FORBIDDEN)


def _imported(tree: ast.AST) -> dict[str, str]:
    """What names of a module mean, by their import, wherever in it that stands."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                found[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def _dotted(node: ast.expr, imported: dict[str, str]) -> str | None:
    """`datetime.datetime.now` for `d.now`, where `d` was imported as that; None for what was not imported."""
    if isinstance(node, ast.Name):
        return imported.get(node.id)
    if isinstance(node, ast.Attribute) and (base := _dotted(node.value, imported)) is not None:
        return f"{base}.{node.attr}"
    return None


def _hidden(call: ast.Call, imported: dict[str, str]) -> str | None:
    """What a call asks for by a text: `getattr(datetime, "now")`, `import_module("random")`."""
    texts = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    if not texts:
        return None
    function = call.func.id if isinstance(call.func, ast.Name) else None
    if function == "getattr" and (base := _dotted(call.args[0], imported)) is not None:
        return f"{base}.{texts[0]}"
    if function == "__import__" or _dotted(call.func, imported) in _IMPORTERS:
        return texts[0]
    return None


def problems() -> Iterator[str]:
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if name in WORLD | KEYS or path.name.endswith("_pb2.py"):
            continue
        for line, what in violations(ast.parse(path.read_text()), name):
            yield f"src/navarch/{name}:{line}: {what}; it has to come from navarch.world"
