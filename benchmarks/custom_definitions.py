"""What big and many CustomResourceDefinitions cost: one of a megabyte, and a start with hundreds of them.

An API server in a process of its own, store in memory: how long until a megabyte of schema is accepted, until it is
served, until its first object is written, and for how long at most nobody else is served meanwhile; then the start and
the memory of a server whose store has many definitions, before and after discovery and OpenAPI are asked for.

    python benchmarks/custom_definitions.py --definitions 300 --bytes 100000
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from navarch.apiserver.codec import Codec
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import LOOPBACK
from navarch.client.transport import Request
from navarch.kinds.resources import CUSTOM_RESOURCE_DEFINITIONS
from navarch.store.base import Put
from navarch.store.memory import MemoryStore

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def fields(prefix: str) -> dict[str, Any]:
    """About 2 kB of schema, as generators write it."""
    words = "The behaviour of this part of the resource, as its authors describe it at some length for readers."
    return {
        f"{prefix}Text": {"type": "string", "description": words, "maxLength": 253, "pattern": "^[a-z0-9.-]*$"},
        f"{prefix}Count": {"type": "integer", "format": "int32", "description": words, "minimum": 0, "default": 1},
        f"{prefix}Either": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        f"{prefix}Labels": {"type": "object", "additionalProperties": {"type": "string"}, "description": words},
        f"{prefix}Items": {
            "type": "array",
            "description": words,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "description": words},
                    "mode": {"type": "string", "enum": ["One", "Two"], "description": words},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            },
        },
    }


def definition(plural: str, size: int) -> dict[str, Any]:
    """A definition of about that many bytes."""
    properties: dict[str, Any] = {}
    part = len(json.dumps(fields("part0000")))
    for number in range(max(1, size // (part * 5))):
        inner: dict[str, Any] = {}
        for below in range(5):
            inner |= fields(f"part{below:04}")
        properties[f"group{number:04}"] = {"type": "object", "properties": inner}
    spec = {"type": "object", "properties": properties}
    status = {"type": "object", "properties": {"phase": {"type": "string"}}}
    kind = plural.capitalize()
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.bench.example.com"},
        "spec": {
            "group": "bench.example.com",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind, "singular": plural, "listKind": f"{kind}List"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": status}}},
                }
            ],
        },
    }


async def ask(server: ApiServer, method: str, path: str, body: Any = None, accept: str = "") -> tuple[int, bytes]:
    headers = {"content-type": "application/json"} | ({"accept": accept} if accept else {})
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    response = await server.handle(Request(method, path, [], headers, data), LOOPBACK)
    assert isinstance(response.body, bytes)
    return response.status, response.body


class Pauses:
    """The longest time for which the loop did not turn."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        last_s = time.monotonic()
        while True:
            await asyncio.sleep(0.001)
            now_s = time.monotonic()
            self.longest_s = max(self.longest_s, now_s - last_s - 0.001)
            last_s = now_s

    def stop(self) -> float:
        self._task.cancel()
        return self.longest_s


