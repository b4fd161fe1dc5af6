"""The rules of custom kinds (CEL): checked when their definition is written, asked when an object is."""

from __future__ import annotations

import asyncio

from navarch.api.meta import Obj
from tests.apiserver.conftest import Api
from tests.apiserver.crd.definitions import (
    CRDS,
    GADGETS,
    definition,
    established,
    eventually,
    gadget,
    replaced,
    schema,
    version,
)

NUMBER: Obj = {"type": "integer"}


def causes(answer: Obj) -> list[tuple[str, str]]:
    return [(cause["field"], cause["message"]) for cause in answer["details"]["causes"]]


def ruled(*rules: Obj, **fields: Obj) -> Obj:
    """A definition with rules about its `spec`."""
    whole = schema(**(fields or {"least": NUMBER, "most": NUMBER}))
    whole["properties"]["spec"]["x-kubernetes-validations"] = list(rules)
    return definition(version(schema={"openAPIV3Schema": whole}))


ORDERED: Obj = {"rule": "self.least <= self.most", "message": "least may not be more than most"}


async def test_an_object_that_breaks_a_rule_is_refused_with_its_message(api: Api) -> None:
    await established(api, ruled(ORDERED))

    status, answer = await api("POST", GADGETS, gadget(least=2, most=1))

    assert status == 422
    assert causes(answer) == [("spec", "Invalid value: least may not be more than most")]
    assert (await api("POST", GADGETS, gadget(least=1, most=2)))[0] == 201


async def test_a_rule_names_the_field_and_the_reason_and_words_its_message(api: Api) -> None:
    rule = {
        "rule": "self.color != 'green'",
        "messageExpression": "self.color + ' it may not be'",
        "reason": "FieldValueForbidden",
        "fieldPath": ".color",
    }
    await established(api, ruled(rule, color={"type": "string", "maxLength": 10}))

    status, answer = await api("POST", GADGETS, gadget(color="green"))

    assert status == 422
    assert answer["details"]["causes"] == [
        {"reason": "FieldValueForbidden", "message": "Forbidden: green it may not be", "field": "spec.color"}
    ]


async def test_a_rule_of_the_old_value_is_asked_of_changes_alone(api: Api) -> None:
    await established(api, ruled({"rule": "self.most >= oldSelf.most", "message": "most may only grow"}))
    await api.ok("POST", GADGETS, gadget(least=1, most=5))

    grown, _ = await api.patch(f"{GADGETS}/a", {"spec": {"most": 6}})
    shrunk, answer = await api.patch(f"{GADGETS}/a", {"spec": {"most": 4}})

    assert (grown, shrunk) == (200, 422)
    assert causes(answer) == [("spec", "Invalid value: most may only grow")]


async def test_items_are_compared_with_those_of_the_same_key(api: Api) -> None:
    item: Obj = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string"},
            "size": {
                "type": "integer",
                "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "may only grow"}],
            },
        },
    }
    keys = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    await established(api, ruled(parts={"type": "array", "items": item, **keys}))
    await api.ok("POST", GADGETS, gadget(parts=[{"name": "a", "size": 1}, {"name": "b", "size": 9}]))

    moved, _ = await api.patch(
        f"{GADGETS}/a", {"spec": {"parts": [{"name": "b", "size": 9}, {"name": "a", "size": 2}]}}
    )
    status, answer = await api.patch(f"{GADGETS}/a", {"spec": {"parts": [{"name": "b", "size": 8}]}})

    assert (moved, status) == (200, 422)
    assert causes(answer) == [("spec.parts[0].size", "Invalid value: 8: may only grow")]


async def test_what_breaks_a_new_rule_may_stay_with_a_warning(api: Api) -> None:
    whole = schema(color={"type": "string"}, size=NUMBER)
    await established(api, definition(version(schema={"openAPIV3Schema": whole})))
    await api.ok("POST", GADGETS, gadget(color="green", size=1))
    color: Obj = {
        "type": "string",
        "x-kubernetes-validations": [{"rule": "self != 'green'", "message": "not green"}],
    }
    await replaced(api, definition(version(schema={"openAPIV3Schema": schema(color=color, size=NUMBER)})))

    async def ruled_now() -> bool:
        return (await api("POST", f"{GADGETS}?dryRun=All", gadget("b", color="green")))[0] == 422

    await eventually(ruled_now)
    response = await api.send(
        "PATCH", f"{GADGETS}/a", {"spec": {"size": 2}}, content_type="application/merge-patch+json"
    )
    changed, answer = await api.patch(f"{GADGETS}/a", {"spec": {"color": "green", "size": "x"}})

    assert response.status == 200
    assert response.headers["Warning"] == '299 - "spec.color: Invalid value: \\"green\\": not green"'
    assert changed == 422
    assert [field for field, _ in causes(answer)] == ["spec.size", "<nil>"]


async def test_rules_about_the_status_are_asked_when_it_is_written(api: Api) -> None:
    whole = schema(size=NUMBER)
    whole["properties"]["status"] = {
        "type": "object",
        "properties": {"ready": NUMBER},
        "x-kubernetes-validations": [{"rule": "self.ready >= 0", "message": "not below nothing"}],
    }
    await established(api, definition(version(schema={"openAPIV3Schema": whole}, subresources={"status": {}})))
    await api.ok("POST", GADGETS, gadget(size=1))

    status, answer = await api.patch(f"{GADGETS}/a/status", {"status": {"ready": -1}})

    assert status == 422
    assert causes(answer) == [("status", "Invalid value: not below nothing")]


async def test_rules_that_do_not_compile_or_cost_too_much_are_refused_with_the_definition(api: Api) -> None:
    endless: Obj = {"type": "array", "items": {"type": "string"}}

    async def problem(rule: Obj, **fields: Obj) -> tuple[str, str]:
        status, answer = await api("POST", CRDS, ruled(rule, **fields))
        assert status == 422
        return causes(answer)[0]

    at = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0]"
    unknown = await problem({"rule": "self.other == 1"})
    wrong = await problem({"rule": "self.least"})
    dear = await problem(
        {"rule": "self.a.all(x, self.a.all(y, x == y))"},
        a=endless,
    )

    assert unknown[0] == wrong[0] == dear[0] == f"{at}.rule"
    assert "undefined field 'other'" in unknown[1]
    assert "must evaluate to a bool" in wrong[1]
    assert "estimated rule cost exceeds budget by factor of" in dear[1]


async def test_rules_that_take_long_hold_nobody_up(api: Api) -> None:
    many = list(range(40))
    laborious: Obj = {"rule": f"{many}.all(a, {many}.all(b, {many}.all(c, a + b + c + self.least > 0)))"}
    await established(api, ruled(laborious, ORDERED))
    done: list[str] = []

    async def written(name: str, **spec: int) -> tuple[int, Obj]:
        answer: tuple[int, Obj] = await api("POST", GADGETS, gadget(name, **spec))
        done.append(name)
        return answer

    async def read() -> None:
        await asyncio.sleep(0)
        await api.ok("GET", GADGETS)
        done.append("read")

    (good, _), _ = await asyncio.gather(written("good", least=1, most=2), read())
    (bad, answer), _ = await asyncio.gather(written("bad", least=1, most=0), read())
    changed, problem = await api.patch(f"{GADGETS}/good", {"spec": {"most": 0}})

    assert done == ["read", "good", "read", "bad"]
    assert (good, bad, changed) == (201, 422, 422)
    assert causes(answer) == causes(problem) == [("spec", "Invalid value: least may not be more than most")]
