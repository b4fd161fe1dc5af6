"""Which version each API server writes: names, what they agree on, columns."""

from __future__ import annotations

from typing import Any

from tests.kinds.writing import refused, row, updated

GROUP, KIND = "internal.apiserver.k8s.io", "StorageVersion"


def server(name: str, written: str = "v1", *decoded: str, **more: Any) -> dict[str, Any]:
    return {"apiServerID": name, "encodingVersion": written, "decodableVersions": list(decoded or ("v1",)), **more}


def told(common: str | None, *servers: dict[str, Any]) -> list[str]:
    status: dict[str, Any] = {"storageVersions": list(servers)}
    if common is not None:
        status["commonEncodingVersion"] = common
    stored: dict[str, Any] = {"metadata": {"name": "apps.deployments"}, "spec": {}, "status": {}}
    return updated(GROUP, KIND, stored, {**stored, "status": status}, "status")[1]


def test_a_name_is_of_a_group_and_a_resource() -> None:
    def named(name: str) -> list[str]:
        return refused(GROUP, KIND, {"metadata": {"name": name}, "spec": {}})

    assert named("apps.deployments") == []
    assert named("deployments") == [
        'metadata.name: Invalid value: "deployments": name must be in the form of <group>.<resource>'
    ]
    (problem,) = named("apps.1deployments")
    assert "the resource segment" in problem


def test_a_server_can_read_what_it_writes_and_serves() -> None:
    assert told("v1", server("a")) == []
    (problem,) = told("v2", server("a", "v2"))
    assert problem.endswith("decodableVersions must include encodingVersion v2")
    (problem,) = told("v1", server("a", "v1", "v1", servedVersions=["v2"]))
    assert "must be included in decodableVersions" in problem
    (problem,) = told("v1", server("a"), server("a"))
    assert problem.startswith("status.storageVersions[1].apiServerID: Duplicate value")


def test_a_common_version_is_what_all_write() -> None:
    assert told(None, server("a"), server("b", "v2", "v1", "v2")) == []
    assert told("v1", server("a"), server("b", "v2", "v1", "v2")) != []
    assert told(None, server("a"), server("b")) != []


def test_columns_show_three_servers() -> None:
    servers = [server(f"s{number}") for number in range(5)]
    obj = {"metadata": {"name": "n"}, "status": {"storageVersions": servers, "commonEncodingVersion": "v1"}}

    assert row(GROUP, KIND, obj)[:3] == ["n", "v1", "s0=v1,s1=v1,s2=v1 + 2 more..."]
