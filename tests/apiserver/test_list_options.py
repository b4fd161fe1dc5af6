"""What lists, watches and reads may be asked for, and in which words they refuse it."""

from __future__ import annotations

import pytest

from navarch.api.errors import StatusError
from navarch.apiserver.continuing import decode_token, encode_token
from navarch.apiserver.server import ApiServer
from tests.apiserver.conftest import CONFIG_MAPS, Api, config_map
from tests.apiserver.test_lists_and_watches import brief, events, fill, names

LIST = 'ListOptions.meta.k8s.io "" is invalid: '
TOKEN = "invalid continue token: continue key is not valid: "
ONLY = 'is not a known field selector: only "metadata.name", "metadata.namespace"'
MATCH = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden"
TOO_BIG = "9999999999999999999"
NO_NUMBER = 'resourceVersion: Invalid value: "abc": strconv.ParseUint: parsing "abc": invalid syntax'


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        ("limit=x", 400, 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("limit=", 400, 'strconv.ParseInt: parsing "": invalid syntax'),
        (f"timeoutSeconds={TOO_BIG}", 400, f'strconv.ParseInt: parsing "{TOO_BIG}": value out of range'),
        ("resourceVersion=abc", 400, f"invalid resource version: {NO_NUMBER}"),
        ("watch=1&resourceVersion=abc", 500, NO_NUMBER),
        (
            "resourceVersionMatch=Exact",
            422,
            LIST + f"{MATCH} unless resourceVersion is provided",
        ),
        (
            "resourceVersion=1&resourceVersionMatch=Nope",
            422,
            LIST + 'resourceVersionMatch: Unsupported value: "Nope": supported values: "Exact", "NotOlderThan", ""',
        ),
        (
            "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=0",
            422,
            LIST + "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
        ),
        (
            "watch=1&sendInitialEvents=true&resourceVersionMatch=Exact",
            422,
            LIST + "[resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to "
            'NotOlderThan, resourceVersionMatch: Unsupported value: "Exact": supported values: "NotOlderThan"]',
        ),
        (
            "continue=garbage",
            400,
            TOKEN + "invalid character '\\u0081' looking for beginning of value",
        ),
        ("continue=ab=c", 400, TOKEN + "illegal base64 data at input byte 2"),
        ("continue=e30", 400, TOKEN + "server does not recognize this encoded version "),
        ("fieldSelector=spec.x=y", 400, f'"spec.x" {ONLY}'),
        ("labelSelector=a b", 400, "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
    ],
)
async def test_what_cannot_be_asked_is_refused_in_kubernetes_words(
    api: Api, query: str, code: int, message: str
) -> None:
    status, answer = await api("GET", f"{CONFIG_MAPS}?{query}")

    assert (status, answer["message"]) == (code, message)


@pytest.mark.parametrize(
    ("path", "field", "message"),
    [
        ("/api/v1/namespaces/default/pods", "spec.bogus", "field label not supported: spec.bogus"),
        ("/apis/batch/v1/namespaces/default/jobs", "spec.bogus", 'field label "spec.bogus" not supported for Job'),
        ("/apis/events.k8s.io/v1/namespaces/default/events", "source", "field label not supported: source"),
        ("/api/v1/namespaces", "metadata.namespace", "field label not supported: metadata.namespace"),
    ],
)
async def test_each_kind_says_which_fields_can_be_selected(api: Api, path: str, field: str, message: str) -> None:
    status, answer = await api("GET", f"{path}?fieldSelector={field}=x")

    assert (status, answer["message"]) == (400, message)


@pytest.mark.parametrize("field", ["regarding.kind", "reportingController", "reason"])
async def test_events_of_the_newer_version_are_selected_by_its_names(api: Api, field: str) -> None:
    event = {
        "metadata": {"name": "e"},
        "eventTime": "2024-01-01T00:00:00.000000Z",
        "reportingController": "x.io/c",
        "reportingInstance": "i",
        "action": "Do",
        "reason": "Because",
        "type": "Normal",
        "regarding": {"kind": "Pod", "namespace": "default"},
    }
    path = "/apis/events.k8s.io/v1/namespaces/default/events"
    await api.ok("POST", path, event)
    value = {"regarding.kind": "Pod", "reportingController": "x.io/c", "reason": "Because"}[field]

    assert names(await api.ok("GET", f"{path}?fieldSelector={field}={value}")) == ["e"]
    assert names(await api.ok("GET", f"{path}?fieldSelector={field}=other")) == []


