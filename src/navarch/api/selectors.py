"""Label and field selectors: parsed once, matched often.

In: a query parameter's text (`app in (a,b),!canary`, `spec.nodeName=n1`), or a `metav1.LabelSelector` object.  Out: a
selector with `matches`.  Pure; a text that does not parse raises StatusError 400 in the words of Kubernetes' parser.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from itertools import islice
from typing import Final, NamedTuple

from navarch.api.errors import Obj, StatusError, bad_request
from navarch.api.memo import memo
from navarch.api.validation import label_value_problems, qualified_name_problems
from navarch.numbers import integer_or
from navarch.records import frozen

IN: Final = "in"
NOT_IN: Final = "notin"
EXISTS: Final = "exists"
DOES_NOT_EXIST: Final = "!"
GREATER: Final = "gt"
LESS: Final = "lt"

_OPERATORS: Final = {"=": IN, "==": IN, "!=": NOT_IN, "in": IN, "notin": NOT_IN, ">": GREATER, "<": LESS}
_EXPECTED_OPERATORS: Final = "in, notin, =, ==, !=, gt, lt"


# What a text may ask for: each object of a list, and each change of a watch, is compared with all of it.
_MAX_LENGTH: Final = 128 << 10
_MAX_TERMS: Final = 1000
_MAX_VALUES: Final = 5000


class Requirement(NamedTuple):
    """One term of a label selector. `values` has one element for `gt` and `lt`, none for existence."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        operator = self.operator
        if operator == IN:
            return value is not None and value in self.values
        if operator == NOT_IN:
            return value is None or value not in self.values
        if operator == EXISTS:
            return value is not None
        if operator == DOES_NOT_EXIST:
            return value is None
        number, bound = integer_or(value or "", None), integer_or(next(iter(self.values)), None)
        if number is None or bound is None:
            return False
        return number > bound if operator == GREATER else number < bound

    def __str__(self) -> str:
        listed = ",".join(sorted(self.values))
        if self.operator == IN:
            return f"{self.key}={listed}" if len(self.values) == 1 else f"{self.key} in ({listed})"
        if self.operator == NOT_IN:
            return f"{self.key}!={listed}" if len(self.values) == 1 else f"{self.key} notin ({listed})"
        if self.operator in (GREATER, LESS):
            return f"{self.key}{'>' if self.operator == GREATER else '<'}{listed}"
        return self.key if self.operator == EXISTS else f"!{self.key}"


class LabelSelector:
    """All of its requirements must hold; without any it matches everything, `NOTHING` matches nothing."""

    __slots__ = ("_equal", "_needing", "_nothing", "_sparing", "requirements")

    def __init__(self, requirements: tuple[Requirement, ...] = (), *, nothing: bool = False) -> None:
        self.requirements = requirements
        self._nothing = nothing
        # Nearly every selector only compares for equality; those terms need no call each.
        self._equal = tuple(
            (r.key, next(iter(r.values))) for r in requirements if r.operator == IN and len(r.values) == 1
        )
        # Of the others, those that an object without the label meets are looked up by key; of the rest the first label
        # that is missing ends it. So it is the number of labels that counts, not that of requirements.
        others = _combined(r for r in requirements if r.operator != IN or len(r.values) != 1)
        self._needing = tuple(r for r in others if r.operator not in (NOT_IN, DOES_NOT_EXIST))
        self._sparing: dict[str, list[Requirement]] = {}
        for requirement in others:
            if requirement.operator in (NOT_IN, DOES_NOT_EXIST):
                self._sparing.setdefault(requirement.key, []).append(requirement)

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        if self._nothing:
            return False
        if labels is None:
            labels = {}
        for key, value in self._equal:
            if labels.get(key) != value:
                return False
        for requirement in self._needing:
            if not requirement.matches(labels):
                return False
        sparing = self._sparing
        if not sparing:
            return True
        if len(labels) <= len(sparing):
            found = [sparing[key] for key in labels if key in sparing]
        else:
            found = [sparing[key] for key in sparing if key in labels]
        return all(requirement.matches(labels) for each in found for requirement in each)

    @property
    def matches_everything(self) -> bool:
        return not self.requirements and not self._nothing

    @property
    def matches_nothing(self) -> bool:
        return self._nothing

    def required(self, key: str) -> str | None:
        """The one value that the label must have, None where the selector leaves it open."""
        return next((value for name, value in self._equal if name == key), None)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, LabelSelector)
            and self._nothing == other._nothing
            and sorted(map(_sortable, self.requirements)) == sorted(map(_sortable, other.requirements))
        )

    def __hash__(self) -> int:
        return hash((self._nothing, frozenset(self.requirements)))

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in sorted(self.requirements, key=_sortable))

    def __repr__(self) -> str:
        return f"LabelSelector({'nothing' if self._nothing else str(self)})"


