"""Checks that many kinds share: names, labels, annotations, ports, selectors. For `metadata`: `metadata_validation.py`.

In: JSON values and the dotted path at which they stand.  Out: `FieldError`s, worded as Kubernetes words them; the
`…_problems` functions give the bare texts so that a caller can put them under a field of its own.  Pure; a value of the
wrong JSON type has been refused by the schema before any of this runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from navarch.api.addresses import cidr_problems, ip_problems, special_ip_problems
from navarch.api.errors import FieldError, forbidden_field, immutable, invalid_value, not_supported, required, too_long
from navarch.api.memo import memo
from navarch.api.meta import Obj

ANNOTATIONS_LIMIT_BYTES: Final = 256 * 1024
_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_LABEL_1035: Final = "[a-z]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = _LABEL + r"(\." + _LABEL + ")*"
_UNDERSCORED_LABEL: Final = "[a-z0-9_]([-a-z0-9_]*[a-z0-9])?"
_UNDERSCORED: Final = _UNDERSCORED_LABEL + r"(\." + _UNDERSCORED_LABEL + ")*"
_QUALIFIED: Final = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE: Final = f"({_QUALIFIED})?"

_match_label: Final = re.compile(_LABEL).fullmatch
_match_label_1035: Final = re.compile(_LABEL_1035).fullmatch
_match_subdomain: Final = re.compile(_SUBDOMAIN).fullmatch
_match_underscored: Final = re.compile(_UNDERSCORED).fullmatch
_match_qualified: Final = re.compile(_QUALIFIED).fullmatch
_match_label_value: Final = re.compile(_LABEL_VALUE).fullmatch
_match_config_key: Final = re.compile("[-._a-zA-Z0-9]+").fullmatch
_match_env_name: Final = re.compile(r"[ -<>-~]+").fullmatch
_match_c_identifier: Final = re.compile("[A-Za-z_][A-Za-z0-9_]*").fullmatch
_match_wildcard: Final = re.compile(r"\*\." + _SUBDOMAIN).fullmatch

Problems = tuple[str, ...]


def regex_problem(text: str, pattern: str, *examples: str) -> str:
    """Kubernetes' wording of "must match": what is expected, examples, and the expression."""
    if not examples:
        return f"{text} (regex used for validation is '{pattern}')"
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{text} (e.g. {shown}regex used for validation is '{pattern}')"


def max_length_problem(limit: int, unit: str = "characters") -> str:
    """Kubernetes' newer checks count bytes, and say so."""
    return f"must be no more than {limit} {unit}"


def range_problem(low: int, high: int) -> str:
    return f"must be between {low} and {high}, inclusive"


@memo(8192)
def dns_label_problems(value: str) -> Problems:
    """RFC 1123 label: container names, namespaces, port names in EndpointSlices. Of dots, which a name elsewhere may
    have, it is said that they are one too many."""
    problems = [max_length_problem(63)] if len(value) > 63 else []
    if not _match_label(value) and _match_subdomain(value):
        problems.append("must not contain dots")
    elif not _match_label(value):
        text = (
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must "
            "start and end with an alphanumeric character"
        )
        problems.append(regex_problem(text, _LABEL, "my-name", "123-abc"))
    return tuple(problems)


@memo(8192)
def dns_subdomain_problems(value: str) -> Problems:
    """RFC 1123 subdomain: the names of most objects."""
    problems = [max_length_problem(253)] if len(value) > 253 else []
    if not _match_subdomain(value):
        text = (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and "
            "must start and end with an alphanumeric character"
        )
        problems.append(regex_problem(text, _SUBDOMAIN, "example.com"))
    return tuple(problems)


def dns_subdomain_bytes_problems(value: str) -> Problems:
    """The same, where Kubernetes declares the format beside the type's field."""
    if len(value) <= 253:
        return dns_subdomain_problems(value)
    return (max_length_problem(253, "bytes"), *dns_subdomain_problems(value)[1:])


def dns_subdomain_underscore_problems(value: str) -> Problems:
    """A DNS name whose labels may begin with underscores: what resolvers search, and services' own records."""
    problems = [max_length_problem(253)] if len(value) > 253 else []
    if not _match_underscored(value):
        text = (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', "
            "and must start and end with an alphanumeric character"
        )
        problems.append(regex_problem(text, _UNDERSCORED, "example.com"))
    return tuple(problems)


@memo(2048)
def dns_label_1035_problems(value: str) -> Problems:
    """RFC 1035 label: the names of versions and of resources."""
    problems = [max_length_problem(63)] if len(value) > 63 else []
    if not _match_label_1035(value):
        text = (
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
            "alphabetic character, and end with an alphanumeric character"
        )
        problems.append(regex_problem(text, _LABEL_1035, "my-name", "abc-123"))
    return tuple(problems)


