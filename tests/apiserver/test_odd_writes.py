"""Odd values in every field, through every subresource of every kind: refused or taken, never a 500."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from navarch.api.meta import Obj
from navarch.apiserver.admission.chain import AdmissionConfig, default_chain
from navarch.apiserver.allocation.services import AllocationConfig
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import User
from tests.apiserver.conftest import Api

# An object of nearly every kind, by the collection that it is created in.
SAMPLES: dict[str, Obj] = json.loads((Path(__file__).parent / "samples.json").read_text())
ODD: list[Any] = [
    None, 0, -1, 2**63, 1.5, True, "", "x", "-5", "99999999999999999999Gi",
    [], [None], [1], ["x"], [{}], [{"type": 1}], {}, {"a": 1}, {"a": {"b": []}},
]  # fmt: skip
MERGE, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"
STRATEGIC, APPLY = "application/strategic-merge-patch+json", "application/apply-patch+yaml"
BODIES = {
    "scale": "io.k8s.api.autoscaling.v1.Scale",
    "binding": "io.k8s.api.core.v1.Binding",
    "eviction": "io.k8s.api.policy.v1.Eviction",
    "token": "io.k8s.api.authentication.v1.TokenRequest",
}
STREAMED = {"exec", "attach", "portforward", "proxy", "log"}
DEEP = 3


def fields(server: ApiServer, definition: str, depth: int = 0) -> Iterator[tuple[str, ...]]:
    """The paths of a definition's fields; `[]` stands for an item of a list."""
    for name, stated in (server.core.schemas.definition(definition).get("properties") or {}).items():
        yield (name,)
        inner = stated.get("items") or stated
        target = inner.get("$ref") or next((each["$ref"] for each in inner.get("allOf") or () if "$ref" in each), "")
        if target and depth < DEEP:
            for below in fields(server, target.rpartition("/")[2], depth + 1):
                yield (name, "[]", *below) if "items" in stated else (name, *below)


def at(path: tuple[str, ...], value: Any) -> Any:
    for name in reversed(path):
        value = [value] if name == "[]" else {name: value}
    return value


class Attack:
    """Requests whose answers must not be the server's own failures."""

    def __init__(self, api: Api, seed: str) -> None:
        self._api = api
        self.chance = random.Random(seed)
        self.asked = 0

    async def __call__(self, method: str, path: str, body: Any, content_type: str = "application/json") -> None:
        self.asked += 1
        status, answer = await self._api(method, path, body, content_type=content_type)
        full = "range is full" in str(answer)
        # What Kubernetes answers to a patch that does not fit, having no reason for it.
        unexplained = status == 500 and "reason" not in answer
        assert status < 500 or full or unexplained, (method, path, body, content_type, answer)

    async def on(self, url: str, subresource: str, paths: list[tuple[str, ...]], obj: Obj) -> None:
        for path in self.chance.sample(paths, min(len(paths), 40)):
            for value in self.chance.sample(ODD, 2):
                body = at(path, value)
                if subresource in ("binding", "eviction", "token"):
                    await self("POST", url, body)
                    continue
                await self("PATCH", url, body, self.chance.choice((MERGE, STRATEGIC)))
                scale = {"apiVersion": "autoscaling/v1", "kind": "Scale"}
                typed = scale if subresource == "scale" else {"apiVersion": obj["apiVersion"], "kind": obj["kind"]}
                await self("PATCH", f"{url}?fieldManager=x&force=true", {**body, **typed}, APPLY)
                await self("PUT", url, {**obj, **body})
        for value in ODD:
            await self("PUT", url, value)
            await self("POST", url, value)
            await self("PATCH", url, value, MERGE)
            await self("PATCH", url, [{"op": "add", "path": "/status", "value": value}], JSON_PATCH)


@pytest.fixture
def whole(server: ApiServer, api: Api) -> Api:
    """With admission and allocation, as a cluster has them."""
    server.use(
        admission=default_chain(server.reader, server.writer, AdmissionConfig(), server.core.world),
        allocation=AllocationConfig(),
    )
    return api


