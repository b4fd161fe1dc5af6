"""Answers that are kept in wire form under the bytes of their query, the oldest going first.

What the cluster answered is good until one of the services changes on which it depends; what upstream answered, until
its time to live is over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from navarch.api.meta import Key

SIZE: Final = 16384
_FOR_EVER: Final = float("inf")
ANY: Final = Key("", "")
"""Stands for all services at once."""


class AnswerCache:
    """Bounded: `size` answers, and no more about which services they depend on."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._answers: dict[bytes, tuple[float, bytes, tuple[Key, ...]]] = {}
        self._of_service: dict[Key, set[bytes]] = {}

    def get(self, query: bytes, now_s: float) -> bytes | None:
        found = self._answers.get(query)
        if found is None:
            return None
        if found[0] <= now_s:
            self._drop(query)
            return None
        return found[1]

    def put(self, query: bytes, answer: bytes, *, expires_s: float = _FOR_EVER, services: Iterable[Key] = ()) -> None:
        self._drop(query)
        keys = tuple(services)
        self._answers[query] = expires_s, answer, keys
        for key in keys:
            self._of_service.setdefault(key, set()).add(query)
        if len(self._answers) > self._size:
            self._drop(next(iter(self._answers)))

    def changed(self, service: Key) -> None:
        """Forget what depends on a service."""
        for key in (service, ANY):
            for query in list(self._of_service.get(key, ())):
                self._drop(query)

    def __len__(self) -> int:
        return len(self._answers)

    def _drop(self, query: bytes) -> None:
        found = self._answers.pop(query, None)
        for key in found[2] if found is not None else ():
            queries = self._of_service[key]
            queries.discard(query)
            if not queries:
                del self._of_service[key]
