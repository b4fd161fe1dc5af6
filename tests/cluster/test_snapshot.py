"""A cluster that was saved while it was written to comes back as it was at one moment, or not at all."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from navarch.cluster import pki, snapshot
from navarch.cluster.config import ClusterConfig, ConfigError
from navarch.cluster.lifecycle import StartError
from navarch.store.base import Compacted, Put
from navarch.store.sqlite import SQLiteStore


@pytest.fixture
def config(tmp_path: Path) -> ClusterConfig:
    config = ClusterConfig("saved", str(tmp_path / "saved"))
    config.save()
    pki.ensure(config)
    return config


def store_of(config: ClusterConfig) -> SQLiteStore:
    return SQLiteStore(config.database, record=config.store_record)


async def contents(config: ClusterConfig) -> dict[str, bytes]:
    store = store_of(config)
    await store.open()
    try:
        return {entry.key: entry.value for entry in (await store.range("/")).entries}
    finally:
        await store.close()


async def write(config: ClusterConfig, *names: str) -> int:
    store = store_of(config)
    await store.open()
    try:
        return [await store.commit([Put(f"/{name}", name.encode())]) for name in names][-1]
    finally:
        await store.close()


async def test_it_is_saved_under_load_as_it_was_at_one_moment(config: ClusterConfig, tmp_path: Path) -> None:
    store = store_of(config)
    await store.open()
    stopping = asyncio.Event()

    async def pairs() -> None:
        number = 0
        while not stopping.is_set():
            number += 1
            await store.commit([Put(f"/{side}", str(number).encode()) for side in "ab"])

    writing = asyncio.create_task(pairs())
    target = tmp_path / "saved.snapshot"
    revisions = [await asyncio.to_thread(snapshot.save, config, target) for _ in range(3)]
    stopping.set()
    await writing
    newest = await store.revision()
    await store.close()

    again, report = snapshot.restore(target, "other", str(tmp_path / "other"))
    found = await contents(again)
    assert revisions == sorted(revisions)
    assert report.kept == 2
    assert found["/a"] == found["/b"]
    assert again.name == "other"
    assert (again.pki / "ca.crt").read_bytes() == (config.pki / "ca.crt").read_bytes()
    assert newest >= revisions[-1]


async def test_put_back_it_gives_out_no_revision_twice_and_knows_no_past(config: ClusterConfig, tmp_path: Path) -> None:
    old = await write(config, "a", "b")
    target = tmp_path / "saved.snapshot"
    snapshot.save(config, target)
    newer = await write(config, "c", "a")

    again, report = snapshot.restore(target, None, config.data_dir)

    assert again == config
    assert report.aside == str(config.database) + ".lost-1"
    assert await contents(config) == {"/a": b"a", "/b": b"b"}
    store = store_of(config)
    await store.open()
    assert await store.commit([Put("/d", b"d")]) > newer
    with pytest.raises(Compacted):
        await anext(store.watch("/", old))
    await store.close()


async def test_it_is_its_owners_alone(config: ClusterConfig, tmp_path: Path) -> None:
    await write(config, "a")
    target = tmp_path / "saved.snapshot"
    before = os.umask(0)
    try:
        snapshot.save(config, target)
        again, _ = snapshot.restore(target, "other", str(tmp_path / "other"))
    finally:
        os.umask(before)
    for path in (target, again.database, again.pki / "ca.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(config.root.glob("snapshot-*")) == []


async def test_a_damaged_database_is_reported_and_not_saved(config: ClusterConfig, tmp_path: Path) -> None:
    await write(config, *(f"{number:04}" for number in range(2000)))
    data = bytearray(config.database.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40_000] = b"\xaa" * 40_000
    config.database.write_bytes(data)
    target = tmp_path / "saved.snapshot"
    target.write_bytes(b"the one of yesterday")

    with pytest.raises(StartError, match=r"nothing was saved: cannot copy"):
        snapshot.save(config, target)

    assert target.read_bytes() == b"the one of yesterday"


async def test_a_damaged_snapshot_changes_nothing(config: ClusterConfig, tmp_path: Path) -> None:
    await write(config, "a")
    target = tmp_path / "saved.snapshot"
    snapshot.save(config, target)
    await write(config, "b")
    data = target.read_bytes()
    for damaged in (data[: len(data) // 2], b"not a snapshot", data[:200] + bytes(2000) + data[2200:]):
        target.write_bytes(damaged)
        with pytest.raises(ConfigError, match="damaged"):
            snapshot.restore(target, None, config.data_dir)
    assert await contents(config) == {"/a": b"a", "/b": b"b"}


@pytest.mark.parametrize("text", [b"", b"# A page about something else\n"])
def test_what_is_no_snapshot_is_called_so(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "notes.md"
    file.write_bytes(text)

    with pytest.raises(ConfigError, match="is not what `navarch snapshot save` writes"):
        snapshot.restore(file, "other", str(tmp_path / "other"))

    assert not (tmp_path / "other").exists()


async def test_a_running_cluster_and_another_one_are_left_alone(config: ClusterConfig, tmp_path: Path) -> None:
    await write(config, "a")
    target = tmp_path / "saved.snapshot"
    snapshot.save(config, target)
    store = store_of(config)
    await store.open()
    with pytest.raises(ConfigError, match="runs; nothing was changed"):
        snapshot.restore(target, None, config.data_dir)
    await store.close()

    other = ClusterConfig("other", str(tmp_path / "other"))
    other.save()
    pki.ensure(other)
    with pytest.raises(ConfigError, match="another one than was saved"):
        snapshot.restore(target, None, other.data_dir)


async def test_names_that_lead_elsewhere_are_refused(config: ClusterConfig, tmp_path: Path) -> None:
    await write(config, "a")
    target = tmp_path / "saved.snapshot"
    snapshot.save(config, target)
    with tarfile.open(target) as archive:
        kept = [(member, archive.extractfile(member)) for member in archive]
        members = [(member, file.read() if file else b"") for member, file in kept]
    for name in ("../escaped", "/tmp/checker-escaped", "pki/../../escaped", "pki/.."):
        with tarfile.open(target, "w:gz") as archive:
            evil = tarfile.TarInfo(name)
            evil.size = 4
            for member, data in [*members, (evil, b"evil")]:
                archive.addfile(member, io.BytesIO(data))
        with pytest.raises(ConfigError, match="does not belong in it"):
            snapshot.restore(target, "other", str(tmp_path / "deep" / "other"))
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize(("store", "why"), [("memory", "in memory"), ("etcd://127.0.0.1:1", "etcdctl snapshot save")])
def test_what_is_not_in_a_file_is_saved_otherwise(tmp_path: Path, store: str, why: str) -> None:
    config = ClusterConfig("elsewhere", str(tmp_path / "elsewhere"), store=store)
    with pytest.raises(ConfigError, match=why):
        snapshot.save(config, tmp_path / "file")
