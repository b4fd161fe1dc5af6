"""What the audit log says of a request: an event at each of its stages, as far as the policy wants to know.

In: the request on its way (who, what, whether they may, with what body, with what answer).  Out: events of
`audit.k8s.io/v1`, to the log. A server without a policy makes no trails, and its requests cost nothing for it.

`annotate` adds to the trail of the request that is being served, from wherever that is: admission plugins tell in this
way what they found.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, Protocol
from urllib.parse import urlencode

import orjson

from navarch.api import protobuf
from navarch.api.meta import Obj
from navarch.api.time import format_micro_time
from navarch.apiserver.audit.ids import HEADER, audit_ids
from navarch.apiserver.audit.policy import (
    COMPLETE,
    LEVELS,
    METADATA,
    NONE,
    RECEIVED,
    REQUEST,
    REQUEST_RESPONSE,
    STARTED,
    Policy,
    Rule,
)
from navarch.apiserver.auth.base import Decision
from navarch.apiserver.pieces import Pieces
from navarch.apiserver.routes import Route, attributes_of
from navarch.apiserver.user import User
from navarch.client.transport import Request, Response
from navarch.world import World

_ID_MAX: Final = 64
_AGENT_MAX: Final = 1024
_CUT: Final = "...TRUNCATED"
_UNKNOWN: Final = User("")
_STATUS_FIELDS: Final = ("status", "message", "reason", "details")
_LONG_SUBRESOURCES: Final = frozenset({"attach", "exec", "log", "portforward", "proxy"})
_NO_LEVEL: Final = LEVELS.index(NONE)

_current: ContextVar[Trail | None] = ContextVar("audit trail", default=None)


def annotate(key: str, value: str, least: str = METADATA) -> None:
    """Say something of the request that is being served, if there is a trail of it, and from this level on. What is
    said first stays."""
    trail = _current.get()
    if trail is not None and trail.is_at(least):
        trail.annotations.setdefault(key, value)


class Sink(Protocol):
    """`failures` counts the events that did not get where they should."""

    @property
    def failures(self) -> int: ...

    def write(self, event: Obj) -> None: ...

    async def close(self) -> None: ...


class Sinks:
    """Several of them as one."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)

    @property
    def failures(self) -> int:
        return sum(sink.failures for sink in self._sinks)

    def write(self, event: Obj) -> None:
        for sink in self._sinks:
            sink.write(event)

    async def close(self) -> None:
        for sink in self._sinks:
            await sink.close()


class Auditing:
    """One server's policy and log."""

    def __init__(self, policy: Policy, sink: Sink, world: World) -> None:
        self.policy = policy
        self.sink = sink
        self.world = world
        self.ids = audit_ids(world)
        self.events = 0
        self.levels = dict.fromkeys(LEVELS, 0)

    def begin(self, request: Request, route: Route, verb: str) -> Trail:
        trail = Trail(self, request, route, verb)
        _current.set(trail)
        return trail

    def now(self) -> str:
        return format_micro_time(self.world.now())

    def lines(self) -> Iterator[str]:
        """For `/metrics`."""
        yield "# HELP apiserver_audit_event_total Counter of audit events generated and sent to the audit backend."
        yield "# TYPE apiserver_audit_event_total counter"
        yield f"apiserver_audit_event_total {self.events}"
        yield "# HELP apiserver_audit_level_total Counter of policy levels for audit events (1 per request)."
        yield "# TYPE apiserver_audit_level_total counter"
        for level, count in self.levels.items():
            yield f'apiserver_audit_level_total{{level="{level}"}} {count}'
        yield "# HELP apiserver_audit_error_total Counter of audit events that failed to be audited properly."
        yield "# TYPE apiserver_audit_error_total counter"
        yield f"apiserver_audit_error_total {self.sink.failures}"


