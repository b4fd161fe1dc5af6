"""A pod's key and certificates: asked for, waited for, renewed in time, and refused for good."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from navarch.api import schema
from navarch.api.meta import Obj
from navarch.api.version import DEFAULT_VERSION
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import User
from navarch.client.base import Client, PatchKind
from navarch.client.local import LocalTransport
from navarch.client.resources import NAMESPACES, NODES, POD_CERTIFICATE_REQUESTS, PODS, SERVICE_ACCOUNTS
from navarch.kinds import enablement
from navarch.kinds.registry import builtin
from navarch.node.volumes.base import VolumeError, VolumePending
from navarch.node.volumes.pod_certificate import Credential, PodCertificates
from navarch.store.memory import MemoryStore
from navarch.world import RealWorld
from tests.clocks import SetClock
from tests.pod_signer import condition, issued

SIGNER = "example.com/pods"


class Events:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def event(self, obj: Obj, type: str, reason: str, message: str) -> None:
        self.seen.append((reason, message))


class Node:
    """A pod of the node, and the signer of its certificate."""

    def __init__(self, client: Client, pod: Obj) -> None:
        self.client = client
        self.pod = pod
        self.clock = SetClock()
        self.events = Events()
        self.certificates = PodCertificates(client, self.events, RealWorld(1, clock=self.clock), "n1")  # type: ignore[arg-type]

    async def credential(self, kind: str = "ECDSAP256", **fields: Any) -> Credential:
        stated = {"signerName": SIGNER, "keyType": kind, **fields}
        return await self.certificates.credential(self.pod, "own", 0, stated)

    async def asked(self, **fields: Any) -> Obj:
        """The request, after the first look."""
        with pytest.raises(VolumePending):
            await self.credential(**fields)
        return (await self.requests())[-1]

    async def requests(self) -> list[Obj]:
        listed = await self.client.list(POD_CERTIFICATE_REQUESTS, "default")
        return sorted(listed.items, key=lambda one: int(one["metadata"]["resourceVersion"]))

    async def answer(self, request: Obj, status: Obj) -> None:
        name = request["metadata"]["name"]
        patch = {"status": status}
        await self.client.patch(
            POD_CERTIFICATE_REQUESTS, name, "default", patch, kind=PatchKind.MERGE, subresource="status"
        )

    async def issue(self, request: Obj, *, around: str = "") -> None:
        status = issued(request, self.clock.now())
        await self.answer(request, {**status, "certificateChain": around + status["certificateChain"]})


@asynccontextmanager
async def running(version: str = DEFAULT_VERSION, *, switched_on: str = "") -> AsyncIterator[Node]:
    registry = builtin(schema.load(version), enablement.parse([switched_on]))
    served = ApiServer(MemoryStore(), registry=registry, kubernetes_version=version)
    await served.start()
    client = Client(LocalTransport(served.as_user(User("admin", groups=("system:masters",)))))
    try:
        await client.create(NAMESPACES, {"metadata": {"name": "default"}})
        await client.create(NODES, {"metadata": {"name": "n1"}})
        await client.create(SERVICE_ACCOUNTS, {"metadata": {"name": "default", "namespace": "default"}})
        spec = {"containers": [{"name": "c", "image": "web"}], "nodeName": "n1"}
        pod = await client.create(PODS, {"metadata": {"name": "web", "namespace": "default"}, "spec": spec})
        yield Node(client, pod)
    finally:
        await served.stop()


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with running() as made:
        yield made


@pytest.mark.parametrize("kind", ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"])
async def test_a_key_of_each_type_gets_its_certificate(node: Node, kind: str) -> None:
    request = await node.asked(kind=kind, maxExpirationSeconds=86400, userAnnotations={"example.com/a": "b"})
    spec, owner = request["spec"], request["metadata"]["ownerReferences"][0]
    assert (spec["signerName"], spec["podName"], spec["nodeName"]) == (SIGNER, "web", "n1")
    assert (spec["podUID"], owner["uid"]) == (node.pod["metadata"]["uid"], node.pod["metadata"]["uid"])
    assert (spec["maxExpirationSeconds"], spec["unverifiedUserAnnotations"]) == (86400, {"example.com/a": "b"})

    await node.issue(request, around="what people write around certificates\n")
    got = await node.credential(kind)

    assert got.chain.startswith("-----BEGIN CERTIFICATE-----")
    leaf = x509.load_pem_x509_certificate(got.chain.encode())
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    key = load_pem_private_key(got.key.encode(), None)
    assert key.public_key().public_bytes(*form) == leaf.public_key().public_bytes(*form)


async def test_an_older_api_server_gets_a_key_with_a_proof() -> None:
    async with running("1.35", switched_on="certificates.k8s.io/v1beta1=true") as node:
        for kind in ("RSA3072", "ECDSAP256", "ED25519"):
            with pytest.raises(VolumePending):
                await node.credential(kind)
            node.certificates.forget(node.pod["metadata"]["uid"])

        listed = await node.client.list(POD_CERTIFICATE_REQUESTS._replace(version="v1beta1"), "default")
        assert [bool(one["spec"]["proofOfPossession"]) for one in listed.items] == [True] * 3


async def test_an_api_server_without_such_requests_is_told_of() -> None:
    async with running("1.33") as node:
        with pytest.raises(VolumeError, match="not served by this cluster"):
            await node.credential()


async def test_a_certificate_is_asked_for_once(node: Node) -> None:
    request = await node.asked()
    await node.asked()
    await node.issue(request)

    assert await node.credential() == await node.credential()
    assert len(await node.requests()) == 1


async def test_a_certificate_is_renewed_when_its_signer_says(node: Node) -> None:
    await node.issue(await node.asked())
    first = await node.credential()

    node.clock.time += timedelta(hours=20, minutes=6)
    assert await node.credential() == first
    renewal = (await node.requests())[-1]
    await node.issue(renewal)
    second = await node.credential()

    assert second.key != first.key
    assert second.chain != first.chain
    assert len(await node.requests()) == 2


async def test_a_certificate_that_nobody_renews_is_told_of(node: Node) -> None:
    await node.issue(await node.asked())
    first = await node.credential()

    node.clock.time += timedelta(hours=21)
    assert await node.credential() == await node.credential() == first
    assert [reason for reason, _ in node.events.seen] == ["CertificateOverdueForRefresh"]
    node.clock.time += timedelta(hours=4)
    assert await node.credential() == await node.credential() == first

    assert [reason for reason, _ in node.events.seen] == ["CertificateOverdueForRefresh", "CertificateExpired"]


@pytest.mark.parametrize(("kind", "how"), [("Denied", "denied"), ("Failed", "failed")])
async def test_what_a_signer_refuses_is_not_asked_again(node: Node, kind: str, how: str) -> None:
    request = await node.asked()
    await node.answer(
        request, {"conditions": [condition(kind, node.clock.now(), "UnsupportedKeyType", "take ED25519")]}
    )

    for _ in range(2):
        with pytest.raises(VolumeError, match=f'permanently {how}: reason="UnsupportedKeyType" message="take ED25519"'):
            await node.credential()

    assert len(await node.requests()) == 1
    assert [reason for reason, _ in node.events.seen] == [kind]


async def test_a_request_that_somebody_deletes_is_made_again(node: Node) -> None:
    request = await node.asked()
    await node.client.delete(POD_CERTIFICATE_REQUESTS, request["metadata"]["name"], "default")

    for _ in range(2):
        with pytest.raises(VolumePending):
            await node.credential()
    again = (await node.requests())[-1]
    await node.issue(again)

    assert (await node.credential()).chain
    assert again["metadata"]["name"] != request["metadata"]["name"]


async def test_a_pod_that_goes_takes_its_key_along(node: Node) -> None:
    await node.issue(await node.asked())
    await node.credential()

    node.certificates.forget(node.pod["metadata"]["uid"])

    with pytest.raises(VolumePending):
        await node.credential()
