"""`navarch envtest`: harnesses that start kube-apiserver and etcd themselves find what they expect."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest

from navarch.store.base import Delete, Event, Put
from navarch.store.etcd.proto import rpc_pb2 as rpc
from navarch.store.etcd.store import EtcdStore
from navarch.store.etcd.target import parse
from tests.apiserver.webhooks.server import Authority, Webhook
from tests.e2e.conftest import NAVARCH
from tests.e2e.envtest_harness import ControlPlane, StartError
from tests.e2e.test_custom_resources import definition
from tests.e2e.test_extensions import serving


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    printed = subprocess.run([*NAVARCH, "envtest", "--folder", str(folder)], capture_output=True, text=True, check=True)
    assert printed.stdout == f"{folder}\n"
    return folder


Start = Callable[..., ControlPlane]


@pytest.fixture
def start(assets: Path) -> Iterator[Start]:
    made: list[ControlPlane] = []

    def started(**options: Any) -> ControlPlane:
        made.append(ControlPlane(assets, **options))
        made[-1].start()
        return made[-1]

    yield started
    for plane in made:
        plane.stop()


class Kubectl:
    def __init__(self, plane: ControlPlane, **user: Any) -> None:
        self._program = plane.apiserver.path.parent / "kubectl"
        self._kubeconfig = plane.kubeconfig(**user)

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [self._program, "--kubeconfig", self._kubeconfig, *words]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)

    def __call__(self, *words: str, stdin: str = "") -> str:
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout


def _eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "still not so after a minute"
        time.sleep(0.05)


def test_a_harness_starts_a_control_plane_and_its_users_work(start: Start) -> None:
    plane = start()
    admin, nobody = Kubectl(plane), Kubectl(plane, name="jane", groups=("developers",))

    admin("create", "configmap", "a", "--from-literal=k=v")
    # Without the ServiceAccount plugin a pod needs no account.
    admin("run", "web", "--image=nginx")

    assert admin("get", "configmap", "a", "-o", "jsonpath={.data.k}") == "v"
    assert admin("get", "pod", "web", "-o", "jsonpath={.status.phase}") == "Pending"
    assert 'User "jane" cannot list resource "pods"' in nobody.run("get", "pods").stderr
    assert admin("get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}") == "10.0.0.1"
    assert plane.stop() == (0, 0)


def test_tokens_are_signed_with_the_key_of_the_harness(start: Start) -> None:
    plane = start()
    admin = Kubectl(plane)
    admin("create", "serviceaccount", "robot")
    token = admin("create", "token", "robot").strip()
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))

    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    answer = admin("create", "--validate=false", "-f", "-", "-o", "json", stdin=json.dumps(review))
    reviewed = json.loads(answer)["status"]

    assert claims["iss"] == f"https://127.0.0.1:{plane.apiserver.port}/"
    assert reviewed["authenticated"]
    assert reviewed["user"]["username"] == "system:serviceaccount:default:robot"


def test_definitions_and_webhooks_are_installed_as_a_harness_installs_them(start: Start) -> None:
    """Definitions are there when discovery shows them; webhooks are the test's own, at a URL with a CA of its own."""
    plane = start()
    admin, jane = Kubectl(plane), Kubectl(plane, name="jane", groups=("system:masters",))
    admin("create", "-f", "-", stdin=json.dumps(definition("envtest.example.com")))
    shown = "/apis/envtest.example.com/v1"
    _eventually(lambda: '"kind":"CronTab"' in admin.run("get", "--raw", shown).stdout)
    webhook = Webhook(Authority(), lambda request: {"allowed": request["userInfo"]["username"] != "jane"})
    rules = [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["crontabs"]}]
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "of-the-test"},
    }
    crontab = {"apiVersion": "envtest.example.com/v1", "kind": "CronTab", "metadata": {"name": "a"}}
    crontab["spec"] = {"schedule": "* * * * *"}

    with serving(webhook):
        configuration["webhooks"] = [webhook.config(rules=rules)]
        admin("create", "-f", "-", stdin=json.dumps(configuration))
        refused = jane.run("create", "-f", "-", stdin=json.dumps(crontab))
        created = admin("create", "-f", "-", stdin=json.dumps(crontab))

    assert 'admission webhook "w.example.com" denied the request' in refused.stderr
    assert created == "crontab.envtest.example.com/a created\n"
    assert {each.headers["content-type"] for each in webhook.asked} == {"application/json"}


def test_a_harness_in_java_starts_a_control_plane_and_kills_it(assets: Path) -> None:
    plane = ControlPlane(assets)
    try:
        plane.start_as_java_does()
        admin = Kubectl(plane)
        admin("create", "serviceaccount", "robot")
        claims = json.loads(base64.urlsafe_b64decode(admin("create", "token", "robot").split(".")[1] + "=="))

        assert admin("get", "namespace", "default", "-o", "jsonpath={.status.phase}") == "Active"
        assert claims["iss"] == "https://localhost"
        # It was ready before it was asked for: the process that etcd started serves.
        assert plane.apiserver.process is not None
        assert "warm_client" in Path(f"/proc/{plane.apiserver.process.pid}/cmdline").read_text()
        for program in (plane.apiserver, plane.etcd):
            assert program.process is not None
            program.process.kill()
            program.process.wait()
        _eventually(lambda: not _answers(plane.apiserver.port))
    finally:
        plane.stop()


