"""The kubelet's pure parts: resources, back-off, expansion, names, plans, statuses, volumes' files, SPDY, logs."""

from __future__ import annotations

import asyncio
import os
import struct
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.node.containerd import unmount_below
from navarch.node.kubelet import spdy
from navarch.node.kubelet.backoff import Backoff, go_duration
from navarch.node.kubelet.cri import cri_pb2 as cri
from navarch.node.kubelet.dns import Resolver, resolver_of
from navarch.node.kubelet.env import service_variables
from navarch.node.kubelet.fieldref import expand
from navarch.node.kubelet.logs import LogOptions, read_log, render, tail_offset
from navarch.node.kubelet.observed import HASH, RESTART_COUNT, ObservedContainer, ObservedPod
from navarch.node.kubelet.plan import ContainerMemory, make_plan
from navarch.node.kubelet.podspec import container_hash, should_restart
from navarch.node.kubelet.resources import cpu_quota, cpu_shares, oom_score_adj, pod_requests, pod_totals, qos_class
from navarch.node.kubelet.status import StatusInputs, pod_status, status_patch
from navarch.node.kubelet.volumes import sub_path
from navarch.node.kubelet.volumes.atomic import write_payload
from navarch.node.kubelet.volumes.base import Payload, VolumeError

Obj = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def pod(*containers: Obj, **spec: Any) -> Obj:
    given = [{"image": "i", **container} for container in containers]
    metadata = {"name": "p", "namespace": "ns", "uid": "u", "generation": 1}
    return {"metadata": metadata, "spec": {"containers": given, **spec}, "status": {}}


def resources(requests: Obj | None = None, limits: Obj | None = None) -> Obj:
    return {"name": "c", "resources": {"requests": requests or {}, "limits": limits or {}}}


# Resources.


@pytest.mark.parametrize(
    ("container", "qos"),
    [
        (resources(), "BestEffort"),
        (resources({"cpu": "1"}), "Burstable"),
        (resources({"cpu": "0"}), "BestEffort"),
        (resources({}, {"cpu": "1", "memory": "1Gi"}), "Guaranteed"),
        (resources({"cpu": "1000m"}, {"cpu": "1", "memory": "1Gi"}), "Guaranteed"),
        (resources({"cpu": "500m"}, {"cpu": "1", "memory": "1Gi"}), "Burstable"),
    ],
)
def test_quality_of_service(container: Obj, qos: str) -> None:
    assert qos_class(pod(container)) == qos


def test_shares_quota_and_oom_score() -> None:
    assert (cpu_shares(0), cpu_shares(1), cpu_shares(500), cpu_shares(10**9)) == (2, 2, 512, 262144)
    assert (cpu_quota(0), cpu_quota(1), cpu_quota(500)) == (0, 1000, 50000)
    burstable = resources({"memory": "1Gi"})
    assert oom_score_adj(pod(burstable), burstable, 4 << 30) == 750
    assert oom_score_adj(pod(resources()), resources(), 4 << 30) == 1000


def test_a_pod_needs_what_its_largest_moment_needs() -> None:
    init = {"name": "i", "resources": {"requests": {"cpu": "3"}}}
    side = {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}}
    one = resources({"cpu": "1"})

    assert pod_requests(pod(one, one, initContainers=[side, init])) == {"cpu": 4000}
    assert pod_requests(pod(one, one, one, one, initContainers=[side, init])) == {"cpu": 5000}
    assert pod_totals(pod(resources({}, {"cpu": "1"}), resources())) == (1000, 0, 0)


# Back-off.


def test_backoff_doubles_and_starts_over() -> None:
    backoff = Backoff()
    now = NOW
    delays = []
    for _ in range(7):
        delays.append(backoff.remaining("k", now, now))
        backoff.attempted("k", now, now)
        now += timedelta(minutes=1)
    assert [int(delay.total_seconds()) for delay in delays] == [0, 10, 20, 40, 80, 160, 300]
    assert backoff.remaining("k", now + timedelta(hours=1), now + timedelta(hours=1)) == timedelta(0)


@pytest.mark.parametrize(("seconds", "text"), [(10, "10s"), (80, "1m20s"), (300, "5m0s"), (3661, "1h1m1s")])
def test_durations_as_go_prints_them(seconds: int, text: str) -> None:
    assert go_duration(timedelta(seconds=seconds)) == text


