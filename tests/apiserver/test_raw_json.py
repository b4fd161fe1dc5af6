"""Fields that hold any JSON though their schema says that they hold an object."""

from __future__ import annotations

from typing import Any

import pytest

from tests.apiserver.conftest import Api

REVISIONS = "/apis/apps/v1/namespaces/default/controllerrevisions"


def revision(data: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {"name": "r"},
        "data": data,
        "revision": 1,
    }


@pytest.mark.parametrize("data", ["text", [1, {"a": None}], 5, 1.5, False, {"a": None}])
async def test_a_revision_holds_any_json(api: Api, data: Any) -> None:
    assert (await api.ok("POST", REVISIONS, revision(data)))["data"] == data

    assert (await api.ok("GET", f"{REVISIONS}/r"))["data"] == data
    response = await api.send("GET", f"{REVISIONS}/r", accept="application/vnd.kubernetes.protobuf")
    assert response.status == 200
    status, changed = await api.patch(f"{REVISIONS}/r", {"revision": 2})
    assert (status, changed["data"]) == (200, data)
    status, answer = await api.patch(f"{REVISIONS}/r", {"data": {"other": 1}})
    assert (status, answer["details"]["causes"][0]["field"]) == (422, "data")


async def test_a_revision_of_nothing_is_refused(api: Api) -> None:
    status, answer = await api("POST", REVISIONS, revision(None))

    assert (status, answer["details"]["causes"][0]["message"]) == (422, "Required value: data is mandatory")
