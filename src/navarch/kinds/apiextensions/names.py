"""Who may have which names: what a definition asks for, against what others in its group have.

In: a definition and the others of its group.  Out: the names that it gets, and the condition that says so. Names that
it has already stay its own; a name that somebody else has is refused, the others are given.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from navarch.api.meta import Obj
from navarch.kinds.apiextensions.ca_bundle import bundle_problem, conversion_bundle
from navarch.kinds.apiextensions.conditions import Condition, is_true


def accepted_names(crd: Obj, others: Iterable[Obj]) -> tuple[Obj, Condition]:
    """The names and the condition `NamesAccepted`."""
    resources: set[str] = set()
    kinds: set[str] = set()
    for other in others:
        names = (other.get("status") or {}).get("acceptedNames") or {}
        resources |= {names.get("plural", ""), names.get("singular", ""), *(names.get("shortNames") or ())}
        kinds |= {names.get("kind", ""), names.get("listKind", "")}
    wanted = (crd.get("spec") or {}).get("names") or {}
    has = (crd.get("status") or {}).get("acceptedNames") or {}
    given = dict(has)
    reason, message = "", ""
    for name, taken in (("plural", resources), ("singular", resources)):
        problem = _problem(wanted.get(name, ""), has.get(name, ""), taken)
        if problem:
            reason, message = f"{name.title()}Conflict", problem
        else:
            given[name] = wanted.get(name, "")
    if (wanted.get("shortNames") or []) != (has.get("shortNames") or []):
        mine = set(has.get("shortNames") or ())
        problems = [
            problem
            for short in wanted.get("shortNames") or ()
            if short not in mine and (problem := _problem(short, "", resources))
        ]
        if problems:
            distinct = list(dict.fromkeys(problems))
            reason = "ShortNamesConflict"
            message = distinct[0] if len(distinct) == 1 else f"[{', '.join(distinct)}]"
        else:
            _set(given, "shortNames", wanted.get("shortNames"))
    for name, type_ in (("kind", "KindConflict"), ("listKind", "ListKindConflict")):
        problem = _problem(wanted.get(name, ""), has.get(name, ""), kinds)
        if problem:
            reason, message = type_, problem
        else:
            given[name] = wanted.get(name, "")
    _set(given, "categories", wanted.get("categories"))
    given = {"plural": "", "kind": "", **{name: value for name, value in given.items() if value}}
    if reason:
        return given, Condition("NamesAccepted", "False", reason, message)
    return given, Condition("NamesAccepted", "True", "NoConflicts", "no conflicts found")


def _set(names: Obj, name: str, value: Any) -> None:
    if value:
        names[name] = list(value)
    else:
        names.pop(name, None)


def _problem(wanted: str, has: str, taken: set[str]) -> str:
    return "" if wanted == has or wanted not in taken else f'"{wanted}" is already in use'


def established(crd: Obj, names: Condition) -> Condition:
    """The condition `Established`: once true it stays, whatever happens to the names."""
    if not is_true(crd, "Established"):
        if names.status != "True":
            return Condition("Established", "False", "NotAccepted", "not all names are accepted")
        bundle = conversion_bundle(crd)
        if bundle and bundle_problem(bundle):
            return Condition("Established", "False", "InvalidCABundle", "The conversion webhook CABundle is invalid")
    return Condition("Established", "True", "InitialNamesAccepted", "the initial names have been accepted")
