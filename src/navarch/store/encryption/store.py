"""`EncryptedStore`: a store whose values are encrypted before they reach another one.

In: what `Store` takes.  Out: the same, with values encrypted on their way in and decrypted on their way out. Revisions
and keys are the inner store's; comparing and swapping knows nothing of values, so it is not affected.

A value that cannot be decrypted is passed on as it is: the caches find that it is no object, and say so to whoever asks
for it, rather than that one lost key keeps a whole cluster from starting. What should be encrypted anew, because its
key is not today's, is `stale` until it is written again.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence

from navarch.store.base import Conflict, Delete, Entry, Event, Page, Progress, Put, Store
from navarch.store.encryption.config import Encryption
from navarch.store.encryption.providers import DecryptError, NeedsKey

log = logging.getLogger(__name__)


class EncryptedStore:
    def __init__(self, inner: Store, encryption: Encryption) -> None:
        self._inner = inner
        self._encryption = encryption
        self.stale: set[str] = set()

    @property
    def max_ops(self) -> int:
        return self._inner.max_ops

    async def open(self) -> None:
        """Raises StoreUnavailable."""
        for kms in self._encryption.kms:
            await kms.open()
        await self._inner.open()

    async def close(self) -> None:
        await self._inner.close()
        for kms in self._encryption.kms:
            await kms.close()

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
        self.stale.difference_update(op.key for op in ops)
        return revision

    async def watch(self, prefix: str, since: int) -> AsyncIterator[Event | Progress]:
        async for event in self._inner.watch(prefix, since):
            if isinstance(event, Progress) or event.value is None:
                yield event
            else:
                yield event._replace(value=await self._plain(event.key, event.value))

    async def revision(self) -> int:
        return await self._inner.revision()

    async def check(self) -> None:
        await self._inner.check()

    async def compact(self, revision: int) -> None:
        await self._inner.compact(revision)

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
        if providers is None:
            return data
        try:
            try:
                value, stale = providers.decrypt(data, key)
            except NeedsKey as needed:
                await needed.ask()
                value, stale = providers.decrypt(data, key)
        except (DecryptError, NeedsKey) as error:
            log.error("the stored value of %s cannot be decrypted: %s", key, error)
            return data
        if stale:
            self.stale.add(key)
        else:
            self.stale.discard(key)
        return value
