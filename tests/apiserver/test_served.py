"""Kinds are live data: resources are added, changed and removed while a server runs, in versions that are converted."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from typing import Any

import orjson
import pytest

from navarch.apiserver.auth.rbac import RBACAuthorizer
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import User
from navarch.client.transport import Request, Response
from navarch.store.base import Put
from navarch.store.memory import MemoryStore
from navarch.world import RealWorld
from tests.apiserver.conftest import CONFIG_MAPS, Api, config_map
from tests.apiserver.widgets import V1, V2, WIDGETS_V1, WIDGETS_V2, Renaming, widget, widgets

TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


@pytest.fixture
async def served(server: ApiServer, api: Api) -> Api:
    await server.serve(*widgets())
    return api


async def events(response: Response, count: int) -> list[Any]:
    """The first events of a watch, which then ends."""
    found: list[Any] = []
    stream = response.body
    assert not isinstance(stream, bytes)
    async with asyncio.timeout(10):
        async for chunk in stream:
            found += [orjson.loads(line) for line in chunk.splitlines()]
            if len(found) >= count:
                break
    await stream.aclose()  # type: ignore[attr-defined]
    return found


async def ended(response: Response) -> list[Any]:
    """All events of a watch that ends by itself."""
    stream = response.body
    assert not isinstance(stream, bytes)
    async with asyncio.timeout(10):
        return [orjson.loads(line) async for chunk in stream for line in chunk.splitlines()]


# One resource


async def test_a_custom_kind_is_served_like_any_other(served: Api) -> None:
    made = await served.ok("POST", WIDGETS_V2, widget("a", size=3, parts=[{"name": "main"}], free={"x": [1]}, odd=1))

    assert made["spec"] == {"size": 3, "color": "blue", "parts": [{"name": "main", "weight": 1}], "free": {"x": [1]}}
    assert made["metadata"]["generation"] == 1
    listed = await served.ok("GET", f"{WIDGETS_V2}?fieldSelector=spec.color=blue")
    assert (listed["kind"], listed["apiVersion"], len(listed["items"])) == ("WidgetList", "example.com/v2", 1)
    assert (await served.ok("GET", f"{WIDGETS_V2}?fieldSelector=spec.color=red"))["items"] == []
    assert (await served("PATCH", f"{WIDGETS_V2}/a", {}, content_type="application/strategic-merge-patch+json"))[
        0
    ] == 415
    assert (await served.ok("DELETE", f"{WIDGETS_V2}/a"))["status"] == "Success"


async def test_its_schema_is_its_validation(served: Api) -> None:
    status, answer = await served("POST", WIDGETS_V2, widget("a", size=300, color="green", parts=[{"weight": "x"}]))

    assert status == 422
    assert [(cause["field"], cause["reason"]) for cause in answer["details"]["causes"]] == [
        ("spec.size", "FieldValueInvalid"),
        ("spec.color", "FieldValueNotSupported"),
        ("spec.parts[0].weight", "FieldValueTypeInvalid"),
        ("spec.parts[0].name", "FieldValueRequired"),
    ]


async def test_its_status_and_scale(served: Api) -> None:
    await served.ok("POST", WIDGETS_V2, {**widget("a", size=3), "status": {"ready": 9}})
    status, patched = await served.patch(f"{WIDGETS_V2}/a/status", {"spec": {"size": 7}, "status": {"ready": 2}})

    assert (status, patched["spec"]["size"], patched["status"]) == (200, 3, {"ready": 2})
    assert (await served.ok("GET", f"{WIDGETS_V2}/a/scale"))["spec"] == {"replicas": 3}
    status, _ = await served.patch(f"{WIDGETS_V2}/a/scale", {"spec": {"replicas": 5}})
    found = await served.ok("GET", f"{WIDGETS_V2}/a")
    assert (status, found["spec"]["size"], found["metadata"]["generation"]) == (200, 5, 2)


async def test_an_applier_owns_items_of_its_lists(served: Api) -> None:
    for manager, part in (("one", "a"), ("two", "b")):
        body = widget("a", size=3, parts=[{"name": part}])
        path = f"{WIDGETS_V2}/a?fieldManager={manager}"
        assert (await served("PATCH", path, body, content_type="application/apply-patch+yaml"))[0] in (200, 201)

    found = await served.ok("GET", f"{WIDGETS_V2}/a")
    assert [part["name"] for part in found["spec"]["parts"]] == ["a", "b"]


async def test_its_columns_are_paths(served: Api) -> None:
    await served.ok("POST", WIDGETS_V2, widget("a", size=3, parts=[{"name": "other"}, {"name": "main", "weight": 4}]))
    await served.ok("POST", WIDGETS_V2, widget("b", size=3))

    table = await served.ok("GET", WIDGETS_V2, accept=TABLE)
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Color", "Weights", "Age"]
    assert [row["cells"][:3] for row in table["rows"]] == [["a", "blue", 4], ["b", "blue", None]]
    assert all(row["cells"][3].endswith("s") for row in table["rows"])


async def test_discovery_and_openapi_say_so(served: Api, server: ApiServer) -> None:
    listed = await served.ok("GET", V2)
    assert {entry["name"]: entry.get("shortNames") for entry in listed["resources"]} == {
        "widgets": ["wd"],
        "widgets/scale": None,
        "widgets/status": None,
    }
    group = await served.ok("GET", "/apis/example.com")
    assert [version["version"] for version in group["versions"]] == ["v2", "v1"]
    aggregated = await served.ok(
        "GET", "/apis", accept="application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    )
    assert "example.com" in [item["metadata"]["name"] for item in aggregated["items"]]
    document = await served.ok("GET", "/openapi/v3/apis/example.com/v2")
    assert document["components"]["schemas"]["com.example.v2.Widget"]["x-kubernetes-group-version-kind"] == [
        {"group": "example.com", "version": "v2", "kind": "Widget"}
    ]
    item = document["paths"]["/apis/example.com/v2/namespaces/{namespace}/widgets/{name}"]
    assert "application/merge-patch+json" in item["patch"]["requestBody"]["content"]
    # kubectl apply sends what it finds here.
    assert "application/strategic-merge-patch+json" not in item["patch"]["requestBody"]["content"]
    assert "/apis/example.com/v2/namespaces/{namespace}/widgets/{name}/scale" in document["paths"]
    whole = await served.ok("GET", "/openapi/v2")
    assert "com.example.v1.WidgetList" in whole["definitions"]

    await server.withdraw("example.com", "widgets", stored="delete")
    assert (await served("GET", "/apis/example.com"))[0] == 404
    assert (await served("GET", WIDGETS_V2))[0] == 404
    assert "com.example" not in (await served.send("GET", "/openapi/v2")).body.decode()  # type: ignore[union-attr]


async def test_parameters_of_lists_are_described_in_the_words_that_clients_look_for(served: Api) -> None:
    operations = (await served.ok("GET", "/openapi/v2"))["paths"]["/api/v1/namespaces/{namespace}/pods"]
    parameters = (*operations.get("parameters", ()), *operations["get"]["parameters"])
    described = {each["name"]: each["description"] for each in parameters if each["in"] == "query"}

    # kubectl's own command tests read these.
    assert "list of returned objects" in described["fieldSelector"]
    assert "list of returned objects" in described["labelSelector"]
    assert "Watch for changes to the described resources" in described["watch"]


async def test_the_hashes_of_documents_follow_what_is_served(served: Api, server: ApiServer) -> None:
    async def hashes() -> dict[str, str]:
        paths = (await served.ok("GET", "/openapi/v3"))["paths"]
        return {path: entry["serverRelativeURL"] for path, entry in paths.items()}

    before, tag = await hashes(), (await served.send("GET", "/apis")).headers["ETag"]
    changed = widgets(names=("v2",))
    await server.serve(*changed)
    after = await hashes()

    assert "apis/example.com/v1" in before
    assert "apis/example.com/v1" not in after
    assert before["apis/example.com/v2"] == after["apis/example.com/v2"]
    assert (await served.send("GET", "/apis")).headers["ETag"] != tag


# Coming, changing, going


async def test_what_is_stored_is_there_as_soon_as_the_kind_is(server: ApiServer, api: Api) -> None:
    await server.serve(*widgets())
    for index in range(20):
        await api.ok("POST", WIDGETS_V2, widget(f"w{index}", size=1))
    await server.withdraw("example.com", "widgets", stored="keep")
    assert (await api("GET", WIDGETS_V2))[0] == 404
    assert len((await server.store.range("/registry/example.com/widgets/")).entries) == 20

    await server.serve(*widgets())
    assert len((await api.ok("GET", f"{WIDGETS_V2}?resourceVersion=0"))["items"]) == 20
    await server.withdraw("example.com", "widgets", stored="delete")
    assert (await server.store.range("/registry/example.com/widgets/")).entries == []


async def test_watches_end_with_their_resource(served: Api, server: ApiServer) -> None:
    await served.ok("POST", WIDGETS_V2, widget("a", size=1))
    watch = await served.send("GET", f"{WIDGETS_V2}?watch=1")
    waiting = asyncio.create_task(ended(watch))
    await asyncio.sleep(0)
    await server.withdraw("example.com", "widgets", stored="delete")

    assert [event["type"] for event in await waiting] == ["ADDED"]


async def test_a_change_ends_watches_and_indexes_anew(served: Api, server: ApiServer) -> None:
    await served.ok("POST", WIDGETS_V2, widget("a", size=1))
    await served.ok("POST", WIDGETS_V2, widget("b", size=2))
    watch = await served.send("GET", f"{WIDGETS_V2}?watch=1&resourceVersion=0")
    waiting = asyncio.create_task(ended(watch))
    await asyncio.sleep(0)
    changed = widgets()
    for kind in changed:
        kind.strategy.selectable = ("spec.size",)  # type: ignore[misc]
    await server.serve(*changed)

    assert len(await waiting) == 2
    found = await served.ok("GET", f"{WIDGETS_V2}?fieldSelector=spec.size=2")
    assert [item["metadata"]["name"] for item in found["items"]] == ["b"]
    assert (await served("GET", f"{WIDGETS_V2}?fieldSelector=spec.color=blue"))[0] == 400


async def test_kinds_that_do_not_fit_change_nothing(served: Api, server: ApiServer) -> None:
    before = server.core.served
    only_v1 = [kind for kind in widgets() if kind.resource.version == "v1"]
    await server.withdraw("example.com", "widgets", stored="keep")
    with pytest.raises(ValueError, match="the version v2, which is stored, is missing"):
        await server.serve(*only_v1)
    assert server.core.served.by_path("example.com", "v1", "widgets") is None
    await server.serve(*widgets())
    assert [kind.resource for kind in server.core.served.kinds()] == [kind.resource for kind in before.kinds()]
    with pytest.raises(LookupError):
        await server.withdraw("example.com", "gadgets", stored="keep")


async def test_a_write_that_began_before_is_not_left_behind(server: ApiServer, api: Api) -> None:
    """Writers hold the kind that they found: what they write after the withdrawal is refused, what they wrote before is
    deleted with the rest."""
    await server.serve(*widgets())
    writes = [asyncio.create_task(api("POST", WIDGETS_V2, widget(f"w{index}", size=1))) for index in range(50)]
    await asyncio.sleep(0)
    await server.withdraw("example.com", "widgets", stored="delete")
    statuses = {status for status, _ in await asyncio.gather(*writes)}

    assert statuses <= {201, 404}
    assert (await server.store.range("/registry/example.com/widgets/")).entries == []


# Versions


async def test_versions_of_the_same_schema_differ_in_name_only(served: Api, server: ApiServer) -> None:
    await served.ok("POST", WIDGETS_V1, widget("a", "v1", size=1))

    stored = (await server.store.range("/registry/example.com/widgets/")).entries[0]
    assert orjson.loads(stored.value)["apiVersion"] == "example.com/v2"
    for root, version in ((WIDGETS_V1, "v1"), (WIDGETS_V2, "v2")):
        assert (await served.ok("GET", f"{root}/a"))["apiVersion"] == f"example.com/{version}"
        assert (await served.ok("GET", root))["items"][0]["apiVersion"] == f"example.com/{version}"


async def test_what_is_stored_in_another_version_is_read_right_and_rewritten_when_written(
    server: ApiServer, api: Api
) -> None:
    await server.serve(*widgets(stored="v1"))
    for name in ("a", "b"):
        await api.ok("POST", WIDGETS_V1, widget(name, "v1", size=1))
    await server.serve(*widgets(stored="v2"))

    async def stored_versions() -> list[str]:
        page = await server.store.range("/registry/example.com/widgets/")
        return [orjson.loads(entry.value)["apiVersion"] for entry in page.entries]

    for root, version in ((WIDGETS_V1, "v1"), (WIDGETS_V2, "v2")):
        listed = await api.ok("GET", root)
        assert [item["apiVersion"] for item in listed["items"]] == [f"example.com/{version}"] * 2
        assert all(item["metadata"]["resourceVersion"] for item in listed["items"])
    assert await stored_versions() == ["example.com/v1"] * 2

    # A write that changes nothing is one that rewrites.
    found = await api.ok("GET", f"{WIDGETS_V2}/a")
    written = await api.ok("PUT", f"{WIDGETS_V2}/a", found)
    assert written["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]
    assert await stored_versions() == ["example.com/v2", "example.com/v1"]
    assert (await api.ok("DELETE", f"{WIDGETS_V1}/b"))["status"] == "Success"


async def test_a_builtin_kind_stored_in_an_older_version_is_read_in_all(server: ApiServer, api: Api) -> None:
    old = {
        "apiVersion": "autoscaling/v1",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h", "namespace": "default", "uid": "u"},
        "spec": {
            "maxReplicas": 3,
            "scaleTargetRef": {"kind": "Deployment", "name": "d"},
            "targetCPUUtilizationPercentage": 50,
        },
    }
    key = "/registry/autoscaling/horizontalpodautoscalers/default/h"
    await server.store.commit([Put(key, orjson.dumps(old), 0)])
    path = "namespaces/default/horizontalpodautoscalers/h"

    newer = await api.ok("GET", f"/apis/autoscaling/v2/{path}")
    assert newer["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 50
    assert (await api.ok("GET", f"/apis/autoscaling/v1/{path}"))["spec"]["targetCPUUtilizationPercentage"] == 50
    status, _ = await api.patch(f"/apis/autoscaling/v2/{path}", {"spec": {"maxReplicas": 4}})
    assert status == 200
    entry = await server.store.get(key)
    assert entry is not None
    assert orjson.loads(entry.value)["apiVersion"] == "autoscaling/v2"


async def test_bytes_of_another_server_need_not_be_canonical(server: ApiServer, api: Api) -> None:
    value = b'{"data":{"a":"1"}, "kind":"ConfigMap","metadata":{"namespace":"default","name":"x"},"apiVersion":"v1"}'
    await server.store.commit([Put("/registry/core/configmaps/default/x", value, 0)])

    found = await api.ok("GET", f"{CONFIG_MAPS}/x")
    assert (found["data"], found["metadata"]["name"]) == ({"a": "1"}, "x")
    assert int(found["metadata"]["resourceVersion"]) > 0


async def test_objects_may_be_stored_in_a_version_that_nobody_can_ask_for(server: ApiServer, api: Api) -> None:
    converter = Renaming()
    hidden = [dataclasses.replace(kind, served=kind.resource.version == "v1") for kind in widgets(converter=converter)]
    await server.serve(*hidden)
    made = await api.ok("POST", WIDGETS_V1, widget("a", "v1", count=3))

    assert made["spec"]["count"] == 3
    entry = (await server.store.range("/registry/example.com/widgets/")).entries[0]
    assert orjson.loads(entry.value)["spec"]["size"] == 3
    assert (await api("GET", WIDGETS_V2))[0] == 404
    group = await api.ok("GET", "/apis/example.com")
    assert [version["version"] for version in group["versions"]] == ["v1"]
    assert (await api.patch(f"{WIDGETS_V1}/a", {"spec": {"count": 4}}))[1]["spec"]["count"] == 4


async def test_roles_name_new_kinds_like_any_other(served: Api, server: ApiServer) -> None:
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    rule = {"verbs": ["get", "list"], "apiGroups": ["example.com"], "resources": ["widgets"]}
    await served.ok("POST", f"{rbac}/roles", {"metadata": {"name": "r"}, "rules": [rule]})
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    await served.ok("POST", f"{rbac}/rolebindings", {"metadata": {"name": "b"}, "roleRef": reference,
                                                     "subjects": [subject]})  # fmt: skip
    server.use(authorizer=RBACAuthorizer(server.reader))
    jane = User("jane", ("system:authenticated",))

    assert (await server.handle(Request("GET", WIDGETS_V2), jane)).status == 200
    assert (await server.handle(Request("DELETE", f"{WIDGETS_V2}/a"), jane)).status == 403
    assert (await server.handle(Request("GET", f"{V2}/widgets"), jane)).status == 403


@pytest.fixture
async def converted(server: ApiServer, api: Api) -> tuple[Api, Renaming]:
    converter = Renaming()
    await server.serve(*widgets(converter=converter))
    return api, converter


async def test_a_converter_converts_what_is_read_and_written(
    converted: tuple[Api, Renaming], server: ApiServer
) -> None:
    api, _ = converted
    made = await api.ok("POST", WIDGETS_V1, widget("a", "v1", count=3))
    assert (made["apiVersion"], made["spec"]["count"]) == ("example.com/v1", 3)
    entry = (await server.store.range("/registry/example.com/widgets/")).entries[0]
    assert orjson.loads(entry.value)["spec"] == {"size": 3, "color": "blue"}
    assert (await api.ok("GET", f"{WIDGETS_V2}/a"))["spec"]["size"] == 3

    status, patched = await api.patch(f"{WIDGETS_V1}/a", {"spec": {"count": 4}})
    assert (status, patched["spec"]["count"]) == (200, 4)
    replaced = await api.ok("PUT", f"{WIDGETS_V1}/a", {**patched, "spec": {"count": 5}})
    assert replaced["spec"] == {"count": 5, "color": "blue"}
    applied = await api("PATCH", f"{WIDGETS_V1}/a?fieldManager=m&force=1", widget("a", "v1", count=6),
                        content_type="application/apply-patch+yaml")  # fmt: skip
    assert (applied[0], applied[1]["spec"]["count"]) == (200, 6)
    status, answer = await api("POST", WIDGETS_V1, widget("b", "v1", size=3))
    assert (status, answer["details"]["causes"][0]["field"]) == (422, "spec.count")
    assert (await api.ok("GET", f"{WIDGETS_V2}/a"))["spec"]["size"] == 6
    assert (await api.ok("DELETE", f"{WIDGETS_V1}/a"))["status"] == "Success"


async def test_a_list_is_converted_at_once_and_only_once(converted: tuple[Api, Renaming]) -> None:
    api, converter = converted
    for index in range(30):
        await api.ok("POST", WIDGETS_V2, widget(f"w{index}", size=index))
    assert converter.calls == []

    one, two = await asyncio.gather(api.ok("GET", WIDGETS_V1), api.ok("GET", WIDGETS_V1))
    assert sorted(item["spec"]["count"] for item in one["items"]) == list(range(30))
    assert one["items"] == two["items"]
    table = await api.ok("GET", WIDGETS_V1, accept=TABLE)
    assert len(table["rows"]) == 30
    metadata = await api.ok("GET", WIDGETS_V1, accept=METADATA_LIST)
    assert metadata["kind"] == "PartialObjectMetadataList"
    assert converter.calls == [30]


async def test_an_event_is_converted_once_for_all_watchers(converted: tuple[Api, Renaming]) -> None:
    api, converter = converted
    watches = [await api.send("GET", f"{WIDGETS_V1}?watch=1") for _ in range(20)]
    tables = [await api.send("GET", f"{WIDGETS_V1}?watch=1", accept=TABLE) for _ in range(20)]
    reading = [asyncio.create_task(events(watch, 1)) for watch in watches + tables]
    for _ in range(3):
        await asyncio.sleep(0)
    await api.ok("POST", WIDGETS_V2, widget("a", size=3))
    found = await asyncio.gather(*reading)

    assert all(seen[0]["object"]["spec"]["count"] == 3 for seen in found[:20])
    assert all(seen[0]["object"]["rows"][0]["cells"][0] == "a" for seen in found[20:])
    assert converter.calls == [1]


async def test_fields_are_selected_as_the_version_asked_for_has_them(converted: tuple[Api, Renaming]) -> None:
    api, _ = converted
    query = "fieldSelector=spec.count=2,spec.color=red"
    await api.ok("POST", WIDGETS_V2, widget("a", size=2, color="red"))
    watch = await api.send("GET", f"{WIDGETS_V1}?watch=1&{query}")
    for name, size, color in (("b", 1, "red"), ("c", 2, "red"), ("d", 2, "blue"), ("e", 2, "red")):
        await api.ok("POST", WIDGETS_V2, widget(name, size=size, color=color))

    found = await api.ok("GET", f"{WIDGETS_V1}?{query}")
    chunk = await api.ok("GET", f"{WIDGETS_V1}?{query}&limit=2")
    rest = await api.ok("GET", f"{WIDGETS_V1}?{query}&limit=2&continue={chunk['metadata']['continue']}")
    await api.patch(f"{WIDGETS_V2}/b", {"spec": {"size": 2}})
    await api.patch(f"{WIDGETS_V2}/c", {"spec": {"color": "blue"}})
    await api.patch(f"{WIDGETS_V1}/e", {"metadata": {"labels": {"a": "b"}}})
    await api.ok("DELETE", f"{WIDGETS_V1}?fieldSelector=spec.count=2,metadata.name=e")

    seen = await events(watch, 7)
    assert [item["metadata"]["name"] for item in found["items"]] == ["a", "c", "e"]
    assert [item["metadata"]["name"] for item in (*chunk["items"], *rest["items"])] == ["a", "c", "e"]
    assert {each["object"]["apiVersion"] for each in seen} == {"example.com/v1"}
    assert [(each["type"], each["object"]["metadata"]["name"]) for each in seen] == [
        ("ADDED", "a"),
        ("ADDED", "c"),
        ("ADDED", "e"),
        ("ADDED", "b"),
        ("DELETED", "c"),
        ("MODIFIED", "e"),
        ("DELETED", "e"),
    ]


async def test_a_converter_that_fails_fails_the_request_and_no_other(converted: tuple[Api, Renaming]) -> None:
    api, converter = converted
    await api.ok("POST", WIDGETS_V2, widget("a", size=3))
    converter.broken = True

    status, answer = await api("GET", WIDGETS_V1)
    assert (status, "nobody is there" in answer["message"]) == (500, True)
    watch = await api.send("GET", f"{WIDGETS_V1}?watch=1")
    assert (await events(watch, 1))[0]["type"] == "ERROR"
    assert (await api("POST", WIDGETS_V1, widget("b", "v1", count=3)))[0] == 500
    assert len((await api.ok("GET", WIDGETS_V2))["items"]) == 1
    converter.broken = False
    assert (await api.ok("GET", WIDGETS_V1))["items"][0]["spec"]["count"] == 3


# Forms


async def test_what_is_kept_is_bounded(server: ApiServer, api: Api) -> None:
    encodings = server.core.encodings
    encodings._limit = 20_000
    for index in range(200):
        await api.ok("POST", CONFIG_MAPS, config_map(f"c{index}", a="x" * 100))
    for accept in (TABLE, METADATA_LIST):
        assert (await api.send("GET", CONFIG_MAPS, accept=accept)).status == 200
        assert 0 < encodings.size <= 20_000


async def test_a_kind_that_changes_is_shown_anew_and_others_keep_what_was_made(server: ApiServer, api: Api) -> None:
    converter = Renaming()
    await server.serve(*widgets(converter=converter))
    await api.ok("POST", WIDGETS_V2, widget("a", size=3))
    await api.ok("POST", CONFIG_MAPS, config_map("c"))
    assert (await api.ok("GET", WIDGETS_V1))["items"][0]["spec"]["count"] == 3
    pods = server.core.served.by_path("", "v1", "pods")
    await server.serve(*widgets())

    assert (await api.ok("GET", WIDGETS_V1))["items"][0]["spec"]["size"] == 3
    assert server.core.served.by_path("", "v1", "pods") is pods


# Under load


async def test_resources_come_change_and_go_under_load(server: ApiServer, api: Api) -> None:
    """Readers, watchers and writers go on all the time: every answer is what some state of the server gives, nobody
    sees half of a change, and kinds that do not change notice nothing."""
    source = random.Random(3)
    stopping = asyncio.Event()
    seen: dict[int, int] = {}
    written = 0

    async def write() -> None:
        nonlocal written
        while not stopping.is_set():
            root, version = source.choice([(WIDGETS_V1, "v1"), (WIDGETS_V2, "v2")])
            name = f"w{source.randrange(20)}"
            status, answer = await api("POST", root, widget(name, version, size=source.randrange(9)))
            seen[status] = seen.get(status, 0) + 1
            assert status in (201, 404, 409), answer
            if status == 201:
                written += 1
                assert answer["apiVersion"] == f"example.com/{version}"
                assert answer["metadata"]["resourceVersion"]
            status, answer = await api("DELETE", f"{root}/{name}")
            assert status in (200, 404, 409), answer
            await asyncio.sleep(0)

    async def read() -> None:
        while not stopping.is_set():
            root, version = source.choice([(WIDGETS_V1, "v1"), (WIDGETS_V2, "v2")])
            status, answer = await api("GET", root, accept=source.choice(["", TABLE, METADATA_LIST]))
            assert status in (200, 404), answer
            for item in (answer.get("items") or ()) if status == 200 else ():
                assert item["apiVersion"] in (f"example.com/{version}", "meta.k8s.io/v1")
            status, answer = await api("GET", f"/apis/example.com/{version}")
            assert status in (200, 404), answer
            await asyncio.sleep(0)

    async def watch() -> None:
        while not stopping.is_set():
            response = await api.send("GET", f"{WIDGETS_V1}?watch=1&timeoutSeconds=1")
            if response.status == 404:
                await asyncio.sleep(0)
                continue
            assert response.status == 200
            for event in await ended(response):
                assert event["type"] in ("ADDED", "MODIFIED", "DELETED")
                assert event["object"]["apiVersion"] == "example.com/v1"

    async def others() -> None:
        index = 0
        while not stopping.is_set():
            await api.ok("POST", CONFIG_MAPS, config_map(f"c{index}"))
            assert (await api.ok("GET", f"{CONFIG_MAPS}/c{index}"))["metadata"]["name"] == f"c{index}"
            index += 1
            await asyncio.sleep(0)

    async def change() -> None:
        for turn in range(25):
            await server.serve(*widgets(stored=source.choice(["v1", "v2"])))
            for _ in range(20):
                await asyncio.sleep(0)
            await server.serve(*widgets(names=source.choice([("v2",), ("v2", "v1")])))
            for _ in range(20):
                await asyncio.sleep(0)
            await server.withdraw("example.com", "widgets", stored="delete" if turn % 2 else "keep")
            if turn % 2:
                assert (await server.store.range("/registry/example.com/widgets/")).entries == []
        stopping.set()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for work in (write, write, write, read, read, watch, watch, others, change):
            group.create_task(work())

    assert written > 20
    assert seen[404] > 0
    assert server.core.served.of_resource("example.com", "widgets") == []


async def test_two_servers_in_one_process_share_nothing() -> None:
    one, two = (ApiServer(MemoryStore(), world=RealWorld(seed)) for seed in (1, 2))
    await one.start()
    await two.start()
    first, second = Api(one), Api(two)
    for api in (first, second):
        await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
    try:
        await one.serve(*widgets())
        await first.ok("POST", WIDGETS_V2, widget("a", size=1))
        assert (await second("GET", WIDGETS_V2))[0] == 404
        assert (await second("GET", V1))[0] == 404
        assert "com.example" not in (await second.send("GET", "/openapi/v2")).body.decode()  # type: ignore[union-attr]
        only_v2 = widgets(names=("v2",))
        await two.serve(*only_v2)
        assert (await second.ok("GET", WIDGETS_V2))["items"] == []
        assert (await first.ok("GET", f"{WIDGETS_V1}/a"))["spec"]["size"] == 1
        assert (await second("GET", V1))[0] == 404
        await one.withdraw("example.com", "widgets", stored="delete")
        assert (await second("POST", WIDGETS_V2, widget("b", size=1)))[0] == 201
        mutable = [{id(kind._lazy) for kind in server.core.served.kinds()} for server in (one, two)]
        assert mutable[0].isdisjoint(mutable[1])
        assert {id(cache) for cache in one.core.caches.all()}.isdisjoint(id(cache) for cache in two.core.caches.all())
    finally:
        await one.stop()
        await two.stop()


async def test_discovery_says_what_kubernetes_says(api: Api) -> None:
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    (core,) = (await api.ok("GET", "/api", accept=accept))["items"]
    pods = next(entry for entry in core["versions"][0]["resources"] if entry["resource"] == "pods")
    kinds = {each["subresource"]: each["responseKind"] for each in pods["subresources"]}

    assert core["metadata"] == {}
    # The list's own group and version are not repeated.
    assert pods["responseKind"] == kinds["status"] == {"group": "", "version": "", "kind": "Pod"}
    assert kinds["eviction"] == {"group": "policy", "version": "v1", "kind": "Eviction"}
    assert (await api("GET", "/api", accept="application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList"))[
        0
    ] == 406
