"""Cost is counted while an expression runs, and estimated before: hostile ones are stopped, or never accepted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch.api.cel.environment import Environment
from navarch.api.cel.errors import CelError, CostExceeded
from navarch.api.cel.rules import Cardinality, Problem, Rule, Rules, cost_problem
from navarch.api.cel.schemas import declared
from navarch.api.cel.types import DYN, INT, STRING, list_of
from navarch.api.cel.values import SetList

ENVIRONMENT = Environment({"numbers": list_of(INT), "text": STRING, "any": DYN})


@pytest.mark.parametrize(
    ("expression", "cost"),
    [
        ("1 + 1", 1),
        ("any", 1),
        ("any.a.b", 3),
        ("has(any.a)", 1),
        ("numbers[0] + 1", 3),
        ("true || any.a == 1", 0),
        ("false || any.a.b == 1", 4),
        ("[1, 2]", 10),
        ("{'a': 1}", 30),
        ("text == 'hello'", 2),
        ("text.contains('hello')", 1 + 1 * 1),
        ("text.matches('[a-z]+')", 1 + 1 * 2),
        ("1 in numbers", 1 + 3),
        # Three rounds: the accumulator is tested and read each time, and read once in the end.
        ("numbers.all(n, n > 0)", 1 + 3 * (3 + 2) + 1),
        ("numbers.exists(n, n > 9)", 1 + 3 * (4 + 2) + 1),
        ("lists.range(4)", 4 + 11),
        ("numbers.slice(1, 3)", 1 + 2 + 11),
        ("numbers.reverse()", 1 + 3 + 11),
        ("[[1], [2]].flatten()", 30 + 2 + 11),
        ("numbers.sort()", 1 + 2 * 9 + 11),
        ("['b', 'a'].distinct()", 10 + 8 + 11),
        ("numbers.sortBy(n, n)", 10 + 1 + (1 + 1 + 10 + 3 * (12 + 1) + 1 + 2 * 9 + 11)),
        ("numbers.map(n, n)", 1 + 10 + 3 * (12 + 1) + 1),
    ],
)
def test_an_evaluation_costs_what_it_costs_in_kubernetes(expression: str, cost: int) -> None:
    _, counted = ENVIRONMENT.compile(expression).evaluate([[1, 2, 3], "hello", {"a": {"b": 1}}])

    assert counted == cost


HOSTILE = [
    "numbers.all(a, numbers.all(b, numbers.all(c, a + b + c >= 0)))",
    "numbers.map(a, numbers.map(b, numbers.map(c, [a, b, c]))).size() > 0",
    "numbers.map(a, text + text + text).join(text).size() > 0",
    "text.replace('a', text).replace('a', text).replace('a', text).size() > 0",
    "[text].map(a, a + a)" + ".map(a, a + a)" * 60 + ".size() > 0",
    "[[1]].map(a, [a, a])" + ".map(a, [a, a])" * 60 + " == dyn(1)",
    "[[1]].map(a, a + a)" + ".map(a, a + a)" * 60 + " == dyn(1)",
    "'%s'.format([[[1]].map(a, [a, a])" + ".map(a, [a, a])" * 40 + "]) == ''",
    "numbers.all(a, text.matches('(a+)+$' + text))",
    "numbers.all(a, numbers.all(b, text.split('').join('') == text))",
    "[any].map(a, {'a': a, 'b': a})" + ".map(a, {'a': a, 'b': a})" * 60 + ".size() > 0",
]


@pytest.mark.parametrize("expression", HOSTILE)
def test_a_hostile_expression_is_stopped_before_it_does_harm(expression: str) -> None:
    """Were it not, this would take years or all the memory there is, and the test's time would run out."""
    environment = Environment({"numbers": DYN, "text": DYN, "any": DYN})

    with pytest.raises(CostExceeded) as raised:
        environment.compile(expression).evaluate([list(range(1000)), "a" * 10_000, {"x": list(range(1000))}])

    assert raised.value.text == "operation cancelled: actual cost limit exceeded"


def test_lists_that_are_joined_cost_as_kubernetes_counts_until_they_are_long() -> None:
    joined = ENVIRONMENT.compile("numbers + numbers")

    assert joined.evaluate([[1, 2, 3], "", None]) == ([1, 2, 3, 1, 2, 3], 3)
    assert joined.evaluate([[1] * 10_000, "", None])[1] > 50


def test_doubling_a_list_is_stopped_before_it_is_copied_for_long() -> None:
    doubled = "[[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]" + ".map(x, x + x)" * 17
    program = ENVIRONMENT.compile(f"size({doubled}[0]) > 0")

    with pytest.raises(CostExceeded):
        program.evaluate([[], "", None], 10_000)


def test_sets_are_joined_and_compared_item_by_item_once() -> None:
    letters = [f"item-{number}" for number in range(1000)]
    numbers: list[Any] = [1, True, {"a": 1, "b": [2]}, "1"]

    assert SetList(letters) == SetList(reversed(letters))
    assert SetList(numbers).plus([1.0, {"b": [2], "a": 1}, False, "1", "2"]) == [*numbers, False, "2"]
    assert SetList([1]) != SetList([True])


def test_nothing_inside_an_expression_absorbs_the_end_of_its_budget() -> None:
    environment = Environment({"numbers": DYN})

    with pytest.raises(CostExceeded):
        environment.compile(f"({HOSTILE[0]}) || true").evaluate([list(range(1000))])


