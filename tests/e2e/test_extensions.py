"""What others add to the API, with kubectl: an admission webhook that says no, and an API server behind this one."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import orjson
import pytest

from tests.apiserver.aggregation.conftest import GROUP, NAME, ROOT, VERSION, Extension
from tests.apiserver.webhooks.server import Authority, Webhook, http
from tests.e2e.conftest import Cluster


class Loop:
    """An event loop in a thread, for servers beside a test that waits for programs."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        done: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return done.result(60)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()


@contextmanager
def serving(server: Any) -> Iterator[None]:
    loop = Loop()
    try:
        loop.run(server.__aenter__())
        try:
            yield
        finally:
            loop.run(server.__aexit__(None, None, None))
    finally:
        loop.close()


def address_of_this_machine() -> str:
    """One that is not loopback, which is no place for a Service's endpoints; empty where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: it only chooses the address to send from.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        address: str = probe.getsockname()[0]
    return "" if address.startswith("127.") else address


def test_kubectl_reads_why_a_webhook_said_no(simulated: Cluster, namespace: str) -> None:
    said = {"allowed": False, "status": {"code": 403, "reason": "Forbidden", "message": "not on a Friday"}}
    webhook = Webhook(Authority(), lambda request: said)
    with serving(webhook):
        configuration = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": f"fridays-{namespace}"},
            "webhooks": [webhook.config(namespaceSelector={"matchLabels": {"kubernetes.io/metadata.name": namespace}})],
        }
        simulated.apply(configuration)
        try:
            done = simulated.try_kubectl("create", "configmap", "c", "-n", namespace)
            simulated.kubectl("create", "configmap", f"c-{namespace}", "-n", "default")
        finally:
            simulated.kubectl("delete", "validatingwebhookconfiguration", f"fridays-{namespace}")

        simulated.kubectl("create", "configmap", "c", "-n", namespace)

    assert done.returncode == 1
    expected = 'admission webhook "w.example.com" denied the request: not on a Friday'
    assert done.stderr.strip() == f"error: failed to create configmap: {expected}"
    assert len(webhook.asked) == 1


def flunders(namespace: str) -> bytes:
    item = {"metadata": {"name": "fred", "namespace": namespace, "creationTimestamp": "2020-01-01T00:00:00Z"}}
    return orjson.dumps(
        {
            "kind": "FlunderList",
            "apiVersion": f"{GROUP}/{VERSION}",
            "metadata": {},
            "items": [{"kind": "Flunder", "apiVersion": f"{GROUP}/{VERSION}", **item}],
        }
    )


def test_kubectl_shows_what_an_api_server_behind_this_one_has(simulated: Cluster, namespace: str) -> None:
    address = address_of_this_machine()
    if not address:
        pytest.skip("this machine has no address but loopback")
    authority = Authority()
    tls = authority.serving([f"wardle.{namespace}.svc"])
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(simulated.config.pki / "front-proxy-ca.crt")
    extension = Extension(tls, address)
    extension.more[f"{ROOT}/namespaces/{namespace}/flunders"] = lambda asked: http(200, flunders(namespace))
    with serving(extension.server):
        port = {"name": "https", "port": 443}
        service = {"metadata": {"name": "wardle"}, "spec": {"ports": [{**port, "targetPort": extension.server.port}]}}
        slice_ = {
            "metadata": {"name": "wardle-1", "labels": {"kubernetes.io/service-name": "wardle"}},
            "addressType": "IPv4",
            "ports": [{**port, "port": extension.server.port}],
            "endpoints": [{"addresses": [address]}],
        }
        spec = {
            "group": GROUP,
            "version": VERSION,
            "groupPriorityMinimum": 2000,
            "versionPriority": 15,
            "service": {"namespace": namespace, "name": "wardle"},
            "caBundle": authority.bundle,
        }
        simulated.apply(
            {"apiVersion": "v1", "kind": "Service", **service},
            {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", **slice_},
            {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": NAME}, "spec": spec},
            namespace=namespace,
        )
        try:
            simulated.kubectl("wait", "--for=condition=Available", f"apiservice/{NAME}", "--timeout=60s")
            listed = simulated.wait_until(
                lambda: simulated.kubectl("api-resources", f"--api-group={GROUP}", "--no-headers"), 60, "discovery"
            )
            shown = simulated.kubectl("get", "flunders", "-n", namespace)
        finally:
            simulated.kubectl("delete", "apiservice", NAME)

    assert listed.split() == ["flunders", f"{GROUP}/{VERSION}", "true", "Flunder"]
    assert shown.splitlines()[1].split()[0] == "fred"
    assert extension.asked[0].headers["x-remote-user"] == "kubernetes-admin"