@pytest.mark.parametrize("collection", sorted(SAMPLES))
async def test_no_odd_value_is_the_servers_failure(whole: Api, collection: str) -> None:
    await whole("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    sample = SAMPLES[collection]
    made = await whole.ok("POST", collection, sample)
    url = f"{collection}/{made['metadata']['name']}"
    parts = collection.strip("/").split("/")
    group, version = ("", parts[1]) if parts[0] == "api" else (parts[1], parts[2])
    kind = whole.server.core.served.by_path(group, version, parts[-1])
    assert kind is not None
    assert kind.definition is not None
    attack = Attack(whole, collection)

    found = ["", *(["status"] if kind.has_status else []), *(["scale"] if kind.scale else []), *kind.subresources]
    for subresource in found:
        if subresource in STREAMED:
            continue
        # An eviction may have worked.
        await whole("POST", collection, sample)
        paths = list(fields(whole.server, BODIES.get(subresource, kind.definition)))
        if subresource == "status":
            paths = [path for path in paths if path[0] == "status"]
        status, current = await whole("GET", f"{url}/{subresource}" if subresource in ("status", "scale") else url)
        assert status == 200
        await attack.on(f"{url}/{subresource}" if subresource else url, subresource, paths, current)
    for value in ODD:
        for field in ("preconditions", "gracePeriodSeconds", "propagationPolicy", "orphanDependents", "dryRun"):
            await attack("DELETE", f"{url}?dryRun=All", {field: value})
        for field in ("uid", "resourceVersion"):
            await attack("DELETE", collection, {"preconditions": {field: value}, "dryRun": ["All"]})
    assert attack.asked > 200


async def test_a_negative_count_in_a_status_is_refused(whole: Api) -> None:
    collection = "/apis/apps/v1/namespaces/default/deployments"
    await whole.ok("POST", collection, SAMPLES[collection])

    status, answer = await whole.patch(f"{collection}/obj/status", {"status": {"readyReplicas": -1}})

    assert status == 422
    assert "status.readyReplicas: Invalid value: -1: must be greater than or equal to 0" in answer["message"]


async def test_a_collection_is_not_deleted_against_another_uid(whole: Api) -> None:
    collection = "/api/v1/namespaces/default/configmaps"
    await whole.ok("POST", collection, SAMPLES[collection])

    status, answer = await whole("DELETE", collection, {"preconditions": {"uid": "another"}})

    assert (status, answer["reason"]) == (409, "Conflict")
    assert "the UID in the precondition (another) does not match the UID in record" in answer["message"]
    assert len((await whole.ok("GET", collection))["items"]) == 1


async def test_who_deletes_a_job_and_says_nothing_of_its_pods_is_warned(whole: Api) -> None:
    collection = "/apis/batch/v1/namespaces/default/jobs"
    name = (await whole.ok("POST", collection, SAMPLES[collection]))["metadata"]["name"]

    silent = await whole.send("DELETE", f"{collection}/{name}?dryRun=All")
    decided = await whole.send("DELETE", f"{collection}/{name}?dryRun=All&propagationPolicy=Orphan")
    all_of_them = await whole.send("DELETE", f"{collection}?dryRun=All")

    warning = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove "
    assert warning in silent.headers["Warning"]
    assert warning in all_of_them.headers["Warning"]
    assert "Warning" not in decided.headers


async def test_an_apply_names_the_object_that_it_means(whole: Api) -> None:
    url = "/api/v1/namespaces/default/configmaps/c?fieldManager=x"
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "uid": "another"}}

    status, answer = await whole.patch(url, config, "apply")
    assert (status, answer["message"]) == (
        409,
        'Operation cannot be fulfilled on configmaps "c": uid mismatch: the provided object specified uid another, '
        "and no existing object was found",
    )

    await whole.ok("POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"name": "c"}})
    status, answer = await whole.patch(url, config, "apply")
    assert status == 422
    assert answer["message"] == 'ConfigMap "c" is invalid: metadata.uid: Invalid value: "another": field is immutable'


async def test_amounts_of_resources_are_rounded_up_to_thousandths(whole: Api) -> None:
    await whole.ok("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    resources = {"requests": {"cpu": "0.1m", "memory": "64Mi"}, "limits": {"cpu": "1.0001", "memory": "0.1Gi"}}
    container = {"name": "c", "image": "i", "resources": resources}

    made = await whole.ok(
        "POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": "p"}, "spec": {"containers": [container]}}
    )

    stored = made["spec"]["containers"][0]["resources"]
    assert stored == {
        "requests": {"cpu": "1m", "memory": "64Mi"},
        "limits": {"cpu": "1001m", "memory": "107374182400m"},
    }


