"""Admission webhooks, as those who write and those who answer meet them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import orjson
import pytest

from navarch.api.meta import Obj
from navarch.apiserver.audit.policy import parse
from navarch.apiserver.audit.trail import Auditing
from navarch.client.transport import Response
from tests.apiserver.audit.test_trail import Kept
from tests.apiserver.conftest import CONFIG_MAPS, DEPLOYMENTS, PODS, Api
from tests.apiserver.webhooks.server import Authority, Webhook, http, patch

MUTATING = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
VALIDATING = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
ALLOWED = {"allowed": True}


def config_map(name: str = "c", **data: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


async def configure(api: Api, path: str, *webhooks: Obj, name: str = "hooks") -> None:
    kind = "MutatingWebhookConfiguration" if path == MUTATING else "ValidatingWebhookConfiguration"
    await api.ok(
        "POST",
        path,
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": name},
            "webhooks": list(webhooks),
        },
    )


def rule(resource: str, group: str = "", version: str = "v1", *operations: str, scope: str = "*") -> Obj:
    return {
        "operations": list(operations or ("*",)),
        "apiGroups": [group],
        "apiVersions": [version],
        "resources": [resource],
        "scope": scope,
    }


async def test_a_refusal_is_read_in_the_webhooks_words(api: Api, authority: Authority) -> None:
    status = {"code": 403, "reason": "Forbidden", "message": "no capitals", "details": {"kind": "words"}}
    async with Webhook(authority, lambda request: {"allowed": False, "status": status}) as webhook:
        await configure(api, VALIDATING, webhook.config())

        code, answer = await api("POST", CONFIG_MAPS, config_map())

    assert code == 403
    assert answer == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'admission webhook "w.example.com" denied the request: no capitals',
        "reason": "Forbidden",
        "details": {"kind": "words"},
        "code": 403,
    }


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (None, 400, 'admission webhook "w.example.com" denied the request without explanation'),
        ({}, 400, 'admission webhook "w.example.com" denied the request without explanation'),
        ({"reason": "Because"}, 400, 'admission webhook "w.example.com" denied the request: Because'),
        ({"code": 200, "message": "fine"}, 400, 'admission webhook "w.example.com" denied the request: fine'),
        ({"code": 422, "message": "bad"}, 422, 'admission webhook "w.example.com" denied the request: bad'),
        ({"code": 70000, "message": "odd"}, 500, 'admission webhook "w.example.com" denied the request: odd'),
    ],
)
async def test_a_refusal_has_a_code_and_a_message_whatever_the_webhook_says(
    api: Api, authority: Authority, status: Any, code: int, message: str
) -> None:
    said = {"allowed": False} if status is None else {"allowed": False, "status": status}
    async with Webhook(authority, lambda request: said) as webhook:
        await configure(api, VALIDATING, webhook.config())

        found, answer = await api("POST", CONFIG_MAPS, config_map())

    assert (found, answer["code"], answer["message"]) == (code, code, message)


async def test_a_webhook_reads_what_is_asked_for_and_by_whom(api: Api, authority: Authority) -> None:
    async with Webhook(authority, lambda request: ALLOWED) as webhook:
        await configure(api, VALIDATING, webhook.config())

        await api.ok("POST", f"{CONFIG_MAPS}?fieldManager=me&dryRun=All", config_map(a="b"))

    (asked,) = webhook.asked
    request = asked.request
    assert asked.target == "/hook?timeout=10s"
    assert asked.headers["content-type"] == "application/json"
    assert request["object"]["data"] == {"a": "b"}
    assert request["object"]["metadata"]["uid"]
    del request["uid"], request["object"]
    kind, resource = (
        {"group": "", "version": "v1", "kind": "ConfigMap"},
        {
            "group": "",
            "version": "v1",
            "resource": "configmaps",
        },
    )
    assert request == {
        "kind": kind,
        "resource": resource,
        "requestKind": kind,
        "requestResource": resource,
        "name": "c",
        "namespace": "default",
        "operation": "CREATE",
        "userInfo": {"username": "kubernetes-admin", "groups": ["system:masters", "system:authenticated"]},
        "oldObject": None,
        "dryRun": True,
        "options": {
            "kind": "CreateOptions",
            "apiVersion": "meta.k8s.io/v1",
            "dryRun": ["All"],
            "fieldManager": "me",
        },
    }


async def test_each_operation_shows_the_objects_that_it_has(api: Api, authority: Authority) -> None:
    async with Webhook(authority, lambda request: ALLOWED) as webhook:
        await configure(api, VALIDATING, webhook.config())

        await api.ok("POST", CONFIG_MAPS, config_map(a="1"))
        await api.patch(f"{CONFIG_MAPS}/c", {"data": {"a": "2"}})
        await api.ok("DELETE", f"{CONFIG_MAPS}/c")

    seen = [
        (
            asked.request["operation"],
            (asked.request["object"] or {}).get("data"),
            (asked.request["oldObject"] or {}).get("data"),
            asked.request["options"]["kind"],
        )
        for asked in webhook.asked
    ]
    assert seen == [
        ("CREATE", {"a": "1"}, None, "CreateOptions"),
        ("UPDATE", {"a": "2"}, {"a": "1"}, "PatchOptions"),
        ("DELETE", None, {"a": "2"}, "DeleteOptions"),
    ]


async def test_what_a_webhook_patches_is_stored_with_its_defaults(api: Api, authority: Authority) -> None:
    container = {"name": "side", "image": "side:1"}
    said = patch({"op": "add", "path": "/spec/containers/-", "value": container})
    async with Webhook(authority, lambda request: said) as webhook:
        await configure(api, MUTATING, webhook.config(rules=[rule("pods", "", "v1", "CREATE")]))

        body = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "main", "image": "main:1"}]}}
        pod = await api.ok("POST", PODS, {"apiVersion": "v1", "kind": "Pod", **body})

    assert [each["name"] for each in pod["spec"]["containers"]] == ["main", "side"]
    assert pod["spec"]["containers"][1]["terminationMessagePath"] == "/dev/termination-log"
    # The plugins of the server's own have seen it, too, and added nothing twice.
    assert len(pod["spec"]["volumes"]) == 1
    assert [len(each["volumeMounts"]) for each in pod["spec"]["containers"]] == [1, 1]
    # Nobody owns what admission added.
    (entry,) = pod["metadata"]["managedFields"]
    assert 'k:{"name":"side"}' not in str(entry["fieldsV1"])


async def test_each_mutating_webhook_sees_what_the_one_before_it_made(api: Api, authority: Authority) -> None:
    def mark(name: str) -> Any:
        return lambda request: patch(
            {"op": "add", "path": f"/data/{name}", "value": str(len(request["object"]["data"]))}
        )

    async with Webhook(authority, mark("first")) as first, Webhook(authority, mark("second")) as second:
        # In the order of the configurations' names, and of the webhooks in each.
        await configure(api, MUTATING, second.config(name="b.example.com"), name="later")
        await configure(api, MUTATING, first.config(name="a.example.com"), name="earlier")

        made = await api.ok("POST", CONFIG_MAPS, config_map(x="x"))

    assert made["data"] == {"x": "x", "first": "1", "second": "2"}


async def test_a_webhook_that_wants_to_is_asked_once_more_after_a_later_one_changed_something(
    api: Api, authority: Authority
) -> None:
    counting = {"op": "add", "path": "/data/seen"}

    def count(request: Obj) -> Obj:
        return patch({**counting, "value": str(int(request["object"]["data"].get("seen", "0")) + 1)})

    late = patch({"op": "add", "path": "/data/late", "value": "yes"})
    async with Webhook(authority, count) as first, Webhook(authority, lambda request: late) as second:
        willing = first.config(name="a.example.com", reinvocationPolicy="IfNeeded")
        await configure(api, MUTATING, willing, second.config(name="b.example.com"))

        made = await api.ok("POST", CONFIG_MAPS, config_map(x="x"))

    assert made["data"] == {"x": "x", "seen": "2", "late": "yes"}
    assert (len(first.asked), len(second.asked)) == (2, 1)


async def test_nobody_is_asked_twice_where_nothing_changes(api: Api, authority: Authority) -> None:
    async with Webhook(authority, lambda request: ALLOWED) as first, Webhook(authority, lambda r: ALLOWED) as second:
        hooks = [
            hook.config(name=f"{name}.example.com", reinvocationPolicy="IfNeeded")
            for name, hook in (("a", first), ("b", second))
        ]
        await configure(api, MUTATING, *hooks)

        await api.ok("POST", CONFIG_MAPS, config_map())

    assert (len(first.asked), len(second.asked)) == (1, 1)


async def test_a_subresource_is_asked_about_as_what_it_is(api: Api, authority: Authority) -> None:
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    await api.ok("POST", DEPLOYMENTS, {"metadata": {"name": "web"}, "spec": spec})
    said = patch({"op": "replace", "path": "/spec/replicas", "value": 5})
    async with Webhook(authority, lambda request: said) as webhook:
        await configure(api, MUTATING, webhook.config(rules=[rule("*/scale", "*", "*", "UPDATE")]))

        code, _ = await api.patch(f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": 3}})

    (asked,) = webhook.asked
    assert code == 200
    assert asked.request["kind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    assert asked.request["resource"]["resource"] == "deployments"
    assert asked.request["subResource"] == asked.request["requestSubResource"] == "scale"
    assert asked.request["object"]["spec"] == {"replicas": 3}
    assert asked.request["oldObject"]["spec"] == {"replicas": 1}
    assert (await api.ok("GET", f"{DEPLOYMENTS}/web"))["spec"]["replicas"] == 5


AUTOSCALERS_V1 = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"


@pytest.mark.parametrize(("policy", "versions"), [("Equivalent", ["v2"]), ("Exact", [])])
async def test_who_takes_equivalents_sees_an_object_in_the_version_of_its_rule(
    api: Api, authority: Authority, policy: str, versions: list[str]
) -> None:
    async with Webhook(authority, lambda request: ALLOWED) as webhook:
        rules = [rule("horizontalpodautoscalers", "autoscaling", "v2")]
        await configure(api, VALIDATING, webhook.config(matchPolicy=policy, rules=rules))

        spec = {
            "maxReplicas": 3,
            "targetCPUUtilizationPercentage": 50,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "X", "name": "x"},
        }
        await api.ok("POST", AUTOSCALERS_V1, {"metadata": {"name": "a"}, "spec": spec})

    assert [asked.request["kind"]["version"] for asked in webhook.asked] == versions
    for asked in webhook.asked:
        assert asked.request["requestKind"]["version"] == "v1"
        assert asked.request["object"]["apiVersion"] == "autoscaling/v2"
        assert asked.request["object"]["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 50


async def test_a_patch_in_another_version_is_stored_in_the_one_that_counts(api: Api, authority: Authority) -> None:
    said = patch({"op": "replace", "path": "/spec/targetCPUUtilizationPercentage", "value": 70})
    async with Webhook(authority, lambda request: said) as webhook:
        rules = [rule("horizontalpodautoscalers", "autoscaling", "v1")]
        await configure(api, MUTATING, webhook.config(rules=rules))

        target = {"type": "Utilization", "averageUtilization": 50}
        metrics = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
        spec = {
            "maxReplicas": 3,
            "metrics": metrics,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "X", "name": "x"},
        }
        path = AUTOSCALERS_V1.replace("/v1/", "/v2/")
        made = await api.ok("POST", path, {"metadata": {"name": "a"}, "spec": spec})

    assert made["apiVersion"] == "autoscaling/v2"
    assert made["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 70


async def test_selectors_choose_by_the_namespace_and_by_either_object(api: Api, authority: Authority) -> None:
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "marked", "labels": {"hooks": "on"}}})
    async with Webhook(authority, lambda request: ALLOWED) as webhook:
        await configure(
            api,
            VALIDATING,
            webhook.config(
                namespaceSelector={"matchLabels": {"hooks": "on"}}, objectSelector={"matchLabels": {"look": "here"}}
            ),
        )
        there = CONFIG_MAPS.replace("default", "marked")
        labelled = {**config_map(), "metadata": {"name": "c", "labels": {"look": "here"}}}

        await api.ok("POST", CONFIG_MAPS, labelled)
        await api.ok("POST", there, config_map("plain"))
        assert webhook.asked == []
        await api.ok("POST", there, labelled)
        await api.patch(f"{there}/c", {"metadata": {"labels": None}})
        await api.patch(f"{there}/c", {"data": {"a": "b"}})

    # The update that took the label away is one of an object that had it.
    assert [asked.request["operation"] for asked in webhook.asked] == ["CREATE", "UPDATE"]


async def test_a_namespace_is_selected_by_its_own_labels(api: Api, authority: Authority) -> None:
    async with Webhook(authority, lambda request: ALLOWED) as webhook:
        selector = {"matchLabels": {"hooks": "on"}}
        await configure(
            api, VALIDATING, webhook.config(namespaceSelector=selector, rules=[rule("namespaces", scope="Cluster")])
        )

        await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "plain"}})
        await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "marked", "labels": {"hooks": "on"}}})
        await api.ok("DELETE", "/api/v1/namespaces/marked")

    seen = [(a.request["operation"], a.request["name"], a.request.get("namespace")) for a in webhook.asked]
    assert seen == [("CREATE", "marked", None), ("DELETE", "marked", "marked")]


@pytest.mark.parametrize(("scope", "count"), [("*", 2), ("Cluster", 1), ("Namespaced", 1)])
async def test_a_rule_can_be_for_one_scope(api: Api, authority: Authority, scope: str, count: int) -> None:
    async with Webhook(authority, lambda request: ALLOWED) as webhook:
        await configure(api, VALIDATING, webhook.config(rules=[rule("*", scope=scope)]))

        await api.ok("POST", CONFIG_MAPS, config_map())
        await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "n"}})

    assert len(webhook.asked) == count


@pytest.mark.parametrize("path", [MUTATING, VALIDATING])
async def test_webhook_configurations_are_never_asked_about(api: Api, authority: Authority, path: str) -> None:
    async with Webhook(authority, lambda request: {"allowed": False}) as webhook:
        everything = [{**rule("*/*", "*", "*"), "scope": "*"}]
        await configure(api, path, webhook.config(rules=everything))

        await api.ok("DELETE", f"{path}/hooks")
        await api.ok("POST", CONFIG_MAPS, config_map())

    assert webhook.asked == []


REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


async def test_nobody_is_asked_about_reviews_of_access_and_who_wants_to_be_is_told(
    api: Api, authority: Authority
) -> None:
    named = rule("selfsubjectaccessreviews", "authorization.k8s.io")
    async with Webhook(authority, lambda request: {"allowed": False}) as webhook:
        body = {"metadata": {"name": "hooks"}, "webhooks": [webhook.config(rules=[rule("*", "*", "*"), named])]}
        made: Response = await api.send("POST", VALIDATING, body)

        status, review = await api("POST", REVIEW, {"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}})

    assert (status, review["status"]["allowed"], webhook.asked) == (201, True, [])
    assert made.headers["Warning"] == (
        '299 - "webhooks[0].rules[1]: selfsubjectaccessreviews.authorization.k8s.io is excluded from admission '
        'webhooks; this rule will have no effect"'
    )


@pytest.mark.parametrize(
    ("answer", "times"),
    [
        (http(429, b"", Retry_After="0"), 2),
        (http(503, b"", Retry_After="0"), 2),
        (http(503, b""), 1),
        (http(404, b"", Retry_After="0"), 1),
        (http(500, b"", Retry_After="Thu, 01 Jan 2026 00:00:00 GMT"), 1),
    ],
)
async def test_a_webhook_that_asks_for_it_is_asked_once_more(
    api: Api, authority: Authority, answer: bytes, times: int
) -> None:
    async with Webhook(authority, lambda request: answer if len(webhook.asked) == 1 else ALLOWED) as webhook:
        await configure(api, VALIDATING, webhook.config())

        status, _ = await api("POST", CONFIG_MAPS, config_map())

    assert len(webhook.asked) == times
    assert status == (201 if times == 2 else 500)


async def test_a_webhook_that_goes_on_asking_for_it_has_failed(api: Api, authority: Authority) -> None:
    async with Webhook(authority, lambda request: http(503, b"", Retry_After="0")) as webhook:
        await configure(api, VALIDATING, webhook.config())

        status, answer = await api("POST", CONFIG_MAPS, config_map())

    assert (status, len(webhook.asked)) == (500, 11)
    assert answer["message"].endswith("the server is currently unable to handle the request")


async def test_a_webhook_is_waited_for_within_its_time(api: Api, authority: Authority) -> None:
    async with Webhook(authority, lambda request: http(429, b"", Retry_After="3600")) as webhook:
        await configure(api, VALIDATING, webhook.config(timeoutSeconds=1))

        status, answer = await api("POST", CONFIG_MAPS, config_map())

    assert (status, len(webhook.asked)) == (500, 1)
    assert answer["message"].endswith(": context deadline exceeded")


async def test_a_change_of_the_configuration_counts_from_the_next_write_on(api: Api, authority: Authority) -> None:
    async with Webhook(authority, lambda request: {"allowed": False}) as webhook:
        await api.ok("POST", CONFIG_MAPS, config_map("before"))
        await configure(api, VALIDATING, webhook.config())
        assert (await api("POST", CONFIG_MAPS, config_map("meanwhile")))[0] == 400
        await api.patch(f"{VALIDATING}/hooks", [{"op": "remove", "path": "/webhooks/0"}], "json")

        await api.ok("POST", CONFIG_MAPS, config_map("after"))


async def test_warnings_of_webhooks_are_headers(api: Api, authority: Authority) -> None:
    async with Webhook(authority, lambda request: {"allowed": True, "warnings": ["mind the gap"]}) as webhook:
        await configure(api, VALIDATING, webhook.config())

        response: Response = await api.send("POST", CONFIG_MAPS, config_map())

    assert response.headers["Warning"] == '299 - "mind the gap"'


async def test_the_older_review_is_spoken_with_those_who_know_no_other(api: Api, authority: Authority) -> None:
    async with Webhook(authority, lambda request: {"allowed": False, "uid": "whatever"}) as webhook:
        await configure(api, VALIDATING, webhook.config(admissionReviewVersions=["v2", "v1beta1", "v1"]))

        code, _ = await api("POST", CONFIG_MAPS, config_map())

    assert code == 400
    assert b'"admission.k8s.io/v1beta1"' in webhook.asked[0].body


async def test_all_validating_webhooks_are_asked_at_the_same_time(api: Api, authority: Authority) -> None:
    together = asyncio.Barrier(2)

    async def meet(request: Obj) -> Obj:
        # Neither answers before both were asked.
        async with asyncio.timeout(20):
            await together.wait()
        return {"allowed": False, "status": {"message": request["uid"]}}

    async with Webhook(authority, meet) as first, Webhook(authority, meet) as second:
        await configure(api, VALIDATING, first.config(name="a.example.com"), second.config(name="b.example.com"))

        _, answer = await api("POST", CONFIG_MAPS, config_map())

    assert 'admission webhook "a.example.com" denied the request' in answer["message"]


async def test_a_connection_is_used_again(api: Api, authority: Authority) -> None:
    async with Webhook(authority, lambda request: ALLOWED) as webhook:
        await configure(api, VALIDATING, webhook.config())
        for number in range(5):
            await api.ok("POST", CONFIG_MAPS, config_map(f"c{number}"))

        assert (len(webhook.asked), webhook.server.connections) == (5, 1)


async def test_what_may_have_side_effects_is_not_asked_about_a_dry_run(api: Api, authority: Authority) -> None:
    async with Webhook(authority, lambda request: ALLOWED) as webhook:
        await configure(api, VALIDATING, webhook.config())
        # As objects of earlier days say: such a one can no longer be made.
        cluster = api.server
        resource = cluster.core.served.by_path("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations")
        assert resource is not None
        hook = resource.cache.get("", "hooks")
        assert hook is not None
        changed = hook.data.replace(b'"sideEffects":"None"', b'"sideEffects":"Some"')
        from navarch.store.base import Put

        stored = resource.codec.unstamp(changed, hook.revision)
        await cluster.core.caches.wait(await cluster.store.commit((Put(hook.key, stored, hook.revision),)))

        code, answer = await api("POST", f"{CONFIG_MAPS}?dryRun=All", config_map())
        assert (code, answer["message"]) == (400, 'admission webhook "w.example.com" does not support dry run')
        await api.ok("POST", CONFIG_MAPS, config_map())

    assert len(webhook.asked) == 1


async def test_where_no_webhook_is_for_a_kind_its_writes_pass_none(api: Api, authority: Authority) -> None:
    chain = api.server.core.admission
    kind = api.server.core.served.by_path("", "v1", "configmaps")
    assert kind is not None
    before = chain.interested(kind, "CREATE", "")
    async with Webhook(authority, lambda request: ALLOWED) as webhook:
        await configure(api, VALIDATING, webhook.config(rules=[rule("secrets")]))

        assert chain.interested(kind, "CREATE", "") == before
        await configure(api, VALIDATING, webhook.config(), name="more")
        assert chain.interested(kind, "CREATE", "") != before


async def test_one_that_may_fail_is_done_without(
    api: Api, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with Webhook(authority, lambda request: http(500, b"oh", "text/plain")) as webhook:
        await configure(api, VALIDATING, webhook.config(failurePolicy="Ignore"))

        with caplog.at_level(logging.WARNING):
            await api.ok("POST", CONFIG_MAPS, config_map())

    assert "going on without it" in caplog.text


async def test_a_patch_of_what_is_deleted_is_a_mistake(api: Api, authority: Authority) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map())
    said = patch({"op": "add", "path": "/data", "value": {}})
    async with Webhook(authority, lambda request: said) as webhook:
        await configure(api, MUTATING, webhook.config())

        code, answer = await api("DELETE", f"{CONFIG_MAPS}/c")

    assert code == 500
    assert "attempted to modify the object, which is not supported for this operation" in answer["message"]


async def test_a_patch_that_does_not_apply_is_told(api: Api, authority: Authority) -> None:
    said = patch({"op": "add", "path": "/spec/none", "value": "x"})
    async with Webhook(authority, lambda request: said) as webhook:
        await configure(api, MUTATING, webhook.config())

        code, answer = await api("POST", CONFIG_MAPS, config_map())

    why = 'add operation does not apply: doc is missing path: "/spec/none": missing value'
    assert (code, answer["message"]) == (500, f"Internal error occurred: {why}")


async def test_what_webhooks_do_is_counted(api: Api, authority: Authority) -> None:
    async with Webhook(authority, lambda request: {"allowed": False}) as webhook:
        await configure(api, VALIDATING, webhook.config())
        await api("POST", CONFIG_MAPS, config_map())

    text = (await api.send("GET", "/metrics")).body
    assert isinstance(text, bytes)
    counted = 'name="w.example.com",operation="CREATE",rejected="true",type="validating"'
    assert f"apiserver_admission_webhook_admission_duration_seconds_count{{{counted}}} 1" in text.decode()
    refused = 'error_type="no_error",name="w.example.com",operation="CREATE",rejection_code="400",type="validating"'
    assert f"apiserver_admission_webhook_rejection_count{{{refused}}} 1" in text.decode()


@pytest.mark.parametrize(("level", "patches"), [("Metadata", 0), ("Request", 1)])
async def test_what_webhooks_say_and_do_is_in_the_audit_log(
    api: Api, authority: Authority, level: str, patches: int
) -> None:
    log = Kept()
    document = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": level}]}
    api.server.use(auditing=Auditing(parse(document, "f"), log, api.server.core.world))
    change = {"op": "add", "path": "/data/x", "value": "y"}
    said = {**patch(change), "auditAnnotations": {"seen": "by me"}}
    async with Webhook(authority, lambda request: said) as webhook:
        await configure(api, MUTATING, webhook.config())
        log.events.clear()
        await api.ok("POST", CONFIG_MAPS, config_map(a="b"))

    found = log.events[-1]["annotations"]
    assert found["w.example.com/seen"] == "by me"
    mutated = {"configuration": "hooks", "webhook": "w.example.com", "mutated": True}
    assert orjson.loads(found["mutation.webhook.admission.k8s.io/round_0_index_0"]) == mutated
    noted = [orjson.loads(value) for key, value in found.items() if key.startswith("patch.webhook.admission.k8s.io/")]
    assert [each["patch"] for each in noted] == [[change]] * patches


def conditions(**expressions: str) -> list[Obj]:
    return [{"name": name, "expression": expression} for name, expression in expressions.items()]


async def test_conditions_choose_after_rules_and_selectors(api: Api, authority: Authority) -> None:
    async with Webhook(authority, lambda request: ALLOWED) as webhook:
        chosen = conditions(
            named="object.metadata.name != 'skip-me'",
            asked="request.operation == 'CREATE' && request.userInfo.username == 'kubernetes-admin'",
        )
        await configure(api, MUTATING, webhook.config(matchConditions=chosen))

        await api.ok("POST", CONFIG_MAPS, config_map("skip-me"))
        await api.ok("POST", CONFIG_MAPS, config_map("mutate-me"))
        await api.patch(f"{CONFIG_MAPS}/mutate-me", {"data": {"a": "b"}})

    assert [asked.request["name"] for asked in webhook.asked] == ["mutate-me"]


@pytest.mark.parametrize(("policy", "code"), [("Fail", 403), ("Ignore", 201)])
async def test_a_condition_that_cannot_be_told_is_up_to_the_failure_policy(
    api: Api, authority: Authority, policy: str, code: int
) -> None:
    async with Webhook(authority, lambda request: ALLOWED) as webhook:
        unknown = conditions(unknown="object.spec.nothing == 1")
        await configure(api, VALIDATING, webhook.config(matchConditions=unknown, failurePolicy=policy))

        found, _ = await api("POST", CONFIG_MAPS, config_map())

    assert (found, webhook.asked) == (code, [])


async def test_conditions_can_ask_what_who_writes_may_do(api: Api, authority: Authority) -> None:
    async with Webhook(authority, lambda request: {"allowed": False}) as webhook:
        breakglass = "!authorizer.group('').resource('configmaps').check('breakglass').allowed()"
        await configure(api, VALIDATING, webhook.config(matchConditions=conditions(glass=breakglass)))

        # An administrator may do everything.
        await api.ok("POST", CONFIG_MAPS, config_map())

    assert webhook.asked == []
