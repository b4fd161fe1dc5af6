"""What clients do meanwhile: writers of all kinds on few keys, and lists of every sort."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from .connection import Connection, Lost, NotSent
from .history import Kind, Listing, Operation, Outcome, Recorder
from .servers import Server

COLLECTION = "/api/v1/namespaces/default/configmaps"
MERGE, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
_DOWN_S = 0.03
_FAILED = {409: Outcome.CONFLICT, 404: Outcome.MISSING, 422: Outcome.CONFLICT}
_ACTIONS = {
    "create": 20, "replace": 25, "overwrite": 8, "merge": 15, "test": 12, "apply": 8, "delete": 8, "delete-if": 6,
    "get": 12,
}  # fmt: skip


class Session:
    """What the clients of one session share: keys, tokens, and what is known of each key. The keys change with time, so
    that no history grows long."""

    def __init__(self, number: int, keys: int) -> None:
        self.prefix = f"s{number}-"
        self.recorder = Recorder()
        self.stopping = asyncio.Event()
        self.known: dict[str, tuple[int, str]] = {}
        # The newest revision that an answer has told.
        self.newest = 0
        self._keys = keys
        self._generation = 0
        self._tokens = 0

    @property
    def keys(self) -> list[str]:
        return [f"{self.prefix}{self._generation}-{number}" for number in range(self._keys)]

    def renew_keys(self) -> None:
        self._generation += 1

    def token(self) -> str:
        self._tokens += 1
        return f"{self.prefix}t{self._tokens}"

    def learn(self, key: str, revision: int, token: str) -> None:
        if revision:
            self.known[key] = (revision, token)
            self.newest = max(self.newest, revision)


class Client:
    """Asks one server, and another one once that is down."""

    def __init__(self, session: Session, servers: Sequence[Server], chance: random.Random) -> None:
        self.session = session
        self.chance = chance
        self._connections = [server.connection() for server in servers]
        chance.shuffle(self._connections)

    def connection(self) -> Connection:
        return self._connections[0]

    async def turn_away(self) -> None:
        """The server is down."""
        self._connections.append(self._connections.pop(0))
        await asyncio.sleep(_DOWN_S)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


async def write(client: Client, pause_s: float) -> None:
    """One writer (that reads now and then) until the session stops."""
    session, chance = client.session, client.chance
    try:
        while not session.stopping.is_set():
            action = chance.choices(list(_ACTIONS), list(_ACTIONS.values()))[0]
            await act(client, action, chance.choice(session.keys))
            await asyncio.sleep(chance.random() * 2 * pause_s)
    finally:
        client.close()


async def act(client: Client, action: str, key: str) -> None:
    session = client.session
    operation, (method, path, body, content_type) = _request(session, action, key)
    session.recorder.begin(operation)
    try:
        status, answer = await client.connection().ask(method, path, body, content_type=content_type)
    except NotSent:
        session.recorder.drop(operation)
        await client.turn_away()
        return
    except Lost:
        if operation.kind is Kind.GET:
            session.recorder.drop(operation)
        await client.turn_away()
        return
    operation.returned = time.monotonic_ns()
    _settle(session, operation, action, status, answer)


def _request(session: Session, action: str, key: str) -> tuple[Operation, tuple[str, str, Any, str]]:
    path = f"{COLLECTION}/{key}"
    token = session.token()
    revision, seen = session.known.get(key, (0, ""))
    if action in ("replace", "test", "delete-if") and not revision:
        action = "get"
    parity = "even" if session.newest % 2 else "odd"
    if action.startswith("apply-"):
        action, _, parity = action.partition("-")
    body: dict[str, Any] = {
        "metadata": {"name": key, "labels": {"parity": parity}}, "data": {"token": token, "filler": "x" * 200},
    }  # fmt: skip
    match action:
        case "create":
            return Operation(Kind.CREATE, key, token), ("POST", COLLECTION, body, "application/json")
        case "replace":
            body["metadata"]["resourceVersion"] = str(revision)
            return Operation(Kind.REPLACE, key, token, revision, seen), ("PUT", path, body, "application/json")
        case "overwrite":
            return Operation(Kind.REPLACE, key, token), ("PUT", path, body, "application/json")
        case "merge":
            return Operation(Kind.PATCH, key, token), ("PATCH", path, {"data": {"token": token}}, MERGE)
        case "test":
            patch = [
                {"op": "test", "path": "/data/token", "value": seen},
                {"op": "replace", "path": "/data/token", "value": token},
            ]
            return Operation(Kind.PATCH, key, token, 0, seen), ("PATCH", path, patch, JSON_PATCH)
        case "apply":
            applied = {"apiVersion": "v1", "kind": "ConfigMap", **body}
            path += "?fieldManager=crashes&force=true"
            return Operation(Kind.APPLY, key, token), ("PATCH", path, applied, APPLY)
        case "delete":
            return Operation(Kind.DELETE, key), ("DELETE", path, None, "application/json")
        case "delete-if":
            options = {"preconditions": {"resourceVersion": str(revision)}}
            return Operation(Kind.DELETE, key, "", revision, seen), ("DELETE", path, options, "application/json")
    return Operation(Kind.GET, key), ("GET", path, None, "application/json")


def _settle(session: Session, operation: Operation, action: str, status: int, answer: Any) -> None:
    """Write down what the answer says."""
    if status < 300:
        operation.outcome = Outcome.DONE
        if operation.kind is Kind.DELETE:
            operation.uid = answer["details"]["uid"]
            return
        operation.revision = int(answer["metadata"]["resourceVersion"])
        operation.uid, operation.seen = answer["metadata"]["uid"], answer["data"]["token"]
        if operation.kind is not Kind.GET and operation.seen != operation.token:
            session.recorder.oddities.append(f"{operation}: the answer has {operation.seen}")
        session.learn(operation.key, operation.revision, operation.seen)
    elif status in _FAILED:
        operation.outcome = _FAILED[status]
        if operation.kind is Kind.CREATE and status == 409:
            operation.outcome = Outcome.EXISTS
        if status == 422 and action != "test":
            session.recorder.oddities.append(f"{operation}: 422 {json.dumps(answer)[:300]}")
    elif status in (429, 503, 504):
        if operation.kind is Kind.GET or status == 429:
            session.recorder.drop(operation)
    else:
        session.recorder.oddities.append(f"{operation}: {status} {json.dumps(answer)[:300]}")
        if operation.kind is Kind.GET:
            session.recorder.drop(operation)


# Lists


async def read_lists(client: Client, pause_s: float) -> None:
    session, chance = client.session, client.chance
    try:
        while not session.stopping.is_set():
            try:
                await _list(client)
            except (NotSent, Lost):
                await client.turn_away()
            await asyncio.sleep(chance.random() * 2 * pause_s)
    finally:
        client.close()


async def _list(client: Client) -> None:
    session, chance = client.session, client.chance
    newest = session.newest
    parity = chance.choice(["", "", "even", "odd"])
    query, fresh, at_least, exactly = "", True, 0, 0
    match chance.choice(["consistent", "pages", "cache", "not-older", "exact"]):
        case "pages":
            query = f"&limit={chance.randint(1, 3)}"
        case "cache":
            query, fresh = "&resourceVersion=0", False
        case "not-older" if newest:
            query, fresh, at_least = f"&resourceVersion={newest}&resourceVersionMatch=NotOlderThan", False, newest
        case "exact" if newest:
            query, fresh, exactly = f"&resourceVersion={newest}&resourceVersionMatch=Exact&limit=500", False, newest
    if parity:
        query += f"&labelSelector=parity%3D{parity}"
    await listed(client, query, fresh=fresh, at_least=at_least, exactly=exactly, parity=parity)


async def listed(
    client: Client, query: str = "", *, fresh: bool = True, at_least: int = 0, exactly: int = 0, parity: str = ""
) -> Listing | None:
    """All pages of a list, written down; None where it was refused. Pages after the first are of the first's revision
    whenever they are read, so the list was done when the first was there."""
    session = client.session
    invoked, returned, token = time.monotonic_ns(), 0, ""
    items: dict[str, tuple[int, str]] = {}
    revisions: list[int] = []
    while True:
        path = f"{COLLECTION}?{query.lstrip('&')}" + (f"&continue={quote(token)}" if token else "")
        status, answer = await client.connection().ask("GET", path)
        returned = returned or time.monotonic_ns()
        if status != 200:
            if status not in (410, 429, 503, 504):
                session.recorder.oddities.append(f"GET {path}: {status} {json.dumps(answer)[:300]}")
            return None
        revisions.append(int(answer["metadata"]["resourceVersion"]))
        items |= shown_items(answer["items"], session.prefix)
        token = answer["metadata"].get("continue", "")
        if not token:
            break
    if len(set(revisions)) > 1:
        session.recorder.oddities.append(f"pages of several revisions: {query} {revisions}")
    listing = Listing(query, invoked, returned, revisions[0], items, fresh, at_least, exactly, parity)
    session.recorder.listings.append(listing)
    session.newest = max(session.newest, revisions[0])
    return listing


def shown_items(items: list[dict[str, Any]], prefix: str) -> dict[str, tuple[int, str]]:
    return {
        item["metadata"]["name"]: (int(item["metadata"]["resourceVersion"]), item["data"]["token"])
        for item in items
        if item["metadata"]["name"].startswith(prefix)
    }
