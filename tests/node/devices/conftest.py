"""A kubelet on simulated containers whose folder has a short name: sockets' paths may not be long."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.node.engine.conftest import Simulated, running


@pytest.fixture
async def simulated() -> AsyncIterator[Simulated]:
    place = Path(tempfile.mkdtemp(prefix="nv-", dir="/tmp"))
    try:
        async with running(place, controllers=False) as node:
            yield node
    finally:
        shutil.rmtree(place, ignore_errors=True)
