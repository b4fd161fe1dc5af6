"""How many of Kubernetes' recorded answers Navarch gives, by area, and where they differ.

`golden.py [AREA …] [--only REGEX] [--diffs N]` replays them in process; `--raise` writes what was reached into the
floors that the tests keep (`tests/golden/floors.json`), which never sink; what varies by run is not counted on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.golden import floors
from tests.golden.replay import MEASURES, Step, areas, replay, scores


def short(value: Any, length: int = 160) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= length else text[: length - 1] + "…"


def show(step: Step, count: int) -> None:
    wrong = " ".join(name for name, same in step.judged.items() if not same and name != "verdict")
    request = f"{step.request['method']} {step.request['path']}"
    print(f"{step.case}#{step.number}  {request}  {step.codes[0]} -> {step.codes[1]}  [{wrong}]")
    for path, theirs, ours in step.diffs[:count]:
        print(f"    {path}: {short(theirs)}  ->  {short(ours)}")
    if len(step.diffs) > count:
        print(f"    … {len(step.diffs)} differences")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("area", nargs="*")
    parser.add_argument("--only", default="", help="cases whose name matches")
    parser.add_argument("--diffs", type=int, default=0, help="show steps that differ, with up to N differences each")
    parser.add_argument("--raise", action="store_true", dest="raise_floors")
    arguments = parser.parse_args()
    if not areas():
        print("shared/golden is not beside this repository", file=sys.stderr)
        return 2
    started, used = time.monotonic(), time.process_time()
    runs = [
        asyncio.run(replay(arguments.area or areas(), arguments.only)) for _ in range(1 + 2 * arguments.raise_floors)
    ]
    steps = runs[0]
    if arguments.diffs:
        for step in steps:
            if not step.on_purpose and not all(step.judged.values()):
                show(step, arguments.diffs)
    print(f"{'area':<16}{'steps':>7}" + "".join(f"{measure:>10}" for measure in MEASURES))
    found = scores(steps)
    for area in [*sorted(name for name in found if name != "total"), "total"]:
        line = "".join(f"{found[area].percent(measure):>9.1f}%" for measure in MEASURES)
        print(f"{area:<16}{found[area].steps:>7}{line}")
    print(f"{time.monotonic() - started:.0f} s, {time.process_time() - used:.0f} s of CPU", file=sys.stderr)
    if arguments.raise_floors:
        floors.lift([scores(run) for run in runs])
    return 0


if __name__ == "__main__":
    sys.exit(main())