@memo(512)
def wildcard_subdomain_problems(value: str) -> Problems:
    """`*.example.com`, as ingress hosts allow it."""
    problems = [max_length_problem(253)] if len(value) > 253 else []
    if not _match_wildcard(value):
        text = (
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must "
            "consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character"
        )
        problems.append(regex_problem(text, r"\*\." + _SUBDOMAIN, "*.example.com"))
    return tuple(problems)


@memo(8192)
def qualified_name_problems(value: str) -> Problems:
    """`name` or `prefix.example/name`: label keys, annotation keys, resource names, finalizers."""
    text = (
        "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
        "alphanumeric character"
    )
    parts = value.split("/")
    problems: list[str] = []
    if len(parts) > 2:
        whole = (
            "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
            "with an alphanumeric character"
        )
        return (
            regex_problem(whole, _QUALIFIED, "MyName", "my.name", "123-abc")
            + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
        )
    if len(parts) == 2:
        prefix = parts[0]
        if not prefix:
            problems.append("prefix part must be non-empty")
        else:
            problems.extend(f"prefix part {problem}" for problem in dns_subdomain_bytes_problems(prefix))
    name = parts[-1]
    if not name:
        problems.append("name part must be non-empty")
    elif len(name) > 63:
        problems.append(f"name part {max_length_problem(63, 'bytes')}")
    if not _match_qualified(name):
        problems.append(regex_problem(text, _QUALIFIED, "MyName", "my.name", "123-abc"))
    return tuple(problems)


@memo(8192)
def label_value_problems(value: str) -> Problems:
    problems = [max_length_problem(63, "bytes")] if len(value) > 63 else []
    if not _match_label_value(value):
        text = (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and "
            "must start and end with an alphanumeric character"
        )
        problems.append(regex_problem(text, _LABEL_VALUE, "MyValue", "my_value", "12345"))
    return tuple(problems)


def path_segment_problems(value: str) -> Problems:
    """Names that only have to fit into a URL path: RBAC objects."""
    if value in (".", ".."):
        return (f"may not be '{value}'",)
    return tuple(f"may not contain '{char}'" for char in "/%" if char in value)


def config_map_key_problems(value: str) -> Problems:
    """Keys of ConfigMap and Secret data."""
    problems = [max_length_problem(253)] if len(value) > 253 else []
    if not _match_config_key(value):
        text = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
        problems.append(regex_problem(text, "[-._a-zA-Z0-9]+", "key.name", "KEY_NAME", "key-name"))
    if value == ".":
        problems.append("must not be '.'")
    elif value == "..":
        problems.append("must not be '..'")
    elif value.startswith(".."):
        problems.append("must not start with '..'")
    return tuple(problems)


@memo(4096)
def env_var_name_problems(value: str) -> Problems:
    """Environment variables: printable ASCII but `=`."""
    if _match_env_name(value):
        return ()
    return (
        regex_problem(
            "a valid environment variable name must consist only of printable ASCII characters other than '='",
            "^[ -<>-~]+$",
        ),
    )


def c_identifier_problems(value: str) -> Problems:
    if _match_c_identifier(value):
        return ()
    text = (
        "a valid C identifier must start with alphabetic character or '_', followed by a string of "
        "alphanumeric characters or '_'"
    )
    return (regex_problem(text, "[A-Za-z_][A-Za-z0-9_]*", "my_name", "MY_NAME", "MyName"),)


@memo(1024)
def port_name_problems(value: str) -> Problems:
    """IANA service names: container ports, named target ports."""
    problems: list[str] = []
    if len(value) > 15:
        problems.append("must be no more than 15 characters")
    if not re.fullmatch(r"[-a-z0-9]+", value):
        problems.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", value):
        problems.append("must contain at least one letter (a-z)")
    if "--" in value:
        problems.append("must not contain consecutive hyphens")
    if value and (value[0] == "-" or value[-1] == "-"):
        problems.append("must not begin or end with a hyphen")
    return tuple(problems)


def port_number_problems(value: int) -> Problems:
    return () if 1 <= value <= 65535 else (range_problem(1, 65535),)


# ---- field-level checks: path and value in, FieldErrors out


def validate_dns_label(value: str, path: str) -> Iterator[FieldError]:
    for problem in dns_label_problems(value):
        yield invalid_value(path, value, problem)


def validate_dns_subdomain(value: str, path: str) -> Iterator[FieldError]:
    for problem in dns_subdomain_problems(value):
        yield invalid_value(path, value, problem)


def validate_namespace_name(value: str, path: str) -> Iterator[FieldError]:
    """The name of a namespace, where one is referred to."""
    yield from validate_dns_label(value, path)


