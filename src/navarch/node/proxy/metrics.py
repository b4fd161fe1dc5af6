"""What the proxy tells of itself where `metricsBindAddress` has it: `/metrics`, `/proxyMode` and `/healthz`."""

from __future__ import annotations

import asyncio
from typing import Final

from navarch.node.proxy.health import serve_text
from navarch.world import MACHINE

_BOUNDS: Final = tuple(0.001 * 2**power for power in range(15))
_SYNC: Final = "kubeproxy_sync_proxy_rules"


class Metrics:
    """How often and how long rules were written."""

    def __init__(self) -> None:
        self._buckets = [0] * len(_BOUNDS)
        self._count = 0
        self._sum_s = 0.0
        self._last_s = 0.0

    def synced(self, took_s: float) -> None:
        self._count += 1
        self._sum_s += took_s
        self._last_s = MACHINE.now().timestamp()
        for number, bound in enumerate(_BOUNDS):
            if took_s <= bound:
                self._buckets[number] += 1

    def text(self) -> str:
        """In Prometheus' format."""
        lines = [f"# TYPE {_SYNC}_duration_seconds histogram"]
        lines += [
            f'{_SYNC}_duration_seconds_bucket{{le="{bound:g}"}} {count}'
            for bound, count in zip(_BOUNDS, self._buckets, strict=True)
        ]
        lines += [
            f'{_SYNC}_duration_seconds_bucket{{le="+Inf"}} {self._count}',
            f"{_SYNC}_duration_seconds_sum {self._sum_s:.6f}",
            f"{_SYNC}_duration_seconds_count {self._count}",
            f"# TYPE {_SYNC}_last_timestamp_seconds gauge",
            f"{_SYNC}_last_timestamp_seconds {self._last_s:.3f}",
        ]
        return "".join(f"{line}\n" for line in lines)


async def serve_metrics(address: str, port: int, metrics: Metrics, mode: str) -> asyncio.Server:
    """Raises OSError when the port is taken."""

    def answer(path: str) -> tuple[int, str]:
        if path == "/metrics":
            return 200, metrics.text()
        known = {"/proxyMode": mode, "/healthz": "ok"}
        return (200, known[path]) if path in known else (404, "404 page not found\n")

    return await serve_text(port, address, answer)
