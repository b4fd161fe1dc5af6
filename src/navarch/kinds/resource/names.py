"""What the kinds of resource.k8s.io share: rules for names, bounded lists, opaque parameters.

In: a value and its path.  Out: what is wrong with it, in Kubernetes' words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from navarch.api.errors import FieldError, duplicate, invalid_value, required, too_long, too_many
from navarch.api.meta import Obj
from navarch.api.validation import (
    c_identifier_problems,
    dns_label_problems,
    dns_subdomain_problems,
    label_value_problems,
    validate_qualified_name,
)

Check = Callable[[Any, str], Iterable[FieldError]]

_DRIVER_LENGTH: Final = 63
_POOL_LENGTH: Final = 253
_ID_LENGTH: Final = 32
_KEY_LENGTH: Final = _DRIVER_LENGTH + 1 + _ID_LENGTH
_UID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def driver_problems(name: str, path: str) -> Iterator[FieldError]:
    if not name:
        yield required(path)
        return
    if len(name) > _DRIVER_LENGTH:
        yield too_long(path, _DRIVER_LENGTH)
    for problem in dns_subdomain_problems(name.lower()):
        yield invalid_value(path, name, problem)


def pool_problems(name: str, path: str) -> Iterator[FieldError]:
    if not name:
        yield required(path)
        return
    if len(name) > _POOL_LENGTH:
        yield too_long(path, _POOL_LENGTH)
    for part in name.split("/"):
        for problem in dns_subdomain_problems(part):
            yield invalid_value(path, part, problem)


def label_problems(name: str, path: str) -> Iterator[FieldError]:
    """Of the name of a device, a request, a set of counters."""
    for problem in dns_label_problems(name):
        yield invalid_value(path, name, problem)


def class_problems(name: str, path: str) -> Iterator[FieldError]:
    if not name:
        yield required(path)
    for problem in dns_subdomain_problems(name) if name else ():
        yield invalid_value(path, name, problem)


def node_name_problems(name: str, path: str) -> Iterator[FieldError]:
    for problem in dns_subdomain_problems(name):
        yield invalid_value(path, name, problem)


def uid_problems(uid: str, path: str) -> Iterator[FieldError]:
    if _UID.fullmatch(uid):
        return
    if _UID.fullmatch(uid.lower()):
        yield invalid_value(
            path,
            uid,
            "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase "
            "hexadecimal characters",
        )
    elif len(uid) not in (32, 36, 38, 45):
        yield invalid_value(path, uid, f"error validating uid: invalid UUID length: {len(uid)}")
    else:
        yield invalid_value(path, uid, "error validating uid: invalid UUID format")


def attribute_name_problems(name: str, path: str) -> Iterator[FieldError]:
    """Of an attribute or a capacity, with or without the domain of who defines it."""
    domain, slash, identifier = name.partition("/")
    if "/" in identifier:
        yield invalid_value(path, name, "must not contain more than one slash")
        return
    if not slash:
        domain, identifier = "", name
    elif not domain:
        yield invalid_value(path, "", "the domain must not be empty")
    else:
        yield from driver_problems(domain, path)
    if slash and not identifier:
        yield invalid_value(path, "", "the name must not be empty")
        return
    if len(identifier) > _ID_LENGTH:
        yield too_long(path, _ID_LENGTH)
    for problem in c_identifier_problems(identifier):
        yield invalid_value(path, identifier, problem)


def full_name_problems(name: str, path: str) -> Iterator[FieldError]:
    """Of an attribute with its domain."""
    yield from attribute_name_problems(name, path)
    if "/" not in name:
        yield invalid_value(path, name, "a fully qualified name must be a domain and a name separated by a slash")


def taint_problems(taint: Obj, path: str, old: Obj | None = None) -> Iterator[FieldError]:
    yield from validate_qualified_name(taint.get("key") or "", f"{path}.key")
    yield from _label_value(taint.get("value") or "", f"{path}.value")
    effect = taint.get("effect") or ""
    if old is not None and (old.get("effect") or "") == effect:
        return
    if not effect:
        yield required(f"{path}.effect")
    elif effect not in EFFECTS:
        yield _unsupported(f"{path}.effect", effect, EFFECTS)


EFFECTS: Final = ("NoExecute", "NoSchedule", "None")


def toleration_problems(toleration: Obj, path: str) -> Iterator[FieldError]:
    key, operator, value = (toleration.get(name) or "" for name in ("key", "operator", "value"))
    if key:
        yield from validate_qualified_name(key, f"{path}.key")
    if operator == "Exists":
        if value:
            yield invalid_value(f"{path}.value", value, "must be empty for operator `Exists`")
    elif operator == "Equal":
        yield from _label_value(value, f"{path}.value")
    elif not operator:
        yield required(f"{path}.operator")
    else:
        yield _unsupported(f"{path}.operator", operator, ("Equal", "Exists"))
    effect = toleration.get("effect") or ""
    if effect and effect not in EFFECTS:
        yield _unsupported(f"{path}.effect", effect, EFFECTS)


def _label_value(value: str, path: str) -> Iterator[FieldError]:
    for problem in label_value_problems(value):
        yield invalid_value(path, value, problem)


def _unsupported(path: str, value: str, supported: Sequence[str]) -> FieldError:
    choices = ", ".join(f'"{choice}"' for choice in supported)
    return FieldError("FieldValueNotSupported", path, f"supported values: {choices}", value)


def parameters_problems(value: Any, path: str, maximum: int, *, stored: bool = False) -> Iterator[FieldError]:
    """Of a driver's own parameters, an object of any form; what is stored may be longer than is allowed now."""
    if value is None:
        yield required(path)
    elif not stored and len(orjson.dumps(value)) > maximum:
        yield too_long(path, maximum)
    elif not isinstance(value, dict):
        yield invalid_value(path, "<value omitted>", "must be a valid JSON object")


# Lists and maps


def each(items: Sequence[Any] | None, maximum: int, check: Check, path: str) -> Iterator[FieldError]:
    """Of a list: too many items, and nothing more is said; or what is wrong with each. Negative: no maximum."""
    items = items or ()
    if 0 <= maximum < len(items):
        yield too_many(path, len(items), maximum)
        return
    for index, item in enumerate(items):
        yield from check(item, f"{path}[{index}]")


def each_once(
    items: Sequence[Any] | None, maximum: int, check: Check, key: Callable[[Any], Hashable], path: str
) -> Iterator[FieldError]:
    """As `each`, of a list without duplicates."""
    items = items or ()
    yield from each(items, maximum, check, path)
    if 0 <= maximum < len(items):
        return
    seen: set[Hashable] = set()
    for index, item in enumerate(items):
        identity = key(item)
        if identity in seen:
            yield duplicate(f"{path}[{index}]", identity)
        seen.add(identity)


def each_value(
    values: Mapping[str, Any] | None,
    maximum: int,
    check_key: Check,
    check: Check,
    path: str,
    longest: int = _KEY_LENGTH,
) -> Iterator[FieldError]:
    """Of a map; keys are shown shortened where they are too long."""
    values = values or {}
    if 0 <= maximum < len(values):
        yield too_many(path, len(values), maximum)
        return
    for key in sorted(values):
        yield from check_key(key, path)
        yield from check(values[key], f"{path}[{_shortened(key, max(longest, 16))}]")


def _shortened(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    rest = length - 3
    return f"{text[: (rest + 1) // 2]}...{text[len(text) - rest // 2 :]}"
