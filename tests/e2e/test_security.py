"""Secure by default: who gets nothing, what is written nowhere, and what the machine's other users cannot read."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import ssl
import stat
from pathlib import Path

import pytest

from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.containers

KUBELET_PATHS = ("/pods", "/metrics", "/stats/summary", "/configz", "/runningpods/", "/exec/a/b/c", "/run/a/b/c", "/no")


def ask(
    cluster: Cluster,
    path: str,
    *,
    kubelet: bool = True,
    certificate: str = "",
    token: str = "",
    method: str = "GET",
    headers: dict[str, str] | None = None,
    newest: ssl.TLSVersion | None = None,
) -> tuple[int, str]:
    """Status and body; a connection that is refused is an OSError."""
    config = cluster.config
    tls = ssl.create_default_context(cafile=str(config.pki / "ca.crt"))
    if certificate:
        tls.load_cert_chain(config.pki / f"{certificate}.crt", config.pki / f"{certificate}.key")
    if newest is not None:
        tls.set_ciphers("ALL:@SECLEVEL=0")
        tls.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        tls.maximum_version = newest
    port = config.kubelet_port if kubelet else config.port
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=tls, timeout=10)
    try:
        connection.request(method, path, headers={**(headers or {}), **_bearer(token)})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def test_a_kubelet_tells_strangers_that_it_lives_and_no_more(containers: Cluster) -> None:
    assert ask(containers, "/healthz")[0] == 200
    assert {path: ask(containers, path)[0] for path in KUBELET_PATHS} == dict.fromkeys(KUBELET_PATHS, 401)
    web_socket = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
    }
    assert ask(containers, "/exec/default/a/c?command=id", headers=web_socket)[0] == 401
    spdy = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
    assert ask(containers, "/exec/default/a/c?command=id", method="POST", headers=spdy)[0] == 401


def test_a_kubelet_asks_the_cluster_what_a_token_may(containers: Cluster) -> None:
    kubectl = containers.kubectl
    kubectl("create", "serviceaccount", "scraper")
    kubectl("create", "clusterrole", "scrape", "--verb=get", "--resource=nodes/metrics,nodes/stats")
    kubectl("create", "clusterrolebinding", "scrape", "--clusterrole=scrape", "--serviceaccount=default:scraper")
    kubectl("create", "clusterrole", "look", "--verb=get", "--resource=nodes/proxy")
    kubectl("create", "serviceaccount", "looker")
    kubectl("create", "clusterrolebinding", "look", "--clusterrole=look", "--serviceaccount=default:looker")
    token, other = kubectl("create", "token", "scraper").strip(), kubectl("create", "token", "default").strip()
    elsewhere = kubectl("create", "token", "scraper", "--audience=vault").strip()
    looker = kubectl("create", "token", "looker").strip()

    assert {path: ask(containers, path, token=token)[0] for path in ("/metrics", "/stats/summary", "/pods")} == {
        "/metrics": 200,
        "/stats/summary": 200,
        "/pods": 403,
    }
    assert ask(containers, "/metrics", token=other)[0] == 403
    assert ask(containers, "/metrics", token=elsewhere)[0] == 401
    assert ask(containers, "/metrics", token="nonsense")[0] == 401
    assert ask(containers, "/pods", token=looker)[0] == 200
    assert "verb=create" in ask(containers, "/exec/a/b/c?command=id", token=looker)[1]
    assert ask(containers, "/pods", certificate="proxy")[0] == 403
    assert ask(containers, "/pods", certificate="apiserver-kubelet-client")[0] == 200


def test_the_api_server_tells_strangers_its_health_and_version(containers: Cluster) -> None:
    told = ("/healthz", "/livez", "/readyz", "/version")
    withheld = ("/", "/api", "/apis", "/metrics", "/openapi/v2", "/openapi/v3", "/healthz/etcd", "/api/v1/namespaces")

    answers = {path: ask(containers, path, kubelet=False)[0] for path in (*told, *withheld)}

    assert answers == {**dict.fromkeys(told, 200), **dict.fromkeys(withheld, 403)}
    assert ask(containers, "/version", kubelet=False, token="nonsense")[0] == 401


@pytest.mark.parametrize("kubelet", [True, False])
def test_old_tls_and_certificates_for_servers_are_refused(containers: Cluster, kubelet: bool) -> None:
    with pytest.warns(DeprecationWarning, match="TLSv1_1"), pytest.raises(OSError):
        ask(containers, "/healthz", kubelet=kubelet, newest=ssl.TLSVersion.TLSv1_1)
    with pytest.raises(OSError):
        ask(containers, "/healthz", kubelet=kubelet, certificate="apiserver")


SMUGGLED = [
    b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Content-Length: 6\r\nContent-Length: 5\r\n\r\nabcdef",
    b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"A : b\r\n\r\n",
    b"A: b\r\n c\r\n\r\n",
    b"A: " + b"a" * 3_000_000 + b"\r\n\r\n",
    b"".join(b"a%d: b\r\n" % number for number in range(20_000)) + b"\r\n",
]


@pytest.mark.parametrize("kubelet", [True, False])
@pytest.mark.parametrize("head", SMUGGLED, ids=range(len(SMUGGLED)))
def test_a_request_that_can_be_read_in_two_ways_is_refused(containers: Cluster, kubelet: bool, head: bytes) -> None:
    config = containers.config
    tls = ssl.create_default_context(cafile=str(config.pki / "ca.crt"))
    port = config.kubelet_port if kubelet else config.port
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        tls.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        cut = False
        try:
            connection.sendall(b"POST /version HTTP/1.1\r\nHost: a\r\n" + head)
        except OSError:
            # Refused before it was all sent; what was said of it may be lost then.
            cut = True
        try:
            answer = connection.recv(4096)
        except OSError:
            answer = b""

    line = answer.partition(b"\r\n")[0]
    # 431 is that a head is too long.
    assert line.split()[1:2] in ([b"400"], [b"431"] if len(head) > 1_000_000 else []) or (cut and not answer)


def test_secrets_are_in_no_log_and_no_event(containers: Cluster) -> None:
    kubectl = containers.kubectl
    word = f"hush{os.urandom(8).hex()}"
    encoded = base64.b64encode(word.encode()).decode()
    kubectl("create", "secret", "generic", "hidden", f"--from-literal=key={word}")
    token = kubectl("create", "token", "default").strip()
    ask(containers, f"/api/v1/namespaces/{word[:4]}", kubelet=False, token=token)
    ask(containers, "/pods", token=token)
    broken = {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "UPPER"}, "stringData": {"key": word}}
    said = containers.try_kubectl("apply", "-f", "-", stdin=json.dumps(broken))
    assert word not in said.stderr

    logged = "".join(file.read_text(errors="replace") for file in containers.config.logs.glob("*.log"))
    events = kubectl("get", "events", "-A", "-o", "json")

    for hidden in (word, encoded, token):
        assert hidden not in logged
        assert hidden not in events


def test_the_machines_other_users_read_nothing(containers: Cluster) -> None:
    root = containers.config.root
    closed = [root / "pki", root / "node/kubelet/pods", root / "node/kubelet/logs", root / "node/containerd"]

    open_to_others = [str(path) for path in closed if path.stat().st_mode & 0o007]
    open_to_others += [str(path) for path in root.glob("state.db*") if path.stat().st_size and _readable(path)]
    open_to_others += [str(path) for path in (root / "run").iterdir() if _is_socket(path) and _writable(path)]

    assert open_to_others == []


def _readable(path: Path) -> bool:
    return bool(path.stat().st_mode & stat.S_IROTH)


def _writable(path: Path) -> bool:
    return bool(path.stat().st_mode & stat.S_IWOTH)


def _is_socket(path: Path) -> bool:
    return stat.S_ISSOCK(path.stat().st_mode)
