"""What was last durable, kept apart from the database: which one (its generation) and how far (its newest revision).

SQLite cannot tell a write-ahead log that lost its tail, or that is gone, from one that ended there. So each batch, once
it is durable and before anybody is told, is noted here: 36 bytes in a file mapped into memory, which costs a
microsecond and no system call. What is noted survives the end of the process at once, and a loss of power once the file
has been synced, about a second later; it is never ahead of the database. A database that is behind it has lost
something.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from pathlib import Path
from typing import Final, NamedTuple

from navarch.store import failpoints

_CREATE_BEFORE = failpoints.Point("record.create.before")
_CREATE_BETWEEN = failpoints.Point("record.create.between")
_CREATE_AFTER = failpoints.Point("record.create.after")

_SLOT: Final = struct.Struct("<8s16sQ")
_CHECKED: Final = struct.Struct("<8s16sQI")
_MAGIC: Final = b"navarch1"
# Two slots in different sectors are written in turn, so that one is whole whatever happens.
_STRIDE: Final = 512
_SIZE: Final = 2 * _STRIDE


class Noted(NamedTuple):
    """The database's generation (16 bytes in hexadecimal digits) and its newest durable revision."""

    generation: str
    revision: int


def read(path: Path) -> Noted | None:
    """None where there is no record.  Raises ValueError for one that is damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    found: list[Noted] = []
    for start in (0, _STRIDE):
        slot = data[start : start + _CHECKED.size]
        if len(slot) == _CHECKED.size and slot.startswith(_MAGIC):
            _, generation, revision, checksum = _CHECKED.unpack(slot)
            if checksum == zlib.crc32(slot[: _SLOT.size]):
                found.append(Noted(generation.hex(), revision))
    if not found:
        raise ValueError(f"{path} is damaged")
    return max(found, key=lambda noted: noted.revision)


def create(path: Path, noted: Noted) -> None:
    """Write a record anew, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    if failpoints.armed:
        _CREATE_BEFORE.visit()
    with open(partial, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        slot = _slot(noted.generation, noted.revision)
        file.write((slot + bytes(_STRIDE - len(slot))) * 2)
        file.flush()
        os.fsync(file.fileno())
    if failpoints.armed:
        _CREATE_BETWEEN.visit()
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    if failpoints.armed:
        _CREATE_AFTER.visit()


def _slot(generation: str, revision: int) -> bytes:
    slot = _SLOT.pack(_MAGIC, bytes.fromhex(generation), revision)
    return slot + zlib.crc32(slot).to_bytes(4, "little")


class Record:
    """An existing record, open for notes."""

    def __init__(self, path: Path, generation: str) -> None:
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SIZE)
        self._generation = generation
        self._start = 0

    def note(self, revision: int) -> None:
        slot = _slot(self._generation, revision)
        start = self._start = _STRIDE - self._start
        self._map[start : start + len(slot)] = slot

    def sync(self) -> None:
        """Blocks until what was noted survives a loss of power."""
        self._map.flush()

    def close(self) -> None:
        self._map.close()
