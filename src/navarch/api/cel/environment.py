"""The way in: an environment compiles expressions, and a program evaluates one.

In: variables with their types, types that expressions can make, and texts.  Out: `Program`s: what an expression gives,
what it may cost at most, which variables it reads, and its value for values of the variables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from navarch.api.cel import ast
from navarch.api.cel.checker import Checker
from navarch.api.cel.closures import COST, Closure
from navarch.api.cel.costs import PER_CALL_LIMIT
from navarch.api.cel.declarations import Function, merged
from navarch.api.cel.errors import CelError, CostExceeded
from navarch.api.cel.estimate import Estimator
from navarch.api.cel.functions import (
    arithmetic,
    authorizer,
    formats,
    lists,
    network,
    optionals,
    quantities,
    standard,
    strings,
)
from navarch.api.cel.parser import parse
from navarch.api.cel.planner import Planner
from navarch.api.cel.sizes import Range
from navarch.api.cel.types import Type, object_type
from navarch.api.cel.values import NO_OVERLOAD

FUNCTIONS: Final[Mapping[str, Function]] = merged(
    (
        arithmetic.FUNCTIONS,
        standard.FUNCTIONS,
        strings.FUNCTIONS,
        lists.FUNCTIONS,
        optionals.FUNCTIONS,
        network.FUNCTIONS,
        quantities.FUNCTIONS,
        formats.FUNCTIONS,
        authorizer.FUNCTIONS,
    )
)
_PATCHING: Final = merged((FUNCTIONS.values(), strings.PATCHING))
_LIBRARY_TYPES: Final = {
    name: object_type(name, {})
    for name in (
        "net.IP",
        "net.CIDR",
        "kubernetes.URL",
        "kubernetes.Quantity",
        "kubernetes.Semver",
        "kubernetes.NamedFormat",
        "kubernetes.authorization.Authorizer",
        "kubernetes.authorization.PathCheck",
        "kubernetes.authorization.GroupCheck",
        "kubernetes.authorization.ResourceCheck",
        "kubernetes.authorization.Decision",
    )
}
Types = Callable[[str], Type | None]


def _no_types(name: str) -> Type | None:
    return None


class Environment:
    """What expressions of one kind can speak of. Immutable; made once, used for many."""

    def __init__(self, variables: Mapping[str, Type], types: Types = _no_types, *, patching: bool = False) -> None:
        self.variables = variables
        self._types = types
        self._patching = patching
        self._functions = _PATCHING if patching else FUNCTIONS
        # Where the variables are in a frame. Those of the library, such as `authorizer.requestResource`, have dots.
        self.names: Sequence[str] = tuple(variables)

    def extended(self, variables: Mapping[str, Type], types: Types | None = None) -> Environment:
        return Environment({**self.variables, **variables}, types or self._types, patching=self._patching)

    def _type(self, name: str) -> Type | None:
        return self._types(name) or _LIBRARY_TYPES.get(name)

    def compile(self, source: str) -> Program:
        """Raises CompileError."""
        root = parse(source)
        Checker(self._functions, self.variables, self._type).check(source, root)
        return Program(source, root, self.names, self._functions)


class Program:
    """A compiled expression. What evaluates it is made when it is first evaluated."""

    def __init__(self, source: str, root: ast.Node, names: Sequence[str], functions: Mapping[str, Function]) -> None:
        self.source = source
        self.root = root
        self._names = names
        self._functions = functions

    @property
    def type(self) -> Type:
        return self.root.type

    def mentions(self, variable: str) -> bool:
        return ast.mentions(self.root, variable)

    def estimate(self, size_of: Callable[[tuple[str, ...]], int | None]) -> Range:
        """The least and the greatest cost, given what is known of sizes."""
        return Estimator(size_of).cost(self.root)

    @cached_property
    def _planned(self) -> tuple[Closure, int, int]:
        planner = Planner(self._functions, self._names)
        closure, cost = planner.plan(self.root)
        return closure, cost, planner.width - len(self._names) - 2

    def evaluate(self, values: Sequence[Any], limit: int = PER_CALL_LIMIT) -> tuple[Any, int]:
        """The value, and what it cost; `values` are those of the environment's variables, in their order.  Raises
        CelError."""
        closure, cost, more = self._planned
        frame = [cost, limit, *values, *([None] * more)] if more else [cost, limit, *values]
        try:
            value = closure(frame)
        except CelError as error:
            error.cost = frame[COST]
            raise
        except RecursionError:
            raise CelError("expression is nested too deeply") from None
        except (TypeError, AttributeError, ValueError, OverflowError):
            # Values that are not of the types that they were said to be of.
            raise CelError(NO_OVERLOAD) from None
        if frame[COST] > limit:
            raise CostExceeded
        return value, frame[COST]
