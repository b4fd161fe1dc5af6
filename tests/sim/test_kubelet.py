"""What people ask of pods on simulated nodes, with kubectl: logs, commands, ports."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import aiohttp
import pytest
import yaml

from navarch.api.meta import Obj
from navarch.cli.kubectl import find_kubectl
from navarch.client.resources import NODES, PODS
from navarch.testing.embedded import EmbeddedCluster


class Ended(NamedTuple):
    code: int
    output: str
    errors: str


class Served(NamedTuple):
    """A cluster that kubectl can talk to."""

    cluster: EmbeddedCluster
    kubeconfig: str

    async def kubectl(self, *arguments: str) -> Ended:
        process = await asyncio.create_subprocess_exec(
            find_kubectl(),
            f"--kubeconfig={self.kubeconfig}",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(30):
            output, errors = await process.communicate()
        assert process.returncode is not None
        return Ended(process.returncode, output.decode(), errors.decode())

    async def pod(self, name: str, annotations: dict[str, str], phase: str = "Running", **spec: Any) -> Obj:
        """Create a pod and wait until it is in the phase."""
        metadata = {"name": name, "namespace": "default", "annotations": annotations}
        spec = {"containers": [{"name": "web", "image": "web:1"}, {"name": "side", "image": "side:1"}], **spec}
        await self.cluster.client.create(
            PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, namespace="default"
        )
        async with asyncio.timeout(20):
            async for event in self.cluster.client.watch(PODS, "default", fields=f"metadata.name={name}"):
                if event.object.get("status", {}).get("phase") == phase:
                    return event.object
        raise AssertionError("the watch ended")


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with EmbeddedCluster(nodes=1) as cluster:
        yield Served(cluster, str(await cluster.serve()))


async def test_a_log_has_the_lines_that_the_annotations_give(served: Served) -> None:
    await served.pod("talks", {"sim.navarch.dev/logs": "one\ntwo\nthree", "sim.navarch.dev/logs.side": "aside"})

    assert await served.kubectl("logs", "talks", "-c", "web") == (0, "one\ntwo\nthree\n", "")
    assert (await served.kubectl("logs", "talks", "-c", "web", "--tail=1")).output == "three\n"
    assert (await served.kubectl("logs", "talks", "-c", "side")).output == "aside\n"
    stamped = (await served.kubectl("logs", "talks", "-c", "side", "--timestamps")).output
    assert stamped.startswith("20")
    assert stamped.endswith("Z aside\n")


async def test_following_ends_with_the_container(served: Served) -> None:
    said = {"sim.navarch.dev/logs": "working", "sim.navarch.dev/run-duration": "2s"}
    await served.pod("brief", said, restartPolicy="Never")

    assert await served.kubectl("logs", "-f", "brief", "-c", "web") == (0, "working\n", "")


async def test_the_log_of_the_run_before(served: Served) -> None:
    await served.pod("once", {"sim.navarch.dev/logs": "said"})

    refused = await served.kubectl("logs", "once", "-c", "web", "--previous")

    assert refused.code == 1
    assert 'previous terminated container "web" in pod "once" not found' in refused.errors


async def test_without_annotations_the_answer_is_that_there_are_no_containers(served: Served) -> None:
    await served.pod("silent", {})
    reason = 'pod "default/silent" runs on the simulated node "node-1" and has no containers'

    logs = await served.kubectl("logs", "silent", "-c", "web")
    command = await served.kubectl("exec", "silent", "-c", "web", "--", "date")
    forward = await served.kubectl("port-forward", "pod/silent", ":80")

    assert (logs.code, command.code, forward.code) == (1, 1, 1)
    assert f"{reason}, so it has no log; the pod's annotation sim.navarch.dev/logs gives it lines" in logs.errors
    assert f"{reason}, so nothing can run in it" in command.errors
    assert f"{reason}, so nothing listens on its ports" in forward.errors
    for each in (command, forward):
        # Older clients read it as YAML, and a mapping as a Status, of which they show the message alone.
        said = each.errors.rpartition("unable to upgrade connection: ")[2]
        assert isinstance(yaml.safe_load(said), str)


async def test_a_command_prints_what_the_annotation_says(served: Served) -> None:
    await served.pod("answers", {"sim.navarch.dev/exec": "v1.2.3"})

    assert await served.kubectl("exec", "answers", "-c", "web", "--", "app", "--version") == (0, "v1.2.3\n", "")


async def test_a_container_that_waits_has_no_log_yet(served: Served) -> None:
    await served.pod("stuck", {"sim.navarch.dev/waiting-reason": "ImagePullBackOff"}, phase="Pending")
    async with asyncio.timeout(20):
        async for event in served.cluster.client.watch(PODS, "default", fields="metadata.name=stuck"):
            if event.object["status"].get("containerStatuses"):
                break

    refused = await served.kubectl("logs", "stuck", "-c", "web")

    assert 'container "web" in pod "stuck" is waiting to start: ImagePullBackOff' in refused.errors


async def test_what_is_proxied_to_a_pod_stays_here_too(served: Served) -> None:
    await served.pod("web", {})

    refused = await served.kubectl("get", "--raw", "/api/v1/namespaces/default/pods/web/proxy/")

    assert 'pod "web" runs on the simulated node "node-1" and has no containers' in refused.errors


async def test_a_test_of_a_chart_ends(served: Served) -> None:
    pod = await served.pod("web-test", {"helm.sh/hook": "test"}, phase="Succeeded", restartPolicy="Never")

    ended = [status["state"]["terminated"]["exitCode"] for status in pod["status"]["containerStatuses"]]
    assert ended == [0, 0]


async def test_only_the_api_server_is_answered(served: Served) -> None:
    node = await served.cluster.client.get(NODES, "node-1")
    port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    context = ssl.create_default_context(cafile=str(served.cluster.config.pki / "ca.crt"))
    admin = served.cluster.config.pki / "admin"
    context.load_cert_chain(admin.with_suffix(".crt"), admin.with_suffix(".key"))

    url = f"https://localhost:{port}/healthz"
    async with aiohttp.ClientSession() as session, session.get(url, ssl=context) as answer:
        assert answer.status == 403


async def test_a_log_over_websocket_comes_in_messages(served: Served) -> None:
    await served.pod("talks", {"sim.navarch.dev/logs": "one\ntwo"})
    config = served.cluster.config
    context = ssl.create_default_context(cafile=str(config.pki / "ca.crt"))
    context.load_cert_chain(config.pki / "admin.crt", config.pki / "admin.key")
    url = f"wss://127.0.0.1:{config.port}/api/v1/namespaces/default/pods/talks/log?container=web"

    said = {}
    for protocol in ("binary.k8s.io", "base64.binary.k8s.io"):
        async with (
            asyncio.timeout(20),
            aiohttp.ClientSession() as session,
            session.ws_connect(url, protocols=[protocol], ssl=context) as socket,
        ):
            said[socket.protocol] = [message.data async for message in socket]

    assert said == {"binary.k8s.io": [b"one\ntwo\n"], "base64.binary.k8s.io": ["b25lCnR3bwo="]}
