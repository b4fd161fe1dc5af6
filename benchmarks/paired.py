"""Two API servers side by side, in small batches that take turns: what the CPU of each costs per request.

A machine whose speed changes from minute to minute says nothing about two runs one after the other. Here a batch of the
same requests goes to one server, then to the other, then in the other order; what is compared are the two batches of
one turn, by the CPU time that the kernel counted for the server's process. Each server is given as KUBECONFIG:PID (its
processes must be on this machine).

    navarch up -d --name before ...; navarch up -d --name after ...; navarch status --name before   (shows the pid)
    python benchmarks/paired.py --seconds 60 before.kubeconfig:123 after.kubeconfig:456
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from pathlib import Path
from typing import Final

import orjson
from common import Namespace, Result, parser, run, say, target_of
from pods_crud import pod
from wire import Connection, Target

_BATCH: Final = 64
_CONNECTIONS: Final = 32
_PATCH: Final = b'{"metadata":{"annotations":{"example.com/touched":"yes"}}}'
_MERGE: Final = "application/merge-patch+json"
_STRATEGIC: Final = "application/strategic-merge-patch+json"
_CONDITIONS: Final = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


def _first_status(index: int) -> bytes:
    """What a kubelet says of a pod that runs now."""
    now, address = "2026-11-26T05:00:00Z", f"10.244.{index // 250}.{index % 250 + 1}"
    return orjson.dumps(
        {
            "status": {
                "$setElementOrder/conditions": [{"type": kind} for kind in _CONDITIONS],
                "conditions": [
                    {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
                    for kind in _CONDITIONS
                ],
                "containerStatuses": [
                    {
                        "name": "web",
                        "image": "registry.example.com/team/web:1.2.3",
                        "imageID": "registry.example.com/team/web@sha256:" + "ab" * 32,
                        "containerID": f"containerd://{index:064x}",
                        "ready": True,
                        "started": True,
                        "restartCount": 0,
                        "state": {"running": {"startedAt": now}},
                        "lastState": {},
                    }
                ],
                "phase": "Running",
                "startTime": now,
                "hostIP": "10.0.0.7",
                "hostIPs": [{"ip": "10.0.0.7"}],
                "podIP": address,
                "podIPs": [{"ip": address}],
            }
        }
    )


class Server:
    """One of the two; `cpu_us` holds, by phase, the CPU per request of each of its batches."""

    def __init__(self, place: str, options: argparse.Namespace) -> None:
        kubeconfig, _, pid = place.rpartition(":")
        self.target: Target = target_of(argparse.Namespace(**{**vars(options), "kubeconfig": Path(kubeconfig)}))
        self._tasks = Path(f"/proc/{int(pid)}/task")
        self.cpu_us: dict[str, list[float]] = {}
        self.connections: list[Connection] = []

    def _spent_us(self) -> float:
        """So far, by all its threads."""
        return sum(int((task / "schedstat").read_text().split()[0]) for task in self._tasks.iterdir()) / 1000

    async def phase(self, name: str, requests: list[bytes]) -> None:
        async def drive(connection: Connection, own: list[bytes]) -> None:
            for request in own:
                await connection.ask(request)

        before = self._spent_us()
        await asyncio.gather(
            *(drive(each, requests[index::_CONNECTIONS]) for index, each in enumerate(self.connections))
        )
        self.cpu_us.setdefault(name, []).append((self._spent_us() - before) / len(requests))

    async def turn(self, namespace: str, number: int) -> None:
        path, request = f"/api/v1/namespaces/{namespace}/pods", self.target.request
        names = [f"pod-{number}-{index}" for index in range(_BATCH)]
        await self.phase("create", [request("POST", path, pod(name, 0)) for name in names])
        await self.phase("get", [request("GET", f"{path}/{name}") for name in names * 2])
        await self.phase(
            "status",
            [
                request("PATCH", f"{path}/{name}/status", _first_status(index), _STRATEGIC)
                for index, name in enumerate(names)
            ],
        )
        await self.phase("patch", [request("PATCH", f"{path}/{name}", _PATCH, _MERGE) for name in names])
        await self.phase("delete", [request("DELETE", f"{path}/{name}") for name in names])


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("before", metavar="KUBECONFIG:PID")
    options.add_argument("after", metavar="KUBECONFIG:PID")
    options.add_argument("--seconds", type=float, default=60)
    chosen = options.parse_args()

    async def bench() -> Result:
        before, after = Server(chosen.before, chosen), Server(chosen.after, chosen)
        async with Namespace(before.target) as first, Namespace(after.target) as second:
            for server in (before, after):
                server.connections = [await Connection.open(server.target) for _ in range(_CONNECTIONS)]
            say(f"{chosen.seconds:.0f} s of batches of {_BATCH} pods")
            turns, until_s = 0, time.monotonic() + chosen.seconds
            while time.monotonic() < until_s:
                pair = [(before, first.name), (after, second.name)]
                for server, namespace in pair if turns % 2 == 0 else reversed(pair):
                    await server.turn(namespace, turns)
                turns += 1
        return {
            name: {
                "before_us": round(statistics.median(before.cpu_us[name])),
                "after_us": round(statistics.median(after.cpu_us[name])),
                "after_to_before": round(
                    statistics.median(b / a for a, b in zip(before.cpu_us[name], after.cpu_us[name], strict=True)), 3
                ),
                "turns": turns,
            }
            for name in before.cpu_us
        }

    run(bench, chosen)


if __name__ == "__main__":
    main()
