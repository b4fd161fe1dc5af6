"""Whether the machine is one on which the kubelet may run as it is configured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from navarch.node.config import KubeletConfig
from navarch.node.resources.capacity import Machine as CPUAndMemory
from navarch.node.resources.cpu_manager import BY_SOCKET
from navarch.node.resources.memory_manager import STATIC, reserved_by_node
from navarch.node.resources.numa import Machine, machine_of
from navarch.node.resources.topology_manager import MOST_NODES, NONE

# What Kubernetes wants of the kernel where nobody may change it.
_KERNEL: Final = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}


def objections(config: KubeletConfig, root: Path = Path("/")) -> Iterator[str]:
    """What speaks against it, in Kubernetes' words. `root` is where /proc and /sys are."""
    if config.fail_swap_on and _swaps(root):
        yield "running with swap on is not supported, please disable swap or set --fail-swap-on flag to false"
    if config.fail_cgroup_v1 and not (root / "sys/fs/cgroup/cgroup.controllers").exists():
        yield (
            "kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported and will be "
            "removed in a future release"
        )
    if config.protect_kernel_defaults:
        for name, wanted in _KERNEL.items():
            actual = _number(root / "proc/sys" / name)
            if actual != wanted:
                yield f"invalid kernel flag: {name}, expected value: {wanted}, actual value: {actual}"
    yield from _numa_objections(config, root)


def _numa_objections(config: KubeletConfig, root: Path) -> Iterator[str]:
    """What the managers of memory and of NUMA nodes need."""
    managers = config.managers
    aligned, exclusive = managers.topology_policy != NONE, managers.memory_policy == STATIC
    if not aligned and not exclusive:
        return
    machine = machine_of(root)
    most = int(managers.topology_options.get("max-allowable-numa-nodes") or MOST_NODES)
    if aligned and len(machine.nodes) > most:
        yield f"unsupported on machines with more than {most} NUMA Nodes"
    sockets = {cpu.socket for cpu in machine.cpus.values()}
    if managers.cpu_options.get(BY_SOCKET) == "true" and len(sockets) > len(machine.nodes):
        yield "Align by socket is not compatible with hardware where number of sockets are more than number of NUMA"
    if exclusive:
        yield from _reservation_objections(config, machine)


def _reservation_objections(config: KubeletConfig, machine: Machine) -> Iterator[str]:
    """What is reserved node by node has to be what is reserved altogether."""
    by_node = reserved_by_node(config.managers.reserved_memory)
    memory = sum(one.get("memory", 0) for one in by_node.values())
    for node in by_node:
        if node not in machine.memory:
            yield f"the reserved memory configuration references a NUMA node {node} that does not exist on this machine"
    total = sum(has.get("memory", 0) for has in machine.memory.values())
    wanted = int(CPUAndMemory(config, 1, total).amounts()["memory"].reserved)
    if not memory:
        yield "[memorymanager] you should specify the system reserved memory"
    elif memory != wanted:
        yield (
            f'the total amount "{memory}" of type "memory" is not equal to the value "{wanted}" determined by Node '
            "Allocatable feature"
        )


def _swaps(root: Path) -> bool:
    try:
        # The first line is the heading.
        return len((root / "proc/swaps").read_text().splitlines()) > 1
    except OSError:
        return False


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
