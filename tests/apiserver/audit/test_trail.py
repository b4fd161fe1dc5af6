"""What the audit log says of requests, stage by stage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import orjson
import pytest

from navarch.api import protobuf
from navarch.api.errors import unauthorized
from navarch.api.meta import Obj
from navarch.apiserver.audit.policy import parse
from navarch.apiserver.audit.trail import Auditing, annotate
from navarch.apiserver.pieces import Pieces
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import User
from navarch.client.transport import Request
from tests.apiserver.conftest import CONFIG_MAPS, PODS, Api, config_map, pod


class Kept:
    """A log in memory."""

    def __init__(self) -> None:
        self.events: list[Obj] = []
        self.failures = 0

    def write(self, event: Obj) -> None:
        self.events.append(event)

    async def close(self) -> None: ...

    def stages(self) -> list[str]:
        return [event["stage"] for event in self.events]


@pytest.fixture
def log() -> Kept:
    return Kept()


class Audited:
    """An API whose requests are audited at a level."""

    def __init__(self, api: Api, log: Kept) -> None:
        self.api = api
        self._log = log

    def at(self, level: str, **rule: Any) -> Api:
        document = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": level, **rule}]}
        server = self.api.server
        server.use(auditing=Auditing(parse(document, "f"), self._log, server.core.world))
        return self.api


@pytest.fixture
async def audited(api: Api, log: Kept) -> Audited:
    return Audited(api, log)


async def test_metadata_says_who_asked_what_and_how_it_went(audited: Audited, log: Kept) -> None:
    api = audited.at("Metadata")

    await api.ok("GET", f"{CONFIG_MAPS}?limit=5")

    received, complete = log.events
    assert received == {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": complete["auditID"],
        "stage": "RequestReceived",
        "requestURI": f"{CONFIG_MAPS}?limit=5",
        "verb": "list",
        "user": {"username": "system:apiserver", "groups": ["system:masters", "system:authenticated"]},
        "userAgent": "test/1.0",
        "objectRef": {"resource": "configmaps", "namespace": "default", "apiVersion": "v1"},
        "requestReceivedTimestamp": received["stageTimestamp"],
        "stageTimestamp": received["stageTimestamp"],
    }
    assert complete["stage"] == "ResponseComplete"
    assert complete["responseStatus"] == {"metadata": {}, "code": 200}
    assert complete["annotations"] == {
        "authorization.k8s.io/decision": "allow",
        "authorization.k8s.io/reason": "",
    }
    assert "requestObject" not in complete
    assert complete["stageTimestamp"] >= complete["requestReceivedTimestamp"]


async def test_request_has_what_was_sent_and_request_response_the_answer_too(audited: Audited, log: Kept) -> None:
    sent = config_map("a", k="v")
    await audited.at("Request").ok("POST", CONFIG_MAPS, sent)
    made = await audited.at("RequestResponse").ok("POST", CONFIG_MAPS, {**sent, "metadata": {"name": "b"}})

    (request,) = [event for event in log.events if event["level"] == "Request" and event["stage"] != "RequestReceived"]
    whole = log.events[-1]
    assert request["requestObject"] == sent
    assert request["objectRef"]["name"] == "a"
    assert "responseObject" not in request
    assert whole["responseObject"] == made
    assert whole["responseStatus"]["code"] == 201


async def test_answers_in_protobuf_are_objects_in_the_log(audited: Audited, log: Kept) -> None:
    api = audited.at("RequestResponse")
    made = await api.send("POST", CONFIG_MAPS, config_map("a"), accept=protobuf.MEDIA_TYPE)

    assert isinstance(made.body, bytes)
    assert log.events[-1]["responseObject"] == protobuf.decode(made.body)


async def test_a_long_list_is_logged_when_its_last_byte_is_asked_for(audited: Audited, log: Kept) -> None:
    api = audited.at("RequestResponse")
    for name in "abc":
        await api.ok("POST", CONFIG_MAPS, config_map(name, k="x" * 200_000))

    whole = await api.ok("GET", CONFIG_MAPS)

    assert log.events[-1]["responseObject"] == whole
    assert len(whole["items"]) == 3

    listed = await audited.at("Metadata").send("GET", CONFIG_MAPS)

    assert log.events[-1]["stage"] == "RequestReceived"
    assert isinstance(listed.body, Pieces)
    assert orjson.loads(await listed.body.joined()) == whole
    assert log.events[-1]["stage"] == "ResponseComplete"


async def test_refusals_say_why(audited: Audited, log: Kept) -> None:
    await audited.at("Metadata")("GET", f"{CONFIG_MAPS}/none")

    assert log.events[-1]["responseStatus"] == {
        "metadata": {},
        "status": "Failure",
        "message": 'configmaps "none" not found',
        "reason": "NotFound",
        "details": {"name": "none", "kind": "configmaps"},
        "code": 404,
    }


async def test_managed_fields_are_left_out_where_the_policy_says_so(audited: Audited, log: Kept) -> None:
    api = audited.at("RequestResponse", omitManagedFields=True)
    made = await api.ok("POST", CONFIG_MAPS, config_map("a", k="v"))
    await api.ok("GET", CONFIG_MAPS)

    created, listed = log.events[1]["responseObject"], log.events[-1]["responseObject"]
    assert "managedFields" in made["metadata"]
    assert "managedFields" not in created["metadata"]
    assert ["managedFields" in item["metadata"] for item in listed["items"]] == [False]


async def test_a_watch_has_a_stage_for_its_start_and_one_for_its_end(audited: Audited, log: Kept) -> None:
    api = audited.at("Metadata")
    await api.ok("POST", PODS, pod("a"))
    log.events.clear()
    answer = await api.send("GET", f"{PODS}?watch=1")
    stream: AsyncIterator[bytes] = answer.body  # type: ignore[assignment]
    await anext(stream)
    before = log.stages()

    await stream.aclose()  # type: ignore[attr-defined]

    assert before == ["RequestReceived", "ResponseStarted"]
    assert log.stages() == [*before, "ResponseComplete"]
    assert log.events[0]["verb"] == "watch"


async def test_what_no_rule_wants_is_not_logged(audited: Audited, log: Kept) -> None:
    api = audited.at("Metadata", verbs=["delete"])

    await api.ok("GET", CONFIG_MAPS)

    assert log.events == []


async def test_stages_are_left_out_where_the_policy_says_so(audited: Audited, log: Kept) -> None:
    await audited.at("Metadata", omitStages=["RequestReceived"]).ok("GET", CONFIG_MAPS)

    assert log.stages() == ["ResponseComplete"]


async def test_answers_name_the_trail_which_clients_may_choose(audited: Audited, log: Kept) -> None:
    api = audited.at("Metadata")
    chosen = Request("GET", CONFIG_MAPS, (), {"audit-id": "mine"}, remote="192.0.2.7")

    answer = await api.server.handle(chosen, api.user)

    assert answer.headers["Audit-Id"] == "mine"
    assert {event["auditID"] for event in log.events} == {"mine"}
    assert log.events[0]["sourceIPs"] == ["192.0.2.7"]


async def test_who_acts_as_somebody_else_is_named_with_him(audited: Audited, log: Kept) -> None:
    api = audited.at("Metadata")
    api.headers = {"impersonate-user": "jane", "impersonate-group": "developers"}

    await api("GET", CONFIG_MAPS)

    assert log.events[-1]["user"]["username"] == "system:apiserver"
    assert log.events[-1]["impersonatedUser"]["username"] == "jane"
    assert "developers" in log.events[-1]["impersonatedUser"]["groups"]


async def test_rules_for_users_are_asked_about_who_really_asks(audited: Audited, log: Kept) -> None:
    api = audited.at("Metadata", users=["jane"])
    await Api(api.server, User("jane")).ok("GET", CONFIG_MAPS)
    await Api(api.server, User("joe")).ok("GET", CONFIG_MAPS)

    assert {event["user"]["username"] for event in log.events} == {"jane"}


async def test_what_is_found_on_the_way_is_annotated(
    audited: Audited, log: Kept, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = audited.at("Metadata")
    inner = server.objects.reading.items

    async def items(*arguments: Any) -> Any:
        annotate("example.com/found", "something")
        return await inner(*arguments)

    monkeypatch.setattr(server.objects.reading, "items", items)

    await api.ok("GET", CONFIG_MAPS)

    assert log.events[-1]["annotations"]["example.com/found"] == "something"


async def test_without_a_policy_nobody_hears_and_answers_have_their_names_all_the_same(api: Api) -> None:
    annotate("example.com/found", "nobody hears")
    answers = [await api.send("GET", path) for path in (CONFIG_MAPS, f"{CONFIG_MAPS}/none", "/nowhere", "/version")]
    api.headers["audit-id"] = "mine"
    named = await api.send("GET", CONFIG_MAPS)

    names = {answer.headers["Audit-Id"] for answer in answers}
    assert len(names) == 4
    assert all(str(UUID(name)) == name for name in names)
    assert named.headers["Audit-Id"] == "mine"


async def test_who_is_not_recognized_is_in_the_log_with_how_he_tried(
    audited: Audited, log: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = audited.at("RequestResponse").server

    async def refuse(request: Request, certificate: Any) -> User:
        raise unauthorized()

    monkeypatch.setattr(server.core.authenticator, "authenticate", refuse)
    await server.handle(Request("GET", CONFIG_MAPS, headers={"authorization": "Bearer secret"}))

    (event,) = log.events
    assert (event["stage"], event["user"]) == ("ResponseStarted", {})
    assert event["responseStatus"] == {
        "metadata": {},
        "message": "Authentication failed, attempted: bearer",
        "code": 401,
    }
    assert "secret" not in str(event)