def validate_dns_label_1035(value: str, path: str) -> Iterator[FieldError]:
    for problem in dns_label_1035_problems(value):
        yield invalid_value(path, value, problem)


def validate_qualified_name(value: str, path: str) -> Iterator[FieldError]:
    for problem in qualified_name_problems(value):
        yield invalid_value(path, value, problem)


_HTTP_PATH: Final = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"
_match_http_path: Final = re.compile(_HTTP_PATH).fullmatch


def validate_domain_prefixed_path(value: str, path: str) -> Iterator[FieldError]:
    """`example.com/path`."""
    if not value:
        yield required(path)
        return
    host, slash, rest = value.partition("/")
    if not (host and slash and rest):
        yield invalid_value(path, value, 'must be a domain-prefixed path (such as "acme.io/foo")')
        return
    for problem in dns_subdomain_problems(host):
        yield invalid_value(path, host, problem)
    if not _match_http_path(rest):
        yield invalid_value(path, rest, regex_problem("Invalid path", _HTTP_PATH))


def validate_path_segment(value: str, path: str, why_required: str = "") -> Iterator[FieldError]:
    """There is one, and it can stand in a URL: names and kinds of whatever type."""
    if not value:
        yield required(path, why_required)
    for problem in path_segment_problems(value) if value else ():
        yield invalid_value(path, value, problem)


def validate_port(value: int, path: str) -> Iterator[FieldError]:
    for problem in port_number_problems(value):
        yield invalid_value(path, value, problem)


def validate_port_name(value: str, path: str) -> Iterator[FieldError]:
    for problem in port_name_problems(value):
        yield invalid_value(path, value, problem)


def validate_port_or_name(value: int | str, path: str) -> Iterator[FieldError]:
    """An IntOrString that is a port number or the name of one."""
    yield from validate_port(value, path) if isinstance(value, int) else validate_port_name(value, path)


def validate_ip(value: str, path: str) -> Iterator[FieldError]:
    for problem in ip_problems(value):
        yield invalid_value(path, value, problem)


def validate_cidr(value: str, path: str) -> Iterator[FieldError]:
    for problem in cidr_problems(value):
        yield invalid_value(path, value, problem)


def validate_not_special_ip(value: str, path: str) -> Iterator[FieldError]:
    """An address at which a service can be."""
    for problem in special_ip_problems(value):
        yield invalid_value(path, value, problem)


def validate_non_negative(value: int, path: str) -> Iterator[FieldError]:
    if value < 0:
        yield invalid_value(path, value, "must be greater than or equal to 0")


def validate_positive(value: int, path: str) -> Iterator[FieldError]:
    if value <= 0:
        yield invalid_value(path, value, "must be greater than 0")


def validate_enum(value: str, path: str, supported: Iterable[str]) -> Iterator[FieldError]:
    """Not empty and one of `supported`."""
    if value not in (choices := tuple(supported)):
        yield not_supported(path, value, choices)


def validate_immutable(new: Any, old: Any, path: str) -> Iterator[FieldError]:
    if new != old:
        yield immutable(path, new)


def validate_labels(labels: Mapping[str, str], path: str) -> Iterator[FieldError]:
    for key, value in labels.items():
        for problem in qualified_name_problems(key):
            yield invalid_value(path, key, problem)
        for problem in label_value_problems(value):
            yield invalid_value(path, value, problem)


def validate_annotations(annotations: Mapping[str, str], path: str) -> Iterator[FieldError]:
    total = 0
    for key, value in annotations.items():
        for problem in qualified_name_problems(key.lower()):
            yield invalid_value(path, key, problem)
        total += len(key) + len(value) if value.isascii() else len(key.encode()) + len(value.encode())
    if total > ANNOTATIONS_LIMIT_BYTES:
        yield too_long(path, ANNOTATIONS_LIMIT_BYTES)


def validate_label_selector(selector: Obj | None, path: str) -> Iterator[FieldError]:
    """A `metav1.LabelSelector`."""
    if not selector:
        return
    yield from validate_labels(selector.get("matchLabels") or {}, f"{path}.matchLabels")
    for index, requirement in enumerate(selector.get("matchExpressions") or ()):
        at = f"{path}.matchExpressions[{index}]"
        operator, values = requirement.get("operator", ""), requirement.get("values") or []
        if operator in ("In", "NotIn"):
            if not values:
                yield required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                yield forbidden_field(
                    f"{at}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                )
        else:
            yield invalid_value(f"{at}.operator", operator, "not a valid selector operator")
        key = requirement.get("key", "")
        for problem in qualified_name_problems(key):
            yield invalid_value(f"{at}.key", key, problem)
        for number, value in enumerate(values):
            for problem in label_value_problems(value):
                yield invalid_value(f"{at}.values[{number}]", value, problem)
