"""Two writers of one object at the same moment: whoever comes second is told what is there now, not what was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from navarch.apiserver.server import ApiServer
from navarch.store.sqlite import SQLiteStore

from .conftest import CONFIG_MAPS, Api, config_map


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    server = ApiServer(SQLiteStore(tmp_path / "state.db"))
    await server.start()
    api = Api(server)
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
    yield api
    await server.stop()


async def test_a_replacement_of_what_is_being_deleted_is_not_found(api: Api) -> None:
    found = await api.ok("POST", CONFIG_MAPS, config_map("a"))
    wanted = {**found, "data": {"changed": "yes"}}

    deleted, replaced = await asyncio.gather(api("DELETE", f"{CONFIG_MAPS}/a"), api("PUT", f"{CONFIG_MAPS}/a", wanted))

    assert deleted[0] == 200
    assert (replaced[0], replaced[1]["reason"]) == (404, "NotFound")


async def test_a_replacement_of_what_is_being_replaced_is_a_conflict(api: Api) -> None:
    found = await api.ok("POST", CONFIG_MAPS, config_map("a"))

    answers = await asyncio.gather(
        *(api("PUT", f"{CONFIG_MAPS}/a", {**found, "data": {"who": str(number)}}) for number in range(4))
    )

    assert sorted(status for status, _ in answers) == [200, 409, 409, 409]
