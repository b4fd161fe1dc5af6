"""What is remembered of statuses that are alike is what comes of each of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from navarch.api import schema
from navarch.api.apply import update_managed_fields
from navarch.api.meta import Obj
from navarch.api.status_outcomes import Outcome, StatusOutcomes
from navarch.apiserver.patching import MERGE_PATCH, STRATEGIC_PATCH, decode_touched, patched, remembered
from navarch.kinds.core.pod import PodStrategy

POD = schema.load().compile("io.k8s.api.core.v1.Pod")
PODS = PodStrategy()
NOW = "2026-11-26T05:00:30Z"

TIMES = [f"2026-11-{day}T05:00:0{second}Z" for day in (26, 30) for second in range(3)]
ADDRESSES = ["10.0.0.1", "10.0.0.2", "10.244.13.255"]
CONTAINERS = [f"containerd://{number:064x}" for number in range(3)]
VOLUMES = ["kube-api-access-abcde", "kube-api-access-fghij"]
# What only looks like such a text stays what it is.
TEXTS = [
    "10.0.0.1",
    "at 10.0.0.1 since 2026-11-26T05:00:00Z",
    'k:{"ip":"10.0.0.1"}',
    '":"10.0.0.1"',
    "10.0.0.256",
    "2026-02-30T00:00:00Z",
]


class Chance(random.Random):
    """Statuses by chance: texts come from small pools, so that some are the same."""

    def some(self, **fields: Callable[[], Any]) -> Obj:
        return {name: make() for name, make in fields.items() if self.random() < 0.7}

    def pick(self, values: Sequence[Any]) -> Callable[[], Any]:
        return lambda: self.choice(values)

    def listed(self, key: str, names: Sequence[str], rest: Callable[[], Obj]) -> list[Obj]:
        return [{key: name, **rest()} for name in self.sample(names, self.randint(0, len(names)))]

    def state(self) -> Obj:
        at = self.pick(TIMES)
        ended = {"startedAt": at, "finishedAt": at, "containerID": self.pick(CONTAINERS), "exitCode": lambda: 1}
        return self.some(running=lambda: self.some(startedAt=at), terminated=lambda: self.some(**ended))

    def condition(self) -> Obj:
        at = self.pick([None, *TIMES])
        said = {"lastTransitionTime": at, "lastProbeTime": at, "message": self.pick(TEXTS)}
        return {"status": self.choice(["True", "False"]), **self.some(**said)}

    def container(self) -> Obj:
        return {
            "image": "i",
            "imageID": "i",
            **self.some(
                ready=self.pick([True, False]),
                state=self.state,
                lastState=self.state,
                containerID=self.pick(CONTAINERS),
                volumeMounts=lambda: self.listed("mountPath", ["/a", "/b"], lambda: {"name": self.choice(VOLUMES)}),
            ),
        }

    def status(self) -> Obj:
        return self.some(
            phase=self.pick(["Pending", "Running"]),
            message=self.pick(TEXTS),
            startTime=self.pick(TIMES),
            hostIP=self.pick(ADDRESSES),
            podIP=self.pick(ADDRESSES),
            podIPs=lambda: self.listed("ip", ADDRESSES, dict),
            conditions=lambda: self.listed("type", ["Ready", "PodScheduled"], self.condition),
            containerStatuses=lambda: self.listed("name", ["web", "side"], self.container),
        )

    def names(self) -> dict[str, str]:
        """Other texts for the texts: one to one, or so that some become the same."""
        names: dict[str, str] = {}
        for pool in (TIMES, ADDRESSES, CONTAINERS, VOLUMES):
            others = self.sample(pool, len(pool)) if self.random() < 0.7 else self.choices(pool, k=len(pool))
            names |= zip(pool, others, strict=True)
        return names


def renamed(value: Any, names: dict[str, str]) -> Any:
    """The same with other times, addresses and so on as a value of a field, where there are some for them."""
    if isinstance(value, dict):
        return {name: renamed(item, names) for name, item in value.items()}
    if isinstance(value, list):
        return [renamed(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


def pod(status: Obj, first: Obj) -> Obj:
    """A pod whose status was first one thing and then another, each told by somebody else."""
    spec = {"containers": [{"name": "web", "image": "i"}], "hostAliases": [{"ip": "10.0.0.2", "hostnames": ["a"]}]}
    metadata: Obj = {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "7"}
    obj: Obj = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    update_managed_fields(None, obj, POD.root, manager="creator", api_version="v1", now="2026-11-26T05:00:00Z")
    for manager, said in (("scheduler", first), ("kubelet", status)):
        new = {**obj, "metadata": dict(obj["metadata"]), "status": said}
        PODS.complete(new)
        owned(obj, new, manager, None)
        obj = new
    stored: Obj = orjson.loads(orjson.dumps(obj))
    return stored


def owned(old: Obj, new: Obj, manager: str, outcome: Outcome | None) -> None:
    update_managed_fields(
        old, new, POD.root, manager=manager, api_version="v1", subresource="status", now=NOW, outcome=outcome
    )


def completed(obj: Obj, old: Obj) -> Obj:
    """As the pipeline does before it looks who owns what."""
    PODS.prepare_status(obj, old)
    PODS.complete(obj)
    return obj


def worked_out(old: Obj, patch: Obj, media_type: str) -> Obj:
    obj, touched = patched(old, patch, media_type, POD, sharing=True)
    assert not decode_touched(POD, obj, touched)
    owned(old, completed(obj, old), "kubelet", None)
    return obj


def from_memory(outcomes: StatusOutcomes, old: Obj, patch: Obj, media_type: str) -> Obj | None:
    found = remembered(outcomes, old, patch, media_type, POD)
    if found is None:
        return None
    obj, outcome = found
    owned(old, completed(obj, old), "kubelet", outcome)
    return obj


@given(st.integers(0, 2**32), st.sampled_from([MERGE_PATCH, STRATEGIC_PATCH]))
def test_what_is_remembered_is_what_comes_of_it(seed: int, media_type: str) -> None:
    chance, outcomes, answers = Chance(seed), StatusOutcomes(), 0
    first, before, change = chance.status(), chance.status(), chance.status()
    names = [chance.names() for _ in range(3)]
    for each in [{}, *names, {}, *names]:
        old = pod(renamed(before, each), renamed(first, each))
        patch = {"metadata": {"uid": "u"}, "status": renamed(change, each)}
        wanted = worked_out(orjson.loads(orjson.dumps(old)), patch, media_type)
        untouched = orjson.dumps([old, patch])

        found = from_memory(outcomes, old, patch, media_type)

        assert orjson.dumps([old, patch]) == untouched
        if found is not None:
            answers += 1
            assert found == wanted
            assert orjson.dumps(found["status"]) == orjson.dumps(wanted["status"])
    # All that was asked for a second time; a podIP that the renaming doubled in a list is refused by both.
    assert answers >= 4 or not before or not change


def running(number: int) -> tuple[Obj, Obj]:
    """A pod that was bound, and what its kubelet says when it runs."""
    at, address = f"2026-11-26T05:00:{number:02d}Z", f"10.244.0.{number}"
    scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": at}
    change = {
        "$setElementOrder/conditions": [{"type": "PodScheduled"}, {"type": "Ready"}],
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at}],
        "containerStatuses": [{"name": "web", "containerID": f"containerd://{number:064x}", "image": "i"}],
        "podIP": address,
        "podIPs": [{"ip": address}],
    }
    status = {"phase": "Pending", "qosClass": "BestEffort", "conditions": [scheduled]}
    return pod(status, {}), {"metadata": {"uid": "u"}, "status": change}


def test_from_the_third_pod_of_a_template_on_memory_answers_and_each_pod_has_its_own_address() -> None:
    outcomes = StatusOutcomes()

    found = [from_memory(outcomes, *running(number), STRATEGIC_PATCH) for number in range(1, 30)]

    assert found[0] is None
    for number, obj in enumerate(found[1:], 2):
        assert obj == worked_out(*running(number), STRATEGIC_PATCH)
        assert f'k:{{"ip":"10.244.0.{number}"}}' in str(obj)


def test_ownership_is_worked_out_once_for_all_that_are_alike() -> None:
    outcomes, asked = StatusOutcomes(), 0
    for number in range(1, 20):
        old, patch = running(number)
        found = remembered(outcomes, old, patch, STRATEGIC_PATCH, POD)
        if found is None:
            continue
        obj, outcome = found

        def counted(*_: Any) -> Any:
            nonlocal asked
            asked += 1
            return []

        outcome.owners(old, obj, ("kubelet", "Update", "v1", "status"), counted)  # type: ignore[arg-type]

    # Once for the first, and once for its twin with made-up texts.
    assert asked == 2


def made_of(outcomes: StatusOutcomes, make: Any, *addresses: str) -> Obj | None:
    outcome = outcomes.find("way", {}, {"message": "m", "podIPs": [{"ip": text} for text in addresses]}, make)
    return None if outcome is None else outcome.status


def test_what_looks_into_the_texts_is_never_remembered() -> None:
    outcomes = StatusOutcomes()

    def last_digit(was: Obj, change: Obj) -> Obj:
        return {"message": change["podIPs"][0]["ip"][-1]}

    assert [made_of(outcomes, last_digit, f"10.0.0.{number}") for number in range(5)] == [None] * 5


def test_which_texts_are_the_same_makes_a_difference() -> None:
    outcomes = StatusOutcomes()

    def distinct(was: Obj, change: Obj) -> Obj:
        return {"count": len({item["ip"] for item in change["podIPs"]})}

    for _ in range(3):
        two = made_of(outcomes, distinct, "10.0.0.1", "10.0.0.2")
        one = made_of(outcomes, distinct, "10.0.0.3", "10.0.0.3")

    assert (two, one) == ({"count": 2}, {"count": 1})


def test_what_is_remembered_is_bounded() -> None:
    outcomes = StatusOutcomes()

    def same(was: Obj, change: Obj) -> Obj:
        return change

    for number in range(20_000):
        for _ in range(3):
            outcomes.find("way", {"n": number}, {"n": number}, same)

    held = orjson.dumps([str(outcomes.__dict__[name]) for name in ("_known", "_seen")])
    assert len(outcomes._known) <= 256
    assert len(outcomes._seen) <= 1024
    assert len(held) < 1_000_000


def test_statuses_that_are_all_different_are_soon_not_looked_up_any_more() -> None:
    outcomes = StatusOutcomes()

    def same(was: Obj, change: Obj) -> Obj:
        return change

    found = [outcomes.find("way", {"n": number // 3}, {}, same) is not None for number in range(300, 303)]
    for number in range(70):
        assert outcomes.find("way", {"n": number}, {"m": number}, same) is None
    paused = outcomes.find("way", {"n": 100}, {}, same)

    assert found == [False, True, True]
    assert paused is None
