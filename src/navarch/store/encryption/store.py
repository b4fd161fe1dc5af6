"""`EncryptedStore`: a store whose values are encrypted before they reach another one.

In: what `Store` takes.  Out: the same, with values encrypted on their way in and decrypted on their way out. Revisions
and keys are the inner store's; comparing and swapping knows nothing of values, so it is not affected.

A value that cannot be decrypted is passed on as it is: the caches find that it is no object, and say so to whoever asks
for it, rather than that one lost key keeps a whole cluster from starting. What should be encrypted anew, because its
key is not today's, is `stale` until it is written again. When keys change, a service's or those of the file, or when a
service can be asked again, all is looked at anew; `readable_again` is called if what could not be read now can.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from navarch.store.base import Conflict, Delete, Entry, Event, Page, Progress, Put, Store
from navarch.store.encryption.config import Encryption
from navarch.store.encryption.kms import KMS
from navarch.store.encryption.providers import DecryptError, NeedsKey

log = logging.getLogger(__name__)

_ROOT: Final = "/registry/"
# How much of the store is looked at between two turns of others.
_PAGE: Final = 500


class EncryptedStore:
    def __init__(self, inner: Store, encryption: Encryption) -> None:
        self._inner = inner
        self._encryption = encryption
        self.stale: set[str] = set()
        self.unreadable: set[str] = set()
        self.readable_again: Callable[[], Awaitable[None]] | None = None
        self._looking = asyncio.Lock()

    @property
    def max_ops(self) -> int:
        return self._inner.max_ops

    async def open(self) -> None:
        """Raises StoreUnavailable."""
        await self._open(self._encryption)
        await self._inner.open()

    async def _open(self, encryption: Encryption) -> None:
        """Raises StoreUnavailable."""
        for kms in encryption.kms:
            kms.changed = self.look_again
            try:
                await kms.open()
            except BaseException:
                await _closed(encryption)
                raise

    async def use(self, encryption: Encryption) -> None:
        """Go by another configuration from now on.  Raises StoreUnavailable, where all stays as it was."""
        await self._open(encryption)
        before, self._encryption = self._encryption, encryption
        await self.look_again()
        await _closed(before)

    async def look_again(self) -> None:
        """Find out what is stale, and what can be read, by the keys of now."""
        async with self._looking:
            lost, after = set(self.unreadable), ""
            while True:
                page = await self._inner.range(_ROOT, limit=_PAGE, after=after)
                for entry in page.entries:
                    await self._plain(entry.key, entry.value)
                if len(page.entries) < _PAGE:
                    break
                after = page.entries[-1].key
                await asyncio.sleep(0)
            if self.readable_again is not None and self.unreadable != lost:
                await self.readable_again()

    @property
    def services(self) -> Sequence[KMS]:
        """The key management services that are asked now."""
        return self._encryption.kms

    async def close(self) -> None:
        await self._inner.close()
        await _closed(self._encryption)

    async def get(self, key: str) -> Entry | None:
        entry = await self._inner.get(key)
        return None if entry is None else await self._decrypted(entry)

    async def range(self, prefix: str, *, revision: int = 0, limit: int = 0, after: str = "") -> Page:
        page = await self._inner.range(prefix, revision=revision, limit=limit, after=after)
        return page._replace(entries=[await self._decrypted(entry) for entry in page.entries])

    async def commit(self, ops: Sequence[Put | Delete]) -> int:
        try:
            revision = await self._inner.commit([self._encrypted(op) for op in ops])
        except Conflict as error:
            if error.current is not None:
                error.current = await self._decrypted(error.current)
            raise
        for op in ops:
            self.stale.discard(op.key)
            self.unreadable.discard(op.key)
        return revision

    async def watch(self, prefix: str, since: int) -> AsyncIterator[Event | Progress]:
        async for event in self._inner.watch(prefix, since):
            if isinstance(event, Progress) or event.value is None:
                yield event
            else:
                yield event._replace(value=await self._plain(event.key, event.value))

    async def revision(self) -> int:
        return await self._inner.revision()

    def known_revision(self) -> int | None:
        return self._inner.known_revision()

    async def check(self) -> None:
        await self._inner.check()

    async def compact(self, revision: int) -> None:
        await self._inner.compact(revision)

    async def crowded(self) -> bool:
        return await self._inner.crowded()

    async def expire(self) -> int:
        return await self._inner.expire()

    def _encrypted(self, op: Put | Delete) -> Put | Delete:
        if isinstance(op, Delete) or (providers := self._encryption.providers_of(op.key)) is None:
            return op
        return Put(op.key, providers.encrypt(op.value, op.key), op.expected, op.ttl_s)

    async def _decrypted(self, entry: Entry) -> Entry:
        return entry._replace(value=await self._plain(entry.key, entry.value))

    async def _plain(self, key: str, data: bytes) -> bytes:
        providers = self._encryption.providers_of(key)
        self.unreadable.discard(key)
        if providers is None:
            self.stale.discard(key)
            return data
        try:
            try:
                value, stale = providers.decrypt(data, key)
            except NeedsKey as needed:
                await needed.ask()
                value, stale = providers.decrypt(data, key)
        except (DecryptError, NeedsKey) as error:
            log.error("the stored value of %s cannot be decrypted: %s", key, error)
            self.unreadable.add(key)
            return data
        if stale:
            self.stale.add(key)
        else:
            self.stale.discard(key)
        return value


async def _closed(encryption: Encryption) -> None:
    for kms in encryption.kms:
        await kms.close()
