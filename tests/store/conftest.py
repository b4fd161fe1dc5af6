"""Every test that takes `store` runs against each backend; those of etcd share one server and have a prefix each.

The keys of `navarch envtest` are such a server, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest

from navarch.cluster.kube import etcd_service
from navarch.store.base import Store
from navarch.store.etcd.store import EtcdStore
from navarch.store.etcd.target import parse
from navarch.store.memory import MemoryStore
from navarch.store.sqlite import SQLiteStore

from ..ports import free_port
from .etcd_server import MISSING, Etcd, etcd_binary

_PREFIXES = count()


@pytest.fixture(scope="session")
def etcd() -> Iterator[Etcd]:
    if etcd_binary() is None:
        pytest.skip(MISSING)
    with Etcd() as server:
        yield server


@pytest.fixture
def etcd_url(etcd: Etcd) -> str:
    """Of a part of the server that no other test uses."""
    return f"{etcd.url}/test-{next(_PREFIXES)}"


@pytest.fixture(scope="session")
def envtest_etcd() -> Iterator[str]:
    port = free_port()
    server = etcd_service.serve(f"127.0.0.1:{port}", "3.6.5", "not here")
    yield f"etcd://127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def envtest_etcd_url(envtest_etcd: str) -> str:
    return f"{envtest_etcd}/test-{next(_PREFIXES)}"


@pytest.fixture(params=["memory", "sqlite", "etcd", "envtest_etcd"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store
    if request.param == "memory":
        made = MemoryStore()
    elif request.param == "sqlite":
        made = SQLiteStore(tmp_path / "state.db")
    else:
        made = EtcdStore(parse(request.getfixturevalue(f"{request.param}_url")))
    await made.open()
    yield made
    await made.close()
