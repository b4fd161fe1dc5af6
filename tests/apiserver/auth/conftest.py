"""A server of somebody else's, whose answers a test says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web


@pytest.fixture
async def served() -> AsyncIterator[tuple[str, list[Any]]]:
    """A server whose answers come from the last of a list."""
    handlers: list[Any] = []

    async def handle(request: web.Request) -> web.Response:
        answer = await handlers[-1](request)
        assert isinstance(answer, web.Response)
        return answer

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", handlers
    await runner.cleanup()
