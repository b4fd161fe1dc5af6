"""Replays recorded requests to Kubernetes against an embedded cluster, and counts how many answers are the same.

In: `shared/golden/*.jsonl` beside the repository (requests, and what Kubernetes 1.36 answered), with the programs
beside them that recorded and compare them: what varies from run to run is masked and judged by the same code.
Out: per area the share of steps that are the same in code, in reason and causes, in body, and for errors in message.

The requests go to the API server in process; neither sockets nor TLS are between.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl

from navarch.apiserver.server import ApiServer
from navarch.client.transport import Request, Response
from navarch.testing.embedded import ADMIN, EmbeddedCluster

ROOT = Path(__file__).resolve().parent.parent.parent
VERSION = "1.36"
MEASURES = ("code", "verdict", "body", "message")


def folder() -> Path | None:
    """`shared/golden` beside this clone, or beside a folder that it is in."""
    places = (parent / "shared" / "golden" for parent in ROOT.parents)
    return next((place for place in places if (place / "record.py").is_file()), None)


def _program(name: str) -> ModuleType:
    place = folder()
    assert place is not None
    spec = importlib.util.spec_from_file_location(f"golden_{name}", place / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def areas() -> list[str]:
    place = folder()
    return [] if place is None else sorted(path.stem for path in place.glob("*.jsonl"))


@cache
def differences() -> dict[str, str]:
    """The steps whose bodies are others on purpose (`case#number`), each with the reason."""
    found: dict[str, str] = json.loads(Path(__file__).with_name("on_purpose.json").read_text(encoding="utf-8"))
    return found


def cases(area: str) -> list[dict[str, Any]]:
    place = folder()
    assert place is not None
    return [json.loads(line) for line in (place / f"{area}.jsonl").read_text(encoding="utf-8").splitlines()]


@dataclass
class Step:
    """One request, what it should have been answered, and how the answer was judged."""

    area: str
    case: str
    number: int
    request: dict[str, Any]
    codes: tuple[int, int]
    is_error: bool
    judged: dict[str, bool]
    # Why the body is not the same and shall not be; empty for nearly all.
    on_purpose: str
    diffs: list[tuple[str, Any, Any]] = field(repr=False)


@dataclass
class Score:
    """How many steps of an area are the same, by measure."""

    steps: int = 0
    errors: int = 0
    on_purpose: int = 0
    same: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MEASURES, 0))

    def add(self, step: Step) -> None:
        self.steps += 1
        self.errors += step.is_error
        self.on_purpose += bool(step.on_purpose)
        for measure in ("code", "verdict", "body"):
            self.same[measure] += step.judged[measure]
        self.same["message"] += step.is_error and step.judged["message"] and step.judged["code"]

    def percent(self, measure: str) -> float:
        of = {"message": self.errors, "body": self.steps - self.on_purpose}.get(measure, self.steps)
        return 100.0 * self.same[measure] / of if of else 100.0


def scores(steps: Sequence[Step]) -> dict[str, Score]:
    out: dict[str, Score] = {}
    for step in steps:
        for name in (step.area, "total"):
            out.setdefault(name, Score()).add(step)
    return out


class InProcess:
    """What the recording program takes for a server: `call` and `watch`, answered without a connection."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self.headers = {"user-agent": "golden/1"}

    async def _send(self, method: str, path: str, headers: dict[str, str], data: bytes | None) -> Response:
        path, _, query = path.partition("?")
        sent = {**self.headers, **{name.lower(): value for name, value in headers.items()}}
        user = None if "authorization" in sent else ADMIN
        request = Request(method, path, parse_qsl(query, keep_blank_values=True), sent, data or b"")
        return await self._server.handle(request, user)

    async def call(
        self, method: str, path: str, headers: Any = None, data: bytes | None = None, timeout: float = 30.0
    ) -> tuple[int, dict[str, list[str]], bytes]:
        async with asyncio.timeout(timeout):
            response = await self._send(method, path, headers or {}, data)
            if isinstance(response.body, bytes):
                return response.status, kept(response), b"" if method == "HEAD" else response.body
            raw = b"".join([chunk async for chunk in response.body])
            return response.status, kept(response), raw

    async def watch(
        self, path: str, headers: Any, events: int, timeout: float
    ) -> tuple[int, dict[str, list[str]], bytes]:
        response = await self._send("GET", path, headers or {}, None)
        if isinstance(response.body, bytes):
            if response.status != 200:
                return response.status, kept(response), response.body
            # What is no stream is a line of one all the same.
            lines = [json.loads(line) for line in response.body.splitlines() if line.strip()]
            return response.status, kept(response), json.dumps({"events": lines[:events]}).encode()
        got: list[Any] = []
        try:
            async with asyncio.timeout(timeout):
                await _read_events(response.body, events, got)
        except TimeoutError:
            pass
        finally:
            await response.body.aclose()  # type: ignore[attr-defined]
        return response.status, kept(response), json.dumps({"events": got}).encode()


