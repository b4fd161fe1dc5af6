"""The runtime's answers, without a runtime: what is waited for after an exit was told."""

from __future__ import annotations

from typing import Any, cast

from navarch.node.runtime.cri import Runtime, settled_exit
from navarch.node.runtime.proto import cri_pb2 as cri


class Telling:
    """Gives the states of a container one after the other."""

    def __init__(self, *states: int) -> None:
        self.states = list(states)

    async def container_status(self, container_id: str) -> Any:
        return cri.ContainerStatus(id=container_id, state=self.states.pop(0))


async def test_an_exit_is_waited_for_from_before_the_runtime_says_that_it_runs() -> None:
    runtime = Telling(cri.CONTAINER_CREATED, cri.CONTAINER_RUNNING, cri.CONTAINER_EXITED, cri.CONTAINER_EXITED)

    await settled_exit(cast(Runtime, runtime), "c")

    assert runtime.states == [cri.CONTAINER_EXITED]
