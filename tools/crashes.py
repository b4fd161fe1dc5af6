"""Kills API servers hundreds of times while clients write, read and watch, and checks all that they were told.

`crashes.py [--store sqlite|etcd|pair] [--kills N] [--seed N]`: over SQLite, over etcd (which is killed, too), or two
API servers over one etcd. The seed is printed and repeats the schedule and what each client tries; what happens at the
same time differs. Exits with 1 and every fault, in words, with the servers' folders kept.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.crashes.running import Counts, play
from tests.store.etcd_server import MISSING, Etcd, etcd_binary


async def run(arguments: argparse.Namespace, folder: Path) -> Counts:
    def tell(what: str) -> None:
        if arguments.verbose or (":" in what and "faults" in what):
            print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)

    with contextlib.ExitStack() as stack:
        etcd = stack.enter_context(Etcd()) if arguments.store != "sqlite" else None
        return await play(
            folder, arguments.seed, kills=arguments.kills, per_session=arguments.per_session, etcd=etcd,
            servers=2 if arguments.store == "pair" else 1, tell=tell,
        )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("sqlite", "etcd", "pair"), default="sqlite")
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--per-session", type=int, default=20, help="kills after which everything is judged")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--verbose", action="store_true", help="tell of each kill")
    arguments = parser.parse_args()
    if arguments.store != "sqlite" and etcd_binary() is None:
        parser.error(MISSING)
    print(f"seed {arguments.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="navarch-crashes-"))
    counts = asyncio.run(run(arguments, folder))
    print(counts)
    if counts.faults:
        for fault in counts.faults[:20]:
            print(fault)
        print(f"The servers' folders: {folder}. The same again: --store {arguments.store} --seed {arguments.seed}")
        return 1
    import shutil

    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