async def _read_events(chunks: AsyncIterator[bytes], wanted: int, got: list[Any]) -> None:
    buffer = b""
    async for chunk in chunks:
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                got.append(json.loads(line))
            if len(got) >= wanted:
                return


def kept(response: Response) -> dict[str, list[str]]:
    names = ("Content-Type", "Warning", "Location", "Retry-After", "Allow")
    sent = {name.lower(): value for name, value in response.headers.items()}
    sent.setdefault("content-type", response.content_type)
    return {name: [sent[name.lower()]] for name in names if name.lower() in sent}


class Replay:
    """Runs cases against one embedded cluster."""

    def __init__(self, cluster: EmbeddedCluster) -> None:
        self._record, self._compare = _program("record"), _program("compare")
        server = self._record.Server("", None)
        local = InProcess(cluster.server)
        server.call, server.watch = local.call, local.watch
        self._server = server

    async def prepare(self) -> None:
        server = self._server
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        _, me = await server.json("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
        server.admin = me["status"]["userInfo"]["username"]
        _, addresses = await server.json("GET", "/apis/networking.k8s.io/v1/servicecidrs/kubernetes")
        server.services = ".".join(addresses["spec"]["cidrs"][0].split(".")[:2])
        _, openid = await server.json("GET", "/.well-known/openid-configuration")
        server.issuer = openid["issuer"]
        server.shared = f"gshared-{server.run}"
        await server.namespace(server.shared)

    async def one(self, area: str, case: dict[str, Any]) -> list[Step]:
        given = {
            "name": case["case"],
            "area": area,
            **{key: case[key] for key in ("namespace", "serial") if key in case},
            "keep_hash": case["case"].endswith("/hash"),
            "steps": [step["request"] for step in case["steps"]],
        }
        try:
            answers = (await self._server_run(given))["steps"]
        except Exception as error:
            print(f"{case['case']}: {type(error).__name__}: {error}", file=sys.stderr)
            answers = []
        return [
            self._judged(area, case["case"], number, step, answers)
            for number, step in enumerate(case["steps"])
            if not step.get("unstable")
        ]

    async def _server_run(self, given: dict[str, Any]) -> dict[str, Any]:
        done: dict[str, Any] = await self._record.run_case(self._server, given)
        return done

    def _judged(self, area: str, name: str, number: int, step: dict[str, Any], answers: list[Any]) -> Step:
        expected = step["expect"]
        answer = answers[number] if number < len(answers) else {"status": 0, "body": None}
        is_error = self._compare.is_status(expected["body"]) and expected["status"] >= 400
        diffs = list(self._compare.diffs(expected["body"], answer["body"]))
        headers = self._compare.diffs(expected.get("headers") or {}, answer.get("headers") or {})
        diffs += [("headers" + path, theirs, ours) for path, theirs, ours in headers]
        codes = (expected["status"], answer["status"])
        judged = self._compare.judge(expected, answer)
        why = differences().get(f"{name}#{number}", "")
        return Step(area, name, number, step["request"], codes, is_error, judged, why, diffs)

    async def _settled(self) -> None:
        """Cases that see the whole cluster wait until the namespaces of the others are gone."""
        pattern = re.compile(r"g[0-9a-f]{6}-" + self._server.run)
        for _ in range(100):
            _, body = await self._server.json("GET", "/api/v1/namespaces")
            if not any(pattern.match(item["metadata"]["name"]) for item in body["items"]):
                return
            await asyncio.sleep(0.1)

    async def run(self, chosen: Sequence[tuple[str, dict[str, Any]]], parallel: int = 32) -> list[Step]:
        """Every case, some at a time, and last, alone, those that see the whole cluster."""
        await self.prepare()
        queue = [entry for entry in chosen if not entry[1].get("serial")]
        found: dict[str, list[Step]] = {}

        async def worker() -> None:
            while queue:
                area, case = queue.pop(0)
                found[case["case"]] = await self.one(area, case)

        async with asyncio.TaskGroup() as group:
            for _ in range(parallel):
                group.create_task(worker())
        if serial := [entry for entry in chosen if entry[1].get("serial")]:
            await self._settled()
            for area, case in serial:
                found[case["case"]] = await self.one(area, case)
        return [step for _, case in chosen for step in found[case["case"]]]


async def replay(chosen_areas: Sequence[str], only: str = "") -> list[Step]:
    """The steps of these areas' cases (those whose name matches `only`), judged, against a fresh cluster."""
    chosen = [
        (area, case) for area in chosen_areas for case in cases(area) if not only or re.search(only, case["case"])
    ]
    async with EmbeddedCluster(nodes=0, kubernetes_version=VERSION) as cluster:
        return await Replay(cluster).run(chosen)
