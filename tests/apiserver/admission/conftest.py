"""Clusters that a test started are stopped with it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.apiserver.admission import cluster


@pytest.fixture(autouse=True)
async def stop_clusters() -> AsyncIterator[None]:
    yield
    while cluster.RUNNING:
        await cluster.RUNNING.pop().server.stop()
