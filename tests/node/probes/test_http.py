"""HTTP probes and hooks against real servers: redirects, headers, and servers without TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from navarch.node.probes.handlers import HTTPCaller, http_request, run_hook
from navarch.node.runtime.simulated import FOREVER, SimulatedRuntime
from navarch.world import RealWorld

POD = {"metadata": {"name": "p", "namespace": "default", "uid": "u"}}


class Site:
    """Answers at `/found`, sends elsewhere at `/to?where=`, fails at `/broken`; what it was asked is in `asked`."""

    def __init__(self) -> None:
        self.asked: list[web.Request] = []
        self.port = 0
        self.caller = HTTPCaller("v1.36.0")

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        if request.path == "/to":
            return web.Response(status=302, headers={"Location": request.query["where"]}, text="over there")
        return web.Response(status=200 if request.path == "/found" else 500, text=request.path)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    app = web.Application()
    app.router.add_get("/{tail:.*}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await made.caller.close()
    await runner.cleanup()


async def test_a_redirect_on_the_same_host_is_followed(site: Site) -> None:
    found = await site.caller.get(site.url("/to?where=/found"), {}, 10)
    broken = await site.caller.get(site.url("/to?where=/broken"), {}, 10)
    endless = await site.caller.get(site.url("/to?where=%2Fto%3Fwhere%3Dto"), {}, 10)

    assert (found.ok, found.warning, found.output) == (True, False, "/found")
    assert (broken.ok, broken.output) == (False, "HTTP probe failed with statuscode: 500")
    assert not endless.ok


async def test_a_redirect_to_another_host_is_a_success_with_a_warning(site: Site) -> None:
    outcome = await site.caller.get(site.url("/to?where=http://0.0.0.0/"), {}, 10)

    assert (outcome.ok, outcome.warning) == (True, True)
    assert outcome.output == "Probe terminated redirects, Response body: over there"
    assert len(site.asked) == 1


async def test_headers_are_sent_as_stated_and_before_the_usual_ones(site: Site) -> None:
    stated = [{"name": "accept", "value": "text/plain"}, {"name": "X-A", "value": "1"}, {"name": "X-A", "value": "2"}]
    url, headers = http_request({}, {"port": site.port, "path": "found", "httpHeaders": stated}, "127.0.0.1", "probe/1")

    assert (await site.caller.get(url, headers, 10)).ok

    sent = site.asked[0].headers
    assert (sent.getall("Accept"), sent.getall("X-A"), sent["User-Agent"]) == (["text/plain"], ["1", "2"], "probe/1")


async def test_a_hook_has_succeeded_whatever_it_is_answered(site: Site) -> None:
    runtime = SimulatedRuntime(RealWorld(), lambda config: FOREVER)
    action = {"httpGet": {"port": site.port, "path": "/broken", "host": "127.0.0.1"}}

    assert (await run_hook(runtime, site.caller, POD, {}, action, "c", "127.0.0.1")).ok


async def test_a_hook_falls_back_to_plain_http(site: Site) -> None:
    runtime = SimulatedRuntime(RealWorld(), lambda config: FOREVER)
    told: list[tuple[str, ...]] = []
    secret = [{"name": "Authorization", "value": "Bearer x"}, {"name": "X-A", "value": "1"}]
    action = {"httpGet": {"port": site.port, "path": "/found", "scheme": "HTTPS", "httpHeaders": secret}}

    outcome = await run_hook(runtime, site.caller, POD, {}, action, "c", "127.0.0.1", lambda *event: told.append(event))

    where = f"127.0.0.1:{site.port}"
    words = f"request to HTTPS lifecycle hook {where} got HTTP response, retry with HTTP succeeded"
    assert outcome.ok
    assert told == [("Warning", "LifecycleHTTPFallback", words)]
    # What is secret does not travel in the clear.
    assert [("Authorization" in one.headers, one.headers["X-A"]) for one in site.asked] == [(False, "1")]
