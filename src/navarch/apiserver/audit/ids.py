"""What a request is called in the audit log and in its answer: the client's own name for it, else one that is made.

Every answer has the header, audited or not. A name is a UUID whose beginning is drawn once and whose end counts, since
nobody has to guess it and every request pays for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Final

from navarch.api.meta import new_uid
from navarch.world import World

HEADER: Final = "Audit-Id"
# What comes before the last group of a UUID's digits.
_HEAD: Final = 24


def audit_ids(world: World) -> Iterator[str]:
    head = new_uid(world.identities("audit"))[:_HEAD]
    # Without a frame of Python: every request asks.
    return map(f"{head}%012x".__mod__, count())
