"""Requests made from the served OpenAPI documents: no internal error, no hang, nothing left behind; and what is
answered satisfies the schema that is served.

schemathesis makes the requests, of every operation. Half of them are as odd as it likes; the others are tamed: they
name the namespace `default`, one of few names and the right kind, so that bodies come as far as validation and storage.
`make explore` tries new ones.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import quote

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.core import NOT_SET

from navarch.client.transport import Request
from navarch.testing.embedded import ADMIN, EmbeddedCluster

_ANSWER_S = 60
_EXAMPLES = int(os.environ.get("NAVARCH_EXPLORE", "80"))
# What goes on to somebody else, who is not there; and what never ends.
_CONNECTING = ("/attach", "/exec", "/log", "/portforward", "/proxy", "/proxy/{path}")
_STREAMING = {"watch", "follow", "sendInitialEvents"}
_NAMES = ("fuzz", "fuzz.example.com", "v1.fuzz.example.com")
_WRITING = {"post", "put", "patch"}


class Operation(NamedTuple):
    document: str
    method: str
    path: str
    made: Any
    # The kind that it is about, if it is about one; and the reference to what it answers.
    kind: dict[str, str]
    answers: str

    def __repr__(self) -> str:
        return f"{self.method.upper()} {self.path}"


class Answer(NamedTuple):
    status: int
    body: bytes
    content_type: str


class Api:
    """One embedded API server for all examples, asked from outside of its loop."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._cluster = EmbeddedCluster(nodes=0, controllers=False)
        self._runner.run(self._cluster.__aenter__())
        index = json.loads(self.ask("GET", "/openapi/v3").body)
        self.documents = {path: json.loads(self.ask("GET", f"/openapi/v3/{path}").body) for path in index["paths"]}
        self.operations = [each for path in self.documents for each in self._operations(path)]
        self._bodies = {(each.path, each.method): each for each in self.operations}

    def _operations(self, document: str) -> Iterator[Operation]:
        for found in schemathesis.openapi.from_dict(self.documents[document]).get_all_operations():
            made = found.ok()
            if "/watch/" in made.path or made.path.endswith(_CONNECTING) or "{path}" in made.path:
                continue
            raw = made.definition.raw
            answers = raw["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("schema", {})
            kind = raw.get("x-kubernetes-group-version-kind", {})
            yield Operation(document, made.method, made.path, made, kind, answers.get("$ref", ""))

    def close(self) -> None:
        self._runner.run(self._cluster.__aexit__(None, None, None))
        self._runner.close()

    def ask(
        self, method: str, path: str, query: Any = (), body: bytes = b"", content_type: str = "application/json"
    ) -> Answer:
        headers = {"content-type": content_type, "accept": "application/json", "user-agent": "fuzz"}
        return self._runner.run(self._ask(Request(method, path, tuple(query), headers, body)))

    async def _ask(self, request: Request) -> Answer:
        async with asyncio.timeout(_ANSWER_S):
            answer = await self._cluster.server.handle(request, ADMIN)
            data = answer.body
            if not isinstance(data, bytes):
                data = b"".join([chunk async for chunk in data])
            return Answer(answer.status, data, answer.content_type)

    def nulls(self, operation: Operation) -> tuple[str, ...]:
        """The fields of its kind that are null where they are empty."""
        group, kind = operation.kind.get("group", ""), operation.kind.get("kind", "")
        of_kind = [each for each in self._cluster.server.core.served.kinds() if each.resource.kind == kind]
        return tuple(path for each in of_kind if each.resource.group == group for path in each.strategy.nulls)

    def as_written(self, operation: Operation) -> Operation:
        """A patch's body may be anything; more comes of one that looks like the object."""
        return self._bodies.get((operation.path, "put"), operation)

    def tasks(self, at_most: int = 0) -> int:
        """How many tasks there are, once they are no more than that: what the server does by the clock, between two
        examples, comes all at once where the machine is slow, and ends by itself."""

        async def count() -> int:
            await asyncio.sleep(0)
            until_s = asyncio.get_running_loop().time() + (_ANSWER_S if at_most else 0)
            while (found := len(asyncio.all_tasks())) > at_most and asyncio.get_running_loop().time() < until_s:
                await asyncio.sleep(0.01)
            return found

        return self._runner.run(count())


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    made = Api()
    yield made
    made.close()


class Sent(NamedTuple):
    """A request, as it goes out."""

    method: str
    path: str
    query: list[tuple[str, str]]
    body: Any
    content_type: str

    @property
    def data(self) -> bytes:
        return b"" if self.body is NOT_SET else json.dumps(self.body).encode()


@st.composite
def _requests(draw: st.DrawFn, api: Api) -> tuple[Operation, Sent]:
    operation = draw(st.sampled_from(api.operations))
    case = draw(operation.made.as_strategy())
    body, media_type = case.body, case.media_type or "application/json"
    if operation.method == "patch" and draw(st.booleans()):
        body = draw(api.as_written(operation).made.as_strategy()).body
        if media_type == "application/json-patch+json":
            media_type = "application/merge-patch+json"
    parameters, query = dict(case.path_parameters or {}), dict(case.query or {})
    if draw(st.booleans()):
        parameters, query, body = _tamed(draw, operation, parameters, query, body)
    path = operation.path
    for name, value in parameters.items():
        path = path.replace(f"{{{name}}}", quote(str(value), safe=""))
    pairs = [(name, str(value)) for name, value in query.items() if name not in _STREAMING]
    if media_type == "application/apply-patch+yaml" and "fieldManager" not in query:
        pairs.append(("fieldManager", "fuzz"))
    return operation, Sent(operation.method.upper(), path, pairs, body, media_type)


def _tamed(draw: st.DrawFn, operation: Operation, parameters: Any, query: Any, body: Any) -> tuple[Any, Any, Any]:
    name = draw(st.sampled_from(_NAMES))
    parameters = {key: "default" if key == "namespace" else name for key in parameters}
    query = {key: value for key, value in query.items() if key in ("limit", "force", "pretty")}
    if isinstance(body, dict) and operation.method in _WRITING and (kind := operation.kind):
        group = f"{kind['group']}/" if kind["group"] else ""
        body = {**body, "apiVersion": group + kind["version"], "kind": kind["kind"], "metadata": {"name": name}}
    return parameters, query, body


@cache
def _validator(api: Api, document: str, reference: str) -> Any:
    return jsonschema_rs.Draft4Validator({"$ref": reference, "components": api.documents[document]["components"]})


def _wrong(api: Api, operation: Operation, answer: Answer) -> str:
    """What the answer has that its schema does not allow, nor Kubernetes, whose required lists are null where they
    are empty."""
    if not operation.answers or operation.method == "delete" or "json" not in answer.content_type:
        return ""
    errors = _validator(api, operation.document, operation.answers).iter_errors(json.loads(answer.body))
    nulls = api.nulls(operation)
    found = [str(error.message) for error in errors if not _is_known_null(error, nulls)]
    return "; ".join(found[:3])


def _is_known_null(error: Any, nulls: tuple[str, ...]) -> bool:
    at = ".".join(str(part) for part in error.instance_path if part != "items" and not isinstance(part, int))
    return error.message.startswith("null is not") and at in nulls


def _is_unexplained(answer: Answer) -> bool:
    """Some refusals are a 500 in Kubernetes, too; these have words, but no reason. What fails here has one."""
    return answer.status == 500 and "reason" not in json.loads(answer.body)


@pytest.mark.timeout(900)
@given(st.data())
@settings(max_examples=_EXAMPLES, suppress_health_check=list(HealthCheck))
def test_every_request_is_answered_in_words_and_by_the_schema(api: Api, data: st.DataObject) -> None:
    operation, sent = data.draw(_requests(api))
    before = api.tasks()

    answer = api.ask(sent.method, sent.path, sent.query, sent.data, sent.content_type)

    assert answer.status < 500 or _is_unexplained(answer), answer.body[:2000]
    if answer.status < 300:
        assert _wrong(api, operation, answer) == ""
        _clean(api, operation, sent, answer)
    else:
        refusal = json.loads(answer.body) if "json" in answer.content_type else {"code": answer.status}
        assert refusal["code"] == answer.status
    assert api.tasks(before + 1) <= before + 1


def _clean(api: Api, operation: Operation, sent: Sent, answer: Answer) -> None:
    """What was written goes, as it may concern all that follow: a webhook, a quota."""
    if operation.method not in _WRITING or not operation.kind:
        return
    metadata = json.loads(answer.body).get("metadata") or {}
    path = sent.path if operation.method != "post" else f"{sent.path}/{metadata.get('name', '')}"
    if not path.rpartition("/")[2].startswith("fuzz"):
        return
    read = api.ask("GET", path)
    assert read.status in (200, 404, 405), read.body
    api.ask("PATCH", path, (), b'{"metadata":{"finalizers":null}}', "application/merge-patch+json")
    api.ask("DELETE", path, (("gracePeriodSeconds", "0"),), b"{}")