# Words.


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$(B)", "$(B)"),
        ("x$(A)$(A)", "x11"),
        ("$A $ $(", "$A $ $("),
        ("$$$(A)", "$1"),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1"}) == expanded


@given(st.text())
def test_text_without_dollar_is_left_alone(text: str) -> None:
    assert expand(text.replace("$", ""), {"A": "1"}) == text.replace("$", "")


def test_service_variables() -> None:
    service = {
        "metadata": {"name": "a-b"},
        "spec": {"clusterIP": "1.2.3.4", "ports": [{"port": 80, "protocol": "UDP"}]},
    }
    headless = {"metadata": {"name": "h"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}}

    assert service_variables([service, headless]) == {
        "A_B_SERVICE_HOST": "1.2.3.4",
        "A_B_SERVICE_PORT": "80",
        "A_B_PORT": "udp://1.2.3.4:80",
        "A_B_PORT_80_UDP": "udp://1.2.3.4:80",
        "A_B_PORT_80_UDP_PROTO": "udp",
        "A_B_PORT_80_UDP_PORT": "80",
        "A_B_PORT_80_UDP_ADDR": "1.2.3.4",
    }


@pytest.mark.parametrize(
    ("spec", "servers", "searches"),
    [
        ({}, ["10.0.0.10"], ["ns.svc.c.l", "svc.c.l", "c.l", "host"]),
        ({"dnsPolicy": "Default"}, ["9.9.9.9"], ["host"]),
        ({"hostNetwork": True}, ["9.9.9.9"], ["host"]),
        (
            {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"},
            ["10.0.0.10"],
            ["ns.svc.c.l", "svc.c.l", "c.l", "host"],
        ),
        ({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"]}}, ["1.1.1.1"], []),
    ],
)
def test_dns_by_policy(spec: Obj, servers: list[str], searches: list[str]) -> None:
    resolver = resolver_of(pod({"name": "c"}, **spec), Resolver(["9.9.9.9"], ["host"], []), ["10.0.0.10"], "c.l")

    assert (resolver.servers, resolver.searches) == (servers, searches)


def test_restart_rules_come_before_policies() -> None:
    rule = {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}
    container = {"name": "c", "restartPolicy": "Never", "restartPolicyRules": [rule]}

    assert should_restart(pod(container), container, 42)
    assert not should_restart(pod(container), container, 1)
    assert not should_restart(pod({"name": "c"}, restartPolicy="OnFailure"), {"name": "c"}, 0)


# Plans and statuses.


def instance(name: str, state: int, *, code: int = 0, count: int = 0, sandbox: str = "s1") -> ObservedContainer:
    status = cri.ContainerStatus(
        id=f"{name}-{count}",
        metadata=cri.ContainerMetadata(name=name, attempt=count),
        state=state,
        exit_code=code,
        created_at=1,
        started_at=1_000_000_000,
        finished_at=2_000_000_000 if state == cri.CONTAINER_EXITED else 0,
        annotations={HASH: container_hash({"name": name, "image": "i"}), RESTART_COUNT: str(count)},
    )
    return ObservedContainer(sandbox, status)


def observed(*instances: ObservedContainer, ready: bool = True) -> ObservedPod:
    sandbox = cri.PodSandboxStatus(
        id="s1",
        metadata=cri.PodSandboxMetadata(attempt=0),
        state=cri.SANDBOX_READY if ready else cri.SANDBOX_NOTREADY,
        network=cri.PodSandboxNetworkStatus(ip="10.0.0.5"),
    )
    by_name: dict[str, list[ObservedContainer]] = {}
    for one in instances:
        by_name.setdefault(one.name, []).append(one)
    return ObservedPod([sandbox], by_name)


RUNNING, EXITED = cri.CONTAINER_RUNNING, cri.CONTAINER_EXITED


def starts(obj: Obj, seen: ObservedPod, memory: dict[str, ContainerMemory] | None = None) -> list[str]:
    return [container["name"] for container in make_plan(obj, seen, memory or {}).start]


def test_a_new_pod_needs_a_sandbox_first() -> None:
    plan = make_plan(pod({"name": "c"}), ObservedPod(), {})

    assert (plan.create_sandbox, plan.attempt, plan.start) == (True, 0, [])


def test_init_containers_hold_back_the_others() -> None:
    obj = pod({"name": "c"}, initContainers=[{"name": "a", "image": "i"}, {"name": "b", "image": "i"}])

    assert starts(obj, observed()) == ["a"]
    assert starts(obj, observed(instance("a", RUNNING))) == []
    assert starts(obj, observed(instance("a", EXITED))) == ["b"]
    assert starts(obj, observed(instance("a", EXITED, code=1))) == ["a"]
    assert starts(obj, observed(instance("a", EXITED), instance("b", EXITED))) == ["c"]


def test_a_started_sidecar_lets_the_others_start() -> None:
    obj = pod({"name": "c"}, initContainers=[{"name": "s", "image": "i", "restartPolicy": "Always"}])
    seen = observed(instance("s", RUNNING))

    assert starts(obj, seen, {"s": ContainerMemory("s-0", started=False)}) == []
    assert starts(obj, seen, {"s": ContainerMemory("s-0", started=True)}) == ["c"]


def test_a_dead_sidecar_is_started_beside_running_containers() -> None:
    obj = pod({"name": "c"}, initContainers=[{"name": "s", "image": "i", "restartPolicy": "Always"}])

    assert starts(obj, observed(instance("s", EXITED, code=1), instance("c", RUNNING))) == ["s"]


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [("Always", 0, True), ("OnFailure", 0, False), ("OnFailure", 1, True), ("Never", 1, False)],
)
def test_restart_policies(policy: str, code: int, again: bool) -> None:
    plan = make_plan(pod({"name": "c"}, restartPolicy=policy), observed(instance("c", EXITED, code=code)), {})

    assert (bool(plan.start), plan.end) == (again, not again)


def test_a_doomed_container_is_killed_not_started() -> None:
    plan = make_plan(pod({"name": "c"}), observed(instance("c", RUNNING)), {"c": ContainerMemory("c-0", doomed="why")})

    assert [kill.message for kill in plan.kill] == ["why"]
    assert not plan.start


def test_a_lost_sandbox_of_a_finished_pod_is_not_made_again() -> None:
    obj = pod({"name": "c"}, restartPolicy="Never")

    assert make_plan(obj, observed(instance("c", EXITED), ready=False), {}).end
    assert make_plan(pod({"name": "c"}), observed(instance("c", RUNNING), ready=False), {}).create_sandbox


def status_of(obj: Obj, seen: ObservedPod, memory: dict[str, ContainerMemory] | None = None, **more: Any) -> Obj:
    return pod_status(StatusInputs(obj, seen, memory or {}, {}, ["1.1.1.1"], NOW, **more))


def condition(status: Obj, kind: str) -> Obj:
    return next(one for one in status["conditions"] if one["type"] == kind)


def test_a_running_ready_pod() -> None:
    status = status_of(
        pod({"name": "c"}), observed(instance("c", RUNNING)), {"c": ContainerMemory("c-0", ready=True, started=True)}
    )

    assert (status["phase"], status["podIP"], status["hostIP"]) == ("Running", "10.0.0.5", "1.1.1.1")
    assert condition(status, "Ready")["status"] == "True"
    assert status["containerStatuses"][0]["state"] == {"running": {"startedAt": "1970-01-01T00:00:01Z"}}


def test_an_unready_container_is_named() -> None:
    status = status_of(pod({"name": "c"}), observed(instance("c", RUNNING)))

    assert condition(status, "Ready")["message"] == "containers with unready status: [c]"


def test_a_readiness_gate_holds_the_pod_back() -> None:
    obj = pod({"name": "c"}, readinessGates=[{"conditionType": "x/y"}])
    memory = {"c": ContainerMemory("c-0", ready=True, started=True)}

    ready = condition(status_of(obj, observed(instance("c", RUNNING)), memory), "Ready")

    assert ready["reason"] == "ReadinessGatesNotReady"
    assert ready["message"] == 'corresponding condition of pod readiness gate "x/y" does not exist.'


def test_a_crashed_container_keeps_the_pod_running() -> None:
    memory = {"c": ContainerMemory("c-1", waiting_reason="CrashLoopBackOff", waiting_message="back-off")}
    seen = observed(instance("c", EXITED, code=2, count=1), instance("c", EXITED, code=3))

    status = status_of(pod({"name": "c"}), seen, memory)

    container = status["containerStatuses"][0]
    assert status["phase"] == "Running"
    assert container["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert container["lastState"]["terminated"]["exitCode"] == 2
    assert container["restartCount"] == 1


def test_the_instance_before_is_the_last_state() -> None:
    seen = observed(instance("c", RUNNING, count=1), instance("c", EXITED, code=3))

    assert status_of(pod({"name": "c"}), seen)["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 3


@pytest.mark.parametrize(("codes", "phase"), [((0, 0), "Succeeded"), ((0, 1), "Failed")])
def test_a_finished_pod(codes: tuple[int, int], phase: str) -> None:
    obj = pod({"name": "a"}, {"name": "b"}, restartPolicy="Never")
    seen = observed(instance("a", EXITED, code=codes[0]), instance("b", EXITED, code=codes[1]), ready=False)

    assert status_of(obj, seen, ending=True)["phase"] == phase


def test_a_pod_that_waits_for_its_images_is_pending() -> None:
    status = status_of(pod({"name": "c"}), observed(), {"c": ContainerMemory(waiting_reason="ErrImagePull")})

    assert status["phase"] == "Pending"
    assert status["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImagePull"


def test_an_unchanged_status_needs_no_patch() -> None:
    obj = pod({"name": "c"})
    seen = observed(instance("c", RUNNING))
    first = status_of(obj, seen)
    obj["status"] = {
        **first,
        "conditions": [{k: v for k, v in c.items() if v is not None} for c in first["conditions"]],
    }

    again = pod_status(StatusInputs(obj, seen, {}, {}, ["1.1.1.1"], NOW + timedelta(hours=1)))

    assert status_patch(obj["status"], again) == {}


def test_a_patch_drops_what_went_and_leaves_others_conditions() -> None:
    old = {
        "phase": "Pending",
        "message": "x",
        "conditions": [{"type": "Mine", "status": "True"}, {"type": "Ready", "status": "False", "reason": "r"}],
    }
    new = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}

    assert status_patch(old, new) == {
        "phase": "Running",
        "message": None,
        "conditions": [{"type": "Ready", "status": "True", "reason": None}],
    }


# Files.


def test_a_payload_changes_all_at_once(tmp_path: Path) -> None:
    place = tmp_path / "v"
    assert write_payload(place, {"a": Payload(b"1", 0o644), "d/b": Payload(b"2", 0o600)}, group=None, now=NOW)
    old = (place / "..data").resolve()

    assert not write_payload(place, {"a": Payload(b"1", 0o644), "d/b": Payload(b"2", 0o600)}, group=None, now=NOW)
    assert write_payload(place, {"a": Payload(b"3", 0o644)}, group=None, now=NOW)

    assert (place / "a").read_text() == "3"
    assert sorted(entry.name for entry in place.iterdir() if not entry.name.startswith("..")) == ["a"]
    assert not old.exists()


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../b", "..data"])
def test_a_payload_stays_in_its_place(tmp_path: Path, path: str) -> None:
    with pytest.raises(VolumeError):
        write_payload(tmp_path / "v", {path: Payload(b"", 0o644)}, group=None, now=NOW)


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[Path]:
    """Where sub-paths are bound; unmounted afterwards."""
    place = tmp_path / "bound"
    yield place
    unmount_below([place])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_sub_path_is_held_fast(tmp_path: Path, bound: Path) -> None:
    volume = tmp_path / "v"
    (volume / "dir").mkdir(parents=True)
    volume.chmod(0o777)
    (volume / "dir/file").write_text("one")
    (volume / "inner").symlink_to("dir/file")

    file = sub_path.bind_sub_path(volume, "inner", bound / "0")
    made = sub_path.bind_sub_path(volume, "new/er", bound / "1")
    # What a container may do at any moment.
    (volume / "new/er").rename(volume / "new/old")
    (volume / "new/er").symlink_to("/etc")
    (made / "out").write_text("x")

    assert file.read_text() == "one"
    assert (volume / "new/old/out").exists()
    assert made.stat().st_mode & 0o777 == 0o777
    again = sub_path.bind_sub_path(volume, "dir", bound / "0")
    assert [entry.name for entry in again.iterdir()] == ["file"]


@pytest.mark.parametrize("path", ["link/passwd", "../x", "/etc", "deep/link2"])
def test_a_sub_path_may_not_lead_out(tmp_path: Path, path: str) -> None:
    volume = tmp_path / "v"
    (volume / "deep").mkdir(parents=True)
    (volume / "link").symlink_to("/etc")
    (volume / "deep/link2").symlink_to("../../x")

    with pytest.raises(VolumeError):
        sub_path.bind_sub_path(volume, path, tmp_path / "bound")


def test_a_link_that_appears_during_the_walk_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = tmp_path / "v"
    volume.mkdir()
    (volume / "dir").symlink_to("/etc")
    # As if the link had been a directory when it was looked at.
    monkeypatch.setattr(sub_path.os.path, "realpath", str)

    with pytest.raises(VolumeError, match="was changed"):
        sub_path.bind_sub_path(volume, "dir", tmp_path / "bound")


# Logs.

LINE = "2026-01-01T00:00:00.123456789Z stdout F text\n"


@given(st.lists(st.text(alphabet="ab", max_size=50_000), max_size=8), st.integers(0, 10))
def test_the_tail_is_the_last_lines(tmp_path_factory: pytest.TempPathFactory, lines: list[str], count: int) -> None:
    path = tmp_path_factory.mktemp("log") / "f"
    path.write_text("".join(line + "\n" for line in lines))
    with path.open("rb") as file:
        file.seek(tail_offset(file, count))
        assert file.read().decode().splitlines() == (lines[-count:] if count else [])


def test_a_line_is_shown_as_asked() -> None:
    line = LINE.strip().encode()
    since = datetime(2026, 1, 2, tzinfo=UTC)

    assert render(line, LogOptions()) == b"text\n"
    assert render(line.replace(b" F ", b" P "), LogOptions()) == b"text"
    assert render(line, LogOptions(timestamps=True)) == b"2026-01-01T00:00:00.123456789Z text\n"
    assert render(line, LogOptions(since=since)) == b""
    assert render(line, LogOptions(stream="Stderr")) == b""


async def test_following_goes_on_over_rotation(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text(LINE.replace("text", "one"))
    alive = True
    said = b""

    async def follow() -> None:
        nonlocal said
        async for chunk in read_log(path, LogOptions(follow=True), lambda: alive):
            said += chunk

    following = asyncio.create_task(follow())
    await asyncio.sleep(0.05)
    path.rename(tmp_path / "0.log.1")
    path.write_text(LINE.replace("text", "two"))
    await asyncio.sleep(0.3)
    alive = False
    await asyncio.wait_for(following, 2)

    assert said == b"one\ntwo\n"


# SPDY.


class _Writer:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    async def drain(self) -> None: ...


def test_the_dictionary_is_the_specifications() -> None:
    assert (len(spdy.DICTIONARY), zlib.adler32(spdy.DICTIONARY)) == (1423, 0xE3C6A7C2)


async def test_a_stream_opens_with_compressed_headers_and_reads_to_its_end() -> None:
    reader, writer = asyncio.StreamReader(), _Writer()
    connection = spdy.Connection(reader, writer)  # type: ignore[arg-type]

    stream = await connection.open_stream({"streamType": "data"})

    version, kind, length = struct.unpack_from(">HHI", writer.data)
    assert (version, kind, length & 0xFFFFFF) == (0x8003, 1, len(writer.data) - 8)
    block = zlib.decompressobj(zdict=spdy.DICTIONARY).decompress(writer.data[18:])
    assert block == struct.pack(">II", 1, 10) + b"streamtype" + struct.pack(">I", 4) + b"data"
    reader.feed_data(struct.pack(">II", stream.id, 3) + b"abc" + struct.pack(">II", stream.id, 1 << 24 | 2) + b"de")
    reader.feed_eof()
    await connection.run()
    assert await stream.read_all() == b"abcde"


async def test_a_ping_is_answered() -> None:
    reader, writer = asyncio.StreamReader(), _Writer()
    connection = spdy.Connection(reader, writer)  # type: ignore[arg-type]
    ping = struct.pack(">HHII", 0x8003, 6, 4, 2)
    reader.feed_data(ping)
    reader.feed_eof()

    await connection.run()

    assert writer.data == ping
