"""What is made of what kubelets say."""

from __future__ import annotations

from navarch.apiserver.usage.exposition import read
from navarch.apiserver.usage.points import NodePoints, Point, Scrape, Usage

SECOND = 10**9
POD = ("default", "web")


def point(at_s: float, cpu_s: float, *, memory: int = 100, started_s: float = 1) -> Point:
    return Point(int(at_s * SECOND), int(cpu_s * SECOND), memory, int(started_s * SECOND))


def taken(*points: Point | None, node: Point | None = None) -> NodePoints:
    """The scrapes of a node with one pod, of one container."""
    found = NodePoints()
    for each in points:
        found.take(Scrape(node, {POD: {"main": each}} if each is not None else {}))
    return found


def test_a_rate_is_what_was_used_between_two_scrapes() -> None:
    used = taken(point(100, 5), point(115, 8, memory=700)).pod(*POD)

    assert used == {"main": Usage(200_000_000, 700, 115 * SECOND, 15 * SECOND)}


def test_one_scrape_tells_nothing_of_what_has_run_for_long() -> None:
    assert taken(point(100, 5)).pod(*POD) is None


def test_a_container_that_has_just_begun_has_a_rate_since_its_start() -> None:
    assert taken(point(112, 6, started_s=100)).pod(*POD) == {"main": Usage(500_000_000, 100, 112 * SECOND, 12 * SECOND)}
    # A few seconds are mostly its start.
    assert taken(point(105, 6, started_s=100)).pod(*POD) is None


def test_a_restarted_container_begins_anew() -> None:
    found = taken(point(100, 5), point(115, 0.1, started_s=110))
    assert found.pod(*POD) is None

    found.take(Scrape(None, {POD: {"main": point(130, 1.6, started_s=110)}}))

    assert found.pod(*POD) == {"main": Usage(100_000_000, 100, 130 * SECOND, 15 * SECOND)}


def test_a_scrape_that_says_nothing_new_leaves_what_was_known() -> None:
    found = taken(point(100, 5), point(115, 8), point(115, 8))

    assert found.pod(*POD) == {"main": Usage(200_000_000, 100, 115 * SECOND, 15 * SECOND)}


def test_a_counter_that_runs_backwards_tells_nothing() -> None:
    assert taken(point(100, 5), point(115, 4)).pod(*POD) == {}


def test_what_is_gone_is_forgotten() -> None:
    assert taken(point(100, 5), point(115, 8), None).pod(*POD) is None


def test_a_pod_is_known_when_all_of_its_containers_are() -> None:
    found = NodePoints()
    found.take(Scrape(None, {POD: {"a": point(100, 5)}}))
    found.take(Scrape(None, {POD: {"a": point(115, 8), "b": point(115, 1, started_s=50)}}))

    assert found.pod(*POD) is None


def test_a_node_has_a_rate_of_its_own() -> None:
    found = taken(None, node=point(100, 50, started_s=0))
    assert found.node() is None

    found.take(Scrape(point(110, 60, memory=9, started_s=0)))

    assert found.node() == Usage(SECOND, 9, 110 * SECOND, 10 * SECOND)


TEXT = """\
# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the container in core-seconds
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container="coredns",namespace="kube-system",pod="coredns-1"} 4.710169 1633253812125
container_cpu_usage_seconds_total{container="side",namespace="x",pod="half"} 1.5 1633253812125
container_memory_working_set_bytes{container="coredns",namespace="kube-system",pod="coredns-1"} 1.253376e+07 16332538
container_start_time_seconds{container="coredns",namespace="kube-system",pod="coredns-1"} 1.63325e+09
container_swap_usage_bytes{container="coredns",namespace="kube-system",pod="coredns-1"} 0
node_cpu_usage_seconds_total 357.35491
node_memory_working_set_bytes 1.616273408e+09 1633253809720
pod_cpu_usage_seconds_total{namespace="kube-system",pod="coredns-1"} 4.67812 1633253803935
resource_scrape_error 0
container_cpu_usage_seconds_total{container="bad",namespace="x",pod="y"} NaN
container_cpu_usage_seconds_total{container="bad"
"""


def test_a_kubelets_text_is_read() -> None:
    scrape = read(TEXT, 7 * SECOND)

    at, started = 1_633_253_812_125_000_000, 1_633_250_000_000_000_000
    assert scrape.pods == {("kube-system", "coredns-1"): {"coredns": Point(at, 4_710_169_000, 12533760, started)}}
    # Without a time of its own, the time is that of the request.
    assert scrape.node == Point(7 * SECOND, 357_354_910_000, 1616273408)


def test_anything_else_is_no_news() -> None:
    assert read("<html>\x00" * 1000, SECOND) == Scrape()
