"""Google's own implementation reads and evaluates the same: what both have is compared, over generated expressions.

Its words for errors that occur while evaluating are its own; those for syntax come from the grammar that both have.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from navarch.api.cel.environment import Environment
from navarch.api.cel.errors import CelError, CompileError
from navarch.api.cel.parser import parse
from navarch.api.cel.types import INT, STRING, list_of

cel = pytest.importorskip("cel_expr_python.cel")

VALUES: dict[str, Any] = {"i": 3, "s": "abc", "l": [1, 2, 3]}
OURS = Environment({"i": INT, "s": STRING, "l": list_of(INT)})
THEIRS = cel.NewEnv(variables={"i": cel.Type.INT, "s": cel.Type.STRING, "l": cel.Type("list<int>")})
UNTYPED = cel.NewEnv(variables={})

TOKENS = [*"ab.()[]{},-!?:+*<", "==", "in", "&&", "||", "1", "1.5", "2u", "'s'", "true", "=", "&", "f("]


def _syntax(errors: str) -> list[str]:
    """Without the lines that show where, which are left out there for an empty text, and without its own limit of how
    often it goes on after an error (cel-go's is 30)."""
    found = [each.partition("\n")[0] for each in errors.split("ERROR: ") if "Syntax error" in each]
    return [each for each in found if "More than 12 parse errors" not in each]


def syntax_of_theirs(source: str) -> list[str]:
    try:
        UNTYPED.compile(source, disable_check=True)
    except RuntimeError as error:
        text = str(error).removeprefix("INVALID_ARGUMENT: ").removesuffix(" [INVALID_ARGUMENT]")
        # It escapes the question mark as C++ may, and says some things beside the grammar.
        return _syntax(text.replace("\\u003F", "?"))
    return []


def syntax_of_ours(source: str) -> list[str]:
    try:
        parse(source)
    except CompileError as error:
        return _syntax(str(error))
    return []


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(TOKENS), max_size=8).map(" ".join))
@example("self ===")
@example("{ { { f( a")
@example("- - < a")
def test_syntax_errors_are_those_of_the_grammar(source: str) -> None:
    assert syntax_of_ours(source) == syntax_of_theirs(source)


NUMBERS = st.integers(-(2**63), 2**63 - 1).map(str) | st.integers(-5, 5).map(str) | st.just("i") | st.just("l[1]")
TEXTS = st.text("ab é'\\", max_size=3).map(lambda text: repr(text)) | st.just("s")


def _arithmetic(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(inner, st.sampled_from("+-*/%"), inner).map(lambda each: f"({each[0]} {each[1]} {each[2]})")


ARITHMETIC = st.recursive(NUMBERS, _arithmetic, max_leaves=6)
CONDITIONS = (
    st.tuples(ARITHMETIC, st.sampled_from(["<", "<=", "==", "!=", ">"]), ARITHMETIC).map(" ".join)
    | st.tuples(TEXTS, st.sampled_from(["<", "==", ">="]), TEXTS).map(" ".join)
    | ARITHMETIC.map(lambda each: f"{each} in l")
    | st.tuples(TEXTS, st.sampled_from(["contains", "startsWith", "endsWith"]), TEXTS).map(
        lambda each: f"{each[0]}.{each[1]}({each[2]})"
    )
)


def _logic(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return (
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda each: f"({' '.join(each)})")
        | inner.map(lambda each: f"!({each})")
        | st.tuples(inner, inner, inner).map(lambda each: f"({each[0]} ? {each[1]} : {each[2]})")
        | st.tuples(st.sampled_from(["all", "exists", "exists_one"]), inner).map(
            lambda each: f"l.{each[0]}(i, {each[1]})"
        )
    )


@settings(max_examples=300, deadline=None)
@given(st.recursive(CONDITIONS, _logic, max_leaves=6) | ARITHMETIC.map(lambda each: f"l.map(x, x + {each})"))
def test_both_find_the_same_value_or_none(source: str) -> None:
    result = THEIRS.compile(source).eval(data=VALUES)
    theirs = "error" if result.type().name() == "*error*" or result.type() == cel.Type.ERROR else result.plain_value()
    try:
        ours: Any = OURS.compile(source).evaluate(list(VALUES.values()))[0]
    except CelError:
        ours = "error"

    assert ours == theirs
