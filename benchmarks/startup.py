"""Start-up: from the command to a ready cluster, and what it takes when idle.

Ready means: `/readyz` answers ok, the default namespace is there, and a node is Ready. Without `--server` or
`--kubeconfig` it starts `navarch up` by itself; with `--command` it starts that and waits for the server of the given
kubeconfig. Memory and CPU are those of all processes whose command line contains `--match`; `start_cpu_s` is what they
and the command have taken when it returns, those of their children that have ended included.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Failed, Result, parser, run, say, target_of
from wire import Connection

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def matching(text: str) -> list[int]:
    """Processes whose command line contains the text, without this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if text.encode() in (entry / "cmdline").read_bytes().replace(b"\0", b" "):
                found.append(int(entry.name))
    return found


def memory_mb(pids: list[int]) -> Result:
    totals = {"Rss": 0, "Pss": 0}
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name = line.split(":")[0]
                if name in totals:
                    totals[name] += int(line.split()[1])
    return {"rss_mb": round(totals["Rss"] / 1024, 1), "pss_mb": round(totals["Pss"] / 1024, 1)}


def cpu_s(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS_PER_S


def used_s(pids: list[int]) -> float:
    """CPU of the processes, of their children that have ended, and of this process's."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = ended.ru_utime + ended.ru_stime
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15])) / _TICKS_PER_S
    return total


async def is_ready(options: object) -> bool:
    """One look at the three conditions."""
    try:
        target = target_of(options)  # type: ignore[arg-type]
        connection = await Connection.open(target)
    except (OSError, StopIteration, KeyError, TypeError):
        return False
    try:
        await connection.ask(target.request("GET", "/readyz"))
        await connection.ask(target.request("GET", "/api/v1/namespaces/default"))
        nodes = json.loads(await connection.ask(target.request("GET", "/api/v1/nodes")))["items"]
    except (Failed, OSError):
        return False
    finally:
        connection.close()
    conditions = [c for node in nodes for c in node.get("status", {}).get("conditions", ())]
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--command", help="what starts the cluster (default: navarch up --detach)")
    options.add_argument("--match", help="what the command lines of the cluster's processes contain")
    options.add_argument("--idle", type=float, default=20, help="seconds over which idle CPU is measured")
    options.add_argument("--settle", type=float, default=10, help="seconds between ready and idle")
    options.add_argument("--repeat", type=int, default=1)
    chosen = options.parse_args()

    async def once(home: str) -> Result:
        environment = dict(os.environ)
        command = shlex.split(chosen.command or "")
        if not command:
            environment |= {"NAVARCH_HOME": home, "KUBECONFIG": f"{home}/kubeconfig"}
            chosen.kubeconfig = Path(home, "kubeconfig")
            navarch = [sys.executable, "-m", "navarch.cli.main"]
            command = [*navarch, "up", "--name", "startup", "--runtime", "simulated", "--detach"]
        began, cpu_before_s = time.perf_counter(), used_s([])
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            while not await is_ready(chosen):
                await asyncio.sleep(0.005)
                if time.perf_counter() - began > 120:
                    raise Failed("not ready after 120 s")
            result: Result = {"ready_s": round(time.perf_counter() - began, 3)}
            say(f"ready after {result['ready_s']} s")
            await asyncio.to_thread(process.wait) if not chosen.command else None
            result["start_cpu_s"] = round(used_s(matching(chosen.match or home)) - cpu_before_s, 2)
            await asyncio.sleep(chosen.settle)
            pids = matching(chosen.match or home)
            before, since = cpu_s(pids), time.perf_counter()
            await asyncio.sleep(chosen.idle)
            used = (cpu_s(pids) - before) / max(time.perf_counter() - since, 1e-9)
            return {**result, "processes": len(pids), **memory_mb(pids), "idle_cpu_percent": round(used * 100, 2)}
        finally:
            if chosen.command:
                process.terminate()
            else:
                down = [sys.executable, "-m", "navarch.cli.main", "down", "--name", "startup", "--purge"]
                subprocess.run(down, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)

    # So that `finally` takes the cluster down, however the benchmark is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    async def bench() -> Result:
        runs = []
        for _ in range(chosen.repeat):
            with tempfile.TemporaryDirectory(prefix="navarch-startup-") as home:
                runs.append(await once(home))
        best = min(runs, key=lambda result: result["ready_s"])
        return {**best, "ready_s_all": [result["ready_s"] for result in runs]}

    run(bench, chosen)


if __name__ == "__main__":
    main()
