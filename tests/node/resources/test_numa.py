"""The machine's shape, read from a prepared tree."""

from __future__ import annotations

from pathlib import Path

from navarch.node.resources.numa import CPU, bits, machine_of, masks


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def two_nodes(root: Path) -> Path:
    """Two sockets, each a NUMA node with two cores of two threads, 4 GiB and some huge pages."""
    system = root / "sys/devices/system"
    write(system / "cpu/online", "0-7")
    for cpu in range(8):
        node = cpu // 2 % 2
        write(system / f"cpu/cpu{cpu}/topology/thread_siblings_list", f"{cpu % 4},{cpu % 4 + 4}")
        write(system / f"cpu/cpu{cpu}/topology/physical_package_id", str(node))
        write(system / f"cpu/cpu{cpu}/cache/index3/shared_cpu_list", "0-1,4-5" if node == 0 else "2-3,6-7")
    for node, cpus in enumerate(("0-1,4-5", "2-3,6-7")):
        place = system / f"node/node{node}"
        write(place / "cpulist", cpus)
        write(place / "distance", "10 21" if node == 0 else "21 10")
        write(place / "meminfo", f"Node {node} MemTotal:        4194304 kB\nNode {node} MemFree:  1 kB")
        write(place / "hugepages/hugepages-2048kB/nr_hugepages", "256")
    return root


def test_cpus_memory_and_distances_are_read_from_the_kernel(tmp_path: Path) -> None:
    machine = machine_of(two_nodes(tmp_path))

    assert machine.cpus[6] == CPU(core=2, socket=1, node=1, cache=2)
    assert (list(machine.nodes), machine.cpus_per_core, machine.cpus_of(0b01)) == ([0, 1], 2, {0, 1, 4, 5})
    assert machine.memory[1] == {"memory": 4 << 30, "hugepages-2Mi": 512 << 20}
    assert (machine.apart(0b01), machine.apart(0b11)) == (10.0, 15.5)


def test_a_kernel_without_numa_is_one_node(tmp_path: Path) -> None:
    write(tmp_path / "sys/devices/system/cpu/online", "0-1")

    assert (list(machine_of(tmp_path).nodes), sorted(machine_of(tmp_path).cpus)) == ([0], [0, 1])


def test_small_sets_of_nodes_come_first() -> None:
    assert [list(bits(mask)) for mask in masks([0, 1, 3])] == [[0], [1], [3], [0, 1], [0, 3], [1, 3], [0, 1, 3]]
