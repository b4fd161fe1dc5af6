"""The machine's logs, as the kubelet shows them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from navarch.node.server.system_logs import disabled, system_logs
from navarch.world import RealWorld

Logs = TestClient[web.Request, web.Application]


@pytest.fixture
async def logs(tmp_path: Path) -> AsyncIterator[Logs]:
    (tmp_path / "secret").write_text("no log")
    place = tmp_path / "log"
    (place / "pods").mkdir(parents=True)
    (place / "sys<1>.log").write_text("one\ntwo\n")
    app = web.Application()
    for path in ("/logs", "/logs/{path:.*}"):
        app.router.add_get(path, system_logs(RealWorld(), place))
    app.router.add_get("/off/", disabled)
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_a_folder_is_a_list_of_links(logs: Logs) -> None:
    answer = await logs.get("/logs/")

    assert (answer.status, answer.content_type) == (200, "text/html")
    listed = '<a href="./pods/">pods/</a>\n<a href="./sys%3C1%3E.log">sys&lt;1&gt;.log</a>\n'
    assert await answer.text() == f"<!doctype html>\n<pre>\n{listed}</pre>\n"


async def test_a_file_is_itself_in_whole_or_in_part(logs: Logs) -> None:
    whole = await logs.get("/logs/sys%3C1%3E.log")
    part = await logs.get("/logs/sys%3C1%3E.log", headers={"Range": "bytes=4-"})
    head = await logs.head("/logs/sys%3C1%3E.log")

    assert (whole.status, await whole.text()) == (200, "one\ntwo\n")
    assert (part.status, await part.text()) == (206, "two\n")
    assert (head.status, head.headers["Content-Length"], await head.text()) == (200, "8", "")


@pytest.mark.parametrize(
    ("path", "to"), [("/logs", "logs/"), ("/logs/pods", "pods/"), ("/logs/sys%3C1%3E.log/", "../sys%3C1%3E.log")]
)
async def test_folders_end_in_a_slash_and_files_do_not(logs: Logs, path: str, to: str) -> None:
    answer = await logs.get(path, allow_redirects=False)

    assert (answer.status, answer.headers["Location"]) == (301, to)


async def test_nothing_beside_the_folder_is_shown(logs: Logs) -> None:
    assert (await logs.get("/logs/none")).status == 404
    # A client of ours would leave the dots away itself.
    url = URL(str(logs.make_url("/")) + "logs/%2e%2e/secret", encoded=True)
    async with aiohttp.ClientSession() as session, session.get(url, allow_redirects=False) as answer:
        assert answer.status == 404


async def test_a_kubelet_may_be_told_to_show_none(logs: Logs) -> None:
    answer = await logs.get("/off/")

    assert (answer.status, await answer.text()) == (405, "logs endpoint is disabled.\n")
