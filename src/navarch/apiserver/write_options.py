"""The query of a write: read and checked as Kubernetes does `CreateOptions`, `UpdateOptions` and `PatchOptions`.

In: the pairs of a query, and which options they are.  Out: nothing, if they are good; else one error that names all
that is wrong, in Kubernetes' order and words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from navarch.api.errors import FieldError, forbidden_field, invalid, invalid_value, not_one_of, required, too_long

_MANAGER_MAX: Final = 128
_VALIDATIONS: Final = ("", "Ignore", "Strict", "Warn")


def check_write_options(query: Sequence[tuple[str, str]], kind: str, *, applying: bool = False) -> None:
    """`kind` is that of the options; `applying` says that the patch is a server-side apply.  Raises StatusError 422."""
    errors = list(_wrong(query, kind, applying=applying))
    if errors:
        raise invalid(kind, "meta.k8s.io", "", errors)


def _wrong(query: Sequence[tuple[str, str]], kind: str, *, applying: bool) -> Iterator[FieldError]:
    given = dict(query[::-1])
    manager = given.get("fieldManager", "")
    if applying and not manager:
        yield required("fieldManager", "is required for apply patch")
    if kind == "PatchOptions" and not applying and "force" in given:
        yield forbidden_field("force", "may not be specified for non-apply patch")
    if len(manager.encode()) > _MANAGER_MAX:
        yield too_long("fieldManager", _MANAGER_MAX)
    position = 0
    for character in manager:
        if not character.isprintable():
            what = f"invalid character U+{ord(character):04X} (at position {position})"
            yield invalid_value("fieldManager", manager, what)
        position += len(character.encode())
    dry_run = [value for name, value in query if name == "dryRun"]
    if any(value != "All" for value in dry_run):
        yield not_one_of("dryRun", dry_run, ("All",))
    validation = given.get("fieldValidation", "")
    if validation not in _VALIDATIONS:
        yield not_one_of("fieldValidation", validation, _VALIDATIONS)