def test_an_api_server_that_is_started_again_over_the_same_etcd_has_its_objects(start: Start) -> None:
    plane = start()
    admin = Kubectl(plane)
    admin("create", "configmap", "kept")
    assert plane.apiserver.stop() == 0

    plane.start_apiserver()

    assert admin("get", "configmap", "kept", "-o", "name") == "configmap/kept\n"


def test_an_api_server_whose_program_is_killed_does_not_stay(start: Start) -> None:
    plane = start()
    assert plane.apiserver.process is not None
    plane.apiserver.process.kill()
    plane.apiserver.process.wait()

    _eventually(lambda: not _answers(plane.apiserver.port))


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.connect()
    except OSError:
        return False
    finally:
        connection.close()
    return True


OWNED = """
apiVersion: v1
kind: ConfigMap
metadata:
  name: owned
  ownerReferences: [{{apiVersion: v1, kind: ConfigMap, name: owner, uid: {uid}}}]
"""


def _make_owner_and_owned(admin: Kubectl) -> None:
    admin("create", "configmap", "owner")
    uid = admin("get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}")
    admin("apply", "-f", "-", stdin=OWNED.format(uid=uid))


def test_garbage_is_collected_and_namespaces_go_where_the_variable_says_so(start: Start) -> None:
    admin = Kubectl(start(environment={"NAVARCH_ENVTEST_CONTROLLERS": "true"}))
    _make_owner_and_owned(admin)
    admin("create", "namespace", "gone")

    admin("delete", "configmap", "owner")
    admin("delete", "namespace", "gone", "--wait=false")

    _eventually(lambda: "owned" not in admin("get", "configmaps", "-o", "name"))
    _eventually(lambda: "gone" not in admin("get", "namespaces", "-o", "name"))


def test_without_it_they_stay_as_with_kubernetes_own_envtest(start: Start) -> None:
    admin = Kubectl(start())
    admin("create", "namespace", "gone")
    admin("delete", "namespace", "gone", "--wait=false")

    assert admin("get", "namespace", "gone", "-o", "jsonpath={.status.phase}") == "Terminating"


def test_flags_that_kube_apiserver_does_not_have_end_it(assets: Path) -> None:
    plane = ControlPlane(assets, {"no-such-flag": "1"})
    plane.start_etcd()
    try:
        with pytest.raises(StartError, match="Error: unknown flag: --no-such-flag"):
            plane.start_apiserver()
    finally:
        plane.stop()


def test_flags_without_effect_are_named_in_the_log(start: Start) -> None:
    plane = start(more={"feature-gates": "WatchList=false", "profiling": "false"})

    assert "accepted without effect: --allow-privileged, --profiling" in plane.apiserver.log()


def test_other_programs_of_a_test_keep_keys_in_its_etcd(assets: Path) -> None:
    plane = ControlPlane(assets)
    plane.start_etcd()

    async def played() -> tuple[list[bytes | None], list[bytes]]:
        store = EtcdStore(parse(f"etcd://127.0.0.1:{plane.etcd.port}/registry"))
        await store.open()
        try:
            await store.commit([Put("/a", b"1", 0), Put("/b", b"2", 0)])
            last = await store.commit([Put("/a", b"3"), Delete("/b")])
            seen: list[bytes | None] = []
            async with aclosing(store.watch("/", last - 2)) as events:
                async for event in events:
                    if isinstance(event, Event):
                        seen.append(event.value)
                    if len(seen) == 4:
                        break
            return seen, [entry.value for entry in (await store.range("/")).entries]
        finally:
            await store.close()

    try:
        seen, kept = asyncio.run(played())
        connection = http.client.HTTPConnection("127.0.0.1", plane.etcd.port, timeout=10)
        connection.request("POST", "/v3/kv/range", b'{"key":"AA=="}')
        answer = connection.getresponse()
        body = json.loads(answer.read())
        connection.close()
    finally:
        plane.stop()

    assert seen == [b"1", b"2", b"3", None]
    assert kept == [b"3"]
    # JSON over HTTP is not among what it serves, and it says so.
    assert answer.status == 501
    assert body["message"].startswith("this etcd belongs to `navarch envtest`")


def test_an_etcd_with_clients_ends_when_it_shall(assets: Path) -> None:
    plane = ControlPlane(assets)
    plane.start_etcd()
    with grpc.insecure_channel(f"127.0.0.1:{plane.etcd.port}") as channel:
        watch = channel.stream_stream(
            "/etcdserverpb.Watch/Watch", rpc.WatchRequest.SerializeToString, rpc.WatchResponse.FromString
        )
        open_ended: SimpleQueue[rpc.WatchRequest | None] = SimpleQueue()
        open_ended.put(rpc.WatchRequest(create_request={"key": b"a"}))
        answers = watch(iter(open_ended.get, None))
        assert next(answers).created

        assert plane.stop() == (-1, 0)

        with pytest.raises(grpc.RpcError):
            next(answers)
        open_ended.put(None)
