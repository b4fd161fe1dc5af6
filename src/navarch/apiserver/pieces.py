"""A long body that is put together while it is sent.

In: pieces, made one at a time, each in its turn of the loop; their length in all where that is known.  Out: what a
`Response` streams. The first piece goes out before the second is made, nobody else waits for more than one of them,
and of what a slow reader has not taken yet nothing is there but references to what the server has anyway.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from typing import Final

from isal import isal_zlib

from navarch.apiserver.longwork import LongWork
from navarch.records import frozen

# Bytes of a piece: copied, encrypted and written in some tenths of a millisecond.
PIECE: Final = 128 << 10
# What is longer than this is sent in pieces.
LONG: Final = 2 * PIECE
# Parts that are looked at together.
_FEW: Final = 12
_GZIP: Final = 31
_view: Callable[[bytes], memoryview] = memoryview


class Pieces(AsyncIterator[bytes]):
    """`length` None where it is not known before the end; what is in `closing` is called once, when nothing more will
    be asked for."""

    __slots__ = ("_pieces", "closing", "length")

    def __init__(self, pieces: AsyncGenerator[bytes, None], length: int | None = None) -> None:
        self._pieces = pieces
        self.length = length
        self.closing: list[Callable[[], None]] = []

    async def __anext__(self) -> bytes:
        return await anext(self._pieces)

    async def aclose(self) -> None:
        await self._pieces.aclose()
        closing, self.closing = self.closing, []
        for close in closing:
            close()

    async def joined(self) -> bytes:
        """The whole body."""
        try:
            return b"".join([piece async for piece in self])
        finally:
            await self.aclose()

    def packed(self) -> Pieces:
        """The same, compressed."""
        return Pieces(_packed(self))


async def _packed(pieces: Pieces) -> AsyncGenerator[bytes, None]:
    # ISA-L compresses a piece in a tenth of a millisecond, less than the way to a thread and back takes.
    packer = isal_zlib.compressobj(1, wbits=_GZIP)
    ready: list[bytes] = []
    size = 0
    try:
        async for piece in pieces:
            for start in range(0, len(piece), PIECE):
                some = packer.compress(piece[start : start + PIECE])
                ready.append(some)
                size += len(some)
            # A little at once: who waits for the list waits for its beginning.
            if size >= PIECE // 8:
                yield b"".join(ready)
                ready, size = [], 0
        yield b"".join([*ready, packer.flush()])
    finally:
        await pieces.aclose()


@frozen
class Parts:
    """The parts of a list, to be gone through once; `long` says that they are more than what is sent at once."""

    all: Iterable[bytes]
    count: int
    long: bool


def assembled(
    work: LongWork, start: bytes, parts: Parts, separator: bytes, end: bytes, *, skipped: int = 0
) -> bytes | Pieces:
    """The parts, without their first `skipped` bytes each, between a start and an end."""
    if not parts.long:
        return b"".join([start, _joined(list(parts.all), separator, skipped), end])
    return Pieces(in_turns(work, _surrounded(start, _gathered(parts.all, separator, skipped), end)))


async def in_blocks(
    work: LongWork, start: bytes, blocks: AsyncIterator[Sequence[bytes]], separator: bytes, end: bytes
) -> AsyncGenerator[bytes, None]:
    """The same of parts that come block by block, each a piece."""
    before = start
    async for parts in blocks:
        yield before + await work.turn(_joined, parts, separator, 0)
        before = separator
    yield end if before is separator else start + end


async def in_turns(work: LongWork, pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Each made in a turn of its own, which those who send something long take one after the other."""
    piece = next(pieces, None)
    while piece is not None:
        yield piece
        piece = await work.turn(next, pieces, None)


async def in_slices(
    work: LongWork, stages: AsyncIterator[Iterator[None]], texts: list[str], start: str = "", end: str = ""
) -> AsyncGenerator[bytes, None]:
    """What one stage's steps after another's write into `texts`, as it is written."""
    texts.insert(0, start)
    async for steps in stages:
        ended = False
        while not ended:
            ended = await work.slice(steps)
            if not ended or sum(map(len, texts)) > PIECE:
                yield "".join(texts).encode()
                texts.clear()
    if piece := "".join(texts) + end:
        yield piece.encode()


def cut(data: bytes) -> Iterator[bytes]:
    """What is whole already."""
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]


def _surrounded(start: bytes, pieces: Iterator[bytes], end: bytes) -> Iterator[bytes]:
    yield start + next(pieces, b"")
    yield from pieces
    yield end


def _gathered(parts: Iterable[bytes], separator: bytes, skipped: int) -> Iterator[bytes]:
    # But for the first, a piece begins with a separator: joined to a part that is empty.
    some: list[bytes] = []
    size, lead = 0, 0
    left = iter(parts)
    while few := list(islice(left, _FEW)):
        more = sum(map(len, few))
        if size + more < PIECE:
            some += few
            size += more
            continue
        for part in few:
            some.append(part)
            size += len(part)
            if size >= PIECE:
                yield _joined(some, separator, skipped)
                some, size, lead = [b""], 0, 1
    if len(some) > lead:
        yield _joined(some, separator, skipped)


def _joined(parts: Sequence[bytes], separator: bytes, skipped: int) -> bytes:
    # A thousand parts a piece: not even a comprehension goes through them as fast.
    return separator.join(map(itemgetter(slice(skipped, None)), map(_view, parts)) if skipped else parts)
