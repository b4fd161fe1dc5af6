"""Machines that join: the cluster proves itself, the token is enough for a node's certificates and for nothing else."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from navarch.api.errors import StatusError
from navarch.apiserver.user import User
from navarch.client.base import Client
from navarch.client.resources import CERTIFICATE_SIGNING_REQUESTS, CONFIG_MAPS, NODES, SECRETS
from navarch.cluster.certificates import Speaker
from navarch.cluster.config import ClusterConfig, ConfigError
from navarch.cluster.invitation import new_token, token_secret
from navarch.cluster.joining import Invitation, as_agent, discover, refuse_namesake
from navarch.cluster.lifecycle import StartError
from navarch.cluster.run_node import _enrol
from navarch.node.certificates import (
    API_CLIENT,
    CertificateSpec,
    KeyPair,
    Renewer,
    client_of_node,
    obtain,
    serving_of_node,
    stopgap,
)
from navarch.world import RealWorld
from tests.clocks import SteppedClock
from tests.cluster.conftest import Server

PROXY = CertificateSpec(API_CLIENT, "system:kube-proxy")


def of_agent(folder: Path, name: str) -> ClusterConfig:
    return ClusterConfig("joined", str(folder), role="agent", runtime="containerd", node_name=name)


async def test_a_cluster_is_believed_by_the_hash_of_its_ca_or_by_its_signature(server: Server) -> None:
    by_hash = await server.discovered(server.invitation())
    by_signature = await server.discovered(server.invitation(pin=""))

    assert by_hash == by_signature
    assert by_hash.ca == (server.cluster.config.pki / "ca.crt").read_bytes()
    assert by_hash.settings["pod_cidr"] == server.cluster.config.pod_cidr


async def test_a_hash_within_the_token_counts(server: Server) -> None:
    pinned = server.invitation(token=f"K10{server.hash.removeprefix('sha256:')}::{server.token}", pin="")

    assert pinned.ca_hash == server.hash
    await server.discovered(pinned)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pin": "sha256:" + "0" * 64}, "not the cluster that was meant"),
        ({"token": "abcdef.0123456789abcdef", "pin": ""}, "cannot prove that it knows the token"),
        ({"token": "abcdef.0123456789abcdef"}, "does not take the token"),
        ({"server": "https://127.0.0.1:1"}, "cannot reach https://127.0.0.1:1"),
    ],
)
async def test_what_is_wrong_is_said_before_anything_is_done(
    server: Server, changes: dict[str, str], words: str
) -> None:
    with pytest.raises(StartError, match=words):
        await server.discovered(server.invitation(**changes))


async def liar(answer: bytes, tmp_path: Path) -> tuple[asyncio.Server, str]:
    """Somebody who answers whatever is asked, and its URL."""
    stopgap(KeyPair(tmp_path, "liar"), "liar")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "liar.crt", tmp_path / "liar.key")

    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(OSError):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + answer)
            await writer.drain()
        writer.close()

    listening = await asyncio.start_server(lie, "127.0.0.1", 0, ssl=tls)
    return listening, f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("answer", "words"),
    [(b"[" * (4 << 20), "more than 3 MB"), (b"hello", "in JSON"), (b"{}", "does not say who it is")],
    ids=["endless", "no JSON", "nothing"],
)
async def test_whoever_is_not_believed_yet_cannot_fill_memory(answer: bytes, words: str, tmp_path: Path) -> None:
    listening, url = await liar(answer, tmp_path)
    async with listening:
        with pytest.raises(StartError, match=words):
            await asyncio.to_thread(discover, Invitation.of(url, "abcdef.0123456789abcdef", ""))


async def test_of_several_authorities_the_one_with_the_hash_is_believed_alone(server: Server, tmp_path: Path) -> None:
    """Whoever stands between could add one of its own to the cluster's, which anybody may read."""
    stopgap(KeyPair(tmp_path, "liar"), "liar")
    own = (server.cluster.config.pki / "ca.crt").read_bytes()
    info = await server.client.get(CONFIG_MAPS, "cluster-info", "kube-public")
    kubeconfig = json.loads(info["data"]["kubeconfig"])
    both = base64.b64encode(own + (tmp_path / "liar.crt").read_bytes()).decode()
    kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"] = both
    await server.client.patch(
        CONFIG_MAPS, "cluster-info", "kube-public", {"data": {"kubeconfig": json.dumps(kubeconfig)}}
    )

    assert (await server.discovered(server.invitation())).ca == own


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"token": "abc"}, "invalid --token"),
        ({"pin": "sha256:12"}, "invalid --ca-hash"),
        ({"server": "http://10.0.0.1:6443"}, "invalid --server"),
        ({"server": "https://10.0.0.1:99999"}, "invalid --server"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, str], words: str) -> None:
    stated = {"server": "10.0.0.1", "token": "abcdef.0123456789abcdef", "pin": "", **changes}
    with pytest.raises(ConfigError, match=words):
        Invitation.of(stated["server"], stated["token"], stated["pin"])


