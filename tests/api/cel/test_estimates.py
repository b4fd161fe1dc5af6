"""What a rule may cost at most is estimated from its schema as Kubernetes estimates it: whether a definition is taken
depends on it. The numbers are those that Kubernetes gives for the same schemas and rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from navarch.api.cel.rules import Rule, Rules
from navarch.api.cel.schemas import declared

Schema = dict[str, Any]
# A schema whose greatest number of items, properties or characters is stated, or is not.
Bounded = Callable[[int | None], Schema]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
BOOLEAN: Schema = {"type": "boolean"}
EITHER: Schema = {"x-kubernetes-int-or-string": True}
DURATION: Schema = {"type": "string", "format": "duration"}
DATE: Schema = {"type": "string", "format": "date"}
TIME: Schema = {"type": "string", "format": "date-time"}
OBJECT: Schema = {"type": "object", "required": ["required"], "properties": {"required": TEXT, "optional": TEXT}}
TOO_MUCH = 10_000_000


def bounded(schema: Schema, bound: str, most: int | None) -> Schema:
    return schema if most is None else {**schema, bound: most}


def text(most: int | None) -> Schema:
    return bounded(TEXT, "maxLength", most)


def array(items: Schema) -> Bounded:
    return lambda most: bounded({"type": "array", "items": items}, "maxItems", most)


def mapping(values: Schema) -> Bounded:
    return lambda most: bounded({"type": "object", "additionalProperties": values}, "maxProperties", most)


def texts(most: int | None) -> Schema:
    return array(text(most))(most)


def texts_by_name(most: int | None) -> Schema:
    return mapping(text(most))(most)


def objects(most: int | None) -> Schema:
    return array(mapping(OBJECT)(most))(most)


def fields(*names: str, **others: Schema) -> Bounded:
    return lambda most: {"type": "object", "properties": {**{name: text(most) for name in names}, **others}}


def word(most: int | None) -> Schema:
    return bounded({**TEXT, "enum": ["A", "B", "C", "LongValue"]}, "maxLength", most)


def either(most: int | None) -> Schema:
    return bounded(EITHER, "maxLength", most)


EVERY = "self.all(x, true)"
CASES: list[tuple[Bounded, str, int, int, int]] = [
    # The schema, the rule, its cost without a bound, the bound, its cost with it.
    (array(NUMBER), EVERY, 4718591, 10, 32),
    (array(TEXT), EVERY, 3145727, 20, 62),
    (array(BOOLEAN), EVERY, 1887437, 5, 17),
    (array(EITHER), EVERY, 4718591, 10, 32),
    (array(DURATION), EVERY, 2359295, 5, 17),
    (array(DATE), EVERY, 725936, 15, 47),
    (array(TIME), EVERY, 428963, 25, 77),
    (array(OBJECT), EVERY, 555128, 50, 152),
    (array({"type": "array", "items": NUMBER}), EVERY, 3145727, 100, 302),
    (mapping(NUMBER), EVERY, 1348169, 10, 32),
    (mapping(TEXT), EVERY, 1179647, 3, 11),
    (mapping(BOOLEAN), EVERY, 943718, 100, 302),
    (mapping(EITHER), EVERY, 1348169, 15, 47),
    (mapping(DURATION), EVERY, 1048577, 5, 17),
    (mapping(DATE), EVERY, 524288, 10, 32),
    (mapping(TIME), EVERY, 349526, 25, 77),
    (mapping(OBJECT), EVERY, 428963, 20, 62),
    (mapping({"type": "array", "items": NUMBER}), EVERY, 1179647, 25, 77),
    (mapping({"type": "object", "additionalProperties": NUMBER}), EVERY, 1179647, 10, 32),
    (array(NUMBER), "self.all(x, self.all(y, true))", TOO_MUCH, 10, 352),
    (array(NUMBER), "self.all(x, self.all(y, self.all(z, true)))", TOO_MUCH, 10, 3552),
    (array(NUMBER), "self.all(x, x == 0.0)", 6291454, 3 * 1024 * 2048, 25165826),
    (objects, "self.all(x, x['y'].required == 'z')", 7340027, 10, 72),
    (array({"type": "object", "additionalProperties": NUMBER}), "self.all(x, x.y == 25.2)", 6291452, 12, 74),
    (texts_by_name, "self.all(x, x.contains(self[x]))", 2752507, 10, 72),
    (array(TEXT), "self[1] == self[1]", 314577, 8, 314577),
    (array(EITHER), "self[0] == 5", 3, 10, 3),
    (array(NUMBER), "self[3] == 0.0", 2, 0, 2),
    (array(DURATION), "self[0].getHours() == 2", 4, 525, 4),
    (array(TIME), "self[2].getMinutes() == 45", 4, 99, 4),
    (mapping(TIME), "self['a'] == self['b']", 8, 7, 8),
    (mapping(DURATION), "self['c'] == self['d']", 8, 42, 8),
    (mapping({"type": "integer"}), "oldSelf.size() == self.size()", 5, 10, 5),
    (text, "self.contains('test')", 314574, 10, 5),
    (text, "self.startsWith('test')", 2, 15, 2),
    (text, "size(self + 'hello') > size('hello')", 314578, 4, 7),
    (text, "self.matches('x')", 314574, 50, 22),
    (text, "self.matches('')", 1, 100, 1),
    (text, "self == 'x'", 2, 0, 1),
    (text, "self.find('[0-9]+') == ''", 629147, 10, 11),
    (text, "self.lowerAscii() == 'lower!'", 314575, 10, 6),
    (texts, "self.join(' ') == 'aa bb'", 329853068905, 10, 43),
    (texts, "self.isSorted() == true", 329854432052, 10, 52),
    (fields("t", old=text(2), new=text(4)), "self.t.replace(self.old, self.new) == 'does not matter'", 629154, 4, 12),
    (fields("text", "separator"), "self.text.split(self.separator) == []", 629160, 10, 22),
    (word, "self.contains('A')", 2, 1000, 401),
    (either, "self.contains('test')", 314574, 10, 5),
    # Kubernetes' own objects are equal at once; a URL is as long as its text.
    (text, "cidr(self) == cidr(self).masked()", 6, 10, 6),
    (text, "ip(self) == ip('10.0.0.1')", 4, 10, 4),
    (text, "quantity(self) == quantity('1Gi')", 4, 10, 4),
    (text, "semver(self) == semver('1.0.0')", 4, 10, 4),
    (text, "url(self) == url(self)", 943721, 10, 14),
    (text, "format.dns1123Label().validate(self).hasValue()", TOO_MUCH, 10, 131),
    (text, "quantity(self) != quantity('1Gi')", TOO_MUCH, 10, TOO_MUCH),
]


@pytest.mark.parametrize(("schema", "rule", "unbounded", "most", "bound"), CASES)
def test_a_rule_costs_what_kubernetes_estimates(
    schema: Bounded, rule: str, unbounded: int, most: int, bound: int
) -> None:
    open_rule = Rules().compile(schema(None), {"rule": rule})
    bound_rule = Rules().compile(schema(most), {"rule": rule})

    assert isinstance(open_rule, Rule)
    assert isinstance(bound_rule, Rule)
    assert min(open_rule.cost, TOO_MUCH + 1) == unbounded if unbounded < TOO_MUCH else open_rule.cost > TOO_MUCH
    assert min(bound_rule.cost, TOO_MUCH + 1) == bound if bound < TOO_MUCH else bound_rule.cost > TOO_MUCH


def test_bounds_on_an_objects_name_count_where_the_schema_types_all_that_rules_may_read() -> None:
    name = {"type": "string", "maxLength": 10}
    metadata = {"type": "object", "properties": {"name": name, "generateName": name}}
    stated = {"type": "object", "properties": {"apiVersion": TEXT, "kind": TEXT, "metadata": metadata}}
    alone = {"type": "object", "properties": {"metadata": {"type": "object", "properties": {"name": name}}}}
    path = ("self", "metadata", "name")

    whole, part = declared(stated, root=True), declared(alone, root=True)

    assert whole is not None
    assert part is not None
    assert whole.size_at(path) == 40
    assert part.size_at(path) == 3 * 1024 * 1024 - 2
