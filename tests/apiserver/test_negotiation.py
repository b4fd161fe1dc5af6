"""The form of answers: lists, tables and metadata, errors, and what cannot be had at all."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from navarch.api import yaml_reader
from navarch.apiserver.server import ApiServer
from navarch.client.transport import Response
from tests.apiserver.conftest import CONFIG_MAPS, Api, config_map
from tests.apiserver.widgets import WIDGETS_V2, widget, widgets

TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
ACCEPTED = "only the following media types are accepted: "
OFFERED = "application/json, application/yaml, application/vnd.kubernetes.protobuf"


def body(response: Response) -> bytes:
    assert isinstance(response.body, bytes)
    return response.body


async def test_items_of_a_list_do_not_say_what_they_are(api: Api) -> None:
    made = [await api.ok("POST", CONFIG_MAPS, config_map(name, k="v")) for name in ("a", "b", "c")]

    listed = await api.ok("GET", CONFIG_MAPS)

    assert (listed["kind"], listed["apiVersion"]) == ("ConfigMapList", "v1")
    assert listed["items"] == [{k: v for k, v in obj.items() if k not in ("kind", "apiVersion")} for obj in made]


async def test_items_of_a_list_of_custom_objects_do(api: Api, server: ApiServer) -> None:
    await server.serve(*widgets())
    await api.ok("POST", WIDGETS_V2, widget("a", size=1))

    [item] = (await api.ok("GET", WIDGETS_V2))["items"]

    assert (item["kind"], item["apiVersion"]) == ("Widget", "example.com/v2")


@pytest.mark.parametrize("accept", ["application/yaml", "application/json;pretty=1", ""])
async def test_lists_say_the_same_in_every_form(api: Api, accept: str) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a", k="v"))
    plain = await api.ok("GET", CONFIG_MAPS)

    sent = body(await api.send("GET", f"{CONFIG_MAPS}?pretty=1" if not accept else CONFIG_MAPS, accept=accept))

    assert (yaml_reader.load(sent).value if accept == "application/yaml" else orjson.loads(sent)) == plain
    assert sent.count(b"\n") > 5


async def test_a_list_of_nothing_is_empty_but_its_metadata_is_null(api: Api) -> None:
    assert (await api.ok("GET", CONFIG_MAPS))["items"] == []
    assert (await api.ok("GET", CONFIG_MAPS, accept=TABLE))["rows"] == []
    assert (await api.ok("GET", CONFIG_MAPS, accept=METADATA_LIST))["items"] is None


async def test_tables_and_metadata_come_in_both_versions(api: Api) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a"))

    table = await api.ok("GET", CONFIG_MAPS, accept=TABLE.replace("v=v1", "v=v1beta1"))
    listed = await api.ok("GET", CONFIG_MAPS, accept=METADATA_LIST.replace("v=v1", "v=v1beta1"))

    assert table["apiVersion"] == table["rows"][0]["object"]["apiVersion"] == "meta.k8s.io/v1beta1"
    assert listed["apiVersion"] == listed["items"][0]["apiVersion"] == "meta.k8s.io/v1beta1"


@pytest.mark.parametrize(
    ("path", "accept", "message"),
    [
        (
            CONFIG_MAPS,
            "text/html",
            f"406: Not Acceptable\n\nAvailable representations: {OFFERED}, application/json;stream=watch, "
            "application/vnd.kubernetes.protobuf;stream=watch",
        ),
        (f"{CONFIG_MAPS}/a", "application/*", f"406: Not Acceptable\n\nAvailable representations: {OFFERED}"),
        ("/api/v1", "text/html", f"406: Not Acceptable\n\nAvailable representations: {OFFERED}"),
        ("/version", "application/yaml", "406: Not Acceptable\n\nAvailable representations: application/json"),
        (CONFIG_MAPS, TABLE.replace("v=v1", "v=v2"), ACCEPTED + OFFERED),
        (CONFIG_MAPS, "application/json;as=Nonsense;g=meta.k8s.io;v=v1", ACCEPTED + OFFERED),
        (
            f"{CONFIG_MAPS}?watch=true",
            "application/yaml",
            ACCEPTED + "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
        ),
        (
            CONFIG_MAPS,
            METADATA,
            "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)",
        ),
        (
            f"{CONFIG_MAPS}/a",
            METADATA_LIST,
            "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)",
        ),
    ],
)
async def test_what_has_no_such_form_is_not_acceptable(api: Api, path: str, accept: str, message: str) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a"))

    response = await api.send("GET", path, accept=accept)
    answer = yaml_reader.load(body(response)).value

    assert (response.status, answer["reason"], answer["message"]) == (406, "NotAcceptable", message)


async def test_the_first_form_that_can_be_had_is_taken(api: Api) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a"))

    async def kind(accept: str) -> Any:
        return (await api.ok("GET", f"{CONFIG_MAPS}/a", accept=accept))["kind"]

    assert await kind(f"text/html,{TABLE}") == "Table"
    assert await kind(f"application/json;q=0.5,{TABLE}") == "Table"
    assert await kind(f"{TABLE};q=0.5,application/json") == "ConfigMap"
    # What is named goes before wildcards.
    assert await kind(f"*/*,{TABLE}") == "Table"


async def test_tables_carry_what_they_are_asked_to(api: Api) -> None:
    status, answer = await api("GET", f"{CONFIG_MAPS}?includeObject=All", accept=TABLE)

    assert (status, answer["message"]) == (
        400,
        'Unable to convert to Table as requested: includeObject: Invalid value: "All": '
        "must be 'Metadata', 'Object', 'None', or empty",
    )


async def test_errors_come_in_the_media_type_asked_for(api: Api) -> None:
    response = await api.send("GET", f"{CONFIG_MAPS}/none", accept="application/yaml")

    assert (response.status, response.content_type) == (404, "application/yaml")
    assert yaml_reader.load(body(response)).value["message"] == 'configmaps "none" not found'


@pytest.mark.parametrize(
    ("agent", "query", "indented"),
    [("curl/8.0", "", True), ("Wget/1", "", True), ("kubectl/1", "", False), ("curl/8.0", "?pretty=false", False)],
)
async def test_people_get_indented_json(api: Api, agent: str, query: str, indented: bool) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    api.headers["user-agent"] = agent

    for path in (CONFIG_MAPS, f"{CONFIG_MAPS}/a", f"{CONFIG_MAPS}/none"):
        assert (b'\n  "' in body(await api.send("GET", path + query))) == indented


@pytest.mark.parametrize("path", ["/nothing", "/apis/unknown.example.com/v1/things", "/healthz/nothing", "/openapi/v4"])
async def test_what_nobody_serves_is_not_found_as_by_any_web_server(api: Api, path: str) -> None:
    response = await api.send("GET", path)

    assert (response.status, response.content_type) == (404, "text/plain; charset=utf-8")
    assert response.body == b"404 page not found\n"


@pytest.mark.parametrize("path", ["/api/v1/things", "/api/v9/pods", "/apis/apps/v1/things", "/apis/apps/v9"])
async def test_what_an_api_does_not_have_is_not_found_in_its_words(api: Api, path: str) -> None:
    status, answer = await api("GET", path)

    assert (status, answer["reason"], answer["details"]) == (404, "NotFound", {})
    assert answer["message"] == "the server could not find the requested resource"


async def test_a_patch_of_another_media_type_finds_no_path(api: Api) -> None:
    status, answer = await api("PATCH", f"{CONFIG_MAPS}/a", {}, content_type="application/json")

    assert (status, answer["message"], answer["details"]) == (415, "415: Unsupported Media Type", {})


async def test_discovery_comes_as_yaml_too(api: Api) -> None:
    plain = await api.ok("GET", "/apis/apps")

    response = await api.send("GET", "/apis/apps", accept="application/yaml")

    assert yaml_reader.load(body(response)).value == plain


@pytest.mark.parametrize("content_type", ["text/yaml", "application/x-www-form-urlencoded", "application/cbor"])
async def test_bodies_of_other_media_types_are_refused(api: Api, content_type: str) -> None:
    for method, path in (("POST", CONFIG_MAPS), ("DELETE", f"{CONFIG_MAPS}/a")):
        status, answer = await api(method, path, b"{}", content_type=content_type)

        assert (status, answer["reason"]) == (415, "UnsupportedMediaType")
        assert answer["message"] == (
            f"the body of the request was in an unknown format - accepted media types include: {OFFERED}"
        )


@pytest.mark.parametrize(
    ("path", "body_of"),
    [
        ("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"spec": {"nonResourceAttributes": {"path": "/"}}}),
        ("/api/v1/namespaces/default/pods/a/eviction", {"metadata": {"name": "a"}}),
    ],
)
async def test_what_is_only_posted_has_no_rows(api: Api, path: str, body_of: dict[str, Any]) -> None:
    status, answer = await api("POST", path, body_of, accept=TABLE)
    _, other = await api("POST", path, body_of, accept=f"{TABLE},application/json")

    assert (status, answer["reason"], answer["message"]) == (406, "NotAcceptable", ACCEPTED + OFFERED)
    assert other["kind"] in ("SelfSubjectAccessReview", "Status")
    assert other.get("code") != 406


async def test_a_table_of_flow_schemas_has_them_as_requests_are_matched(api: Api) -> None:
    path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas"
    for name, precedence in (("a", 900), ("c", 50), ("b", 50)):
        spec = {"priorityLevelConfiguration": {"name": "workload-low"}, "matchingPrecedence": precedence}
        await api.ok("POST", path, {"metadata": {"name": name}, "spec": spec})

    table = await api.ok("GET", path, accept=TABLE)
    plain = await api.ok("GET", path)

    assert [row["cells"][0] for row in table["rows"]] == ["b", "c", "a"]
    assert [item["metadata"]["name"] for item in plain["items"]] == ["a", "b", "c"]
