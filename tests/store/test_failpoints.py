"""A process killed between any two durable steps loses nothing that was acknowledged and leaves nothing half done."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from navarch.store import failpoints
from navarch.store.base import Put, Store, StoreUnavailable
from navarch.store.etcd.store import EtcdStore
from navarch.store.etcd.target import parse
from navarch.store.recovery import accept_loss
from navarch.store.sqlite import SQLiteStore

# Writers of two keys per commit; every third pair expires some day. What is printed was acknowledged.
_WRITERS = """
import asyncio, sys
from navarch.store.base import Delete, Put
from navarch.store.etcd.store import EtcdStore
from navarch.store.etcd.target import parse
from navarch.store.sqlite import SQLiteStore

async def write(store, worker):
    for i in range(100_000):
        ttl_s = 3600 if i % 3 == 0 else None
        ops = [Put(f"/{side}/{worker}-{i}", b"x" * 300, expected=0, ttl_s=ttl_s) for side in "ab"]
        revision = await store.commit(ops)
        print(f"{revision} {worker}-{i}", flush=True)
        if i % 10 == 9:
            await store.compact(revision)

async def main():
    where = sys.argv[1]
    store = EtcdStore(parse(where)) if where.startswith("etcd:") else SQLiteStore(where)
    await store.open()
    await asyncio.gather(*(write(store, worker) for worker in range(4)))

asyncio.run(main())
"""

_RECOVERY = """
import sys
from pathlib import Path
from navarch.store.recovery import accept_loss
from navarch.store.sqlite_open import record_path

accept_loss(Path(sys.argv[1]), record_path(Path(sys.argv[1])))
"""


def run_until_killed(script: str, where: str, point: str, visit: int) -> list[str]:
    """What it printed before it was killed at the point's Nth visit."""
    environment = {**os.environ, "NAVARCH_FAILPOINTS": f"{point}=kill:{visit}"}
    ended = subprocess.run(
        [sys.executable, "-c", script, where], env=environment, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == -9, ended.stderr
    lines = ended.stdout.split("\n")
    return lines[:-1]


async def check(store: Store, acknowledged: list[str]) -> int:
    """All that was acknowledged is there, and of every pair both or none; returns the newest revision."""
    stored = {entry.key: entry.mod_revision for entry in (await store.range("/")).entries}
    for line in acknowledged:
        revision, name = line.split()
        assert stored[f"/a/{name}"] == stored[f"/b/{name}"] == int(revision)
    names = {side: {key[3:] for key in stored if key.startswith(f"/{side}/")} for side in "ab"}
    assert names["a"] == names["b"]
    newest = await store.commit([Put("/z", b"after")])
    assert newest > max(stored.values(), default=0)
    return newest


def points(*prefixes: str) -> list[str]:
    return [name for name in failpoints.known() if name.startswith(prefixes)]


def visits(*prefixes: str) -> list[tuple[str, int]]:
    """Each point at its first visit and, where there are more, at a later one."""
    once = ("record.", "sqlite.generation.", "etcd.lease.")
    return [(name, visit) for name in points(*prefixes) for visit in (1, 4) if visit == 1 or not name.startswith(once)]


@pytest.mark.parametrize(("point", "visit"), visits("sqlite.", "record."))
async def test_sqlite(tmp_path: Path, point: str, visit: int) -> None:
    database = tmp_path / "state.db"

    acknowledged = run_until_killed(_WRITERS, str(database), point, visit)
    newest = 0
    for _ in range(2):
        store = SQLiteStore(database)
        await store.open()
        newest_now = await check(store, acknowledged)
        assert newest_now > newest
        newest = newest_now
        await store.close()


@pytest.mark.parametrize(("point", "visit"), visits("etcd."))
async def test_etcd(etcd_url: str, point: str, visit: int) -> None:
    acknowledged = run_until_killed(_WRITERS, etcd_url, point, visit)
    store = EtcdStore(parse(etcd_url))
    await store.open()
    await check(store, acknowledged)
    await store.close()


@pytest.mark.parametrize("point", points("recovery.", "record."))
async def test_accepting_a_loss(tmp_path: Path, point: str) -> None:
    database = tmp_path / "state.db"
    store = SQLiteStore(database)
    await store.open()
    for i in range(10):
        await store.commit([Put(f"/{side}/{i}", b"x") for side in "ab"])
    await store.close()
    (tmp_path / "state.db.record").write_bytes(b"damaged")

    run_until_killed(_RECOVERY, str(database), point, 1)
    again = SQLiteStore(database)
    if point != "record.create.after":
        with pytest.raises(StoreUnavailable, match="--accept-loss"):
            await again.open()
        accept_loss(database, tmp_path / "state.db.record")
    await again.open()
    assert len((await again.range("/")).entries) == 20
    assert await check(again, []) > 1_000_000
    await again.close()


def test_every_point_is_tested() -> None:
    # Which others are known depends on what this process imported; the supervisor's are tested beside it.
    elsewhere = points("supervisor.")
    tested = points("sqlite.", "etcd.", "record.", "recovery.")
    assert tested == [name for name in failpoints.known() if name not in elsewhere]
    assert len(tested) >= 14


def test_off_they_cost_next_to_nothing_and_a_wrong_action_is_an_error() -> None:
    assert not failpoints.armed
    with pytest.raises(ValueError, match="can kill, error or wait"):
        failpoints.Point("test.point").arm("explode")
    failpoints._known.pop("test.point")
