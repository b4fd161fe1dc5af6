"""Ingresses and load balancers with real pods: real requests to the node's address, through updates of all kinds."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPSConnection
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from navarch.node.ingress.haproxy import ProxyError, find_binary

from .conftest import Cluster
from .objects import BUSYBOX, service

pytestmark = [pytest.mark.e2e, pytest.mark.containers]
HOST = "shop.example.com"
# A server that ends when it is told to, after what it had begun.
SERVE = "mkdir -p /www; echo {text} > /www/index.html; trap 'kill $!; exit' TERM; httpd -f -p 8080 -h /www & wait"


def web(text: str) -> dict[str, Any]:
    container = {
        "name": "web",
        "image": BUSYBOX,
        "command": ["sh", "-c", SERVE.format(text=text)],
        "readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "2"]}}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"terminationGracePeriodSeconds": 10, "containers": [container]},
            },
        },
    }


def ingress(name: str, host: str, **spec: Any) -> dict[str, Any]:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name},
        "spec": {"rules": [{"host": host, "http": {"paths": paths}}], **spec},
    }


@pytest.fixture(scope="module")
def shop(containers: Cluster) -> Iterator[Cluster]:
    try:
        find_binary()
    except ProxyError as error:
        pytest.skip(str(error))
    containers.kubectl("create", "namespace", "shop")
    try:
        containers.apply(web("one"), service("web", 80, 8080, selector={"app": "web"}), namespace="shop")
        containers.apply(ingress("shop", HOST), namespace="shop")
        containers.kubectl("rollout", "status", "deployment/web", "-n", "shop", "--timeout=60s")
        yield containers
    finally:
        containers.kubectl("delete", "namespace", "shop", "--timeout=60s")


@pytest.fixture(scope="module")
def address(shop: Cluster) -> str:
    """Where the Ingress says that it is served."""

    def served() -> str:
        balancer = shop.get("ingress", "shop", "-n", "shop")["status"].get("loadBalancer") or {}
        return str((balancer.get("ingress") or [{}])[0].get("ip") or "")

    return str(shop.wait_until(served, 60, "the Ingress has no address"))


def ask(address: str, host: str, port: int = 80) -> str:
    request = urllib.request.Request(f"http://{address}:{port}/", headers={"Host": host})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode().strip())


def try_ask(address: str, host: str, port: int = 80) -> str:
    try:
        return ask(address, host, port)
    except (urllib.error.URLError, OSError) as error:
        return f"{type(error).__name__}: {error}"


def test_a_host_leads_to_the_pods_and_others_do_not(shop: Cluster, address: str) -> None:
    shop.wait_until(lambda: try_ask(address, HOST) == "one", what="no answer through the Ingress")

    with pytest.raises(urllib.error.HTTPError, match="404"):
        ask(address, "other.example.com")
    assert shop.get("ingress", "shop", "-n", "shop")["spec"]["ingressClassName"] == "navarch"
    shop.wait_until(lambda: "Synced" in shop.kubectl("get", "events", "-n", "shop"), what="no event")


def test_tls_is_ended_with_the_secrets_certificate(shop: Cluster, address: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(minutes=5))
    builder = builder.not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    data = {
        "tls.crt": base64.b64encode(certificate).decode(),
        "tls.key": base64.b64encode(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        ).decode(),
    }  # fmt: skip
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls"}, "type": "kubernetes.io/tls"}
    tls = [{"hosts": [HOST], "secretName": "tls"}]
    shop.apply({**secret, "data": data}, ingress("shop", HOST, tls=tls), namespace="shop")
    context = ssl.create_default_context(cadata=certificate.decode())

    def asked() -> str:
        connection = HTTPSConnection(address, 443, timeout=10, context=context)
        try:
            # Connected by its address, but asked for, and verified, by its name.
            plain = HTTPConnection(address, 443, timeout=10)
            plain.connect()
            connection.sock = context.wrap_socket(plain.sock, server_hostname=HOST)
            connection.request("GET", "/", headers={"Host": HOST})
            return connection.getresponse().read().decode().strip()
        except OSError as error:
            return str(error)
        finally:
            connection.close()

    shop.wait_until(lambda: asked() == "one", what="no answer over TLS")


def test_no_request_fails_while_pods_and_ingresses_change(shop: Cluster, address: str) -> None:
    shop.wait_until(lambda: try_ask(address, HOST) == "one", what="no answer through the Ingress")
    stop = threading.Event()
    answers: list[str] = []

    def load() -> None:
        while not stop.is_set():
            answers.append(try_ask(address, HOST))

    clients = [threading.Thread(target=load) for _ in range(2)]
    for client in clients:
        client.start()
    try:
        shop.apply(web("two"), ingress("more", "more.example.com"), namespace="shop")
        shop.kubectl("rollout", "status", "deployment/web", "-n", "shop", "--timeout=120s")
        shop.wait_until(lambda: try_ask(address, "more.example.com") == "two", what="the second Ingress is not served")
        shop.kubectl("delete", "ingress", "more", "-n", "shop")
        shop.wait_until(lambda: set(answers[-20:]) == {"two"}, what="old pods still answer")
    finally:
        stop.set()
        for client in clients:
            client.join()

    assert set(answers) == {"one", "two"}


def test_a_load_balancer_answers_at_the_nodes_address(shop: Cluster, address: str) -> None:
    made = service("balanced", 8088, 8080, selector={"app": "web"}, type="LoadBalancer")
    second = service("second", 8088, 8080, selector={"app": "web"}, type="LoadBalancer")
    shop.apply(made, namespace="shop")

    def given() -> str:
        balancer = shop.get("service", "balanced", "-n", "shop")["status"].get("loadBalancer") or {}
        return json.dumps([entry["ip"] for entry in balancer.get("ingress") or ()])

    shop.wait_until(lambda: given() == json.dumps([address]), what="the service has no address")
    shop.wait_until(lambda: try_ask(address, "any", 8088) in ("one", "two"), what="nothing answers at the address")
    shop.apply(second, namespace="shop")
    shop.wait_until(
        lambda: "belongs to the service shop/balanced" in shop.kubectl("get", "events", "-n", "shop"),
        what="nobody tells of the conflict",
    )