async def test_a_chunk_of_what_is_selected_has_a_token_while_there_is_something_to_look_at(api: Api) -> None:
    await fill(api, "a", "b", "c")

    chunk = await api.ok("GET", f"{CONFIG_MAPS}?limit=1&fieldSelector=metadata.name!=a")
    assert names(chunk) == ["b"]
    assert "remainingItemCount" not in chunk["metadata"]
    rest = await api.ok(
        "GET", f"{CONFIG_MAPS}?limit=1&fieldSelector=metadata.name!=a&continue={chunk['metadata']['continue']}"
    )

    assert names(rest) == ["c"]
    assert "continue" not in rest["metadata"]


async def test_a_chunk_at_a_version_is_of_that_version(api: Api) -> None:
    await fill(api, "a", "b")
    version = (await api.ok("GET", CONFIG_MAPS))["metadata"]["resourceVersion"]
    await api.ok("DELETE", f"{CONFIG_MAPS}/a")

    assert names(await api.ok("GET", f"{CONFIG_MAPS}?limit=1&resourceVersion={version}")) == ["a"]
    assert names(await api.ok("GET", f"{CONFIG_MAPS}?resourceVersion={version}")) == ["b"]


async def test_a_read_of_one_object_is_no_watch(api: Api) -> None:
    await fill(api, "a")

    assert (await api.ok("GET", f"{CONFIG_MAPS}/a?watch=true"))["metadata"]["name"] == "a"
    assert (await api("GET", f"{CONFIG_MAPS}/none?watch=true"))[0] == 404


async def test_a_watch_with_bookmarks_tells_where_what_was_there_ends(api: Api) -> None:
    await fill(api, "a")

    found = await events(await api.send("GET", f"{CONFIG_MAPS}?watch=true&allowWatchBookmarks=true"), 2)

    assert brief(found) == [("ADDED", "a"), ("BOOKMARK", "")]
    assert found[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_a_watch_that_wants_no_initial_events_begins_now(api: Api) -> None:
    await fill(api, "a")

    stream = await api.send(
        "GET", f"{CONFIG_MAPS}?watch=true&sendInitialEvents=false&resourceVersionMatch=NotOlderThan"
    )
    await fill(api, "b")

    assert brief(await events(stream, 1)) == [("ADDED", "b")]


async def test_nobody_watches_how_a_cluster_came_about(server: ApiServer, api: Api) -> None:
    await fill(api, "a")
    await server.core.caches.begin()

    [event] = await events(await api.send("GET", f"{CONFIG_MAPS}?watch=true&resourceVersion=1"), 1)
    status, answer = await api("GET", f"{CONFIG_MAPS}?resourceVersion=1&resourceVersionMatch=Exact")

    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    assert (status, answer["message"]) == (410, "The resourceVersion for the provided list is too old.")


def test_a_token_leads_back_to_where_it_was_made() -> None:
    assert decode_token(encode_token(7, "default/web"), namespaced=True) == (7, "default/web")
    assert decode_token(encode_token(7, "/node-1"), namespaced=False) == (7, "/node-1")


@pytest.mark.parametrize("start", ["../secrets/x", "a//b", "a/./b"])
def test_a_token_leads_nowhere_else(start: str) -> None:
    with pytest.raises(StatusError) as refused:
        decode_token(encode_token(7, start), namespaced=True)

    assert refused.value.code == 400


async def test_an_object_made_with_a_revision_is_refused_after_all_else(api: Api) -> None:
    obj = config_map("a")
    obj["metadata"]["resourceVersion"] = "5"

    status, answer = await api("POST", CONFIG_MAPS, obj)

    assert (status, answer["message"]) == (500, "resourceVersion should not be set on objects to be created")
    assert "reason" not in answer