SCHEMA = {
    "type": "object",
    "properties": {
        "list": {"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 20}},
        "text": {"type": "string", "maxLength": 20},
        "map": {"type": "object", "maxProperties": 5, "additionalProperties": {"type": "integer"}},
        "nested": {
            "type": "array",
            "maxItems": 5,
            "items": {"type": "array", "maxItems": 5, "items": {"type": "integer"}},
        },
        "open": {"type": "array", "items": {"type": "string"}},
    },
}
EXPRESSIONS = [
    "self.list.all(x, x.startsWith('x'))",
    "self.list.exists(x, x == self.text)",
    "self.list.map(x, x + self.text).join(',').size() > 0",
    "self.list.filter(x, x != '').size() < 5",
    "self.map.all(k, self.map[k] > 0)",
    "self.map.exists(k, v, v > 0 && k != '')",
    "self.nested.all(x, x.all(y, y > 0))",
    "self.text.matches('^[a-z]+$') || self.text in self.list",
    "self.text.replace('a', 'bcd').size() > 2",
    "self.list.exists_one(x, x.contains('a'))",
    "self.nested.map(x, x.sum()).max() > 1",
    "self.text.split('').all(x, x.lowerAscii() == x)",
    "has(self.text) ? self.text != '' : self.list.size() > 0",
]
ROOT = declared(SCHEMA)
assert ROOT is not None
VALUES = st.fixed_dictionaries(
    {
        "list": st.lists(st.text(max_size=20), max_size=10),
        "text": st.text(max_size=20),
        "map": st.dictionaries(st.text(max_size=8), st.integers(-5, 5), max_size=5),
        "nested": st.lists(st.lists(st.integers(-5, 5), max_size=5), max_size=5),
    }
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(EXPRESSIONS), VALUES)
def test_no_evaluation_costs_more_than_was_estimated(expression: str, value: Any) -> None:
    program = Environment({"self": ROOT.type}).compile(expression)
    estimate = program.estimate(ROOT.size_at)
    try:
        _, cost = program.evaluate([value])
    except CelError as error:
        cost = error.cost

    assert cost <= estimate.high


def rule_of(schema: Any, text: str) -> Rule:
    rule = Rules().compile(schema, {"rule": text})
    assert isinstance(rule, Rule)
    return rule


def test_a_rule_over_what_is_unbounded_is_too_dear() -> None:
    item = {"type": "string"}
    rule = rule_of(item, "self == oldSelf")

    cost = Cardinality().of_items({"type": "array", "items": item}).cost(rule.cost, rule.declared)

    assert cost_problem("estimated rule cost", cost, 10_000_000).startswith(
        "estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule"
    )


def test_a_bound_makes_a_rule_cheap() -> None:
    item = {"type": "string", "maxLength": 10}
    rule = rule_of(item, "self == oldSelf")

    cost = Cardinality().of_items({"type": "array", "maxItems": 10, "items": item}).cost(rule.cost, rule.declared)

    assert rule.cost == 2 + 4
    assert cost == 60
    assert rule.transition


@pytest.mark.parametrize(
    ("expression", "cost"),
    [
        ("self.a == oldSelf.a", 4),
        ("self.a < self.b", 5),
        ("self.ratio == self.ratio", 4),
        ("self.inner == oldSelf.inner", 4),
        ("self.labels.all(key, !key.contains('*'))", 53),
        ("self.labels.all(key, key.size() != 0)", 63),
    ],
)
def test_what_has_no_size_of_its_own_counts_as_empty(expression: str, cost: int) -> None:
    """Kubernetes knows no size of numbers, objects and keys of maps; with any other, everyday rules cost too much."""
    integer = {"type": "integer"}
    schema = {
        "type": "object",
        "properties": {
            "a": integer,
            "b": integer,
            "ratio": {"type": "number"},
            "inner": {"type": "object", "properties": {"a": integer}},
            "labels": {"type": "object", "maxProperties": 10, "additionalProperties": {"type": "string"}},
        },
    }

    assert rule_of(schema, expression).cost == cost


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"rule": " "}, Problem("rule", "rule is not specified", missing=True)),
        ({"rule": "self"}, Problem("rule", "cel expression must evaluate to a bool")),
        (
            {"rule": "true", "messageExpression": "1"},
            Problem("messageExpression", "messageExpression must evaluate to a string"),
        ),
    ],
)
def test_what_is_no_rule_is_refused(rule: Any, problem: Problem) -> None:
    assert Rules().compile({"type": "string"}, rule) == problem


def test_values_are_what_their_formats_say() -> None:
    schema = {
        "type": "object",
        "properties": {
            "at": {"type": "string", "format": "date-time"},
            "day": {"type": "string", "format": "date"},
            "for": {"type": "string", "format": "duration"},
            "data": {"type": "string", "format": "byte"},
            "ratio": {"type": "number"},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "keyed": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}}},
            },
        },
    }
    value = {
        "at": "2020-01-02T03:04:05Z",
        "day": "2020-01-02",
        "for": "1h",
        "data": "AQI=",
        "ratio": 1,
        "set": ["a", "b"],
        "keyed": [{"k": "a"}, {"k": "b"}],
    }
    old = {**value, "set": ["b", "a"], "keyed": [{"k": "b"}, {"k": "a"}]}
    for text in (
        "self.at > self.day && self.at.getHours() == 3",
        "self.__for__ == duration('60m')",
        "self.data == b'\\001\\002'",
        "self.ratio / 2.0 == 0.5",
        "self.set == oldSelf.set && self.keyed == oldSelf.keyed && self == oldSelf",
        "(self.set + ['b', 'c']).size() == 3",
    ):
        assert rule_of(schema, text).holds(value, old).value is True


def test_the_old_value_may_be_optional() -> None:
    rule = Rules().compile(
        {"type": "string"}, {"rule": "!oldSelf.hasValue() || oldSelf.value() == self", "optionalOldSelf": True}
    )
    assert isinstance(rule, Rule)

    assert rule.holds("a", None).value is True
    assert rule.holds("a", "b").value is False
