"""Lets property tests and fuzzers look for examples that nobody has thought of, round by round, until the time is over.

`make test` tries the same examples each time, so that it says the same of the same code.  Here each round has a seed of
its own, which is printed; `--seed` repeats that round exactly.  What is found becomes an `@example` of the test.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def explore(seed: int, examples: int, arguments: list[str]) -> bool:
    """One round; whether every property held."""
    print(f"seed {seed}, {examples} examples per test", flush=True)
    chosen = "hypothesis and not e2e and not containers and not namespaces"
    command = [sys.executable, "-m", "pytest", "-q", "-m", chosen]
    command += [f"--hypothesis-seed={seed}", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "NAVARCH_EXPLORE": str(examples)}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, help="repeat one round")
    parser.add_argument("--examples", type=int, default=500, help="examples per test and round")
    arguments, rest = parser.parse_known_args()
    end = time.monotonic() + arguments.minutes * 60
    while True:
        seed = random.SystemRandom().getrandbits(32) if arguments.seed is None else arguments.seed
        if not explore(seed, arguments.examples, rest):
            print(f"Found something. The same again: make explore SEED={seed}", file=sys.stderr)
            return 1
        if arguments.seed is not None or time.monotonic() >= end:
            return 0


if __name__ == "__main__":
    sys.exit(main())
