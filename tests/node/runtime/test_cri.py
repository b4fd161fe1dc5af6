"""The runtime's answers, without a runtime: what is waited for after an exit was told."""

from __future__ import annotations

from typing import cast

from navarch.node.runtime.base import ContainerStatus, Runtime, State
from navarch.node.runtime.cri import settled_exit


class Telling:
    """Gives the states of a container one after the other."""

    def __init__(self, *states: State) -> None:
        self.states = list(states)

    async def container_status(self, container_id: str) -> ContainerStatus:
        return ContainerStatus(id=container_id, name="c", attempt=0, state=self.states.pop(0))


async def test_an_exit_is_waited_for_from_before_the_runtime_says_that_it_runs() -> None:
    runtime = Telling(State.CREATED, State.RUNNING, State.EXITED, State.EXITED)

    await settled_exit(cast(Runtime, runtime), "c")

    assert runtime.states == [State.EXITED]
