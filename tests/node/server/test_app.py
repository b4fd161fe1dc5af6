"""The kubelet's server: logs, exec, attach, port-forward, statistics, over real containers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from navarch.node.server import spdy
from tests.node.conftest import Node
from tests.node.engine.test_pods import sh

pytestmark = pytest.mark.containers


def url(node: Node, path: str) -> str:
    return f"http://127.0.0.1:{node.kubelet.server.port}{path}"


async def get(node: Node, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url(node, path)) as answer:
        return answer.status, await answer.text()


async def run(
    node: Node, path: str, stdin: bytes | None = None, protocol: str = "v5.channel.k8s.io"
) -> tuple[dict[int, bytes], dict[str, Any]]:
    """Exec over WebSocket; returns the output by channel and the final status."""
    output = {1: bytearray(), 2: bytearray(), 3: bytearray()}
    async with (
        asyncio.timeout(20),
        aiohttp.ClientSession() as session,
        session.ws_connect(url(node, path), protocols=[protocol], max_msg_size=0) as socket,
    ):
        assert socket.protocol == protocol
        if stdin is not None:
            for start in range(0, len(stdin), 1 << 16):
                await socket.send_bytes(b"\x00" + stdin[start : start + (1 << 16)])
            await socket.send_bytes(b"\xff\x00")
        async for message in socket:
            output[message.data[0]] += message.data[1:]
    return {channel: bytes(data) for channel, data in output.items()}, json.loads(output[3])


@pytest.fixture
async def shell(node: Node) -> str:
    """A running pod named shell."""
    await node.pod(
        "shell",
        containers=[sh("echo one; sleep 0.2; echo two >&2; sleep 0.2; echo three; exec sleep 1000", stdin=True)],
    )
    await node.ready("shell")
    await node.until(lambda: "three" in node.log("shell"))
    return "shell"


async def test_exec_gives_output_and_success(node: Node, shell: str) -> None:
    output, status = await run(
        node, "/exec/default/shell/c?command=sh&command=-c&command=echo+out;echo+err>%262&output=1&error=1"
    )

    assert (output[1], output[2]) == (b"out\n", b"err\n")
    assert status["status"] == "Success"


async def test_exec_reports_the_exit_code(node: Node, shell: str) -> None:
    _, status = await run(node, "/exec/default/shell/c?command=sh&command=-c&command=exit+7&output=1")

    assert status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]


async def test_exec_ends_standard_input_alone(node: Node, shell: str) -> None:
    data = b"x" * 3_000_000

    output, _ = await run(node, "/exec/default/shell/c?command=wc&command=-c&input=1&output=1", stdin=data)

    assert output[1].strip() == b"3000000"


@pytest.mark.parametrize(("protocol", "plain"), [("channel.k8s.io", True), ("v4.channel.k8s.io", False)])
async def test_how_a_command_ended_is_a_status_only_where_the_protocol_has_one(
    node: Node, shell: str, protocol: str, plain: bool
) -> None:
    ends = {}
    for code in (0, 3):
        path = f"/exec/default/shell/c?command=sh&command=-c&command=exit+{code}&output=1"
        said = b""
        async with (
            asyncio.timeout(20),
            aiohttp.ClientSession() as session,
            session.ws_connect(url(node, path), protocols=[protocol]) as socket,
        ):
            async for message in socket:
                if message.data[0] == 3:
                    said += message.data[1:]
        ends[code] = said.decode()

    words = "command terminated with non-zero exit code"
    if plain:
        assert ends[0] == ""
        assert ends[3].startswith(words)
    else:
        assert json.loads(ends[0])["status"] == "Success"
        assert json.loads(ends[3])["message"].startswith(words)


async def test_a_log_over_websocket_comes_in_messages(node: Node, shell: str) -> None:
    async with (
        asyncio.timeout(20),
        aiohttp.ClientSession() as session,
        session.ws_connect(url(node, "/containerLogs/default/shell/c"), protocols=["binary.k8s.io"]) as socket,
    ):
        said = [message.data async for message in socket]

    assert b"".join(said) == b"one\ntwo\nthree\n"


async def test_exec_carries_much_output(node: Node, shell: str) -> None:
    output, _ = await run(
        node, "/exec/default/shell/c?command=dd&command=if=/dev/zero&command=bs=1M&command=count=20&output=1"
    )

    assert len(output[1]) == 20 << 20


async def test_exec_with_terminal_has_the_size_that_was_sent(node: Node, shell: str) -> None:
    path = "/exec/default/shell/c?command=sh&input=1&output=1&tty=1"
    said = b""
    async with (
        asyncio.timeout(20),
        aiohttp.ClientSession() as session,
        session.ws_connect(url(node, path), protocols=["v4.channel.k8s.io"]) as socket,
    ):
        await socket.send_bytes(b"\x04" + json.dumps({"Width": 123, "Height": 45}).encode())
        await socket.send_bytes(b"\x00sleep 0.3; stty size; exit\n")
        async for message in socket:
            if message.data[0] == 1:
                said += message.data[1:]

    assert b"45 123" in said


async def test_exec_in_an_unknown_container_fails(node: Node, shell: str) -> None:
    status, text = await get(node, "/exec/default/shell/nope?command=sh&output=1")

    assert (status, text) == (404, 'container "nope" not found in pod "shell"')


async def test_attach_reaches_the_main_process(node: Node) -> None:
    await node.pod("cat", containers=[sh("read line; echo got $line; exec sleep 1000", stdin=True)])
    await node.ready("cat")
    async with (
        asyncio.timeout(20),
        aiohttp.ClientSession() as session,
        session.ws_connect(
            url(node, "/attach/default/cat/c?input=1&output=1"), protocols=["v4.channel.k8s.io"]
        ) as socket,
    ):
        await asyncio.sleep(0.3)
        await socket.send_bytes(b"\x00hello\n")
        said = b""
        async for message in socket:
            if message.data[0] == 1:
                said += message.data[1:]
            if b"got" in said:
                break

    assert said == b"got hello\n"


async def test_logs_by_lines_streams_and_limits(node: Node, shell: str) -> None:
    base = "/containerLogs/default/shell/c"

    assert await get(node, base) == (200, "one\ntwo\nthree\n")
    assert (await get(node, f"{base}?tailLines=1"))[1] == "three\n"
    assert (await get(node, f"{base}?tailLines=0"))[1] == ""
    assert (await get(node, f"{base}?limitBytes=5"))[1] == "one\nt"
    assert (await get(node, f"{base}?stream=Stderr"))[1] == "two\n"
    assert (await get(node, f"{base}?sinceTime=2099-01-01T00:00:00Z"))[1] == ""
    assert (await get(node, f"{base}?timestamps=true"))[1].startswith("20")


async def test_following_a_log_ends_with_the_container(node: Node) -> None:
    await node.pod("talk", restartPolicy="Never", containers=[sh("for i in 1 2 3; do echo $i; sleep 0.3; done")])
    await node.until(lambda: node.container("talk").get("state", {}).get("running"))

    async with asyncio.timeout(10):
        assert await get(node, "/containerLogs/default/talk/c?follow=true") == (200, "1\n2\n3\n")


async def test_the_log_of_the_instance_before(node: Node) -> None:
    await node.pod("crash", containers=[sh("echo $$ started; test -e /tmp/x && sleep 1000; exit 1")])
    await node.until(lambda: node.container("crash").get("restartCount", 0) >= 1)

    status, text = await get(node, "/containerLogs/default/crash/c?previous=true")

    assert status == 200
    assert "started" in text


async def test_a_log_that_went_before_its_pod_is_told_to_be_gone(node: Node) -> None:
    await node.pod("done", restartPolicy="Never", containers=[sh("echo said")])
    await node.ended("done")
    assert await get(node, "/containerLogs/default/done/c") == (200, "said\n")

    gone = f"unable to retrieve container logs for {node.container('done')['containerID']}"

    async def is_told_to_be_gone() -> bool:
        await node.kubelet.sweeper.remove_dead_containers()
        return await get(node, "/containerLogs/default/done/c") == (200, gone)

    await node.until_async(is_told_to_be_gone)


async def test_logs_of_a_container_that_waits_say_why(node: Node) -> None:
    await node.pod("never", containers=[sh("true", image="navarch.local/none:1", imagePullPolicy="Never")])
    await node.until(
        lambda: node.container("never").get("state", {}).get("waiting", {}).get("reason") == "ErrImageNeverPull"
    )

    status, text = await get(node, "/containerLogs/default/never/c")

    assert status == 400
    assert text == 'container "c" in pod "never" is waiting to start: ErrImageNeverPull'


async def _echo_pod(node: Node) -> None:
    await node.pod("echo", containers=[sh("exec nc -ll -p 7777 -e cat", ports=[{"containerPort": 7777}])])
    await node.ready("echo")
    await asyncio.sleep(0.3)


async def test_port_forward_by_channels(node: Node) -> None:
    await _echo_pod(node)
    async with (
        asyncio.timeout(20),
        aiohttp.ClientSession() as session,
        session.ws_connect(
            url(node, "/portForward/default/echo?ports=7777"), protocols=["v4.channel.k8s.io"]
        ) as socket,
    ):
        greetings = {(await socket.receive_bytes())[:3], (await socket.receive_bytes())[:3]}
        await socket.send_bytes(b"\x00ping")
        answer = await socket.receive_bytes()

    assert greetings == {b"\x00\x61\x1e", b"\x01\x61\x1e"}
    assert answer == b"\x00ping"


async def test_port_forward_by_tunnelled_spdy(node: Node) -> None:
    await _echo_pod(node)
    async with asyncio.timeout(20), aiohttp.ClientSession() as session:
        socket = await session.ws_connect(
            url(node, "/portForward/default/echo"), protocols=["SPDY/3.1+portforward.k8s.io"]
        )
        assert socket.protocol == "SPDY/3.1+portforward.k8s.io"
        reader = asyncio.StreamReader()
        connection = spdy.Connection(reader, _SocketWriter(socket))  # type: ignore[arg-type]

        async def pump() -> None:
            async for message in socket:
                reader.feed_data(message.data)
            reader.feed_eof()

        pumping, running = asyncio.create_task(pump()), asyncio.create_task(connection.run())
        await connection.open_stream({"streamType": "error", "port": "7777", "requestID": "0"})
        data = await connection.open_stream({"streamType": "data", "port": "7777", "requestID": "0"})
        await data.write(b"through the tunnel")
        answer = await data.read()
        await socket.close()
        for task in (pumping, running):
            task.cancel()

    assert answer == b"through the tunnel"


class _SocketWriter:
    """As much of a StreamWriter as SPDY needs, over a WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._pending: list[bytes] = []

    def write(self, data: bytes) -> None:
        self._pending.append(data)

    async def drain(self) -> None:
        pending, self._pending = self._pending, []
        for data in pending:
            await self._socket.send_bytes(data)


