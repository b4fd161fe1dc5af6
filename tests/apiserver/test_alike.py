"""The second and the third object that say the same are completed from memory: nobody can tell them from the first."""

from __future__ import annotations

import copy
import random
import re
from typing import Any

import orjson
import pytest

from navarch.api.alike import Templates
from navarch.api.meta import Obj
from tests.apiserver.conftest import PODS, Api, pod
from tests.apiserver.test_odd_writes import ODD, at, fields

_OWN = re.compile(r'"(uid|resourceVersion|creationTimestamp|time)":"[^"]*"|kube-api-access-[a-z0-9]{5}')
TEMPLATE: Obj = {
    "nodeSelector": {"disk": "ssd"},
    "volumes": [{"name": "v", "configMap": {"name": "c", "items": None}}, {"name": "e"}],
    "containers": [
        {
            "name": "c",
            "image": "busybox:1",
            "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "0.1m", "memory": "0.5Gi"}},
            "livenessProbe": {"httpGet": {"port": 80}},
            "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        }
    ],
}


async def told(api: Api, name: str, obj: Obj, query: str = "") -> tuple[int, str, str]:
    """What a client reads when it posts the object under a name, without what each object has for itself."""
    posted = copy.deepcopy(obj)
    posted["metadata"]["name"] = name
    response = await api.send("POST", PODS + query, posted)
    assert isinstance(response.body, bytes)
    warned = response.headers.get("Warning", "")
    return response.status, _OWN.sub("", response.body.decode()).replace(name, "NAME"), warned.replace(name, "NAME")


@pytest.mark.parametrize(
    "obj",
    [
        pod(""),
        pod("", app="web"),
        pod("") | {"spec": TEMPLATE},
        pod("") | {"spec": TEMPLATE, "status": {"phase": "Running"}},
        pod("") | {"spec": {**TEMPLATE, "hostNetwork": True, "unknown": 1}},
        pod("") | {"spec": {**TEMPLATE, "terminationGracePeriodSeconds": None}},
        pod("") | {"metadata": {"annotations": {}, "labels": {"a": "b"}, "namespace": "default"}},
        pod("") | {"metadata": {"uid": "x", "generation": 7, "managedFields": [{"manager": "m"}]}},
        {"metadata": {"finalizers": ["example.com/f"]}, "spec": TEMPLATE},
    ],
)
async def test_each_of_a_template_is_answered_like_the_first(api: Api, obj: Obj) -> None:
    first, *others = [await told(api, f"alike-{index}", obj) for index in range(4)]

    assert others == [first] * 3


async def test_generated_names_are_each_objects_own(api: Api) -> None:
    obj = pod("") | {"metadata": {"generateName": "web-"}}

    names = {(await api.ok("POST", PODS, obj))["metadata"]["name"] for _ in range(5)}

    assert len(names) == 5


async def test_what_differs_in_a_value_is_told_apart(api: Api) -> None:
    for _ in range(3):
        for number in (1, True, 1.0):
            obj = pod("") | {"spec": {**TEMPLATE, "hostNetwork": number}}
            status, _, _ = await told(api, "apart", obj, "?dryRun=All")
            assert status == (201 if number is True else 400)


async def test_strict_decoding_refuses_what_is_unknown_however_often_it_came(api: Api) -> None:
    obj = pod("") | {"spec": {**TEMPLATE, "unknown": 1}}

    lax = [await told(api, f"lax-{index}", obj) for index in range(3)]
    strict = await told(api, "strict", obj, "?fieldValidation=Strict")

    assert {(status, warned) for status, _, warned in lax} == {(201, '299 - "unknown field \\"spec.unknown\\""')}
    assert strict[0] == 400
    assert 'unknown field \\"spec.unknown\\"' in strict[1]


async def test_who_creates_one_of_a_template_owns_it_alone(api: Api) -> None:
    obj = pod("", app="web") | {"spec": TEMPLATE}
    for index in range(3):
        api.headers["user-agent"] = f"creator-{index}/1"
        await told(api, f"of-{index}", obj)
    await api.patch(f"{PODS}/of-1", {"metadata": {"labels": {"app": "other"}}})

    owners = [(await api.ok("GET", f"{PODS}/of-{index}"))["metadata"]["managedFields"] for index in range(3)]

    assert [[entry["manager"] for entry in entries] for entries in owners] == [
        ["creator-0"], ["creator-1", "creator-2"], ["creator-2"]
    ]  # fmt: skip
    assert owners[0][0]["fieldsV1"] == owners[2][0]["fieldsV1"] != owners[1][0]["fieldsV1"]


async def test_odd_objects_are_answered_alike_however_often_they_come(api: Api) -> None:
    chance = random.Random("alike")
    paths = list(fields(api.server, "io.k8s.api.core.v1.Pod"))
    for index in range(150):
        obj = pod("") | {"spec": copy.deepcopy(TEMPLATE)}
        path = chance.choice(paths)
        if path[0] not in ("spec", "metadata") or path[:2] == ("metadata", "name"):
            continue
        odd = at(path[1:], chance.choice(ODD)) if path[1:] else chance.choice(ODD)
        if not isinstance(odd, dict):
            continue
        obj[path[0]].update(odd)
        first, *others = [await told(api, f"odd{index}x{turn}", obj) for turn in range(3)]
        assert others == [first] * 2, obj


def test_objects_that_are_all_different_are_soon_not_looked_for() -> None:
    templates, looked_for = Templates(), 0

    for index in range(5_000):
        obj: dict[str, Any] = {"metadata": {"name": "x"}, "spec": {"nodeName": f"node-{index}"}}
        if (key := templates.key_of(obj)) is not None:
            looked_for += 1
            assert templates.find(key, obj) is None
            assert templates.learn(key, obj, lambda obj: None) is None

    assert looked_for < 500
    assert len(templates._known) <= 64


def test_what_is_given_out_shares_nothing_with_the_memory() -> None:
    templates = Templates()
    for name in ("a", "b"):
        obj: Obj = {"metadata": {"name": name}, "spec": {"containers": [{"name": "c"}]}}
        key = templates.key_of(obj)
        assert key is not None
        templates.learn(key, obj, lambda obj: None)

    for name in ("c", "d"):
        obj = {"metadata": {"name": name}, "spec": {"containers": [{"name": "c"}]}}
        found = templates.find(templates.key_of(obj) or b"", obj)
        assert found is not None
        assert orjson.dumps(found[0]) == orjson.dumps(obj)
        found[0]["spec"]["containers"][0].clear()
