"""What Kubernetes' conformance requirements ask of every kind: each verb, the status subresource, tables, dry runs."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Cluster
from .rest import APPLY, JSON_PATCH, MERGE, STRATEGIC, TABLE, Rest
from .samples import NAMED_BY_CONTENT, SAMPLES, Sample

Obj = dict[str, Any]
_WITH_STATUS = [sample for sample in SAMPLES if sample.status is not None]


@pytest.fixture(scope="module")
def rest(simulated: Cluster) -> Rest:
    return Rest(simulated)


@pytest.fixture(scope="module")
def space(simulated: Cluster) -> Any:
    name = f"kinds-{uuid.uuid4().hex[:6]}"
    simulated.kubectl("create", "namespace", name)
    yield name
    simulated.kubectl("delete", "namespace", name, "--wait=false")


def until(condition: Callable[[], bool], what: str, timeout_s: float = 20) -> None:
    give_up_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_s, what
        time.sleep(0.05)


def gone(rest: Rest, path: str) -> None:
    until(lambda: rest.send("GET", path)[0] == 404, f"{path} is still there")


class Trial:
    """One kind's objects in the course of a test, told apart by a label of their own."""

    def __init__(self, rest: Rest, sample: Sample, space: str) -> None:
        self.rest, self.sample = rest, sample
        self.label = uuid.uuid4().hex[:8]
        self.selector = f"trial={self.label}"
        self.collection = sample.collection("default" if sample.in_default else space)
        suffix = "" if sample.names[0][0].isdigit() else f"-{self.label}"
        self.names = [f"{name}{suffix}" for name in sample.names]
        self.path = f"{self.collection}/{self.names[0]}"

    def made(self, index: int = 0) -> Obj:
        return self.sample.made(self.names[index], {"trial": self.label})

    def create(self, index: int = 0) -> Obj:
        created: Obj = self.rest.ok("POST", self.collection, self.made(index))
        return created

    def listed(self, collection: str = "", **query: str) -> list[str]:
        answer = self.rest.ok("GET", collection or self.collection, **{"labelSelector": self.selector, **query})
        assert answer["kind"] == f"{self.sample.kind}List"
        assert answer["metadata"]["resourceVersion"]
        return [item["metadata"]["name"] for item in answer["items"]]


@pytest.fixture
def trial(request: pytest.FixtureRequest, rest: Rest, space: str) -> Any:
    made = Trial(rest, request.param, space)
    yield made
    for name in made.names:
        rest.send("DELETE", f"{made.collection}/{name}", {"gracePeriodSeconds": 0})


every_kind = pytest.mark.parametrize("trial", SAMPLES, ids=lambda sample: sample.id, indirect=True)
every_kind_with_status = pytest.mark.parametrize("trial", _WITH_STATUS, ids=lambda sample: sample.id, indirect=True)


@every_kind
def test_lifecycle(trial: Trial) -> None:
    rest, path, name = trial.rest, trial.path, trial.names[0]
    start = rest.ok("GET", trial.collection)["metadata"]["resourceVersion"]

    dry = rest.ok("POST", trial.collection, trial.made(), dryRun="All")
    assert dry["metadata"]["name"] == name
    assert rest.send("GET", path)[0] == 404

    created = trial.create()
    assert created["metadata"]["uid"]
    assert created["metadata"]["creationTimestamp"]
    assert rest.ok("GET", path)["metadata"]["uid"] == created["metadata"]["uid"]
    assert rest.refused(409, "POST", trial.collection, trial.made())["reason"] == "AlreadyExists"
    assert trial.listed() == [name]
    assert trial.listed(trial.sample.everywhere()) == [name]
    assert trial.listed(fieldSelector=f"metadata.name={name}") == [name]
    assert trial.listed(fieldSelector=f"metadata.name!={name}") == []

    labels = rest.ok("PATCH", path, {"metadata": {"labels": {"merge": "1"}}}, content_type=MERGE)["metadata"]["labels"]
    assert labels.items() >= {"trial": trial.label, "merge": "1"}.items()
    patched = rest.ok("PATCH", path, {"metadata": {"annotations": {"strategic": "1"}}}, content_type=STRATEGIC)
    assert patched["metadata"]["annotations"]["strategic"] == "1"
    operations = [{"op": "replace", "path": "/metadata/labels/merge", "value": "2"}]
    patched = rest.ok("PATCH", path, operations, content_type=JSON_PATCH)
    assert patched["metadata"]["labels"]["merge"] == "2"
    config = {name: value for name, value in trial.made().items() if name in ("apiVersion", "kind")}
    config["metadata"] = {"name": name, "annotations": {"applied": "1"}}
    applied = rest.ok("PATCH", path, config, content_type=APPLY, fieldManager="tester")
    assert applied["metadata"]["annotations"]["applied"] == "1"
    assert [entry["operation"] for entry in applied["metadata"]["managedFields"] if entry["manager"] == "tester"] == [
        "Apply"
    ]

    def replaced() -> bool:
        current = rest.ok("GET", path)
        current["metadata"]["annotations"]["updated"] = "1"
        status, answer = rest.send("PUT", path, current)
        assert status in (200, 409), answer
        return status == 200

    until(replaced, "every update meets a conflict")
    stale = {**created, "metadata": {**created["metadata"], "labels": {"trial": trial.label, "stale": "1"}}}
    assert rest.refused(409, "PUT", path, stale)["reason"] == "Conflict"
    now = rest.ok("GET", path)
    assert now["metadata"]["annotations"].items() >= {"strategic": "1", "applied": "1", "updated": "1"}.items()

    table = rest.ok("GET", trial.collection, accept=TABLE, labelSelector=trial.selector)
    assert table["kind"] == "Table"
    assert table["columnDefinitions"][0]["name"] in ("Name", "Last Seen")
    assert [row["object"]["metadata"]["name"] for row in table["rows"]] == [name]
    # Of IPAddresses Kubernetes shows the age and names no column for it.
    unnamed = 1 if trial.sample.plural == "ipaddresses" else 0
    assert len(table["rows"][0]["cells"]) == len(table["columnDefinitions"]) + unnamed

    rest.ok("DELETE", path, {"gracePeriodSeconds": 0})
    gone(rest, path)
    seen: list[str] = []
    for event in rest.watch(trial.collection, resourceVersion=start, labelSelector=trial.selector):
        assert event["object"]["metadata"]["name"] == name
        seen.append(event["type"])
        if event["type"] == "DELETED":
            break
    assert seen[0] == "ADDED"
    assert seen[-1] == "DELETED"
    assert seen.count("MODIFIED") >= 5


