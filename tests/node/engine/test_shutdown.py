"""The machine is about to go: which pods end when, over simulated containers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from navarch.api.meta import Obj
from navarch.node import kubelet
from navarch.node.config import ShutdownPeriod
from navarch.node.engine.shutdown import in_order
from navarch.node.runtime.simulated import Life
from tests.node.engine.conftest import Simulated

CRITICAL = 2_000_000_000


class Machine:
    """Announces its end, and counts who holds it back."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[bool] = asyncio.Queue()
        self.locks: list[int] = []

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Machine]:
        yield self

    async def shutdowns(self) -> AsyncIterator[bool]:
        while True:
            yield await self.told.get()

    async def longest_delay_s(self) -> float:
        return 5.0

    async def inhibit(self) -> int:
        reading, writing = os.pipe()
        self.locks.append(reading)
        return writing

    def held(self) -> bool:
        """Whether the last lock is still held: a pipe whose writing end is open has no end."""
        os.set_blocking(self.locks[-1], False)
        try:
            return os.read(self.locks[-1], 1) != b""
        except BlockingIOError:
            return True

    def close(self) -> None:
        for lock in self.locks:
            os.close(lock)


@pytest.fixture
async def machine(simulated: Simulated, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Machine]:
    """Whose node ends its pods with grace."""
    found = Machine()
    monkeypatch.setattr(kubelet, "_logind", found.connected)
    periods = (ShutdownPeriod(0, 5.0), ShutdownPeriod(CRITICAL, 5.0))
    await simulated.restart(shutdown_periods=periods)
    await simulated.until(lambda: found.locks)
    yield found
    await simulated.stop()
    found.close()
    await simulated.start_again()


def of(name: str, priority: int | None) -> Obj:
    return {"metadata": {"name": name}, "spec": {} if priority is None else {"priority": priority}}


def test_pods_end_by_priority_the_least_important_first() -> None:
    periods = [ShutdownPeriod(1000, 20.0), ShutdownPeriod(0, 10.0), ShutdownPeriod(CRITICAL, 30.0)]
    pods = [of("system", CRITICAL + 1), of("plain", None), of("mid", 1000), of("below", -5), of("most", 999)]

    groups = [(seconds, [pod["metadata"]["name"] for pod in group]) for seconds, group in in_order(periods, pods)]

    assert groups == [(10.0, ["plain", "below", "most"]), (20.0, ["mid"]), (30.0, ["system"])]


def conditions(pod: Any, kind: str) -> Any:
    return next((c for c in pod["status"].get("conditions") or [] if c["type"] == kind), None)


async def test_a_machine_waits_until_its_pods_have_ended(simulated: Simulated, machine: Machine) -> None:
    simulated.lives["slow"] = Life(stop_s=0.5)
    await simulated.pod("usual", {"name": "slow"}, terminationGracePeriodSeconds=5)
    await simulated.pod("other", {"name": "c"})
    await simulated.running("usual")
    await simulated.running("other")
    assert machine.held()

    machine.told.put_nowait(True)

    await simulated.until(lambda: not machine.held())
    for name in ("usual", "other"):
        await simulated.until(lambda name=name: simulated.phase(name) == "Failed")
        status = simulated.shown(name)["status"]
        words = "Pod was terminated in response to imminent node shutdown."
        assert (status["reason"], status["message"]) == ("Terminated", words)
        condition = conditions(simulated.shown(name), "DisruptionTarget")
        assert (condition["status"], condition["reason"]) == ("True", "TerminationByKubelet")
    assert simulated.shown("usual")["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 143
    await simulated.until(lambda: conditions(simulated.api.get("nodes", "", "n1"), "Ready")["status"] == "False")
    assert "node is shutting down" in conditions(simulated.api.get("nodes", "", "n1"), "Ready")["message"]

    await simulated.pod("late")
    await simulated.until(lambda: simulated.phase("late") == "Failed")
    assert simulated.shown("late")["status"]["reason"] == "NodeShutdown"


async def test_a_machine_that_stays_after_all_takes_pods_again(simulated: Simulated, machine: Machine) -> None:
    machine.told.put_nowait(True)
    await simulated.until(lambda: not machine.held())

    machine.told.put_nowait(False)

    await simulated.until(lambda: len(machine.locks) == 2 and machine.held())
    await simulated.pod("after")
    await simulated.running("after")
    await simulated.until(lambda: conditions(simulated.api.get("nodes", "", "n1"), "Ready")["status"] == "True")