def test_a_server_is_named_as_people_do() -> None:
    assert Invitation.of("10.0.0.1", "abcdef.0123456789abcdef", "").server == "https://10.0.0.1:6443"
    assert Invitation.of("https://node:7443/", "abcdef.0123456789abcdef", "").server == "https://node:7443"


async def test_a_token_gets_a_node_its_certificates(server: Server, tmp_path: Path) -> None:
    invitation = server.invitation()
    config = as_agent(of_agent(tmp_path, "n1"), invitation, await server.discovered(invitation))

    await _enrol(config, RealWorld())

    assert not (config.pki / "bootstrap-token").exists()
    node = Speaker(config, "kubelet", "kubelet")
    try:
        await node.client.create(NODES, {"metadata": {"name": "n1"}})
        address = [{"type": "InternalIP", "address": "10.9.9.9"}]
        await node.client.patch(NODES, "n1", "", {"status": {"addresses": address}}, subresource="status")
        for spec, name in ((PROXY, "proxy"), (serving_of_node("n1", ["10.9.9.9"]), "kubelet-serving")):
            await obtain(node.client, spec, KeyPair(config.pki, name))
            made = KeyPair(config.pki, name).read()
            assert made is not None
            assert spec.is_met_by(made)
            # What is in use goes on with what is in the files now.
        node.look()
        assert (await node.client.get(NODES, "n1"))["metadata"]["name"] == "n1"
    finally:
        await node.client.close()


async def test_a_token_is_good_for_joining_alone(server: Server) -> None:
    group = ("system:bootstrappers", "system:authenticated")
    joining = server.cluster.client_as(User("system:bootstrap:abcdef", group))

    with pytest.raises(StatusError, match="forbidden"):
        await joining.list(SECRETS, "kube-system")
    with pytest.raises(StatusError, match="forbidden"):
        await joining.list(NODES)