async def test_a_request_for_a_certificate_says_who_asks_and_nothing_else(server: ApiServer, whole: Api) -> None:
    collection = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
    forged = {"username": "forged", "uid": "f", "groups": ["system:masters"], "extra": {"a": ["b"]}}
    body = {**SAMPLES[collection], "spec": {**SAMPLES[collection]["spec"], **forged}}
    asking = Api(server, User("jane", ("dev",), "u-1", {"scopes": ("s",)}))

    spec = (await asking.ok("POST", collection, body))["spec"]

    assert (spec["username"], spec["uid"], spec["groups"]) == ("jane", "u-1", ["dev"])
    assert spec["extra"] == {"scopes": ["s"]}
    plain = Api(server, User("joe"))
    named = {**body, "metadata": {"name": "joes"}}
    spec = (await plain.ok("POST", collection, named))["spec"]
    assert spec["username"] == "joe"
    assert not {"uid", "groups", "extra"} & spec.keys()


async def test_a_request_for_a_certificate_takes_conditions_of_other_types(whole: Api) -> None:
    collection = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
    await whole.ok("POST", collection, SAMPLES[collection])
    approved = {"type": "Approved", "status": "True", "reason": "r"}
    seen = {"type": "Seen", "status": "True", "reason": "r"}

    await whole.ok(
        "PUT",
        f"{collection}/obj/approval",
        {**(await whole.ok("GET", f"{collection}/obj")), "status": {"conditions": [approved, seen]}},
    )

    async def tell(*conditions: Obj) -> tuple[int, Obj]:
        return await whole.patch(f"{collection}/obj/status", {"status": {"conditions": list(conditions)}})

    status, told = await tell({**seen, "type": "Custom"}, {**approved, "reason": "another"})
    assert status == 200
    assert [(c["type"], c["reason"]) for c in told["status"]["conditions"]] == [("Custom", "r"), ("Approved", "r")]
    status, told = await tell({**seen, "type": "Custom"})
    assert (status, told["details"]["causes"][0]["message"]) == (
        422,
        'Forbidden: updates may not remove a condition of type "Approved"',
    )
    status, told = await tell(approved, {"type": "Denied", "status": "True"})
    messages = [cause["message"] for cause in told["details"]["causes"]]
    assert (status, messages[-1]) == (422, 'Forbidden: updates may not add a condition of type "Denied"')


async def test_a_pod_put_at_its_resize_gets_its_amounts_and_keeps_the_rest(whole: Api) -> None:
    await whole.ok("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    pods = "/api/v1/namespaces/default/pods"
    container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}}}
    made = await whole.ok("POST", pods, {"metadata": {"name": "p"}, "spec": {"containers": [container]}})

    stated = {**container, "image": "other", "resources": {"requests": {"cpu": "150m"}}}
    put = await whole.ok("PUT", f"{pods}/p/resize", {"metadata": {"name": "p"}, "spec": {"containers": [stated]}})

    expected = {**made["spec"]["containers"][0], "resources": {"requests": {"cpu": "150m"}}}
    assert put["spec"] == {**made["spec"], "containers": [expected]}
    assert put["metadata"]["generation"] == made["metadata"]["generation"] + 1
