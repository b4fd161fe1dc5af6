"""Links in proxied pages."""

from __future__ import annotations

import gzip
import zlib

import orjson
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from navarch.apiserver.handlers.rewriting import LONGEST_PAGE, Proxied
from navarch.apiserver.handlers.targets import Target
from navarch.client.transport import Response
from tests.apiserver.conftest import PODS, Api, pod
from tests.growth import grows_with_size

PREFIX = "/api/v1/namespaces/ns/pods/p/proxy"
HERE = Proxied("10.42.0.7:80", "api.example.com", PREFIX)


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        ("/", f"{PREFIX}/"),
        ("/a/b?c=d#e", f"{PREFIX}/a/b?c=d#e"),
        ("/a/", f"{PREFIX}/a/"),
        ("a/b", "a/b"),
        ("../x", "../x"),
        ("#top", "#top"),
        ("mailto:a@b", "mailto:a@b"),
        ("http://10.42.0.7:80/a", f"{PREFIX}/a"),
        ("https://elsewhere.example.com/a", "https://elsewhere.example.com/a"),
        ("//elsewhere.example.com/a", "//elsewhere.example.com/a"),
        ("https://api.example.com/a", f"https://api.example.com{PREFIX}/a"),
        (f"{PREFIX}/a", f"{PREFIX}/a"),
        ("/a/../../b", f"{PREFIX.rpartition('/')[0]}/b"),
        ("http://[", "http://["),
    ],
)
def test_a_link_leads_through_the_proxy_where_it_led_to_the_pages_server(link: str, shown: str) -> None:
    assert HERE.url(link) == shown


@pytest.mark.parametrize(
    ("page", "shown"),
    [
        ('<a href="/x">y</a>', f'<a href="{PREFIX}/x">y</a>'),
        ("<A class=c HREF='/x' id=i>", f'<A class=c HREF="{PREFIX}/x" id=i>'),
        ("<img src=/x alt=y>", f'<img src="{PREFIX}/x" alt=y>'),
        ('<form action="/go?a=1&amp;b=2">', f'<form action="{PREFIX}/go?a=1&amp;b=2">'),
        ('<script src="/a.js">if (a < b) "<a href=\'/x\'>"</script>', None),
        ('<!-- <a href="/x"> --><p title="/x">', '<!-- <a href="/x"> --><p title="/x">'),
        ('<img src="/x"/>', '<img src="/x"/>'),
        ('<video poster="/p" src="/v">', f'<video poster="{PREFIX}/p" src="{PREFIX}/v">'),
        ('<a href="/x', '<a href="/x'),
        ("a < b <3 </p> <!doctype html>", "a < b <3 </p> <!doctype html>"),
        ("<p>äöü</p>", "<p>äöü</p>"),
    ],
)
def test_a_page_keeps_all_but_its_links(page: str, shown: str | None) -> None:
    expected = page.replace('src="/a.js"', f'src="{PREFIX}/a.js"') if shown is None else shown

    assert HERE.page(page.encode(), "") == expected.encode()


def test_a_compressed_page_stays_compressed() -> None:
    page = b'<a href="/x">'
    rewritten = f'<a href="{PREFIX}/x">'.encode()

    zipped, deflated = HERE.page(gzip.compress(page), "gzip"), HERE.page(zlib.compress(page), "deflate")

    assert zipped is not None
    assert deflated is not None
    assert gzip.decompress(zipped) == zlib.decompress(deflated) == rewritten
    assert HERE.page(page, "br") is None
    assert HERE.page(gzip.compress(b"<p>" * (LONGEST_PAGE // 3 + 1)), "gzip") is None, "far larger than it looks"


@given(st.text(alphabet="<>/='\" a\n!-?href", max_size=200))
def test_a_page_without_absolute_links_is_passed_as_it_is(text: str) -> None:
    page = text.replace("/", "x").encode()

    assert HERE.page(page, "") is not None
    assert HERE.page(b"<p>" + page.replace(b"=", b""), "") == b"<p>" + page.replace(b"=", b"")


@pytest.mark.parametrize("piece", ["<a ", '<a href="', "<!--", "<a b=", "<script>", "<a b='\" "])
def test_the_time_grows_with_the_page_and_no_faster(piece: str) -> None:
    assert grows_with_size(lambda times: HERE.page((piece * times).encode(), ""), 40_000)


async def test_a_pods_page_is_shown_under_the_proxys_path(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a real server that stands for the pod."""

    async def page(request: web.Request) -> web.Response:
        if request.path == "/old":
            raise web.HTTPMovedPermanently("/new/")
        if request.method != "GET":
            return web.json_response([request.method, request.path_qs, (await request.read()).decode()])
        if request.path == "/told":
            return web.json_response({n.lower(): v for n, v in request.headers.items()})
        headers = {"Access-Control-Allow-Origin": "*"}
        return web.Response(text='<a href="/next">next</a>', content_type="text/html", headers=headers)

    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", page)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    monkeypatch.setattr("navarch.apiserver.handlers.connect.pod_target", lambda pod, name: Target("127.0.0.1", port))
    await api.ok("POST", PODS, pod("p", node="n1"))

    async def ask(path: str) -> Response:
        return await api.send("GET", f"{PODS}/p/proxy{path}")

    async def body_of(response: Response) -> bytes:
        return response.body if isinstance(response.body, bytes) else b"".join([c async for c in response.body])

    try:
        shown, moved, bare = await ask("/a/b"), await ask("/old"), await ask("")
        assert await body_of(shown) == f'<a href="{PODS}/p/proxy/next">next</a>'.encode()
        assert not [name for name in shown.headers if name.lower().startswith("access-control")]
        assert "date" not in {name.lower() for name in shown.headers}, "the connection adds one"
        assert (moved.status, moved.headers["Location"]) == (301, f"{PODS}/p/proxy/new/")
        assert (bare.status, bare.headers["Location"]) == (301, f"{PODS}/p/proxy/")
        await body_of(moved)
        head = await api.send("HEAD", f"{PODS}/p/proxy?a=b")
        assert (head.status, head.headers["Location"]) == (301, f"{PODS}/p/proxy/?a=b")
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            # Nothing that is sent gets lost for the want of a slash.
            answer = await api.send(method, f"{PODS}/p/proxy?method={method}", b"body", content_type="text/plain")
            assert orjson.loads(await body_of(answer)) == [method, f"/?method={method}", "body"]
        api.headers = {"host": "api.example.com", "x-forwarded-for": "10.0.0.1"}
        told = orjson.loads(await body_of(await ask("/told")))
        assert told["x-forwarded-uri"] == f"{PODS}/p/proxy/told"
        assert (told["x-forwarded-host"], told["x-forwarded-proto"]) == ("api.example.com", "https")
        assert (told["x-forwarded-for"], "accept" in told) == ("10.0.0.1", False)
    finally:
        await runner.cleanup()
