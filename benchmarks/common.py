"""What all benchmarks share: options, the target, timing, and how results are shown.

Progress goes to stderr; the result to stdout, for people, or as JSON with `-o json`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import ssl
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from wire import Connection, Failed, Target

Result = dict[str, Any]


def parser(description: str) -> argparse.ArgumentParser:
    """Options that every benchmark takes: any Kubernetes API server will do."""
    options = argparse.ArgumentParser(description=description)
    where = options.add_argument_group("the API server (default: the current context of the kubeconfig)")
    where.add_argument("--server", help="its URL")
    where.add_argument("--token", help="a bearer token")
    where.add_argument("--kubeconfig", type=Path, help="default: $KUBECONFIG or ~/.kube/config")
    where.add_argument("--context", help="default: the current one")
    where.add_argument("--insecure", action="store_true", help="do not verify the server's certificate")
    options.add_argument("-o", "--output", choices=("text", "json"), default="text")
    return options


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def target_of(options: argparse.Namespace) -> Target:
    """Where the options point."""
    if options.server:
        tls = _context(insecure=options.insecure) if options.server.startswith("https") else None
        return Target(options.server, tls, options.token or "")
    path = options.kubeconfig or Path((os.environ.get("KUBECONFIG") or "~/.kube/config").split(os.pathsep)[0])
    config = yaml.safe_load(path.expanduser().read_text())
    context = _named(config["contexts"], options.context or config["current-context"])["context"]
    cluster = _named(config["clusters"], context["cluster"])["cluster"]
    user = _named(config["users"], context["user"])["user"]
    return Target(
        cluster["server"],
        _tls(cluster, user, path.expanduser().parent, insecure=options.insecure),
        options.token or user.get("token", ""),
    )


def _named(entries: Iterable[Result], name: str) -> Result:
    return next(entry for entry in entries if entry["name"] == name)


def _context(*, insecure: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _tls(cluster: Result, user: Result, folder: Path, *, insecure: bool) -> ssl.SSLContext | None:
    if not cluster["server"].startswith("https"):
        return None
    context = _context(insecure=insecure or bool(cluster.get("insecure-skip-tls-verify")))
    if data := cluster.get("certificate-authority-data"):
        context.load_verify_locations(cadata=base64.b64decode(data).decode())
    elif file := cluster.get("certificate-authority"):
        context.load_verify_locations(cafile=str(folder / file))
    if data := user.get("client-certificate-data"):
        with tempfile.NamedTemporaryFile(suffix=".pem") as pem:
            pem.write(base64.b64decode(data) + b"\n" + base64.b64decode(user["client-key-data"]))
            pem.flush()
            context.load_cert_chain(pem.name)
    elif file := user.get("client-certificate"):
        context.load_cert_chain(str(folder / file), str(folder / user["client-key"]))
    return context


def run(main: Callable[[], Awaitable[Result]], options: argparse.Namespace) -> None:
    """Run a benchmark and show its result."""
    import uvloop

    try:
        result = uvloop.run(main())  # type: ignore[arg-type]
    except Failed as error:
        sys.exit(f"{error}")
    if options.output == "json":
        print(json.dumps(result, indent=2))
    else:
        for name, value in result.items():
            print(f"{name:24}", _text(value))


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{name} {_text(part)}" for name, part in value.items())
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def summary(latencies_s: list[float], elapsed_s: float) -> Result:
    """Rate and percentiles."""
    ordered = sorted(latencies_s)

    def percentile(share: float) -> float:
        return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000, 3) if ordered else 0.0

    return {
        "count": len(ordered),
        "seconds": round(elapsed_s, 3),
        "per_second": round(len(ordered) / elapsed_s, 1) if elapsed_s else 0.0,
        "p50_ms": percentile(0.5),
        "p90_ms": percentile(0.9),
        "p99_ms": percentile(0.99),
    }


async def drive(connections: list[Connection], requests: list[bytes]) -> Result:
    """Send all requests, each connection one after the other, and measure."""
    queue = iter(requests)
    latencies_s: list[float] = []

    async def one(connection: Connection) -> None:
        for request in queue:
            began = time.perf_counter()
            await connection.ask(request)
            latencies_s.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(one(connection) for connection in connections))
    return summary(latencies_s, time.perf_counter() - began)


class Namespace:
    """A namespace of its own for a benchmark, gone when it is over."""

    def __init__(self, target: Target, *, wait_until_gone: bool = False) -> None:
        self.target = target
        self.name = f"bench-{uuid.uuid4().hex[:8]}"
        self._wait = wait_until_gone

    async def __aenter__(self) -> Namespace:
        self._connection = await Connection.open(self.target)
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name}}
        await self._connection.ask(self.target.request("POST", "/api/v1/namespaces", json.dumps(body).encode()))
        await self._account_ready()
        return self

    async def _account_ready(self) -> None:
        """Pods are admitted once the default service account is there; a bare API server never makes one."""
        path = f"/api/v1/namespaces/{self.name}/serviceaccounts"
        for _ in range(100):
            status, _ = await self._connection.send(self.target.request("GET", f"{path}/default"))
            if status == 200:
                return
            await asyncio.sleep(0.05)
        body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        await self._connection.send(self.target.request("POST", path, json.dumps(body).encode()))

    async def __aexit__(self, *_: object) -> None:
        path = f"/api/v1/namespaces/{self.name}"
        await self._connection.send(self.target.request("DELETE", path))
        while self._wait:
            status, _ = await self._connection.send(self.target.request("GET", path))
            if status == 404:
                break
            await asyncio.sleep(0.2)
        self._connection.close()
