"""The pytest plugin: a cluster inside a test, in well under a second, without root or sockets.

It offers the fixture `navarch_cluster`, an `EmbeddedCluster` of one simulated node, to tests that pytest-asyncio runs.
A test that needs another kind of cluster makes its own: `async with EmbeddedCluster(nodes=5) as cluster`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from navarch.testing.embedded import EmbeddedCluster

try:
    import pytest_asyncio
except ImportError:

    @pytest.fixture
    def navarch_cluster() -> None:
        """A cluster of one simulated node, inside the test's own process."""
        pytest.fail("the fixture navarch_cluster needs pytest-asyncio: pip install pytest-asyncio")

else:

    @pytest_asyncio.fixture
    async def navarch_cluster() -> AsyncIterator[EmbeddedCluster]:  # type: ignore[misc]
        """A cluster of one simulated node, inside the test's own process."""
        # Imported when used: the plugin is loaded in every test run of a project that has Navarch installed.
        from navarch.testing.embedded import EmbeddedCluster

        async with EmbeddedCluster() as cluster:
            yield cluster
