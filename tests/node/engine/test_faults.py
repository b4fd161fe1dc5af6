"""Whatever a collaborator of a pod's worker raises is told in an event and in the log, and the pod runs, or ends, all
the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any

import pytest

from navarch.api.errors import not_found
from navarch.client.supervision import Delay, Failures, supervised
from navarch.node.engine import publish, retries, start, stop
from navarch.node.runtime.base import RuntimeFailure
from tests.node.engine.conftest import Simulated


def faults(where: str) -> list[BaseException]:
    """One of each kind, told apart by their words. A cancellation that nobody asked for has none."""
    words = [f"{where} {number}" for number in range(5)]
    return [
        ZeroDivisionError(words[0]),
        ConnectionResetError(words[1]),
        OSError(28, words[2]),
        RuntimeFailure(words[3]),
        ExceptionGroup(words[4], [KeyError(words[4])]),
        asyncio.CancelledError(),
        not_found("", "widgets", where),
    ]


def break_down(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, pod: str, failing: list[BaseException]) -> None:
    """Calls for one pod, as tasks' names say, fail once with each of `failing`."""
    method = getattr(owner, name)

    @wraps(method)
    def broken(*args: Any, **kwargs: Any) -> Any:
        task = asyncio.current_task()
        if failing and task is not None and pod in task.get_name():
            raise failing.pop()
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, broken)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Delay, "failed", lambda self: 0.02)
    monkeypatch.setattr(publish, "_FIRST_RETRY_S", 0.02)
    for name in ("AGAIN", "SOON"):
        monkeypatch.setattr(retries, name, timedelta(seconds=0.02))


def pod_of(collaborator: str) -> str:
    """The name of the pod for which this one fails."""
    return f"no-{collaborator.replace('_', '-')}"


def told(simulated: Simulated, collaborator: str) -> str:
    """All warnings about its pod."""
    pod = pod_of(collaborator)
    events = [event for event in simulated.api.events() if event["involvedObject"]["name"] == pod]
    return "\n".join(event["message"] for event in events if event["type"] == "Warning")


def words_of(fault: BaseException) -> str:
    if isinstance(fault, asyncio.CancelledError):
        return "what was waited for was cancelled"
    if isinstance(fault, ExceptionGroup):
        return str(fault.exceptions[0]).strip("'")
    return (fault.strerror or str(fault)) if isinstance(fault, OSError) else str(fault)


STARTING: dict[str, Callable[[Any], Any]] = {
    "list_sandboxes": lambda kubelet: kubelet.runtime,
    "list_containers": lambda kubelet: kubelet.runtime,
    "conditions": lambda kubelet: kubelet.runtime,
    "run_sandbox": lambda kubelet: kubelet.runtime,
    "sandbox_status": lambda kubelet: kubelet.runtime,
    "create_container": lambda kubelet: kubelet.runtime,
    "start_container": lambda kubelet: kubelet.runtime,
    "container_status": lambda kubelet: kubelet.runtime,
    "ensure": lambda kubelet: kubelet.parts.images,
    "prepare": lambda kubelet: kubelet.parts.devices,
    "starting": lambda kubelet: kubelet.parts.devices,
    "publish": lambda kubelet: kubelet.parts.resources,
    "in_thread": lambda kubelet: kubelet.parts.world,
}
ENDING: dict[str, Callable[[Any], Any]] = {
    "stop_container": lambda kubelet: kubelet.runtime,
    "stop_sandbox": lambda kubelet: kubelet.runtime,
    "remove_container": lambda kubelet: kubelet.runtime,
    "remove_sandbox": lambda kubelet: kubelet.runtime,
    "unpublish": lambda kubelet: kubelet.parts.volumes,
    "release": lambda kubelet: kubelet.parts.users,
    "forget_pod": lambda kubelet: kubelet.parts.images,
}