async def test_statistics_name_the_pod(node: Node, shell: str) -> None:
    _, text = await get(node, "/stats/summary")

    summary = json.loads(text)
    assert summary["node"]["nodeName"] == "n1"
    assert summary["pods"][0]["podRef"]["name"] == "shell"
    assert summary["pods"][0]["memory"]["workingSetBytes"] > 0
    assert 'pod="shell"' in (await get(node, "/metrics/resource"))[1]
    assert "kubelet_running_pods 1" in (await get(node, "/metrics"))[1]


async def test_exec_by_spdy_as_kubernetes_own_api_server_does(node: Node, shell: str) -> None:
    path = "/exec/default/shell/c?command=cat&input=1&output=1"
    async with asyncio.timeout(20):
        connection = spdy.Connection(*await spdy.upgrade(url(node, path), ["v4.channel.k8s.io"]))
        running = asyncio.create_task(connection.run())
        outcome = await connection.open_stream({"streamType": "error"})
        stdin = await connection.open_stream({"streamType": "stdin"})
        stdout = await connection.open_stream({"streamType": "stdout"})
        await stdin.write(b"there and back")
        await stdin.close_write()
        said = await stdout.read_all()
        status = await outcome.read_all()
        await connection.close()
        await running

    assert said == b"there and back"
    assert json.loads(status)["status"] == "Success"
    assert (await get(node, "/healthz"))[1] == "ok"


