"""Objects of custom kinds: what their schema drops, fills in and refuses, in Kubernetes' words."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.api.meta import Obj
from tests.apiserver.conftest import Api
from tests.apiserver.crd.definitions import (
    CRDS,
    GADGETS,
    NAME,
    answers,
    definition,
    established,
    eventually,
    gadget,
    replaced,
    version,
    with_schema,
)

TEXT: Obj = {"type": "string"}
NUMBER: Obj = {"type": "integer"}


def causes(answer: Obj) -> list[tuple[str, str]]:
    return [(cause["field"], cause["message"]) for cause in answer["details"]["causes"]]


async def refused(api: Api, **spec: Any) -> list[tuple[str, str]]:
    status, answer = await api("POST", GADGETS, gadget(**spec))
    assert (status, answer["reason"]) == (422, "Invalid")
    return causes(answer)


async def test_what_scale_cannot_show_is_told_before_rules_and_hinders_them(api: Api) -> None:
    scale = {
        "specReplicasPath": ".spec.count",
        "statusReplicasPath": ".status.state.count",
        "labelSelectorPath": ".status.selector",
    }
    spec = {
        "type": "object",
        "properties": {"count": NUMBER},
        "x-kubernetes-validations": [{"rule": "!has(self.count) || self.count < 5"}],
    }
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": spec, "status": free}}
    subresources = {"status": {}, "scale": scale}
    await established(api, definition(version(schema={"openAPIV3Schema": schema}, subresources=subresources)))
    unchecked = "some validation rules were not checked because the object was invalid; correct the existing errors to"

    wrong = await refused(api, count="1")
    await api.ok("POST", GADGETS, gadget())
    status, answer = await api.patch(f"{GADGETS}/a/status", {"status": {"state": 1.5, "selector": ["x"]}})
    text_status, text = await api.patch(f"{GADGETS}/a/status", {"status": "x"})

    assert wrong == [
        ("spec.count", 'Invalid value: "string": spec.count in body must be of type integer: "string"'),
        (".spec.count", "Invalid value: 0: .spec.count accessor error: 1 is of the type string, expected int64"),
        ("<nil>", f"Invalid value: null: {unchecked} complete validation"),
    ]
    assert (status, causes(answer)) == (
        422,
        [
            (
                ".status.state.count",
                "Invalid value: 0: .status.state.count accessor error: 1.5 is of the type float64, expected "
                "map[string]interface{}",
            ),
            (
                ".status.selector",
                'Invalid value: "": .status.selector accessor error: [x] is of the type []interface {}, expected '
                "string",
            ),
        ],
    )
    assert (text_status, causes(text)[-1][0], causes(text)[1][1]) == (
        422,
        "<nil>",
        "Invalid value: 0: .status.state accessor error: x is of the type string, expected map[string]interface{}",
    )


# Pruning


async def test_what_the_schema_does_not_know_is_dropped_and_told(api: Api) -> None:
    await established(
        api, with_schema(size=NUMBER, free={"type": "object", "x-kubernetes-preserve-unknown-fields": True})
    )
    body = gadget(size=1, odd=2, free={"a": {"b": 1}})
    body["more"] = "x"

    response = await api.send("POST", GADGETS + "?fieldValidation=Warn", body)
    status, answer = await api("POST", GADGETS + "?fieldValidation=Strict", body)

    assert (await api.ok("GET", f"{GADGETS}/a"))["spec"] == {"size": 1, "free": {"a": {"b": 1}}}
    assert response.headers["Warning"] == '299 - "unknown field \\"more\\"", 299 - "unknown field \\"spec.odd\\""'
    assert (status, answer["message"]) == (
        400,
        'Gadget in version "v1" cannot be handled as a Gadget: strict decoding error: unknown field "more", '
        'unknown field "spec.odd"',
    )


async def test_nothing_is_dropped_where_the_definition_says_so(api: Api) -> None:
    whole = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    await established(api, definition(version(schema={"openAPIV3Schema": whole})))

    made = await api.ok("POST", GADGETS, {**gadget(any=1), "more": [{"x": None}]})

    assert (made["spec"], made["more"]) == ({"any": 1}, [{"x": None}])


async def test_a_null_stays_where_it_may_be_and_is_as_good_as_nothing_elsewhere(api: Api) -> None:
    await established(
        api,
        with_schema(
            kept={"type": "string", "nullable": True},
            filled={"type": "string", "default": "x"},
            dropped={"type": "string", "default": "y", "nullable": True},
        ),
    )

    made = await api.ok("POST", GADGETS, gadget(kept=None, filled=None, dropped=None))

    assert made["spec"] == {"kept": None, "filled": "x", "dropped": None}


async def test_embedded_resources_have_metadata_that_is_checked(api: Api) -> None:
    template: Obj = {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {"a": NUMBER}}
    await established(api, with_schema(template=template))

    good = {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "x", "labels": {"a": "b"}, "odd": 1}, "a": 1}
    made = await api.ok("POST", GADGETS, gadget(template=good))
    found = await refused(api, template={"apiVersion": "v1", "metadata": {"labels": {"a": "not a label"}}})

    assert made["spec"]["template"] == {**good, "metadata": {"name": "x", "labels": {"a": "b"}}}
    assert [field for field, _ in found] == ["spec.template.kind", "spec.template.metadata.labels"]


# Values


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        (NUMBER, "x", 'Invalid value: "string": spec.it in body must be of type integer: "string"'),
        ({"type": "integer", "maximum": 3}, 4, "Invalid value: 4: spec.it in body should be less than or equal to 3"),
        ({"type": "string", "maxLength": 2}, "abc", "Too long: may not be more than 2 bytes"),
        (
            {"type": "string", "pattern": "^a+$"},
            "b",
            "Invalid value: \"b\": spec.it in body should match '^a+$'",
        ),
        ({"type": "string", "enum": ["a", "b"]}, "c", 'Unsupported value: "c": supported values: "a", "b"'),
        (
            {"type": "string", "format": "ipv4"},
            "::1",
            'Invalid value: "::1": spec.it in body must be of type ipv4: "::1"',
        ),
        (
            {"type": "array", "items": TEXT, "x-kubernetes-list-type": "set"},
            ["a", "b", "a"],
            'Duplicate value: "a"',
        ),
        (
            {"x-kubernetes-int-or-string": True},
            1.5,
            'Invalid value: "number": spec.it in body must be of type integer,string: "number"',
        ),
        (
            {"type": "object", "properties": {"a": NUMBER}, "required": ["a"]},
            {},
            "Required value",
        ),
    ],
)
async def test_a_value_that_the_schema_does_not_allow_is_refused(
    api: Api, schema: Obj, value: Any, message: str
) -> None:
    await established(api, with_schema(it=schema))

    assert [text for _, text in await refused(api, it=value)] == [message]


async def test_a_number_of_any_size_is_an_answer_and_no_accident(api: Api) -> None:
    await established(api, with_schema(it={"type": "number"}, either={"x-kubernetes-int-or-string": True}))

    odd = await refused(api, either=1e20)
    big = await api("POST", GADGETS, gadget(it=1e20))
    whole = await api.ok("POST", GADGETS, gadget("b", it=2.0))

    assert (big[0], big[1]["spec"]["it"]) == (201, 1e20)
    assert [field for field, _ in odd] == ["spec.either"]
    assert repr(whole["spec"]["it"]) == "2"


async def test_items_that_have_the_same_keys_are_duplicates(api: Api) -> None:
    port: Obj = {
        "type": "object",
        "required": ["port"],
        "properties": {"port": NUMBER, "protocol": {**TEXT, "default": "TCP"}},
    }
    keys = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"]}
    await established(api, with_schema(ports={"type": "array", "items": port, **keys}))

    found = await refused(api, ports=[{"port": 1}, {"port": 2}, {"port": 1, "protocol": "TCP"}])

    assert found == [("spec.ports[2]", 'Duplicate value: {"port":1,"protocol":"TCP"}')]


async def test_one_of_several_schemas_must_hold(api: Api) -> None:
    whole = with_schema(a=NUMBER, b=NUMBER)
    spec = whole["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["oneOf"] = [{"required": ["a"]}, {"required": ["b"]}]
    await established(api, whole)

    assert (await api("POST", GADGETS, gadget("one", a=1)))[0] == 201
    assert await refused(api, a=1, b=1) == [
        (
            "<nil>",
            'Invalid value: "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives',
        )
    ]


async def test_what_was_wrong_before_may_stay_as_it_is(api: Api) -> None:
    await established(api, with_schema(size=NUMBER, color=TEXT))
    await api.ok("POST", GADGETS, gadget(size=20, color="red"))
    strict = with_schema(size={**NUMBER, "maximum": 10}, color={**TEXT, "enum": ["red", "blue"]})
    await replaced(api, strict)

    async def is_strict() -> bool:
        return (await api("POST", f"{GADGETS}?dryRun=All", gadget("b", size=20)))[0] == 422

    await eventually(is_strict)
    status, kept = await api.patch(f"{GADGETS}/a", {"spec": {"color": "blue"}})
    changed, answer = await api.patch(f"{GADGETS}/a", {"spec": {"size": 21}})

    assert (status, kept["spec"]) == (200, {"size": 20, "color": "blue"})
    assert changed == 422
    assert causes(answer) == [("spec.size", "Invalid value: 21: spec.size in body should be less than or equal to 10")]


# Writing


async def test_a_patch_is_merged_and_a_strategic_one_is_not_known(api: Api) -> None:
    await established(api, with_schema(size=NUMBER, list={"type": "array", "items": NUMBER}))
    await api.ok("POST", GADGETS, gadget(size=1, list=[1, 2]))

    _, merged = await api.patch(f"{GADGETS}/a", {"spec": {"size": None, "list": [3]}})
    _, pointed = await api.patch(f"{GADGETS}/a", [{"op": "add", "path": "/spec/list/-", "value": 4}], "json")
    status, answer = await api.patch(f"{GADGETS}/a", {"spec": {}}, "strategic")

    assert (merged["spec"], pointed["spec"]) == ({"list": [3]}, {"list": [3, 4]})
    assert (merged["metadata"]["generation"], pointed["metadata"]["generation"]) == (2, 3)
    assert (status, answer["reason"]) == (415, "UnsupportedMediaType")


async def test_who_applies_owns_the_items_of_a_list_by_their_keys(api: Api) -> None:
    item: Obj = {"type": "object", "required": ["name"], "properties": {"name": TEXT, "size": NUMBER}}
    keys = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    await established(api, with_schema(parts={"type": "array", "items": item, **keys}))

    async def apply(manager: str, *parts: Obj) -> tuple[int, Any]:
        body = gadget(parts=list(parts))
        path = f"{GADGETS}/a?fieldManager={manager}"
        return await api("PATCH", path, body, content_type="application/apply-patch+yaml")

    await apply("one", {"name": "x", "size": 1})
    status, made = await apply("other", {"name": "y", "size": 2})
    conflict, answer = await apply("other", {"name": "x", "size": 3})

    assert (status, [part["name"] for part in made["spec"]["parts"]]) == (200, ["x", "y"])
    assert (conflict, answer["reason"]) == (409, "Conflict")
    assert [cause["field"] for cause in answer["details"]["causes"]] == ['.spec.parts[name="x"].size']


async def test_a_hostile_pattern_does_not_hold_the_server(api: Api) -> None:
    await established(api, with_schema(it={"type": "string", "pattern": "^(a+)+$"}))

    assert (await refused(api, it="a" * 50_000 + "b"))[0][0] == "spec.it"


async def test_an_update_needs_the_revision_it_goes_on_from(api: Api) -> None:
    await established(api, with_schema(size=NUMBER))
    made = await api.ok("POST", GADGETS, gadget(size=1))
    del made["metadata"]["resourceVersion"]

    status, answer = await api("PUT", f"{GADGETS}/a", made)

    assert status == 422
    assert answer["message"] == (
        'gadgets.example.com "a" is invalid: metadata.resourceVersion: Invalid value: 0: '
        "must be specified for an update"
    )


# Definitions that may not be


@pytest.mark.parametrize(
    ("schema", "field", "message"),
    [
        ({"type": "string", "pattern": "(?!a)"}, "pattern", "must be a valid regular expression, but isn't: "),
        ({"properties": {"a": NUMBER}}, "type", "Required value: must not be empty for specified object fields"),
        ({"type": "array"}, "items", "Required value: must be specified"),
        ({"type": "integer", "default": "x"}, "default", "must be of type integer"),
        (
            {"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"},
            "x-kubernetes-list-map-keys",
            "Required value: must not be empty if x-kubernetes-list-type is map",
        ),
    ],
)
async def test_a_schema_that_is_not_structural_is_refused(api: Api, schema: Obj, field: str, message: str) -> None:
    status, answer = await api("POST", CRDS, with_schema(it=schema))

    assert status == 422
    path = f"spec.validation.openAPIV3Schema.properties[spec].properties[it].{field}"
    assert [(at, message in text) for at, text in causes(answer) if at == path] == [(path, True)]


async def test_what_a_definition_is_called_and_where_its_objects_are_stays(api: Api) -> None:
    await established(api, definition())
    stored = await api.ok("GET", f"{CRDS}/{NAME}")
    stored["spec"]["scope"] = "Cluster"

    status, answer = await api("PUT", f"{CRDS}/{NAME}", stored)

    assert status == 422
    assert causes(answer) == [("spec.scope", 'Invalid value: "Cluster": field is immutable')]


async def test_a_version_with_objects_cannot_be_taken_out(api: Api) -> None:
    await established(api, definition(version(), version("v2", stored=False)))
    await replaced(api, definition(version(stored=False), version("v2")))
    stored = await api.ok("GET", f"{CRDS}/{NAME}")
    stored["spec"]["versions"] = [version("v2")]

    status, answer = await api("PUT", f"{CRDS}/{NAME}", stored)
    stored["status"]["storedVersions"] = ["v2"]
    told, _ = await api.patch(f"{CRDS}/{NAME}/status", {"status": {"storedVersions": ["v2"]}})
    del stored["metadata"]["resourceVersion"]
    stored = await api.ok("GET", f"{CRDS}/{NAME}")
    stored["spec"]["versions"] = [version("v2")]
    await api.ok("PUT", f"{CRDS}/{NAME}", stored)

    assert (status, told) == (422, 200)
    assert causes(answer) == [
        (
            "status.storedVersions[0]",
            'Invalid value: "v1": missing from spec.versions; v1 was previously a storage version, and must remain in '
            "spec.versions until a storage migration ensures no data remains persisted in v1 and removes v1 from "
            "status.storedVersions",
        )
    ]
    await answers(api, "GET", GADGETS, 404)
