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
        app.router.add_get(f"/query{path}", system_logs(RealWorld(), place, queries=True))
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


async def test_a_service_that_the_journal_does_not_know_has_a_file_of_its_name(logs: Logs, tmp_path: Path) -> None:
    place = tmp_path / "log"
    (place / "a").write_text("a")
    (place / "b.log").write_text("b")
    (place / "c").mkdir()
    (place / "c" / "c.log").write_text("c")
    (place / "out.log").symlink_to("/etc/hostname")

    async def asked(*services: str) -> str:
        answer = await logs.get("/query/logs/", params=[("query", one) for one in services])
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain;charset=UTF-8")
        return await answer.text()

    assert await asked("a", "b", "c") == "abc"
    assert await asked("nobody") == "\nlog not found for nobody\n"
    assert await asked("out") == "\nlog not found for out\n"


@pytest.mark.parametrize("compressed", [False, True])
async def test_what_is_in_the_journal_is_asked_of_it(
    logs: Logs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compressed: bool
) -> None:
    journal = tmp_path / "bin" / "journalctl"
    journal.parent.mkdir()
    journal.write_text(
        '#!/bin/sh\nif [ "$1" = --field ]; then echo sshd.service; else for one; do echo "<$one>"; done; fi\n'
    )
    journal.chmod(0o755)
    monkeypatch.setenv("PATH", f"{journal.parent}:/usr/bin:/bin")
    asked = {
        "query": "sshd",
        "sinceTime": "2026-01-02T03:04:05+01:00",
        "untilTime": "2026-01-03T00:00:00Z",
        "tailLines": "10",
        "pattern": "error|fail",
        "boot": "-1",
    }
    headers = {"Accept-Encoding": "gzip" if compressed else "identity"}

    answer = await logs.get("/query/logs/", params=asked, headers=headers)

    assert (answer.headers.get("Content-Encoding") == "gzip") == compressed
    assert (await answer.text()).splitlines() == [
        "<--utc>",
        "<--no-pager>",
        "<--output=short-precise>",
        "<--since=2026-01-02 02:04:05 UTC>",
        "<--until=2026-01-03 00:00:00 UTC>",
        "<--pager-end>",
        "<--lines=10>",
        "<--unit=sshd>",
        "<--grep=error|fail>",
        "<--case-sensitive=false>",
        "<--boot>",
        "<-1>",
    ]


async def test_what_narrows_down_is_for_the_journal_alone(logs: Logs) -> None:
    answer = await logs.get("/query/logs/", params={"query": "sys", "tailLines": "5"})

    words = "options present and query resolved to log files for [sys]\ntry without specifying options"
    assert (answer.status, await answer.text()) == (200, f"\n{words}\n")


async def test_without_a_query_and_with_that_of_a_file_files_are_shown(logs: Logs) -> None:
    plain = await logs.get("/query/logs/sys%3C1%3E.log")
    named = await logs.get("/query/logs/", params={"query": "/sys<1>.log"})
    listed = await logs.get("/query/logs/")

    assert [(await one.text(), one.status) for one in (plain, named)] == [("one\ntwo\n", 200)] * 2
    assert "<pre>" in await listed.text()


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("query=%20", 400, 'query: Invalid value: [" "]: query cannot be empty'),
        ("query=a&sinceTime=now", 400, 'sinceTime: Invalid value: "now": invalid time format'),
        (
            "query=a&boot=x&tailLines=y",
            400,
            '[boot: Invalid value: "x": strconv.Atoi: parsing "x": invalid syntax, '
            'tailLines: Invalid value: "y": strconv.Atoi: parsing "y": invalid syntax]',
        ),
        ("tailLines=5", 406, "query: Required value: cannot be empty with options"),
        ("query=a%3Bb", 406, 'query: Invalid value: "a;b": input contains unsupported characters'),
        ("query=a&query=b&query=c&query=d&query=e", 406, "query: Too many: 5: must have at most 4 items"),
        ("query=/a&query=b", 406, 'query: Invalid value: "[/a], [b]": cannot specify a file and service'),
        ("query=/a&query=/b", 406, 'query: Invalid value: ["/a","/b"]: cannot specify more than one file'),
        ("query=/a&tailLines=1", 406, 'query: Invalid value: ["/a"]: cannot specify file with options'),
        ("query=/../secret", 406, 'query: Invalid value: ["/../secret"]: stat {}/../secret: no such file or directory'),
        ("query=a&boot=1", 406, "boot: Invalid value: 1: must be less than 1"),
        ("query=a&tailLines=100001", 406, "tailLines: Invalid value: 100001: must be between 0 and 100000, inclusive"),
        (
            "query=a&sinceTime=2026-01-02T00:00:00Z&untilTime=2026-01-01T00:00:00Z",
            406,
            'untilTime: Invalid value: "2026-01-01T00:00:00Z": must be after `sinceTime`',
        ),
    ],
)
async def test_a_query_that_cannot_be_is_refused_in_kubernetes_words(
    logs: Logs, tmp_path: Path, query: str, status: int, words: str
) -> None:
    answer = await logs.get(f"/query/logs/?{query}")

    assert (answer.status, await answer.text()) == (status, words.replace("{}", str(tmp_path / "log")) + "\n")


async def test_a_query_is_of_the_whole_folder(logs: Logs) -> None:
    answer = await logs.get("/query/logs/pods/?query=a")

    assert (answer.status, await answer.text()) == (406, "path not allowed in query mode\n")
