"""JSONPath as Kubernetes' printer columns have it: `.spec.foo[*].bar`, `.status.conditions[?(@.type=="Ready")].status`.

In: a path, with or without the leading `$` or the braces of kubectl's templates.  Out: a function from an object to the
values found, in order; what is missing gives none. Compiled once; parts of an object that are not what a step expects
are passed over.

Steps: `.name` (with `\\.` for a dot in a name), `['name']`, `..name`, `.*`, `[*]`, `[2]`, `[-1]`, `[1:3]`, `[::2]`,
`[0,2]`, `['a','b']`, `[?(@.path)]`, `[?(@.path OP value)]` with `==`, `!=`, `<`, `<=`, `>`, `>=` between paths and
literals.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

Find = Callable[[Any], list[Any]]
# One step: from a value to those it leads to.
_Step = Callable[[Any], Iterable[Any]]

_OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_NAME: Final = re.compile(r"(?:\\.|[^.\[\]\s'\"()=!<>?*,:{}])+", re.ASCII)
_QUOTED: Final = re.compile(r"'((?:\\.|[^'\\])*)'|\"((?:\\.|[^\"\\])*)\"")
_SLICE: Final = re.compile(r"(-?\d+)?(?::(-?\d+)?)?(?::(-?\d+)?)?", re.ASCII)
_COMPARE: Final = re.compile(r"\s*(==|!=|<=|>=|<|>)\s*", re.ASCII)
_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?(?![\w.])", re.ASCII)
_LITERALS: Final = {"true": True, "false": False, "null": None, "nil": None}
LONGEST: Final = 4096


class PathError(ValueError):
    """Not a path: why."""


def compile_path(text: str) -> Find:
    """The function for a path.  Raises PathError."""
    if len(text) > LONGEST:
        raise PathError(f"a path may have at most {LONGEST} characters")
    inner = text.strip()
    if inner.startswith("{") and inner.endswith("}"):
        inner = inner[1:-1].strip()
    parser = _Parser(inner)
    steps = parser.path()
    if parser.at < len(inner):
        raise PathError(f"unexpected {inner[parser.at :][:20]!r} in {text[:100]!r}")
    return _finder(steps)


def _finder(steps: list[_Step]) -> Find:
    def find(obj: Any) -> list[Any]:
        found = [obj]
        for step in steps:
            found = [value for each in found for value in step(each)]
            if not found:
                break
        return found

    return find


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def _takes(self, token: str) -> bool:
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def _need(self, token: str) -> None:
        if not self._takes(token):
            raise PathError(f"expected {token!r} at {self.text[self.at :][:20]!r} in {self.text[:100]!r}")

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        matched = pattern.match(self.text, self.at)
        if matched is not None:
            self.at = matched.end()
        return matched

    def path(self) -> list[_Step]:
        """Steps up to where none begins."""
        steps: list[_Step] = []
        if not self._takes("$"):
            self._takes("@")
        if self.at == 0 and self.text[:1] not in (".", "[", ""):
            # Relaxed: `spec.x` means `.spec.x`.
            steps.append(_field(self._name()))
        while self.at < len(self.text):
            if self._takes(".."):
                steps.append(_recursive(self._wildcard_or_name()))
            elif self._takes("."):
                if self.at == len(self.text):
                    break
                if not self.text.startswith("[", self.at):
                    steps.append(self._wildcard_or_name())
            elif self._takes("["):
                steps.append(self._bracket())
                self._need("]")
            else:
                break
        return steps

    def _wildcard_or_name(self) -> _Step:
        return _children if self._takes("*") else _field(self._name())

    def _name(self) -> str:
        matched = self._match(_NAME)
        if matched is None:
            raise PathError(f"expected a name at {self.text[self.at :][:20]!r} in {self.text[:100]!r}")
        return re.sub(r"\\(.)", r"\1", matched[0])

    def _bracket(self) -> _Step:
        if self._takes("?("):
            return self._filter()
        steps = [self._selector()]
        while self._takes(","):
            steps.append(self._selector())
        if len(steps) == 1:
            return steps[0]
        return lambda value: (found for step in steps for found in step(value))

    def _selector(self) -> _Step:
        self._blanks()
        if self._takes("*"):
            return _children
        quoted = self._match(_QUOTED)
        if quoted is not None:
            return _field(_unquoted(quoted))
        before = self.at
        matched = self._match(_SLICE)
        assert matched is not None
        if self.at == before:
            return _field(self._name())
        numbers = [None if part is None else int(part) for part in matched.groups()]
        if ":" not in matched[0]:
            assert numbers[0] is not None
            return _item(numbers[0])
        if numbers[2] is not None and numbers[2] <= 0:
            raise PathError("the step of a slice must be positive")
        return _items(slice(*numbers))

    def _blanks(self) -> None:
        while self.text[self.at : self.at + 1] == " ":
            self.at += 1

    def _filter(self) -> _Step:
        self._blanks()
        left = self._operand()
        matched = self._match(_COMPARE)
        if matched is None:
            self._blanks()
            self._need(")")
            return _where(lambda item: bool(left(item)))
        compare, right = _OPERATORS[matched[1]], self._operand()
        self._blanks()
        self._need(")")
        return _where(lambda item: _compares(compare, left(item), right(item)))

    def _operand(self) -> Find:
        if self.text[self.at : self.at + 1] in ("@", "$", "."):
            return _finder(self.path())
        quoted = self._match(_QUOTED)
        if quoted is not None:
            literal: Any = _unquoted(quoted)
        elif (number := self._match(_NUMBER)) is not None:
            literal = float(number[0]) if "." in number[0] else int(number[0])
        else:
            name = self._name()
            if name not in _LITERALS:
                raise PathError(f"{name!r} is no value in {self.text[:100]!r}")
            literal = _LITERALS[name]
        return lambda item: [literal]


def _unquoted(matched: re.Match[str]) -> str:
    return re.sub(r"\\(.)", r"\1", matched[1] if matched[1] is not None else matched[2])


def _compares(compare: Callable[[Any, Any], Any], left: list[Any], right: list[Any]) -> bool:
    """Of the first values only, and only of like with like: text never equals a number, true is not 1."""
    if not left or not right:
        return False
    one, other = left[0], right[0]
    numbers = all(type(each) in (int, float) for each in (one, other))
    if not numbers and type(one) is not type(other):
        return compare is operator.ne
    try:
        return bool(compare(one, other))
    except TypeError:
        return False


def _field(name: str) -> _Step:
    def step(value: Any) -> Iterable[Any]:
        return (value[name],) if type(value) is dict and name in value else ()

    return step


def _item(index: int) -> _Step:
    def step(value: Any) -> Iterable[Any]:
        return (value[index],) if type(value) is list and -len(value) <= index < len(value) else ()

    return step


def _items(part: slice) -> _Step:
    return lambda value: value[part] if type(value) is list else ()


def _children(value: Any) -> Iterable[Any]:
    return value if type(value) is list else value.values() if type(value) is dict else ()


def _recursive(step: _Step) -> _Step:
    def descend(value: Any) -> Iterator[Any]:
        pending = [value]
        while pending:
            at = pending.pop()
            yield from step(at)
            pending.extend(reversed(list(_children(at))))

    return descend


def _where(keeps: Callable[[Any], bool]) -> _Step:
    return lambda value: [item for item in _children(value) if keeps(item)]
