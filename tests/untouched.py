"""Whether anybody changes what an informer holds: its objects are everybody's, and pods share parts with other pods."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import orjson
import pytest

from navarch.api.meta import Key, Obj
from navarch.client.informer import Informer


@contextmanager
def informers_untouched() -> Iterator[None]:
    """Fails at its end where an object no longer says what it said when an informer took it."""
    taken: list[tuple[Obj, bytes]] = []
    reindex = Informer._reindex

    def noting(self: Informer, key: Key, old: Obj | None, new: Obj | None) -> None:
        if new is not None:
            taken.append((new, orjson.dumps(new)))
        reindex(self, key, old, new)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Informer, "_reindex", noting)
        yield
    changed = [(before, orjson.dumps(obj)) for obj, before in taken if orjson.dumps(obj) != before]
    assert not changed, f"{len(changed)} objects of informers were changed, the first from {changed[0]}"
