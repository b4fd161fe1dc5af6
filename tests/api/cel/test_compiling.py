"""What is no expression, or has no type, is refused in cel-go's words, with the place shown."""

from __future__ import annotations

import pytest

from navarch.api.cel.environment import Environment
from navarch.api.cel.errors import CompileError
from navarch.api.cel.schemas import declared
from navarch.api.cel.types import DYN, INT, STRING, list_of

SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "count": {"type": "integer"},
                "my-name": {"type": "string"},
                "namespace": {"type": "string"},
                "a__b.c/d": {"type": "string"},
                "1st": {"type": "string"},
                "port": {"x-kubernetes-int-or-string": True},
                "anything": {"x-kubernetes-preserve-unknown-fields": True},
            },
        }
    },
}
SELF = declared(SCHEMA, root=True)
assert SELF is not None
ENVIRONMENT = Environment({"self": SELF.type, "text": STRING, "numbers": list_of(INT), "any": DYN})
OPERAND = (
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
)


def error_of(expression: str) -> str:
    with pytest.raises(CompileError) as raised:
        ENVIRONMENT.compile(expression)
    return str(raised.value)


@pytest.mark.parametrize(
    ("expression", "column", "message"),
    [
        ("nope", 1, "undeclared reference to 'nope' (in container '')"),
        ("text.nope()", 10, "undeclared reference to 'nope' (in container '')"),
        ("nope(1)", 5, "undeclared reference to 'nope' (in container '')"),
        ("text + 1", 6, "found no matching overload for '_+_' applied to '(string, int)'"),
        ("text.startsWith(1)", 16, "found no matching overload for 'startsWith' applied to 'string.(int)'"),
        ("text in numbers", 6, "found no matching overload for '@in' applied to '(string, list(int))'"),
        ("1 ? 2 : 3", 3, "found no matching overload for '_?_:_' applied to '(int, int, int)'"),
        ("1 == 1.0", 3, "found no matching overload for '_==_' applied to '(int, double)'"),
        ("numbers.all(n, n)", 12, "found no matching overload for '_&&_' applied to '(bool, int)'"),
        ("[1, 'a']", 5, "expected type 'int' but found 'string'"),
        ("{1: 2, 'a': 3}", 8, "expected type 'int' but found 'string'"),
        ("self.spec.none", 10, "undefined field 'none'"),
        ("self.spec.anything", 10, "undefined field 'anything'"),
        ("has(self.spec.none)", 4, "undefined field 'none'"),
        ("self.spec.count.x", 16, "type 'int' does not support field selection"),
        ("text.all(x, true)", 1, "expression of type 'string' cannot be range of a comprehension "
         "(must be list, map, or dynamic)"),
        ("has(text)", 5, "invalid argument to has() macro"),
        ("numbers.map(1, 2)", 13, "argument must be a simple name"),
        ("numbers.all(a, a, true)", 16, "duplicate variable name: a"),
        ("namespace", 1, "reserved identifier: namespace"),
        ("99999999999999999999", 1, "invalid int literal"),
        ("duration('x')", 10, "invalid duration argument"),
        ("timestamp('x')", 11, "invalid timestamp argument"),
        ("text.matches('(')", 14, "invalid matches argument"),
        ("Foo{a: 1}", 4, "undeclared reference to 'Foo' (in container '')"),
        ("text.", 6, "Syntax error: no viable alternative at input '.'"),
        ("a b", 3, "Syntax error: extraneous input 'b' expecting <EOF>"),
        ("(1", 3, "Syntax error: missing ')' at '<EOF>'"),
        ("f(", 3, "Syntax error: mismatched input '<EOF>' expecting " + OPERAND.replace("'.'", "')', '.'")),
        ("", 1, f"Syntax error: mismatched input '<EOF>' expecting {OPERAND}"),
        ("[1", 3, "Syntax error: mismatched input '<EOF>' expecting {']', ','}"),
    ],
)  # fmt: skip
def test_an_error_says_what_and_where(expression: str, column: int, message: str) -> None:
    assert error_of(expression) == f"ERROR: <input>:1:{column}: {message}\n | {expression}\n | {'.' * (column - 1)}^"


def test_all_errors_are_shown_in_order_and_on_their_lines() -> None:
    assert error_of("nope ==\n  text.size(1)") == (
        "ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')\n | nope ==\n | ^\n"
        "ERROR: <input>:2:12: found no matching overload for 'size' applied to 'string.(int)'\n |   text.size(1)\n"
        " | ...........^"
    )


def test_wide_characters_are_marked_by_wide_marks() -> None:
    assert error_of("'é' + 1").endswith(" | .．..^")


@pytest.mark.parametrize(
    "name",
    ["my__dash__name", "__namespace__", "a__underscores__b__dot__c__slash__d"],
)
def test_names_of_properties_are_escaped(name: str) -> None:
    assert ENVIRONMENT.compile(f"self.spec.{name}").type == STRING


def test_a_name_that_cannot_be_written_is_no_field() -> None:
    assert "undefined field" in error_of("self.spec.__1st__")


def test_metadata_is_there_whatever_the_schema_says() -> None:
    assert ENVIRONMENT.compile("self.metadata.name + self.kind + self.apiVersion").type == STRING
    assert "undefined field 'labels'" in error_of("self.metadata.labels")


def test_an_int_or_string_is_of_any_type() -> None:
    assert ENVIRONMENT.compile("self.spec.port == 5 || self.spec.port == 'http'").type.kind == "bool"


@pytest.mark.parametrize(
    "expression",
    ["(" * 300 + "1" + ")" * 300, "[" * 5000, "-" * 5000 + "1", "!" * 5000, "a." * 30000, "1+" * 40000 + "1"],
)
def test_deep_and_long_expressions_are_refused_or_compiled_but_break_nothing(expression: str) -> None:
    problem = "ERROR: <input>:1:"
    try:
        ENVIRONMENT.compile(expression)
    except CompileError as error:
        problem = str(error)

    assert problem.startswith("ERROR: <input>:1:")


def test_an_expression_may_not_be_longer_than_kubernetes_reads() -> None:
    assert "expression code point size exceeds limit: size: 100001, limit 100000" in error_of("1" * 100_001)