def _combined(requirements: Iterable[Requirement]) -> list[Requirement]:
    """The same with each key and operator once, so that a label is not compared with a thousand of them."""
    combined: dict[tuple[str, str], frozenset[str]] = {}
    for key, operator, values in requirements:
        known = combined.get((key, operator))
        if known is None:
            combined[key, operator] = values
        elif operator == IN:
            combined[key, operator] = known & values
        elif operator == NOT_IN:
            combined[key, operator] = known | values
        elif operator in (GREATER, LESS):
            strictest = max if operator == GREATER else min
            combined[key, operator] = frozenset((strictest(*known, *values, key=int),))
    return [Requirement(key, operator, values) for (key, operator), values in combined.items()]


def _sortable(requirement: Requirement) -> tuple[str, str, list[str]]:
    return requirement.key, requirement.operator, sorted(requirement.values)


EVERYTHING: Final = LabelSelector()
NOTHING: Final = LabelSelector(nothing=True)


def from_map(labels: Mapping[str, str] | None) -> LabelSelector:
    """Equality with every label of a map: the selector of a Service or ReplicationController. None: everything."""
    if not labels:
        return EVERYTHING
    return LabelSelector(tuple(Requirement(key, IN, frozenset((value,))) for key, value in sorted(labels.items())))


_EXPRESSION_OPERATORS: Final = {"In": IN, "NotIn": NOT_IN, "Exists": EXISTS, "DoesNotExist": DOES_NOT_EXIST}


def label_selector_of(selector: Obj | None) -> LabelSelector:
    """A `metav1.LabelSelector`: None matches nothing, an empty one everything.  Raises StatusError 400."""
    if selector is None:
        return NOTHING
    terms = [
        Requirement(key, IN, frozenset((value,))) for key, value in sorted((selector.get("matchLabels") or {}).items())
    ]
    for expression in selector.get("matchExpressions") or ():
        operator = _EXPRESSION_OPERATORS.get(expression.get("operator", ""))
        if operator is None:
            shown = json.dumps(expression.get("operator", ""))
            raise bad_request(f"{shown} is not a valid label selector operator")
        terms.append(_requirement(expression.get("key", ""), operator, frozenset(expression.get("values") or ())))
    return LabelSelector(tuple(terms)) if terms else EVERYTHING


def _requirement(key: str, operator: str, values: frozenset[str]) -> Requirement:
    """A checked requirement.  Raises StatusError 400."""
    _check_key(key, "key")
    if operator in (IN, NOT_IN) and not values:
        raise bad_request("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty")
    if operator in (EXISTS, DOES_NOT_EXIST) and values:
        shown = json.dumps(sorted(values), separators=(",", ":"))
        raise bad_request(f"values: Invalid value: {shown}: values set must be empty for exists and does not exist")
    if wrong := list(_wrong_values(key, operator, values)):
        raise bad_request(wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]")
    return Requirement(key, operator, values)


def _wrong_values(key: str, operator: str, values: frozenset[str]) -> Iterator[str]:
    listed = sorted(values)
    if operator in (GREATER, LESS):
        for index, value in enumerate(listed):
            if integer_or(value, None) is None:
                detail = "for 'Gt', 'Lt' operators, the value must be an integer"
                yield f"values[{index}]: Invalid value: {json.dumps(value, ensure_ascii=False)}: {detail}"
    for index, value in enumerate(listed):
        if problems := label_value_problems(value):
            shown = json.dumps(value, ensure_ascii=False)
            yield f"values[{index}][{key}]: Invalid value: {shown}: {'; '.join(problems)}"


