"""Objects as Kubernetes' server has them in memory, where its errors show them.

Some errors show a whole structure, and Kubernetes shows its internal one: Go's names of the fields, in the order of the
type's declaration, with those that are not set (`{"Type":"Nope","RollingUpdate":null}`). Clients compare such texts, so
the types that errors show are listed in `internal_types.txt`, a line each:

    DeploymentStrategy  Type=type:"" RollingUpdate=rollingUpdate:*RollingUpdateDeployment

A field is Go's name, the API's, and what it is: `""`, `0`, `false` stand for a value that is there even if not set, `?`
for one that is null then, `T` for a structure in its place, `*T` for one that can be null, `[]T` for a list of them;
`+T` puts a type's fields among those of the type that embeds it, and `~=metadata` the metadata's. In: JSON objects of
the API.  Out: JSON values of the internal form, never changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from difflib import SequenceMatcher
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any, Final

from navarch.api.errors import FieldError, immutable
from navarch.api.meta import Obj

_UNSET: Final[Mapping[str, Any]] = {'""': "", "0": 0, "false": False, "?": None}
_CONTEXT_LINES: Final = 3
# The best diff takes quadratic time: so many lines that differ are a second of it.
_MANY_LINES: Final = 1000


@cache
def _types() -> dict[str, list[str]]:
    text = files("navarch.kinds").joinpath("internal_types.txt").read_text(encoding="utf-8")
    lines = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return {name: fields for name, *fields in lines}


# Metadata keeps the API's names; what is not set is left out.
_METADATA: Final = (
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
)
# Fields of a pod's spec that Kubernetes keeps in the security context, from which they once came.
_OF_SECURITY_CONTEXT: Final = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers")


def _pod_spec(spec: Obj) -> Obj:
    moved = {name: spec[name] for name in _OF_SECURITY_CONTEXT if name in spec}
    return {**spec, "securityContext": {**(spec.get("securityContext") or {}), **moved}}


_PREPARE: Final[Mapping[str, Callable[[Obj], Obj]]] = {"PodSpec": _pod_spec}
Dump = Callable[[Any], Any]


@cache
def _dump(name: str) -> Dump:
    """How a structure of the API becomes one of the internal type."""
    plan: list[tuple[str, str, Any, Dump | None]] = []
    metadata = ""
    for field in _fields(name):
        go, _, rest = field.partition("=")
        key, _, kind = rest.partition(":")
        if go == "~":
            metadata = key
        else:
            plan.append((go, key, *_kind(kind)))
    prepare = _PREPARE.get(name)

    def dump(value: Any) -> Any:
        value = value or {}
        if prepare is not None:
            value = prepare(value)
        out: Obj = {}
        if metadata:
            stated = value.get(metadata) or {}
            out.update((key, stated[key]) for key in _METADATA if stated.get(key))
        for go, key, unset, inner in plan:
            stated = value.get(key)
            if inner is not None and (stated is not None or unset is not None):
                out[go] = inner(stated)
            else:
                out[go] = unset if stated is None or (stated == [] and unset is None) else stated
        return out

    return dump


def _fields(name: str) -> list[str]:
    found: list[str] = []
    for field in _types()[name]:
        found += _fields(field[1:]) if field.startswith("+") else [field]
    return found


def _kind(kind: str) -> tuple[Any, Dump | None]:
    """What stands for a field that is not set, and how one that is becomes internal."""
    if kind in _UNSET:
        return _UNSET[kind], None
    if kind.startswith("[]"):
        return None, lambda items: [_dump(kind[2:])(item) for item in items] or None
    if kind.startswith("*"):
        return None, lambda value: _dump(kind[1:])(value)
    return {}, lambda value: _dump(kind)(value)


def internal(value: Any, name: str) -> Any:
    """The value as Kubernetes shows it; `name` is that of the internal type."""
    return None if value is None else _dump(name)(value)


def immutable_internal(new: Any, old: Any, path: str, name: str) -> Iterator[FieldError]:
    """A field that may not change, shown as Kubernetes' server has it; `name` is empty for what looks the same."""
    if new != old:
        yield immutable(path, internal(new, name) if name else new)


def difference(old: Any, new: Any, name: str) -> str:
    """What differs between two structures, as the lines of a unified diff of their internal form."""
    before, after = (_lines(internal(value, name)) for value in (old, new))
    out: list[str] = []
    for hunk in _Changes(None, before, after).get_grouped_opcodes(_CONTEXT_LINES):
        (_, old_from, _, new_from, _), (_, _, old_to, _, new_to) = hunk[0], hunk[-1]
        out.append(f"@@ -{_span(old_from, old_to)} +{_span(new_from, new_to)} @@")
        for tag, i, i_end, j, j_end in hunk:
            if tag == "equal":
                out += [f" {line}" for line in before[i:i_end]]
            else:
                out += [f"-{line}" for line in before[i:i_end]]
                out += [f"+{line}" for line in after[j:j_end]]
    return "".join(f"{line}\n" for line in out)


def _span(start: int, end: int) -> str:
    """Lines as a unified diff counts them."""
    if end - start == 1:
        return str(start + 1)
    return f"{start + (end > start)},{end - start}"


class _Changes(SequenceMatcher[str]):
    """The best diff; of many lines one in linear time: line by line, or all between what begins and ends alike."""

    def __init__(self, isjunk: None, a: list[str], b: list[str]) -> None:
        self._old, self._new = a, b
        short = min(len(a), len(b))
        self._head = next((at for at in range(short) if a[at] != b[at]), short)
        rest = short - self._head
        self._tail = next((at for at in range(rest) if a[-1 - at] != b[-1 - at]), rest)
        self._many = len(a) + len(b) - 2 * (self._head + self._tail) > _MANY_LINES
        super().__init__(isjunk, *([], []) if self._many else (a, b))

    def get_opcodes(self) -> Any:
        if not self._many:
            return super().get_opcodes()
        old, new = self._old, self._new
        if len(old) != len(new):
            ends = len(old) - self._tail, len(new) - self._tail
            codes = [
                ("equal", 0, self._head, 0, self._head),
                ("replace", self._head, ends[0], self._head, ends[1]),
                ("equal", ends[0], len(old), ends[1], len(new)),
            ]
            return [code for code in codes if code[1] < code[2] or code[3] < code[4]]
        at = 0
        codes = []
        for same, run in groupby(a == b for a, b in zip(old, new, strict=True)):
            end = at + sum(1 for _ in run)
            codes.append(("equal" if same else "replace", at, end, at, end))
            at = end
        return codes


def _lines(value: Any) -> list[str]:
    return json.dumps(_sorted_maps(value), indent=1, ensure_ascii=False).splitlines()


def _sorted_maps(value: Any) -> Any:
    """Go writes maps in the order of their keys; a field's name begins in upper case, a map's key hardly ever."""
    if isinstance(value, dict):
        is_map = any(not key[:1].isupper() for key in value)
        keys = sorted(value) if is_map else value
        return {key: _sorted_maps(value[key]) for key in keys}
    return [_sorted_maps(item) for item in value] if isinstance(value, list) else value
