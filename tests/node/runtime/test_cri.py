"""The runtime's answers, without a runtime: what is waited for after an exit was told."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from navarch.node.runtime.base import ContainerStatus, Runtime, State
from navarch.node.runtime.cri import CRIRuntime, settled_exit


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


class Asked(grpc.GenericRpcHandler):
    """A server that answers with nothing, and notes what it was asked; of leases it may never have heard."""

    def __init__(self, *, knows: bool) -> None:
        self._knows = knows
        self.calls: list[str] = []

    def service(self, details: Any) -> Any:
        service, _, method = details.method[1:].partition("/")
        self.calls.append(method)
        if "leases" in service and not self._knows:
            return None

        async def answer(request: bytes, context: Any) -> bytes:
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.mark.parametrize("knows", [True, False], ids=["containerd", "another runtime"])
async def test_what_removed_containers_left_is_looked_for_once(tmp_path: Path, knows: bool) -> None:
    asked = Asked(knows=knows)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((asked,))
    server.add_insecure_port(f"unix://{tmp_path}/cri.sock")
    await server.start()
    runtime = CRIRuntime(tmp_path / "cri.sock")
    try:
        await runtime.collect()
        await runtime.remove_container("c")
        await runtime.remove_sandbox("s")
        await runtime.collect()
        await runtime.collect()
    finally:
        await runtime.close()
        await server.stop(None)

    assert asked.calls == ["RemoveContainer", "RemovePodSandbox", "Create", "Delete"]