def _check_key(key: str, path: str) -> None:
    if problems := qualified_name_problems(key):
        shown = json.dumps(key, ensure_ascii=False)
        raise bad_request(f"{path}: Invalid value: {shown}: {'; '.join(problems)}")


_TOKEN: Final = re.compile(r"\s*(==|!=|[=!(),><]|[^\s=!(),><]+)", re.ASCII)


def _tokens(text: str) -> Iterator[str]:
    position = 0
    while (match := _TOKEN.match(text, position)) is not None:
        yield match.group(1)
        position = match.end()


_SPECIAL: Final = frozenset(("=", "==", "!=", "!", "(", ")", ",", ">", "<"))


class _Parser:
    """A recursive-descent parser of the selector grammar; the empty token stands for the end of the text."""

    def __init__(self, text: str) -> None:
        self._rest = list(_tokens(text))
        self._rest.reverse()

    def _peek(self) -> str:
        return self._rest[-1] if self._rest else ""

    def _next(self) -> str:
        return self._rest.pop() if self._rest else ""

    def parse(self) -> Iterator[Requirement]:
        while token := self._peek():
            if token in _SPECIAL and token != "!":
                raise bad_request(f"found '{token}', expected: !, identifier, or 'end of string'")
            try:
                yield self._parse_requirement()
            except StatusError as error:
                raise bad_request(f"unable to parse requirement: {error.message}") from None
            separator = self._next()
            if not separator:
                return
            if separator != ",":
                raise bad_request(f"found '{separator}', expected: ',' or 'end of string'")
            following = self._peek()
            if not following or (following in _SPECIAL and following != "!"):
                raise bad_request(f"found '{following}', expected: identifier after ','")

    def _parse_requirement(self) -> Requirement:
        key = self._next()
        negated = key == "!"
        if negated:
            key = self._next()
        if not key or key in _SPECIAL:
            raise bad_request(f"found '{key}', expected: identifier")
        _check_key(key, "<nil>")
        if negated or self._peek() in ("", ","):
            return Requirement(key, DOES_NOT_EXIST if negated else EXISTS)
        token = self._next()
        operator = _OPERATORS.get(token)
        if operator is None:
            raise bad_request(f"found '{token}', expected: {_EXPECTED_OPERATORS}")
        values = self._parse_values() if token in ("in", "notin") else self._parse_value()
        return _requirement(key, operator, values)

    def _parse_value(self) -> frozenset[str]:
        if self._peek() in ("", ","):
            return frozenset(("",))
        value = self._next()
        if value in _SPECIAL:
            raise bad_request(f"found '{value}', expected: identifier")
        return frozenset((value,))

    def _parse_values(self) -> frozenset[str]:
        token = self._next()
        if token != "(":
            raise bad_request(f"found '{token}' expected: '('")
        if self._peek() == ")":
            self._next()
            return frozenset()
        # Between commas and parentheses stands one value, which may be empty.
        values: set[str] = set()
        expected = "',', ')' or identifier"
        while len(values) <= _MAX_VALUES:
            token = self._next()
            if token in (",", ")"):
                values.add("")
            elif not token or token in _SPECIAL:
                raise bad_request(f"found '{token}', expected: {expected}")
            else:
                values.add(token)
                token = self._next()
            if token == ")":
                return frozenset(values)
            if token != ",":
                raise bad_request(f"found '{token}', expected: ',' or ')'")
            expected = "',', or identifier"
        raise bad_request(f"may not have more than {_MAX_VALUES} values")


