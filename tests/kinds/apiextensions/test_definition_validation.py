"""What may not be in a CustomResourceDefinition, in Kubernetes' words."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from navarch.api.meta import Obj
from navarch.kinds.apiextensions.definition import CustomResourceDefinitionStrategy
from tests.apiserver.crd.definitions import definition, version, with_schema

STRATEGY = CustomResourceDefinitionStrategy()


def errors(crd: Obj, old: Obj | None = None) -> list[str]:
    """What is wrong with a new definition, or with one in the place of another."""
    crd = copy.deepcopy(crd)
    STRATEGY.defaults(crd)
    if old is None:
        STRATEGY.prepare_create(crd)
    else:
        old = copy.deepcopy(old)
        STRATEGY.defaults(old)
        STRATEGY.prepare_create(old)
        STRATEGY.prepare_update(crd, old)
    return [str(error) for error in STRATEGY.validate(crd, old)]


def test_a_plain_definition_is_right() -> None:
    assert errors(definition()) == []


def change(crd: Obj, path: str, value: Any) -> Obj:
    *steps, last = path.split(".")
    place: Any = crd
    for step in steps:
        place = place[int(step)] if step.isdigit() else place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return crd


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        (
            "metadata.name",
            "x.example.com",
            'metadata.name: Invalid value: "x.example.com": must be spec.names.plural+"."+spec.group',
        ),
        ("spec.group", "example", 'spec.group: Invalid value: "example": should be a domain with at least one dot'),
        ("spec.scope", "Global", 'spec.scope: Unsupported value: "Global": supported values: "Cluster", "Namespaced"'),
        (
            "spec.names.kind",
            "gad_Get",
            'spec.names.kind: Invalid value: "gad_Get": may have mixed case, but should otherwise match: ',
        ),
        ("spec.names.kind", None, "spec.names.kind: Required value"),
        (
            "spec.names.listKind",
            "Gadget",
            'spec.names.listKind: Invalid value: "Gadget": kind and listKind may not be the same',
        ),
        ("spec.versions.0.storage", False, "spec.versions: Invalid value: "),
        ("spec.versions.0.name", "V1", 'spec.versions[0].name: Invalid value: "V1": a DNS-1035 label must consist of'),
        ("spec.versions.0.schema", None, "spec.versions[0].schema.openAPIV3Schema: Required value"),
        (
            "spec.preserveUnknownFields",
            True,
            "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set ",
        ),
    ],
)
def test_what_is_wrong_with_it_is_said(path: str, value: Any, error: str) -> None:
    found = errors(change(definition(), path, value))

    assert [text for text in found if text.startswith(error)] != [], found


@pytest.mark.parametrize(
    ("schema", "error"),
    [
        ({"type": "string", "nullable": True, "default": None}, ""),
        ({"type": "object", "additionalProperties": True}, ""),
        ({"x-kubernetes-int-or-string": True}, ""),
        (
            {"type": "text"},
            'type: Unsupported value: "text": supported values: "array", "boolean", "integer", "number", "object"',
        ),
        ({"type": "string", "x-kubernetes-int-or-string": True}, ""),
        ({"type": "object", "properties": {}, "additionalProperties": {"type": "string"}}, ""),
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}},
            "additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
            "uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ),
        ({"type": "object", "anyOf": [{"type": "string"}]}, "anyOf[0].type: Forbidden: must be empty to be structural"),
        ({"type": "object", "allOf": [{"properties": {"a": {"maximum": 1}}}]}, ""),
        (
            {"type": "array", "items": "text", "x-kubernetes-list-type": "map"},
            "items: Required value: must be specified",
        ),
        ({"$ref": "#/definitions/x"}, "$ref: Forbidden: $ref is not supported"),
        (
            {"type": "string", "x-kubernetes-preserve-unknown-fields": False},
            "x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
        ),
        (
            {"type": "string", "x-kubernetes-embedded-resource": True},
            "must be object if x-kubernetes-embedded-resource is true",
        ),
        (
            {"type": "object", "default": {"odd": 1}, "properties": {}},
            'default: Invalid value: {"odd":1}: must not have unknown fields',
        ),
        (
            {"type": "integer", "maximum": 1, "default": 2},
            "default: Invalid value: 2:  in body should be less than or equal to 1",
        ),
        (
            {"type": "string", "default": "long", "x-kubernetes-validations": [{"rule": "self.size() < 3"}]},
            'it].default: Invalid value: "long": failed rule: self.size() < 3',
        ),
        ({"type": "string", "default": "it", "x-kubernetes-validations": [{"rule": "self.size() < 3"}]}, ""),
        (
            {
                "type": "object",
                "default": {"a": 5},
                "properties": {"a": {"type": "integer", "x-kubernetes-validations": [{"rule": "self < 3"}]}},
            },
            "it].default.a: Invalid value: 5: failed rule: self < 3",
        ),
        (
            {
                "type": "integer",
                "default": 5,
                "x-kubernetes-validations": [
                    {"rule": "oldSelf.hasValue() || self < 3", "optionalOldSelf": True, "message": "begin low"}
                ],
            },
            "it].default: Invalid value: 5: begin low",
        ),
        ({"type": "string", "x-kubernetes-map-type": "atomic"}, "must be object if x-kubernetes-map-type is specified"),
        (
            {"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"},
            "must be atomic as item of a list with x-kubernetes-list-type=set",
        ),
        (
            {
                "type": "array",
                "items": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                "x-kubernetes-list-type": "set",
            },
            "must be atomic as item of a list with x-kubernetes-list-type=set",
        ),
        (
            {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["a"],
                "items": {"type": "object", "properties": {"a": {"type": "string"}}},
            },
            "must have a default or be a required property",
        ),
    ],
)
def test_a_schema_is_structural_or_refused(schema: Obj, error: str) -> None:
    found = errors(with_schema(it=schema))

    assert [text for text in found if error in text] != [] if error else found == [], found


def test_every_version_may_say_the_same_once_or_for_itself() -> None:
    columns = [{"name": "Size", "type": "integer", "jsonPath": "spec"}]
    shared = definition(version(additionalPrinterColumns=columns))
    apart = definition(version(additionalPrinterColumns=columns), version("v2", stored=False))

    assert [text.split(":")[0] for text in errors(shared)] == ["spec.additionalPrinterColumns[0].JSONPath"]
    assert [text.split(":")[0] for text in errors(apart)] == ["spec.versions[0].additionalPrinterColumns[0].JSONPath"]


def test_a_webhook_needs_its_client_and_versions_that_are_known() -> None:
    crd = definition()
    crd["spec"]["conversion"] = {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v9"]}}

    assert errors(crd) == [
        "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
        'spec.conversion.conversionReviewVersions: Invalid value: ["v9"]: must include at least one of v1, v1beta1',
    ]


def established(crd: Obj) -> Obj:
    crd["status"] = {"conditions": [{"type": "Established", "status": "True"}], "storedVersions": ["v1"]}
    return crd


@pytest.mark.parametrize(
    ("change_it", "error"),
    [
        (lambda crd: crd["spec"]["names"].update(plural="others"), "spec.names.plural"),
        (lambda crd: crd["spec"].update(group="other.example.com"), "spec.group"),
        (lambda crd: crd["spec"].update(scope="Cluster"), "spec.scope"),
        (lambda crd: crd["spec"]["names"].update(kind="Other"), "spec.names.kind"),
    ],
)
def test_what_objects_are_found_by_stays(change_it: Callable[[Obj], None], error: str) -> None:
    before, after = established(definition()), established(definition())
    change_it(after)
    STRATEGY.defaults(before)
    STRATEGY.defaults(after)

    found = [str(each) for each in STRATEGY.validate(after, before)]

    assert [text for text in found if text.startswith(f"{error}: Invalid value") and "field is immutable" in text], (
        found
    )


def test_an_old_mistake_may_stay() -> None:
    keyless: Obj = {"type": "object", "properties": {"a": {"type": "string"}}}
    keys = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"]}
    wrong = with_schema(it={"type": "array", "items": keyless, **keys})
    STRATEGY.defaults(wrong)
    changed = copy.deepcopy(wrong)
    changed["spec"]["names"]["shortNames"] = ["gd"]
    for crd in (wrong, changed):
        crd["status"] = {"storedVersions": ["v1"]}

    assert list(STRATEGY.validate(changed, wrong)) == []
    assert list(STRATEGY.validate(changed, None)) != []


def test_rules_are_looked_at_where_nothing_else_is_wrong() -> None:
    wrong = {"type": "string", "uniqueItems": True, "x-kubernetes-validations": [{"rule": "self ="}]}
    right = {"type": "string", "x-kubernetes-validations": [{"rule": "self"}]}
    crd = with_schema(a=wrong, b=right)

    at = "spec.validation.openAPIV3Schema.properties[spec].properties"
    assert errors(crd) == [
        f"{at}[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes "
        "quadratic",
        f'{at}[b].x-kubernetes-validations[0].rule: Invalid value: {{"Rule":"self","Message":"","MessageExpression":"",'
        '"Reason":null,"FieldPath":"","OptionalOldSelf":null}: cel expression must evaluate to a bool',
    ]


def test_defaults_need_a_definition_that_prunes() -> None:
    crd = with_schema(a={"type": "string", "default": "x"})
    crd["spec"]["preserveUnknownFields"] = True

    assert errors(crd)[0] == (
        "spec.preserveUnknownFields: Invalid value: true: must be false in order to use defaults in the schema"
    )
