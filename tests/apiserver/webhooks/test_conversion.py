"""Conversion webhooks: custom objects in the version that is asked for, however they are stored."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.apiserver.webhooks import conversion
from navarch.apiserver.webhooks.conversion import WebhookConverter
from navarch.testing.embedded import EmbeddedCluster
from tests.apiserver.conftest import Api
from tests.apiserver.webhooks.server import Authority, Webhook
from tests.apiserver.widgets import WIDGETS_V1, WIDGETS_V2, widget, widget_schema, widgets


def renamed(request: Obj) -> list[Obj]:
    """What the author of Widget would answer: the amount is `count` in v1, `size` in v2."""
    version = request["desiredAPIVersion"]
    old, new = ("size", "count") if version.endswith("/v1") else ("count", "size")
    made = []
    for obj in request["objects"]:
        spec = dict(obj["spec"])
        if old in spec:
            spec[new] = spec.pop(old)
        made.append({**obj, "apiVersion": version, "spec": spec})
    return made


def success(request: Obj) -> Obj:
    return {"result": {"status": "Success"}, "convertedObjects": renamed(request)}


def stated(webhook: Webhook, *versions: str) -> Obj:
    config = {"url": webhook.url, "caBundle": webhook.authority.bundle}
    return {"clientConfig": config, "conversionReviewVersions": list(versions or ("v1",))}


def converter_of(cluster: EmbeddedCluster, webhook: Webhook, *versions: str) -> WebhookConverter:
    core = cluster.server.core
    return WebhookConverter(core.webhooks, stated(webhook, *versions), core.world)


async def test_objects_are_read_in_the_version_that_is_asked_for(
    api: Api, cluster: EmbeddedCluster, authority: Authority
) -> None:
    async with Webhook(authority, success) as webhook:
        await cluster.server.serve(*widgets(converter=converter_of(cluster, webhook)))
        await api.ok("POST", WIDGETS_V2, widget("w", size=3))

        read = await api.ok("GET", f"{WIDGETS_V1}/w")
        await api.patch(f"{WIDGETS_V1}/w", {"spec": {"count": 4}})
        again = await api.ok("GET", f"{WIDGETS_V2}/w")

    assert (read["spec"]["count"], again["spec"]["size"]) == (3, 4)
    assert webhook.asked[0].target == "/hook?timeout=30s"


async def test_a_list_is_one_review(api: Api, cluster: EmbeddedCluster, authority: Authority) -> None:
    async with Webhook(authority, success) as webhook:
        await cluster.server.serve(*widgets(converter=converter_of(cluster, webhook)))
        for number in range(20):
            await api.ok("POST", WIDGETS_V2, widget(f"w{number:02}", size=number))
        webhook.asked.clear()

        listed = await api.ok("GET", WIDGETS_V1)

    assert [item["spec"]["count"] for item in listed["items"]] == list(range(20))
    assert [len(asked.request["objects"]) for asked in webhook.asked] == [20]


async def test_more_than_fits_is_asked_in_several(
    cluster: EmbeddedCluster, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "_TOGETHER", 2000)
    objects = [widget(f"w{number}", size=number, color="x" * 600) for number in range(8)]
    async with Webhook(authority, success) as webhook:
        made = await converter_of(cluster, webhook).convert(objects, "example.com/v1")

    assert [obj["spec"]["count"] for obj in made] == list(range(8))
    assert [len(asked.request["objects"]) for asked in webhook.asked] == [2, 2, 2, 2]


async def test_what_is_in_the_version_already_is_not_asked_about(
    cluster: EmbeddedCluster, authority: Authority
) -> None:
    objects = [widget("a", "v1", count=1), widget("b", size=2), widget("c", "v1", count=3)]
    async with Webhook(authority, success) as webhook:
        made = await converter_of(cluster, webhook).convert(objects, "example.com/v1")

    assert [obj["metadata"]["name"] for obj in made] == ["a", "b", "c"]
    assert [[obj["metadata"]["name"] for obj in asked.request["objects"]] for asked in webhook.asked] == [["b"]]


async def test_the_older_review_is_spoken_and_read_less_strictly(
    cluster: EmbeddedCluster, authority: Authority
) -> None:
    async with Webhook(authority, lambda request: {**success(request), "uid": "another"}) as webhook:
        made = await converter_of(cluster, webhook, "v1beta1", "v1").convert([widget("b", size=2)], "example.com/v1")

    assert made[0]["spec"]["count"] == 2
    assert orjson.loads(webhook.asked[0].body)["apiVersion"] == "apiextensions.k8s.io/v1beta1"


def converted(**said: Any) -> Any:
    def answer(request: Obj) -> Obj:
        (obj,) = renamed(request)
        return {"result": {"status": "Success"}, "convertedObjects": [{**obj, **said}]}

    return answer


def changed(**metadata: Any) -> Any:
    def answer(request: Obj) -> Obj:
        (obj,) = renamed(request)
        return {
            "result": {"status": "Success"},
            "convertedObjects": [{**obj, "metadata": {**obj["metadata"], **metadata}}],
        }

    return answer


FAILED = "conversion webhook for example.com/v2, Kind=Widget "


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda request: {"result": {"status": "Failure", "message": "not today"}}, "failed: not today"),
        (lambda request: {}, "failed: response.result.status was '', not 'Success'"),
        (lambda request: {**success(request), "uid": "x"}, 'failed: expected response.uid="'),
        (lambda request: {"result": {"status": "Success"}}, "returned 0 objects, expected 1"),
        (
            lambda request: {"result": {"status": "Success"}, "convertedObjects": request["objects"]},
            "returned invalid object at index 0: invalid groupVersion (expected example.com/v1, received "
            "example.com/v2)",
        ),
        (changed(name="x"), "returned invalid object: must have the same name: b != x"),
        (changed(uid="x"), "returned invalid object: must have the same UID:  != x"),
        (changed(labels="x"), "returned invalid metadata: invalid metadata.labels of type string in converted object"),
        (
            changed(annotations={"a": 1}),
            "returned invalid metadata: metadata.annotations[a] must be a string, but is int64 in converted object",
        ),
        (changed(labels={"a b": "c"}), 'returned invalid metadata: metadata.labels: Invalid value: "a b": name part'),
        (
            converted(kind="Gadget"),
            "returned invalid object at index 0: invalid kind (expected Widget, received Gadget)",
        ),
        (converted(kind=None), "returned invalid object: Object 'Kind' is missing in '{\""),
        (
            lambda request: {"result": {"status": "Success"}, "convertedObjects": [1]},
            "returned invalid object: json: cannot unmarshal number into Go value of type struct { Items ",
        ),
        (
            lambda request: {"result": "Success"},
            "failed: json: cannot unmarshal string into Go struct field ConversionResponse.response.result of type "
            "v1.Status",
        ),
    ],
)
async def test_an_answer_that_is_none_is_an_error(
    cluster: EmbeddedCluster, authority: Authority, answer: Any, why: str
) -> None:
    async with Webhook(authority, answer) as webhook:
        converter = converter_of(cluster, webhook)
        with pytest.raises(StatusError) as error:
            await converter.convert([widget("b", size=2)], "example.com/v1")

    assert (error.value.code, error.value.reason) == (500, "")
    assert error.value.message.startswith(FAILED + why)


async def test_a_webhook_that_is_away_fails_reads_in_its_versions_alone(
    api: Api, cluster: EmbeddedCluster, authority: Authority
) -> None:
    async with Webhook(authority, success) as webhook:
        await cluster.server.serve(*widgets(converter=converter_of(cluster, webhook)))
        await api.ok("POST", WIDGETS_V2, widget("w", size=3))

    code, answer = await api("GET", f"{WIDGETS_V1}/w")
    assert code == 500
    assert answer["message"].startswith(f'{FAILED}failed: Post "{webhook.url}?timeout=30s": ')
    assert "reason" not in answer
    await api.ok("GET", f"{WIDGETS_V2}/w")


async def test_admission_sees_custom_objects_in_the_version_of_its_rule(
    api: Api, cluster: EmbeddedCluster, authority: Authority
) -> None:
    from tests.apiserver.webhooks.server import patch
    from tests.apiserver.webhooks.test_admission import MUTATING, configure, rule

    more = patch({"op": "replace", "path": "/spec/count", "value": 9})
    async with Webhook(authority, success) as webhook, Webhook(authority, lambda request: more) as hook:
        await cluster.server.serve(*widgets(converter=converter_of(cluster, webhook)))
        await configure(api, MUTATING, hook.config(rules=[rule("widgets", "example.com", "v1")]))

        made = await api.ok("POST", WIDGETS_V2, widget("w", size=3))

    assert hook.asked[0].request["object"]["spec"]["count"] == 3
    assert made["spec"]["size"] == 9


async def test_conditions_see_custom_objects_in_the_version_of_the_rule(
    api: Api, cluster: EmbeddedCluster, authority: Authority
) -> None:
    from tests.apiserver.webhooks.test_admission import ALLOWED, VALIDATING, configure, rule

    seen = [
        "object.apiVersion == 'example.com/v1' && object.spec.count == 3",
        "request.kind.version == 'v1' && request.requestKind.version == 'v2'",
        "request.resource.version == 'v2' && request.requestResource.version == 'v2'",
    ]
    conditions = [{"name": f"seen-{number}", "expression": text} for number, text in enumerate(seen)]
    async with Webhook(authority, success) as webhook, Webhook(authority, lambda request: ALLOWED) as hook:
        await cluster.server.serve(*widgets(converter=converter_of(cluster, webhook)))
        rules = [rule("widgets", "example.com", "v1")]
        await configure(api, VALIDATING, hook.config(rules=rules, matchConditions=conditions))

        await api.ok("POST", WIDGETS_V2, widget("w", size=3))

    assert [asked.request["name"] for asked in hook.asked] == ["w"]


def definition(webhook: Webhook) -> Obj:
    """Widgets as a CustomResourceDefinition has them."""
    versions = [
        {"name": name, "served": True, "storage": name == "v2", "schema": {"openAPIV3Schema": widget_schema(amount)}}
        for name, amount in (("v2", "size"), ("v1", "count"))
    ]
    return {
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": versions,
            "conversion": {"strategy": "Webhook", "webhook": stated(webhook)},
        },
    }


async def test_a_definition_names_the_webhook_that_converts_its_objects(api: Api, authority: Authority) -> None:
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    async with Webhook(authority, success) as webhook:
        await api.ok("POST", definitions, definition(webhook))
        async with asyncio.timeout(30):
            while (await api("GET", WIDGETS_V1))[0] != 200:
                await asyncio.sleep(0.01)
        await api.ok("POST", WIDGETS_V2, widget("w", size=3))

        read = await api.ok("GET", f"{WIDGETS_V1}/w")
        assert read["spec"]["count"] == 3

        # And it may be another one from one moment to the next.
        gone = {"webhook": {"clientConfig": {"url": "https://127.0.0.1:1/away"}}}
        code, answer = await api.patch(f"{definitions}/widgets.example.com", {"spec": {"conversion": gone}})
        assert code == 200, answer
        async with asyncio.timeout(30):
            while (await api("GET", f"{WIDGETS_V1}/w"))[0] != 500:
                await asyncio.sleep(0.01)
        _, answer = await api("GET", f"{WIDGETS_V1}/w")

    refused = "dial tcp 127.0.0.1:1: connect: connection refused"
    assert answer["message"] == f'{FAILED}failed: Post "https://127.0.0.1:1/away?timeout=30s": {refused}'