@every_kind
def test_deletecollection(trial: Trial) -> None:
    if trial.sample.plural == "namespaces":
        pytest.skip("Kubernetes has none for namespaces")
    trial.create(0)
    if trial.sample.plural != "servicecidrs":
        trial.create(1)

    trial.rest.ok("DELETE", trial.collection, {"gracePeriodSeconds": 0}, labelSelector=trial.selector)

    until(lambda: trial.listed() == [], "some are left")


# Kinds whose status strategy in Kubernetes puts the old metadata back.
STATUS_KEEPS_METADATA = {
    "flowschemas",
    "podcertificaterequests",
    "prioritylevelconfigurations",
    "servicecidrs",
    "volumeattachments",
}


@every_kind_with_status
def test_status(trial: Trial) -> None:
    rest, path = trial.rest, f"{trial.path}/status"
    created = trial.create()
    status = trial.sample.status

    read = rest.ok("GET", path)
    assert read["kind"] == trial.sample.kind
    assert read["metadata"]["uid"] == created["metadata"]["uid"]

    patch = {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": status}
    patched = rest.ok("PATCH", path, patch, content_type=MERGE)
    assert contains(patched["status"], status), patched["status"]
    annotated = (patched["metadata"].get("annotations") or {}).get("patchedstatus") == "true"
    assert annotated != (trial.sample.plural in STATUS_KEEPS_METADATA)
    # A new node's taint goes when the node is well, whenever that is.
    untouched = {name: value for name, value in (read.get("spec") or {}).items() if name != "taints"}
    assert contains(patched.get("spec") or {}, untouched)

    def updated() -> bool:
        current = rest.ok("GET", path)
        current["status"] = {**current.get("status", {}), **status} if status else {}
        if "spec" in current:
            current["spec"] = created["spec"]
        code, answer = rest.send("PUT", path, current)
        assert code in (200, 409), answer
        return code == 200 and contains(answer["status"], status)

    until(updated, "every update of the status meets a conflict")


def contains(actual: Any, wanted: Any) -> bool:
    """Whether everything wanted is there."""
    if isinstance(wanted, dict):
        return isinstance(actual, dict) and all(contains(actual.get(name), value) for name, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(actual, list) and all(any(contains(item, value) for item in actual) for value in wanted)
    return bool(actual == wanted)


def test_every_stored_kind_has_a_sample(rest: Rest) -> None:
    known = {(sample.group, sample.version, sample.plural) for sample in SAMPLES} | NAMED_BY_CONTENT.keys()
    served = set()
    for group in rest.ok("GET", "/apis")["groups"]:
        for version in group["versions"]:
            served.add((group["name"], version["version"]))
    missing = []
    for group_name, version_name in [("", "v1"), *served]:
        root = f"/apis/{group_name}/{version_name}" if group_name else "/api/v1"
        for resource in rest.ok("GET", root)["resources"]:
            key = (group_name, version_name, resource["name"])
            if "create" in resource["verbs"] and "list" in resource["verbs"] and key not in known:
                missing.append(key)
    assert missing == []