@memo(1024, 1024)
def parse_label_selector(text: str) -> LabelSelector:
    """The selector of a `labelSelector` parameter; empty text matches everything.  Raises StatusError 400."""
    if len(text) > _MAX_LENGTH:
        raise bad_request(f"invalid label selector: may not be longer than {_MAX_LENGTH} characters")
    requirements = tuple(islice(_Parser(text).parse(), _MAX_TERMS + 1))
    if len(requirements) > _MAX_TERMS:
        raise bad_request(f"invalid label selector: may not have more than {_MAX_TERMS} requirements")
    if sum(len(requirement.values) for requirement in requirements) > _MAX_VALUES:
        raise bad_request(f"invalid label selector: may not have more than {_MAX_VALUES} values")
    return LabelSelector(requirements) if requirements else EVERYTHING


class FieldTerm(NamedTuple):
    """`field=value`, or `field!=value` where `equal` is false."""

    field: str
    value: str
    equal: bool = True


@frozen
class FieldSelector:
    """All of its terms must hold. Fields are dotted paths, values are compared as text."""

    terms: tuple[FieldTerm, ...] = ()
    # By field, the values that it must and those that it may not have.
    _values: dict[str, tuple[set[str], set[str]]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        values: dict[str, tuple[set[str], set[str]]] = {}
        for name, value, equal in self.terms:
            values.setdefault(name, (set(), set()))[not equal].add(value)
        object.__setattr__(self, "_values", values)

    def matches(self, get: Callable[[str], str]) -> bool:
        """`get` gives the text of a field, empty where the object has none."""
        for name, (wanted, unwanted) in self._values.items():
            value = get(name)
            if value in unwanted or (wanted and wanted != {value}):
                return False
        return True

    def required(self, field: str) -> str | None:
        """The one value that the field must have, None where the selector leaves it open."""
        return next((term.value for term in self.terms if term.field == field and term.equal), None)

    def __str__(self) -> str:
        return ",".join(term.field + ("=" if term.equal else "!=") + _escape(term.value) for term in self.terms)


def _escape(value: str) -> str:
    return re.sub(r"([\\,=])", r"\\\1", value)


def _split_terms(text: str) -> list[str]:
    """Split at commas that no backslash escapes."""
    return re.findall(r"(?:\\.|[^,\\]|\\$)+", text, re.DOTALL)


_FIELD_TERM: Final = re.compile(r"((?:\\.|[^=!\\]|!(?!=))*)(!=|==|=)(.*)", re.DOTALL)


def _unescape(value: str) -> str:
    out: list[str] = []
    chars = iter(value)
    for char in chars:
        if char != "\\":
            if char in ",=":
                # Kubernetes shows the character by its number.
                raise bad_request(f"invalid field selector: unescaped character in value: {ord(char)}")
            out.append(char)
            continue
        escaped = next(chars, "")
        if escaped not in ("\\", ",", "="):
            raise bad_request(f"invalid field selector: invalid escape sequence: \\{escaped}")
        out.append(escaped)
    return "".join(out)


@memo(1024, 1024)
def parse_field_selector(text: str) -> FieldSelector:
    """The selector of a `fieldSelector` parameter; empty text matches everything.  Raises StatusError 400."""
    if len(text) > _MAX_LENGTH:
        raise bad_request(f"invalid field selector: may not be longer than {_MAX_LENGTH} characters")
    terms = []
    parts = _split_terms(text)
    if len(parts) > _MAX_TERMS:
        raise bad_request(f"invalid field selector: may not have more than {_MAX_TERMS} requirements")
    # In Kubernetes' order, in which mistakes are found.
    for part in sorted(parts):
        match = _FIELD_TERM.fullmatch(part)
        if match is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        field, operator, value = match.groups()
        terms.append(FieldTerm(field, _unescape(value), operator != "!="))
    return FieldSelector(tuple(terms))


def unsupported_field(field: str, selectable: tuple[str, ...]) -> StatusError:
    """400 for a field that the kind does not index; `selectable` beyond metadata.name and metadata.namespace."""
    if selectable:
        return bad_request(f"field label not supported: {field}")
    shown = '"metadata.name", "metadata.namespace"'
    return bad_request(f"{json.dumps(field)} is not a known field selector: only {shown}")
