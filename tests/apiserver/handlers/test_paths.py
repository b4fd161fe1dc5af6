"""What is no resource: health check by check, pages for people, keys, documents by their hash."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ..conftest import Api


async def text(api: Api, path: str, accept: str = "") -> tuple[int, str]:
    response = await api.send("GET", path, accept=accept)
    assert isinstance(response.body, bytes)
    return response.status, response.body.decode()


async def test_every_check_can_be_asked_for_alone(api: Api) -> None:
    _, listed = await text(api, "/")
    paths = [path for path in orjson.loads(listed)["paths"] if path.startswith(("/healthz", "/livez", "/readyz"))]

    assert "/readyz/poststarthook/rbac/bootstrap-roles" in paths
    assert {await text(api, path) for path in paths} == {(200, "ok")}


async def test_a_check_that_there_is_not_is_no_page(api: Api) -> None:
    assert await text(api, "/livez/shutdown") == (404, "404 page not found\n")


@pytest.mark.parametrize("path", ["//", "//api/v1", "//apis", "//livez"])
async def test_nothing_is_found_behind_an_empty_step(api: Api, path: str) -> None:
    assert await text(api, path) == (404, "404 page not found\n")


async def test_checks_can_be_left_out(api: Api) -> None:
    _, told = await text(api, "/readyz?verbose&exclude=etcd&exclude=nonsense")

    assert "[+]etcd excluded: ok\n" in told
    assert 'warn: some health checks cannot be excluded: no matches for "nonsense"\n' in told
    assert told.endswith("readyz check passed\n")


async def test_a_server_that_stops_is_not_ready_and_says_to_nobody_why(api: Api) -> None:
    api.server.drain()

    status, told = await text(api, "/readyz")
    assert status == 500
    assert "[-]shutdown failed: reason withheld\n" in told
    assert (await text(api, "/livez"))[0] == 200
    _, counted = await text(api, "/metrics/slis")
    assert 'kubernetes_healthcheck{name="shutdown",type="readyz"} 0\n' in counted
    assert 'kubernetes_healthchecks_total{name="etcd",status="success",type="livez"} 1\n' in counted


async def test_people_see_what_runs_and_how_it_was_set_up(api: Api) -> None:
    api.server.show_flags({"secure-port": "6443"})

    assert "\nkube-apiserver statusz\n" in (await text(api, "/statusz"))[1]
    assert "\nsecure-port=6443\n" in (await text(api, "/flagz"))[1]
    assert (await text(api, "/flagz", "application/json"))[0] == 406


async def test_programs_get_the_pages_in_their_form(api: Api) -> None:
    api.server.show_flags({"secure-port": "6443"})
    asked = "application/json;v=v1alpha1;g=config.k8s.io;as=Flagz"

    page: dict[str, Any] = orjson.loads((await text(api, "/flagz", asked))[1])

    assert page["apiVersion"] == "config.k8s.io/v1alpha1"
    assert page["flags"] == {"secure-port": "6443"}


async def test_a_document_goes_by_its_hash(api: Api) -> None:
    index = orjson.loads((await text(api, "/openapi/v3"))[1])["paths"]
    place = index["apis/apps/v1"]["serverRelativeURL"]

    response = await api.send("GET", place)
    assert (response.status, response.headers["Cache-Control"]) == (200, "public, immutable")
    other = await api.send("GET", "/openapi/v3/apis/apps/v1?hash=old")
    assert (other.status, other.headers["Location"]) == (301, place)
    api.headers["if-none-match"] = response.headers["ETag"]
    known = await api.send("GET", place)
    assert (known.status, known.body) == (304, b"")


async def test_every_document_of_the_index_is_there_and_names_its_operations(api: Api) -> None:
    index = orjson.loads((await text(api, "/openapi/v3"))[1])["paths"]

    for relative in ("api", "apis", "apis/apps", "api/v1", "version", "openid/v1/jwks", "apis/apps/v1"):
        document = orjson.loads((await text(api, index[relative]["serverRelativeURL"]))[1])
        operations = [operation for item in document["paths"].values() for operation in item.values()]
        assert all(each["operationId"] for each in operations if isinstance(each, dict))
    assert "getAppsV1APIResources" in str(document)
    assert "watchAppsV1NamespacedDeploymentList" in str(document)