async def conditions_of(server: Server, client: Client, spec: CertificateSpec, folder: Path) -> list[str]:
    """What becomes of a request once one that is made after it has been signed."""
    asking = asyncio.create_task(obtain(client, spec, KeyPair(folder, "asked")))

    async def made() -> Any:
        listed = (await server.client.list(CERTIFICATE_SIGNING_REQUESTS)).items
        return [one for one in listed if one["metadata"]["name"] not in before]

    before: set[str] = set()
    before = {one["metadata"]["name"] for one in await made()}
    try:
        (request,) = await server.until(made)
        await obtain(client, client_of_node("n2"), KeyPair(folder, "later"))
        found = await server.client.get(CERTIFICATE_SIGNING_REQUESTS, request["metadata"]["name"])
        return [one["type"] for one in (found.get("status") or {}).get("conditions") or ()]
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.parametrize(
    "spec",
    [
        serving_of_node("n2", ["10.1.1.1", "10.9.9.7"]),
        CertificateSpec("kubernetes.io/kubelet-serving", "system:node:n2", ("system:nodes",), ("kubernetes",)),
        CertificateSpec(API_CLIENT, "system:kube-proxy", ("friends",)),
        CertificateSpec(API_CLIENT, "somebody"),
    ],
    ids=["address", "name", "group", "person"],
)
async def test_what_would_make_a_node_somebody_else_waits_for_a_person(
    server: Server, tmp_path: Path, spec: CertificateSpec
) -> None:
    node = server.as_node("n2")
    if await server.client.find(NODES, "n2") is None:
        await node.create(NODES, {"metadata": {"name": "n2"}})
        address = [{"type": "InternalIP", "address": "10.9.9.7"}]
        await node.patch(NODES, "n2", "", {"status": {"addresses": address}}, subresource="status")

    assert await conditions_of(server, node, spec, tmp_path) == []


async def test_certificates_are_renewed_before_they_end(server: Server, tmp_path: Path) -> None:
    clock, pair = SteppedClock(), KeyPair(tmp_path, "kubelet")
    renewed = asyncio.Event()
    renewer = Renewer(server.as_node("n3"), pair, lambda: client_of_node("n3"), RealWorld(clock=clock), renewed.set)
    stopgap(pair, "n3")
    running = asyncio.create_task(renewer.run())
    try:
        async with asyncio.timeout(30):
            await renewed.wait()
        first = pair.read()
        assert first is not None
        assert first.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "system:node:n3"
        renewed.clear()

        clock.ahead = timedelta(days=365 * 0.6)
        renewer.look_again()
        # There is no event for what does not happen; the next one comes, as it were, in its place.
        clock.ahead = timedelta(days=365 * 0.91)
        renewer.look_again()
        async with asyncio.timeout(30):
            await renewed.wait()
        second = pair.read()
        assert second is not None
        assert second.serial_number != first.serial_number
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_a_pair_without_its_key_is_none(tmp_path: Path) -> None:
    pair = KeyPair(tmp_path, "kubelet")
    stopgap(pair, "n1")
    assert isinstance(pair.read(), x509.Certificate)

    pair.key.unlink()

    assert pair.read() is None


async def test_a_namesake_of_a_node_that_is_well_is_refused(server: Server) -> None:
    invitation = server.invitation()
    found = await server.discovered(invitation)
    await server.client.create(NODES, {"metadata": {"name": "twin"}})
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    await server.client.patch(NODES, "twin", "", ready, subresource="status")

    async def is_well() -> bool:
        try:
            await asyncio.to_thread(refuse_namesake, invitation, found, "twin")
        except StartError:
            return True
        return False

    await server.until(is_well)
    await asyncio.to_thread(refuse_namesake, invitation, found, "another")


async def test_a_signature_goes_with_its_token(server: Server) -> None:
    other = replace(server, token=new_token())
    secret = token_secret(other.token, now=datetime.now(UTC), ttl_s=0)
    await server.client.create(SECRETS, secret)
    await other.signed()

    await server.client.delete(SECRETS, secret["metadata"]["name"], "kube-system")

    async def signatures() -> bool:
        info = await server.client.get(CONFIG_MAPS, "cluster-info", "kube-public")
        return {name for name in info["data"] if name.startswith("jws-")} == {
            f"jws-kubeconfig-{server.token.partition('.')[0]}"
        }

    await server.until(signatures)


def test_a_signature_is_the_one_that_kubeadm_checks() -> None:
    from navarch.controllers.bootstrap_signer import signature

    header, content, said = signature("content", "abcdef", "0123456789abcdef").split(".")

    assert base64.urlsafe_b64decode(header + "==") == b'{"alg":"HS256","kid":"abcdef"}'
    assert content == ""
    assert len(base64.urlsafe_b64decode(said + "=")) == 32