async def test_pods_run_whatever_went_wrong_while_they_were_started(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = {name: faults(name) for name in STARTING}
    expected = {name: [words_of(fault) for fault in failing] for name, failing in left.items()}
    for name, failing in left.items():
        break_down(monkeypatch, STARTING[name](simulated.kubelet), name, pod_of(name), failing)

    for name in STARTING:
        await simulated.pod(pod_of(name), volumes=[{"name": "v", "emptyDir": {}}])

    for name in STARTING:
        await simulated.running(pod_of(name))
        await simulated.until(lambda name=name: all(words in told(simulated, name) for words in expected[name]))
    assert not any(left.values())
    # The others are known, and their words say all of them.
    assert simulated.kubelet.failures.counts.keys() == {"ZeroDivisionError", "ExceptionGroup", "AbandonedError"}


async def test_pods_end_whatever_went_wrong_while_they_were_stopped(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ENDING:
        await simulated.pod(pod_of(name), {"name": pod_of(name)})
    for name in ENDING:
        await simulated.running(pod_of(name))
    left = {name: faults(name) for name in ENDING}
    expected = {name: [words_of(fault) for fault in failing] for name, failing in left.items()}
    for name, failing in left.items():
        break_down(monkeypatch, ENDING[name](simulated.kubelet), name, pod_of(name), failing)

    for name in ENDING:
        await simulated.api.delete_gracefully("default", pod_of(name))

    for name in ENDING:
        await simulated.until(lambda name=name: simulated.shown(pod_of(name)) is None)
        await simulated.until(lambda name=name: all(words in told(simulated, name) for words in expected[name]))
    assert not any(left.values())


async def test_a_hook_that_somebody_cancelled_has_failed_and_holds_nothing_back(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cancelled(*_: Any) -> Any:
        raise asyncio.CancelledError

    for module in (start, stop):
        monkeypatch.setattr(module, "run_hook", cancelled)
    hook = {"exec": {"command": ["true"]}}
    await simulated.pod("hooked", {"name": "c", "lifecycle": {"postStart": hook, "preStop": hook}})
    await simulated.until(lambda: "FailedPostStartHook" in simulated.reasons("hooked"))

    await simulated.api.delete_gracefully("default", "hooked")

    await simulated.until(lambda: simulated.shown("hooked") is None)


async def test_a_probe_whose_verdict_breaks_goes_on(simulated: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    from navarch.node.engine.podprobes import PodProbes

    verdict, failing = PodProbes._verdict, [IndexError("verdict")]

    def broken(self: PodProbes, *arguments: Any) -> None:
        if failing:
            raise failing.pop()
        verdict(self, *arguments)

    monkeypatch.setattr(PodProbes, "_verdict", broken)
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    await simulated.pod("probed", {"name": "c", "readinessProbe": probe})

    def ready() -> bool:
        statuses = (simulated.shown("probed").get("status") or {}).get("containerStatuses") or [{}]
        return bool(statuses[0].get("ready"))

    await simulated.until(ready)
    assert failing == []


async def test_pods_run_whatever_is_in_the_files_of_their_amounts(simulated: Simulated) -> None:
    await simulated.stop()
    texts = ("", "[]", "5", '{"web": 5}', '{"given": [], "allocated": {}}', '{"given": {"c": 5}, "allocated": {}}',
             '{"given": {}, "allocated": {"c": 5}}', '{"given": null, "allocated": null}', "\x00")  # fmt: skip
    for number, text in enumerate(texts):
        uid = (await simulated.pod(f"unlucky-{number}"))["metadata"]["uid"]
        file = simulated.config.pod_directory(uid) / "resources.json"
        file.parent.mkdir(parents=True)
        file.write_text(text)

    await simulated.start_again()

    for number in range(len(texts)):
        await simulated.running(f"unlucky-{number}")
    assert {simulated.shown(f"unlucky-{number}")["status"]["phase"] for number in range(len(texts))} == {"Running"}


async def test_what_is_supervised_goes_on_after_a_cancellation_that_was_not_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Delay, "failed", lambda self: 0)
    runs, goes_on, failures = [], asyncio.Event(), Failures()

    async def run() -> None:
        runs.append(None)
        if len(runs) == 1:
            raise asyncio.CancelledError
        goes_on.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(supervised("loop", run, failures))
    async with asyncio.timeout(15):
        await goes_on.wait()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert failures.counts == {"AbandonedError": 1}
