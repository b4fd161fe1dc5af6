"""A store that cannot write answers 503 to every kind of write, serves reads, says that it is not ready, and heals."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from navarch.apiserver.server import ApiServer
from navarch.store import failpoints
from navarch.store.sqlite import SQLiteStore

from .conftest import CONFIG_MAPS, PODS, Api, config_map, deployment, pod

DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    server = ApiServer(SQLiteStore(tmp_path / "state.db"))
    await server.start()
    api = Api(server)
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
    for name in ("a", "b", "c"):
        await api.ok("POST", CONFIG_MAPS, config_map(name))
    await api.ok("POST", PODS, pod("p"))
    await api.ok("POST", DEPLOYMENTS, deployment("web"))
    yield api
    await server.stop()


@pytest.fixture
def full_disk() -> Iterator[failpoints.Point]:
    point = failpoints.point("sqlite.write.before")
    point.arm("error")
    yield point
    point.arm("")


WRITES = [
    ("POST", CONFIG_MAPS, config_map("new")),
    ("POST", CONFIG_MAPS, {"metadata": {"generateName": "new-"}}),
    ("PUT", f"{CONFIG_MAPS}/a", config_map("a", key="value")),
    ("DELETE", f"{CONFIG_MAPS}/a", None),
    ("DELETE", CONFIG_MAPS, None),
    ("DELETE", PODS, None),
    ("DELETE", f"{PODS}/p", None),
    ("PUT", f"{DEPLOYMENTS}/web/scale", {"metadata": {"name": "web"}, "spec": {"replicas": 5}}),
    ("POST", f"{PODS}/p/binding", {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}}),
    ("POST", f"{PODS}/p/eviction", {"metadata": {"name": "p"}}),
]


async def test_every_write_is_answered_503_and_nothing_changes(
    api: Api, full_disk: failpoints.Point, caplog: pytest.LogCaptureFixture
) -> None:
    for method, path, body in WRITES:
        status, answer = await api(method, path, body)
        assert (status, answer["reason"]) == (503, "ServiceUnavailable"), (method, path, answer)
    status, answer = await api.patch(f"{CONFIG_MAPS}/a", {"data": {"key": "value"}})
    assert status == 503
    status, answer = await api.patch(
        f"{CONFIG_MAPS}/x?fieldManager=m", {**config_map("x"), "apiVersion": "v1"}, "apply"
    )
    assert status == 503

    names = [item["metadata"]["name"] for item in (await api.ok("GET", CONFIG_MAPS))["items"]]
    assert names == ["a", "b", "c"]
    assert "Traceback" not in caplog.text


async def test_it_is_not_ready_until_it_can_write_again(api: Api, full_disk: failpoints.Point) -> None:
    assert (await api.send("GET", "/readyz")).status == 200
    assert (await api("DELETE", CONFIG_MAPS))[0] == 503

    response = await api.send("GET", "/readyz")
    assert response.status == 500
    assert b"[-]etcd-readiness failed" in response.body  # type: ignore[operator]
    assert (await api.send("GET", "/livez")).status == 200

    full_disk.arm("")
    assert (await api.send("GET", "/readyz")).status == 200
    await api.ok("DELETE", CONFIG_MAPS)
    assert (await api.ok("GET", CONFIG_MAPS))["items"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
async def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("cannot mount here")
    async with AsyncExitStack() as stack:
        stack.callback(subprocess.run, ["umount", str(small)], check=True)
        server = ApiServer(SQLiteStore(small / "state.db"))
        await server.start()
        stack.push_async_callback(server.stop)
        api = Api(server)
        await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
        stored: list[str] = []
        statuses: set[int] = set()
        for number in range(100):
            status, _ = await api("POST", CONFIG_MAPS, config_map(f"m-{number:03}", value="x" * 100_000))
            statuses.add(status)
            if status == 201:
                stored.append(f"m-{number:03}")
        assert statuses == {201, 503}
        assert (await api.send("GET", "/readyz")).status == 500
        names = [item["metadata"]["name"] for item in (await api.ok("GET", CONFIG_MAPS))["items"]]
        assert names == stored
        await server.stop()

        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        again = ApiServer(SQLiteStore(small / "state.db"))
        await again.start()
        stack.push_async_callback(again.stop)
        api = Api(again)
        names = [item["metadata"]["name"] for item in (await api.ok("GET", CONFIG_MAPS))["items"]]
        assert names == stored
        await api.ok("DELETE", CONFIG_MAPS)