async def test_counters_of_containers_have_cadvisors_names(node: Node, shell: str) -> None:
    _, text = await get(node, "/metrics/cadvisor")

    mine = [line for line in text.splitlines() if 'container="c"' in line and 'pod="shell"' in line]
    values = {line.partition("{")[0]: float(line.rpartition("}")[2].split()[0]) for line in mine}
    assert values["container_cpu_usage_seconds_total"] > 0
    assert values["container_memory_working_set_bytes"] > 0
    assert values["container_start_time_seconds"] > 0
    network = [line for line in text.splitlines() if line.startswith("container_network_receive_bytes_total{")]
    assert any('pod="shell"' in line and 'interface="eth0"' in line for line in network)


async def test_what_a_pod_uses_of_disks_networks_and_processes_is_in_the_summary(node: Node, shell: str) -> None:
    _, text = await get(node, "/stats/summary")

    summary = json.loads(text)
    pod = summary["pods"][0]
    assert pod["containers"][0]["logs"]["usedBytes"] > 0
    assert pod["ephemeral-storage"]["usedBytes"] > 0
    assert pod["network"]["name"] == "eth0"
    assert summary["node"]["rlimit"]["maxpid"] > summary["node"]["rlimit"]["curproc"] > 0
    assert summary["node"]["runtime"]["imageFs"]["capacityBytes"] > 0


async def test_a_runtime_that_cannot_write_containers_down_says_so(node: Node, shell: str) -> None:
    async with aiohttp.ClientSession() as session, session.post(url(node, "/checkpoint/default/shell/c")) as answer:
        assert answer.status == 500
        assert (await answer.text()).startswith("checkpointing of default/shell/c failed (rpc error: code = Unimpl")
    async with aiohttp.ClientSession() as session, session.post(url(node, "/checkpoint/default/shell/x")) as answer:
        assert (answer.status, await answer.text()) == (404, "container x does not exist")
