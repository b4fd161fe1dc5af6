"""nft that does not come back: the call ends with an error, and the process is gone."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from navarch.cluster.state import start_ticks
from navarch.node.proxy.nftables import NftError, run_nft


async def test_an_nft_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "nft"
    fake.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    with pytest.raises(NftError, match=r"did not end within 0\.5 s"):
        await run_nft("-f", "-", script="list tables\n", limit_s=0.5)

    await _gone(int((tmp_path / "pid").read_text()))


async def _gone(pid: int) -> None:
    async with asyncio.timeout(5):
        while start_ticks(pid):
            await asyncio.sleep(0.01)