class Trail:
    """One request's."""

    def __init__(self, auditing: Auditing, request: Request, route: Route, verb: str) -> None:
        self._auditing = auditing
        self._request = request
        self._attributes = attributes_of(request, route, verb)
        self._received = auditing.now()
        stated = request.headers.get("audit-id", "")[:_ID_MAX]
        self.audit_id = stated or next(auditing.ids)
        self._rule: Rule | None = None
        self._level = _NO_LEVEL
        self._user = _UNKNOWN
        self._acting: User | None = None
        self._reference: Obj = {}
        self._sent: Any = None
        self._answered: Any = None
        self._status: Obj | None = None
        self.annotations: dict[str, str] = {}

    def is_at(self, level: str) -> bool:
        """Whether as much as this level has is written down; the least of them always might be."""
        return level == METADATA or self._level >= LEVELS.index(level)

    # What becomes known of it

    def known(self, user: User) -> None:
        """Who asks: from here on there is a rule for it."""
        self._user = user
        self._decide(user)
        self._log(RECEIVED)

    def acts_as(self, user: User) -> None:
        self._acting = user

    def decided(self, decision: Decision) -> None:
        self.annotations["authorization.k8s.io/decision"] = "allow" if decision.allowed else "forbid"
        self.annotations["authorization.k8s.io/reason"] = decision.reason

    def sent(self, request: Request) -> None:
        """The body, in JSON."""
        if self._level < LEVELS.index(REQUEST) or not request.body:
            return
        try:
            self._sent = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            return
        self._name(self._sent)

    def _name(self, obj: Any) -> None:
        metadata = obj.get("metadata") if isinstance(obj, dict) else None
        if isinstance(metadata, dict):
            for name in ("name", "namespace", "uid", "resourceVersion"):
                if isinstance(metadata.get(name), str):
                    self._reference.setdefault(name, metadata[name])

    async def end(self, response: Response) -> Response:
        """The answer, with the header that names the trail."""
        if self._rule is None:
            # Nobody knows who it was.
            self._decide(_UNKNOWN)
            self._status = {"metadata": {}, "message": _attempted(self._request), "code": response.status}
            self._log(STARTED)
            response.headers = {**response.headers, HEADER: self.audit_id}
            return response
        if isinstance(response.body, Pieces) and self._level >= LEVELS.index(REQUEST_RESPONSE):
            # All of it is logged.
            response.body = await response.body.joined()
        self._note(response)
        response.headers = {**response.headers, HEADER: self.audit_id}
        asked = self._attributes
        if asked.verb == "watch" or asked.subresource in _LONG_SUBRESOURCES:
            self._log(STARTED)
        if isinstance(response.body, bytes):
            self._log(COMPLETE)
        elif isinstance(response.body, Pieces):
            response.body.closing.append(lambda: self._log(COMPLETE))
        else:
            response.body = self._followed(response.body)
        return response

    async def _followed(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        try:
            async for chunk in body:
                yield chunk
        finally:
            await body.aclose()  # type: ignore[attr-defined]
            self._log(COMPLETE)

    def _decide(self, user: User) -> None:
        self._rule = self._auditing.policy.rule_for(user, self._attributes)
        self._level = LEVELS.index(self._rule.level)
        self._auditing.levels[self._rule.level] += 1

    def _note(self, response: Response) -> None:
        """What is said of the answer: its code, what an error says, all of it if that is wanted."""
        self._status = {"metadata": {}, "code": response.status}
        if self._level == _NO_LEVEL:
            return
        whole = self._level >= LEVELS.index(REQUEST_RESPONSE)
        if not isinstance(response.body, bytes) or not response.body or not (whole or response.status >= 400):
            return
        found = _object_of(response)
        if not isinstance(found, dict):
            return
        if found.get("kind") == "Status":
            said = {name: found[name] for name in _STATUS_FIELDS if name in found}
            self._status = {"metadata": {}, **said, "code": response.status}
        if whole:
            self._answered = found

    # Events

    def _log(self, stage: str) -> None:
        rule = self._rule
        if rule is None or self._level == _NO_LEVEL or stage in rule.omitted:
            return
        request, asked = self._request, self._attributes
        event: Obj = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": rule.level,
            "auditID": self.audit_id,
            "stage": stage,
            "requestURI": request.path + (f"?{urlencode(request.query)}" if request.query else ""),
            "verb": asked.verb,
            "user": _user(self._user),
        }
        if self._acting is not None:
            event["impersonatedUser"] = _user(self._acting)
        if addresses := _addresses(request):
            event["sourceIPs"] = addresses
        if agent := request.headers.get("user-agent", ""):
            event["userAgent"] = agent if len(agent) <= _AGENT_MAX else agent[:_AGENT_MAX] + _CUT
        if asked.is_resource:
            event["objectRef"] = self._object_reference()
        if stage != RECEIVED:
            event["responseStatus"] = self._status
            if self._sent is not None:
                event["requestObject"] = _without_fields(self._sent) if rule.omit_managed_fields else self._sent
            if self._answered is not None and stage == COMPLETE:
                answered = self._answered
                event["responseObject"] = _without_fields(answered) if rule.omit_managed_fields else answered
        event["requestReceivedTimestamp"] = self._received
        event["stageTimestamp"] = self._received if stage == RECEIVED else self._auditing.now()
        if self.annotations and stage != RECEIVED:
            event["annotations"] = dict(self.annotations)
        self._auditing.events += 1
        self._auditing.sink.write(event)

    def _object_reference(self) -> Obj:
        asked = self._attributes
        stated = {
            "resource": asked.resource,
            "namespace": asked.namespace or self._reference.get("namespace", ""),
            "name": asked.name or self._reference.get("name", ""),
            "uid": self._reference.get("uid", ""),
            "apiGroup": asked.group,
            "apiVersion": asked.version,
            "resourceVersion": self._reference.get("resourceVersion", ""),
            "subresource": asked.subresource,
        }
        return {name: value for name, value in stated.items() if value}


def _attempted(request: Request) -> str:
    """How whoever was not recognized has tried to be."""
    scheme = request.headers.get("authorization", "").partition(" ")[0].lower()
    if scheme in ("basic", "bearer"):
        return f"Authentication failed, attempted: {scheme}"
    return "Authentication failed, no credentials provided"


def _user(user: User) -> Obj:
    stated = user.info()
    if not user.name:
        # Whoever was not recognized.
        del stated["username"]
    return stated


def _addresses(request: Request) -> list[str]:
    """Where it came from: what proxies say, then the connection."""
    headers = request.headers
    stated = [part.strip() for part in headers.get("x-forwarded-for", "").split(",")]
    found = [*stated, headers.get("x-real-ip", "").strip(), request.remote]
    return list(dict.fromkeys(address for address in found if address))


def _object_of(response: Response) -> Any:
    body = response.body
    assert isinstance(body, bytes)
    try:
        if response.content_type == protobuf.MEDIA_TYPE:
            return protobuf.decode(body)
        return orjson.loads(body)
    except ValueError:
        # No object: text, or YAML.
        return None


def _without_fields(obj: Any) -> Any:
    """Without managed fields, in lists too; what is shared is not changed."""
    if not isinstance(obj, dict):
        return obj
    out = dict(obj)
    metadata = obj.get("metadata")
    if isinstance(metadata, Mapping) and "managedFields" in metadata:
        out["metadata"] = {name: value for name, value in metadata.items() if name != "managedFields"}
    if isinstance(obj.get("items"), list):
        out["items"] = [_without_fields(item) for item in obj["items"]]
    return out
