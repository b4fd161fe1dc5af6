"""The pytest plugin: a cluster inside a test, in well under a second, without root.

It offers two fixtures. `navarch_cluster` is an `EmbeddedCluster` of one simulated node, for tests that are coroutines;
they need no mark, whatever mode pytest-asyncio is in. `navarch_server` is a `ServedCluster` of one, with a kubeconfig,
for tests that are plain functions. A test that needs another kind of cluster makes its own:
`async with EmbeddedCluster(nodes=5) as cluster`, `with ServedCluster(nodes=5) as cluster`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from navarch.testing.embedded import EmbeddedCluster
    from navarch.testing.served import ServedCluster

# Imported when used: the plugin is loaded in every test run of a project that has Navarch installed.


@pytest.fixture
def navarch_server() -> Iterator[ServedCluster]:
    """A cluster of one simulated node in a thread of the test's process; `kubeconfig` leads to it."""
    from navarch.testing.served import ServedCluster

    with ServedCluster() as cluster:
        yield cluster


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
        from navarch.testing.embedded import EmbeddedCluster

        async with EmbeddedCluster() as cluster:
            yield cluster

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_pycollect_makeitem() -> Generator[None, object, object]:
        """What uses `navarch_cluster` is pytest-asyncio's to run, which by itself passes over tests without a mark.

        Last of the wrappers, and so before pytest-asyncio's own, which looks at the marks.
        """
        made = yield
        for item in made if isinstance(made, list) else [made]:
            if isinstance(item, pytest.Function) and "navarch_cluster" in item.fixturenames:
                if not any(item.get_closest_marker(name) for name in ("asyncio", "anyio")):
                    item.add_marker("asyncio")
        return made
