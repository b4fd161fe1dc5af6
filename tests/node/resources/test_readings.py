"""What the kernel counts, on both versions of cgroups."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from navarch.node.resources.readings import interfaces, read
from navarch.node.server.cadvisor import Counted, exposition


def lay(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_a_cgroup_of_the_unified_tree(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "cgroup.controllers": "cpu memory pids\n",
            "pod/cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\nnr_periods 4\nnr_throttled 1\n"
            "throttled_usec 7\n",
            "pod/cpu.max": "50000 100000\n",
            "pod/cpu.weight": "100\n",
            "pod/memory.current": "1000\n",
            "pod/memory.max": "max\n",
            "pod/memory.stat": "anon 600\nfile 300\ninactive_file 200\npgfault 9\npgmajfault 2\n",
            "pod/memory.events": "low 0\nmax 3\noom 1\noom_kill 1\n",
            "pod/pids.current": "5\n",
            "pod/pids.max": "max\n",
            "pod/cgroup.procs": "11\n12\n",
        },
    )

    found = read("/pod", tmp_path)

    assert found is not None
    assert (found.cpu_ns, found.user_ns, found.system_ns) == (2_500_000_000, 2_000_000_000, 500_000_000)
    assert (found.periods, found.throttled_periods, found.throttled_ns) == (4, 1, 7000)
    assert (found.quota_us, found.period_us, found.shares) == (50_000, 100_000, 2597)
    assert (found.memory, found.memory_limit, found.working_set, found.rss, found.cache) == (1000, 0, 800, 600, 300)
    assert (found.oom_kills, found.memory_failures, found.processes, found.threads) == (1, 3, 2, 5)
    assert read("/other", tmp_path) is None


def test_a_cgroup_of_the_trees_of_before(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "cpuacct/pod/cpuacct.usage": "2500000000\n",
            "cpuacct/pod/cpuacct.stat": "user 200\nsystem 50\n",
            "cpu/pod/cpu.stat": "nr_periods 4\nnr_throttled 1\nthrottled_time 7000\n",
            "cpu/pod/cpu.cfs_quota_us": "-1\n",
            "cpu/pod/cpu.shares": "1024\n",
            "memory/pod/memory.usage_in_bytes": "1000\n",
            "memory/pod/memory.limit_in_bytes": "9223372036854771712\n",
            "memory/pod/memory.stat": "rss 1\ntotal_rss 600\ntotal_cache 300\ntotal_inactive_file 200\n",
            "memory/pod/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
            "pids/pod/pids.current": "5\n",
        },
    )

    found = read("/pod", tmp_path)

    assert found is not None
    assert (found.cpu_ns, found.user_ns, found.throttled_ns) == (2_500_000_000, 2_000_000_000, 7000)
    assert (found.quota_us, found.shares, found.memory_limit) == (0, 1024, 0)
    assert (found.working_set, found.rss, found.oom_kills, found.threads) == (800, 600, 1, 5)


def test_interfaces_but_the_loopback(tmp_path: Path) -> None:
    heading = "Inter-|   Receive\n face |bytes packets\n"
    line = "  eth0: 100 2 3 4 0 0 0 0 500 6 7 8 0 0 0 0\n    lo: 1 1 1 1 0 0 0 0 1 1 1 1 0 0 0 0\n"
    lay(tmp_path, {"7/net/dev": heading + line})

    (found,) = interfaces(7, tmp_path)

    assert found == ("eth0", (100, 2, 3, 4), (500, 6, 7, 8))


def test_series_have_cadvisors_names_and_the_kubelets_labels(tmp_path: Path) -> None:
    lay(tmp_path, {"cgroup.controllers": "", "p/c/cpu.stat": "usage_usec 1500000\n", "p/c/memory.current": "7\n"})
    reading = read("/p/c", tmp_path)
    assert reading is not None
    one = Counted(
        "/p/c", reading, 5000, container="web", pod="p", namespace="ns", image='a"b', name="id", layer_bytes=3
    )

    lines = exposition([one], cpus=2, memory=9, version="Debian", kernel="6.1", failed=False).splitlines()

    labels = 'container="web",cpu="total",id="/p/c",image="a\\"b",name="id",namespace="ns",pod="p"'
    assert f"container_cpu_usage_seconds_total{{{labels}}} 1.5 5000" in lines
    plain = labels.replace('cpu="total",', "")
    assert f"container_memory_usage_bytes{{{plain}}} 7 5000" in lines
    assert "machine_cpu_cores 2" in lines
    assert "container_scrape_error 0" in lines
    # A quota that is not set has no series.
    assert not [line for line in lines if line.startswith("container_spec_cpu_quota")]