async def one_big(size: int) -> dict[str, float]:
    server = ApiServer(MemoryStore())
    await server.start()
    await ask(server, "POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
    body = json.dumps(definition("bigs", size)).encode()
    await asyncio.sleep(0.2)
    pauses, began_s = Pauses(), time.monotonic()
    status, answer = await ask(server, "POST", CRDS, body)
    if status != 201:
        raise SystemExit(f"not accepted: {answer[:500].decode()}")
    accepted_s = time.monotonic()
    objects = "/apis/bench.example.com/v1/namespaces/default/bigs"
    while (await ask(server, "GET", objects))[0] != 200:
        await asyncio.sleep(0.005)
    served_s = time.monotonic()
    first = {"apiVersion": "bench.example.com/v1", "kind": "Bigs", "metadata": {"name": "a"}}
    first["spec"] = {"group0000": {"part0000Text": "a", "part0000Items": [{"name": "x"}]}}  # type: ignore[assignment]
    status, answer = await ask(server, "POST", objects, first)
    if status != 201:
        raise SystemExit(f"the object was not accepted: {answer[:500].decode()}")
    written_s = time.monotonic()
    longest_s = pauses.stop()
    await server.stop()
    return {
        "definition_bytes": len(body),
        "accepted_s": accepted_s - began_s,
        "served_after_s": served_s - accepted_s,
        "first_object_s": written_s - served_s,
        "longest_pause_s": longest_s,
    }


def resident() -> float:
    """In MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


async def many(count: int, size: int) -> dict[str, float]:
    store = MemoryStore()
    await store.open()
    total, codec = 0, Codec(CUSTOM_RESOURCE_DEFINITIONS)
    for number in range(count):
        crd = definition(f"res{number:04}s", size)
        names = crd["spec"]["names"]
        crd["metadata"] |= {"uid": f"uid-{number}", "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1}
        conditions = [
            {"type": type_, "status": "True", "reason": reason, "lastTransitionTime": "2026-01-01T00:00:00Z"}
            for type_, reason in (("NamesAccepted", "NoConflicts"), ("Established", "InitialNamesAccepted"))
        ]
        crd["spec"]["conversion"] = {"strategy": "None"}
        crd["status"] = {"conditions": conditions, "acceptedNames": names, "storedVersions": ["v1"]}
        data = json.dumps(crd, separators=(",", ":")).encode()
        total += len(data)
        await store.commit((Put(codec.key("", crd["metadata"]["name"]), data),))
    stored_mb = resident()
    server = ApiServer(store)
    began_s = time.monotonic()
    await server.start()
    started_s = time.monotonic()
    await ask(server, "POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
    started_mb = resident()
    discovery_s = time.monotonic()
    aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    status, answer = await ask(server, "GET", "/apis", accept=aggregated)
    discovered_s = time.monotonic()
    if count and b"res0000s" not in answer:
        raise SystemExit("not served")
    status, answer = await ask(server, "GET", "/openapi/v2")
    described_s = time.monotonic()
    if status != 200:
        raise SystemExit(answer[:300].decode())
    described_mb = resident()
    await server.stop()
    return {
        "definitions_mb": total / 1e6,
        "start_s": started_s - began_s,
        "start_mb": started_mb - stored_mb,
        "resident_mb": started_mb,
        "discovery_s": discovered_s - discovery_s,
        "openapi_v2_s": described_s - discovered_s,
        "openapi_v2_mb": len(answer) / 1e6,
        "resident_after_openapi_mb": described_mb,
    }


def in_a_process(*arguments: str) -> dict[str, float]:
    run = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(run.stdout)
    return found


def main() -> None:
    # As the processes of a cluster do.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--definitions", type=int, default=300)
    options.add_argument("--bytes", type=int, default=100_000, help="of each of the many")
    options.add_argument("--big", type=int, default=1_000_000, help="bytes of the big one")
    options.add_argument("-o", "--output", choices=("text", "json"), default="text")
    options.add_argument("--run", choices=("one", "many"), help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.run:
        run = one_big(chosen.big) if chosen.run == "one" else many(chosen.definitions, chosen.bytes)
        print(json.dumps(asyncio.run(run)))
        return
    sizes = ["--bytes", str(chosen.bytes), "--big", str(chosen.big)]
    found = {
        "one": in_a_process("--run", "one", *sizes),
        "none": in_a_process("--run", "many", "--definitions", "0", *sizes),
        "many": in_a_process("--run", "many", "--definitions", str(chosen.definitions), *sizes),
    }
    if chosen.output == "json":
        print(json.dumps(found))
        return
    for name, figures in found.items():
        print(name + ": " + ", ".join(f"{what} {value:,.3f}" for what, value in figures.items()))


if __name__ == "__main__":
    main()
