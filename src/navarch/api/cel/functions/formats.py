"""Kubernetes' named formats: `format.dns1123Label().validate(name)`."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from datetime import date
from typing import ClassVar, Final

from navarch.api.cel.declarations import declared
from navarch.api.cel.errors import CelError
from navarch.api.cel.functions.network import uri_problem
from navarch.api.cel.times import parse_timestamp
from navarch.api.cel.values import NONE, Opaque, Optional, some
from navarch.api.validation import (
    dns_label_1035_problems,
    dns_label_problems,
    dns_subdomain_problems,
    label_value_problems,
    qualified_name_problems,
)

Check = Callable[[str], Sequence[str]]
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}")


class Format(Opaque):
    __slots__ = ("check", "name", "regex_size")
    type_name: ClassVar[str] = "kubernetes.NamedFormat"

    def __init__(self, name: str, check: Check, regex_size: int) -> None:
        self.name = name
        self.check = check
        # What the cost of a validation is counted by.
        self.regex_size = regex_size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Format) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


def _prefix(check: Check) -> Check:
    """Names are generated from a prefix, which may end in a dash."""
    return lambda text: check(text[:-1] + "a" if text.endswith("-") else text)


def _uri(text: str) -> Sequence[str]:
    problem = uri_problem(text)
    return (problem,) if problem else ()


def _uuid(text: str) -> Sequence[str]:
    return () if _UUID.fullmatch(text) else ("does not match the UUID format",)


def _byte(text: str) -> Sequence[str]:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return ("invalid base64",)
    return ()


def _date(text: str) -> Sequence[str]:
    try:
        if len(text) != 10:
            raise ValueError
        date.fromisoformat(text)
    except ValueError:
        return ("invalid date",)
    return ()


def _datetime(text: str) -> Sequence[str]:
    try:
        parse_timestamp(text)
    except CelError:
        return ("invalid datetime",)
    return ()


FORMATS: Final = {
    "dns1123Label": Format("DNS1123Label", dns_label_problems, 30),
    "dns1123Subdomain": Format("DNS1123Subdomain", dns_subdomain_problems, 60),
    "dns1035Label": Format("DNS1035Label", dns_label_1035_problems, 30),
    "qualifiedName": Format("QualifiedName", qualified_name_problems, 60),
    "dns1123LabelPrefix": Format("DNS1123LabelPrefix", _prefix(dns_label_problems), 30),
    "dns1123SubdomainPrefix": Format("DNS1123SubdomainPrefix", _prefix(dns_subdomain_problems), 60),
    "dns1035LabelPrefix": Format("DNS1035LabelPrefix", _prefix(dns_label_1035_problems), 30),
    "labelValue": Format("LabelValue", label_value_problems, 40),
    "uri": Format("URI", _uri, 1000),
    "uuid": Format("uuid", _uuid, 80),
    "byte": Format("byte", _byte, 80),
    "date": Format("date", _date, 100),
    "datetime": Format("datetime", _datetime, 100),
}


def _validate(each: Format, text: str) -> Optional:
    problems = list(each.check(text))
    return some(problems) if problems else NONE


def _named(name: str) -> Optional:
    return some(FORMATS[name]) if name in FORMATS else NONE


def _constant(each: Format) -> Callable[[], Format]:
    return lambda: each


FUNCTIONS: Final = declared(
    "validate format-validate kubernetes.NamedFormat.(string) optional<list<string>>\n"
    "format.named format-named (string) optional<kubernetes.NamedFormat>\n"
    + "\n".join(f"format.{name} format.{name} () kubernetes.NamedFormat" for name in FORMATS),
    {
        "format-validate": _validate,
        "format-named": _named,
        **{f"format.{name}": _constant(each) for name, each in FORMATS.items()},
    },
)
