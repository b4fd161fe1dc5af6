"""Containers that share CPUs leave those that another gets for itself, and come back to them."""

from __future__ import annotations

import pytest

from navarch.node.config import ManagersConfig, ReservedConfig
from navarch.node.engine import managers
from navarch.node.resources.numa import CPU, Machine
from navarch.node.runtime.base import Resources
from tests.node.engine.conftest import Simulated

# Four cores of two threads each.
MACHINE = Machine({cpu: CPU(core=cpu % 4) for cpu in range(8)})


def alone(memory: str) -> dict[str, object]:
    return {"name": "c", "resources": {"limits": {"cpu": "1", "memory": memory}}}


async def test_containers_that_share_cpus_make_way_for_one_that_gets_its_own(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[tuple[str, str]] = []

    async def update(container_id: str, resources: Resources) -> None:
        if resources.cpuset_cpus:
            moved.append((container_id, resources.cpuset_cpus))

    monkeypatch.setattr(managers, "machine_of", lambda: MACHINE)
    monkeypatch.setattr(simulated.runtime, "update_resources", update)
    # As whoever changes the policy has to.
    (simulated.config.data / "cpu_manager_state").unlink()
    await simulated.restart(managers=ManagersConfig(cpu_policy="static"), reserved=ReservedConfig(kube={"cpu": "500m"}))
    shares = await simulated.pod("shares")
    await simulated.running("shares")
    worker = simulated.kubelet.pods.get(shares["metadata"]["uid"])
    assert worker is not None
    [container] = worker.observed.all()

    # It would get a CPU, and the node has not the memory: nobody has to move.
    await simulated.pod("refused", alone("9000Ti"))
    await simulated.until(lambda: "OutOfmemory" in simulated.reasons("refused"))
    await simulated.pod("owns", alone("1Mi"))
    await simulated.running("owns")
    await simulated.until(lambda: moved)
    await simulated.api.delete_gracefully("default", "owns")
    await simulated.until(lambda: len(moved) > 1)

    assert moved == [(container.id, "0-3,5-7"), (container.id, "0-7")]
