"""API servers that are killed under load keep every promise, over SQLite and over etcd.

Few kills here; `tools/crashes.py` goes on.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ..store.etcd_server import MISSING, Etcd, etcd_binary
from .running import Counts, play, schedule

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def held(counts: Counts, kills: int) -> None:
    assert not counts.faults, "\n".join(map(str, counts.faults))
    assert counts.kills == kills
    assert counts.acknowledged > 20
    assert counts.lists > 5
    assert counts.events > 20


async def test_a_server_over_sqlite_that_is_killed(tmp_path: Path) -> None:
    held(await play(tmp_path, seed=6, kills=4), 4)


@pytest.mark.skipif(etcd_binary() is None, reason=MISSING)
async def test_two_servers_over_one_etcd_either_of_which_is_killed(tmp_path: Path) -> None:
    with Etcd() as etcd:
        held(await play(tmp_path, seed=6, kills=4, etcd=etcd, servers=2), 4)


def test_a_seed_repeats_the_schedule() -> None:
    assert schedule("5-1", 40, 2, etcd=True) == schedule("5-1", 40, 2, etcd=True)
    assert schedule("5-1", 40, 2, etcd=True) != schedule("5-2", 40, 2, etcd=True)
