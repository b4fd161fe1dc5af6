"""What writes may be asked to do, and in which words the rest is refused; deletions, too."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.apiserver.conftest import CONFIG_MAPS, Api, config_map

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"


@pytest.mark.parametrize(
    ("query", "problems"),
    [
        ("dryRun=Nope", ['dryRun: Unsupported value: ["Nope"]: supported values: "All"']),
        ("dryRun=", ['dryRun: Unsupported value: [""]: supported values: "All"']),
        (
            "fieldValidation=Nope",
            ['fieldValidation: Unsupported value: "Nope": supported values: "", "Ignore", "Strict", "Warn"'],
        ),
        (f"fieldManager={'x' * 129}", ["fieldManager: Too long: may not be more than 128 bytes"]),
        (
            "fieldManager=" + quote("é\n"),
            ['fieldManager: Invalid value: "é\\n": invalid character U+000A (at position 2)'],
        ),
    ],
)
@pytest.mark.parametrize(
    ("method", "options"), [("POST", "CreateOptions"), ("PUT", "UpdateOptions"), ("PATCH", "PatchOptions")]
)
async def test_options_are_refused_by_name(
    api: Api, method: str, options: str, query: str, problems: list[str]
) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    path = CONFIG_MAPS if method == "POST" else f"{CONFIG_MAPS}/a"
    query = query.replace(quote("é\n"), "é\n")

    status, answer = await api(method, f"{path}?{query}", {}, content_type=MERGE if method == "PATCH" else "")

    assert (status, answer["message"]) == (422, f'{options}.meta.k8s.io "" is invalid: {", ".join(problems)}')


async def test_all_that_is_wrong_with_options_is_said_at_once(api: Api) -> None:
    status, answer = await api("PATCH", f"{CONFIG_MAPS}/a?dryRun=x&force=true", {}, content_type=MERGE)

    assert status == 422
    assert answer["message"] == (
        'PatchOptions.meta.k8s.io "" is invalid: [force: Forbidden: may not be specified for non-apply patch, '
        'dryRun: Unsupported value: ["x"]: supported values: "All"]'
    )


async def test_who_applies_says_who_he_is(api: Api) -> None:
    status, answer = await api("PATCH", f"{CONFIG_MAPS}/a", {}, content_type=APPLY)

    assert (status, answer["message"]) == (
        422,
        'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
    )


async def test_an_update_names_what_it_updates(api: Api) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a"))

    status, answer = await api("PUT", f"{CONFIG_MAPS}/a", {"metadata": {}})

    assert (status, answer["message"]) == (
        400,
        "the name of the object (a based on URL) was undeterminable: name must be provided",
    )


async def test_what_is_in_no_namespace_may_state_one_to_no_effect(api: Api) -> None:
    made = await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "n", "namespace": "other"}})

    assert "namespace" not in made["metadata"]


POLICIES = 'supported values: "Foreground", "Background", "Orphan", "nil"'
IGNORE = "ignoreStoreReadErrorWithClusterBreakingPotential"


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"propagationPolicy": "Nope"}, 422, f'propagationPolicy: Unsupported value: "Nope": {POLICIES}'),
        ({"propagationPolicy": ""}, 422, f'propagationPolicy: Unsupported value: "": {POLICIES}'),
        (
            {"propagationPolicy": "Orphan", "orphanDependents": True},
            422,
            'propagationPolicy: Invalid value: "Orphan": orphanDependents and deletionPropagation cannot be both set',
        ),
        ({"dryRun": ["Some"]}, 422, 'dryRun: Unsupported value: ["Some"]: supported values: "All"'),
        (
            {IGNORE: True, "gracePeriodSeconds": 0},
            422,
            f"{IGNORE}: Invalid value: true: cannot be set together with .gracePeriodSeconds",
        ),
    ],
)
async def test_a_deletions_options_are_refused(api: Api, body: Any, code: int, message: str) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a"))

    for path in (f"{CONFIG_MAPS}/a", CONFIG_MAPS):
        status, answer = await api("DELETE", path, body)
        assert (status, answer["message"]) == (code, f'DeleteOptions.meta.k8s.io "" is invalid: {message}')
    assert (await api("GET", f"{CONFIG_MAPS}/a"))[0] == 200


async def test_a_collections_deletion_shows_what_was_there(api: Api) -> None:
    made = [await api.ok("POST", CONFIG_MAPS, config_map(name)) for name in ("a", "b")]

    gone = await api.ok("DELETE", CONFIG_MAPS)

    assert [item["metadata"] for item in gone["items"]] == [obj["metadata"] for obj in made]
    assert (await api.ok("GET", CONFIG_MAPS))["items"] == []


async def test_a_precondition_may_be_in_the_query(api: Api) -> None:
    made = await api.ok("POST", CONFIG_MAPS, config_map("a"))

    assert (await api("DELETE", f"{CONFIG_MAPS}/a?uid=other"))[0] == 409
    assert (await api("DELETE", f"{CONFIG_MAPS}/a?uid={made['metadata']['uid']}"))[0] == 200


async def test_who_wants_no_orphans_is_told_that_it_has_begun(api: Api) -> None:
    held = config_map("a")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await api.ok("POST", CONFIG_MAPS, held)

    assert (await api("DELETE", f"{CONFIG_MAPS}/a?propagationPolicy=Foreground"))[0] == 200
    assert (await api("DELETE", f"{CONFIG_MAPS}/a?orphanDependents=false"))[0] == 202
