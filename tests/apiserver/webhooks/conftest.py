"""An API server as a cluster has it, with all of admission, and an authority for the certificates of webhooks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from navarch.client.resources import SERVICE_ACCOUNTS
from navarch.testing.embedded import ADMIN, EmbeddedCluster
from tests.apiserver.conftest import Api
from tests.apiserver.webhooks.server import Authority


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "pki"


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def cluster(keys: Path) -> AsyncIterator[EmbeddedCluster]:
    async with EmbeddedCluster(nodes=0, controllers=False, keys=keys) as cluster:
        # Whose controllers do not run.
        await cluster.client.create(SERVICE_ACCOUNTS, {"metadata": {"name": "default", "namespace": "default"}})
        yield cluster


@pytest.fixture
def api(cluster: EmbeddedCluster) -> Api:
    return Api(cluster.server, ADMIN)
