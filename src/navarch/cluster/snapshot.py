"""A cluster in one file: its objects as they were at one moment, its keys and its settings.

Saved while the cluster runs or not. Put back, revisions go on where none was ever given out, as clients may know newer
ones than the copy has: they list anew. Files as they were stay, moved aside.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Final

from navarch.cluster import lifecycle
from navarch.cluster.config import ClusterConfig, ConfigError, check_name, data_dir_of, flags_of
from navarch.store import backup
from navarch.store.base import StoreUnavailable
from navarch.store.lock import holder
from navarch.store.recovery import Report, put_back

_SETTINGS: Final = "cluster.json"
_DATABASE: Final = "state.db"
_KEYS: Final = "pki/"
_AUTHORITY: Final = "ca.crt"
_OF_ETCD: Final = "the objects are in etcd: `etcdctl snapshot save` saves them; keep the cluster's folder with it"


def save(config: ClusterConfig, target: Path) -> int:
    """Write the file, whole or not at all; returns the revision that it is of.  Raises ConfigError, StartError."""
    if config.store != "sqlite":
        raise ConfigError(_OF_ETCD if config.shares_store else "a cluster whose objects are in memory cannot be saved")
    partial = target.with_name(target.name + ".partial")
    with tempfile.TemporaryDirectory(prefix="snapshot-", dir=config.root) as scratch:
        copy = Path(scratch, _DATABASE)
        try:
            revision = backup.copy(config.database, copy)
        except StoreUnavailable as error:
            raise lifecycle.StartError(f"nothing was saved: {error}") from error
        try:
            with open(partial, "wb", opener=_mine) as file:
                _pack(config, copy, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    return revision


def _mine(path: str, flags: int) -> int:
    """There are keys in it."""
    return os.open(path, flags, 0o600)


def _pack(config: ClusterConfig, copy: Path, file: IO[bytes]) -> None:
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=3) as archive:
        archive.add(config.root / _SETTINGS, _SETTINGS)
        for path in sorted(config.pki.iterdir()):
            if path.is_file() and path != config.store_record:
                archive.add(path, _KEYS + path.name)
        archive.add(copy, _DATABASE)


def restore(source: Path, name: str | None, data_dir: str | None) -> tuple[ClusterConfig, Report]:
    """Put the saved cluster back, under its name or another, in place of what is there if that is the same cluster at
    another time.  Raises ConfigError, with nothing changed."""
    try:
        with tarfile.open(source) as archive:
            members = {member.name: member for member in archive if member.isfile()}
            if not {_SETTINGS, _DATABASE, _KEYS + _AUTHORITY} <= members.keys():
                raise ConfigError(f"{source} is not what `navarch snapshot save` writes")
            settings = _read(archive, members[_SETTINGS])
            folder = data_dir_of(check_name(name or str(settings["name"])), data_dir)
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryDirectory(prefix="restoring-", dir=folder) as scratch:
                for member in members.values():
                    _unpack(archive, member, Path(scratch))
                return _put_back(Path(scratch), folder, name)
    except tarfile.ReadError as error:
        if not tarfile.is_tarfile(source):
            raise ConfigError(f"{source} is not what `navarch snapshot save` writes. Nothing was changed.") from error
        raise ConfigError(f"{source} is damaged: {error}. Nothing was changed.") from error
    except (tarfile.TarError, EOFError, ValueError, KeyError, sqlite3.Error) as error:
        raise ConfigError(f"{source} is damaged: {error}. Nothing was changed.") from error


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
    file = archive.extractfile(member)
    found = json.load(file) if file is not None else None
    if not isinstance(found, dict):
        raise ValueError(f"{member.name} holds no settings")
    return found


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Only what belongs in there, wherever its name would lead."""
    base = member.name.removeprefix(_KEYS)
    if "/" in base or base in ("", ".", ".."):
        raise ValueError(f"{member.name} does not belong in it")
    file = archive.extractfile(member)
    assert file is not None
    target = folder / member.name
    target.parent.mkdir(exist_ok=True, mode=0o700)
    with open(target, "wb", opener=_mine) as out:
        while chunk := file.read(1 << 20):
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())


def _put_back(unpacked: Path, folder: Path, name: str | None) -> tuple[ClusterConfig, Report]:
    backup.check(unpacked / _DATABASE)
    if (folder / _SETTINGS).exists():
        config = ClusterConfig.load(folder)
        _refuse_another(config, unpacked)
        return config, put_back(unpacked / _DATABASE, config.database, config.store_record)
    saved = ClusterConfig.load(unpacked)
    config = replace(saved, name=name or saved.name, data_dir=str(folder))
    _put_keys_back(unpacked / _KEYS, config.pki)
    report = put_back(unpacked / _DATABASE, config.database, config.store_record)
    # Last: before, nobody takes the folder for a cluster's.
    config.save()
    return config, report


def _put_keys_back(unpacked: Path, keys: Path) -> None:
    if not keys.exists():
        unpacked.replace(keys)
    elif (keys / _AUTHORITY).read_bytes() != (unpacked / _AUTHORITY).read_bytes():
        raise ConfigError(f"{keys} holds the keys of another cluster; nothing was changed")


def _refuse_another(config: ClusterConfig, unpacked: Path) -> None:
    """Raises ConfigError where that cluster is another one, or runs."""
    if (config.pki / _AUTHORITY).read_bytes() != (unpacked / _KEYS / _AUTHORITY).read_bytes():
        raise ConfigError(
            f"cluster {config.name!r} is another one than was saved; nothing was changed. "
            "`--name` puts the saved one beside it."
        )
    if config.store != "sqlite":
        raise ConfigError(f"cluster {config.name!r} keeps its objects elsewhere; nothing was changed")
    if lifecycle.running(config) or holder(config.database) is not None:
        raise ConfigError(
            f"cluster {config.name!r} runs; nothing was changed. Stop it first: `navarch down{flags_of(config)}`"
        )
