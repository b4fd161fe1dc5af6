"""`kubeadm join` and Kubernetes' own kubelet, request by request as they send them (protobuf, streamed lists, watches
of single objects): they find all that they need, and nothing that is another node's."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from navarch.api import protobuf
from navarch.api.protobuf_messages import message_class
from navarch.client.http import HTTPTransport
from navarch.client.resources import (
    CERTIFICATE_SIGNING_REQUESTS,
    CONFIG_MAPS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    SECRETS,
)
from navarch.client.transport import Request, Response
from navarch.controllers import certificates
from navarch.node.certificates import CertificateSpec, client_of_node, serving_of_node
from tests.cluster.conftest import Server
from tests.ports import free_port

PROTOBUF = "application/vnd.kubernetes.protobuf"
NAME = "official"
SYSTEM = "/api/v1/namespaces/kube-system/configmaps"
CERTIFICATES = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
CSI_NODES = "/apis/storage.k8s.io/v1/csinodes"
SLICES = "/apis/resource.k8s.io/v1/resourceslices"
MERGE = "application/strategic-merge-patch+json"
STREAMED = [("allowWatchBookmarks", "true"), ("resourceVersionMatch", "NotOlderThan"), ("sendInitialEvents", "true")]


class GoClient:
    """As client-go's typed clients ask: protobuf both ways, patches in JSON."""

    def __init__(self, url: str, ca: Path, *, token: str = "", pair: tuple[Path, Path] | None = None) -> None:
        tls = ssl.create_default_context(cafile=str(ca))
        if pair is not None:
            tls.load_cert_chain(*pair)
        self._transport = HTTPTransport(url, tls=tls, token=(lambda: token) if token else None)

    async def close(self) -> None:
        await self._transport.close()

    async def ask(
        self, method: str, path: str, body: Any = None, *, fields: str = "", patch: str = ""
    ) -> tuple[int, dict[str, Any]]:
        headers = {"accept": f"{PROTOBUF},application/json"}
        data = b""
        if body is not None:
            headers["content-type"] = patch or PROTOBUF
            data = json.dumps(body).encode() if patch else protobuf.encode(body)
        query = [("fieldSelector", fields)] if fields else []
        answer = await self._transport.send(Request(method, path, query, headers, data))
        assert isinstance(answer.body, bytes)
        assert answer.content_type == PROTOBUF, answer.body
        return answer.status, protobuf.decode(answer.body)

    async def ok(self, method: str, path: str, body: Any = None, **kwargs: str) -> dict[str, Any]:
        status, answer = await self.ask(method, path, body, **kwargs)
        assert status < 300, answer
        return answer

    async def refusal(self, method: str, path: str, body: Any = None, **kwargs: str) -> str:
        status, answer = await self.ask(method, path, body, **kwargs)
        assert status == 403, answer
        return str(answer["message"])

    @asynccontextmanager
    async def watch(self, path: str, fields: str, *more: tuple[str, str]) -> AsyncIterator[Events]:
        query = [("watch", "true"), ("fieldSelector", fields), *more]
        headers = {"accept": f"{PROTOBUF};stream=watch,{PROTOBUF},application/json"}
        answer = await self._transport.send(Request("GET", path, query, headers), stream=True)
        assert answer.status == 200, answer.body
        events = Events(answer)
        try:
            yield events
        finally:
            await events.close()

    async def streamed(self, path: str, fields: str = "") -> list[dict[str, Any]]:
        """A list as informers have it: by a watch, up to the bookmark that ends it."""
        found = []
        async with self.watch(path, fields, *STREAMED) as events:
            while True:
                kind, obj = await anext(events)
                if kind == "BOOKMARK":
                    assert obj["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true"
                    return found
                assert kind == "ADDED"
                found.append(obj)


class Events:
    """Of a watch: four bytes of length, then a WatchEvent."""

    def __init__(self, answer: Response) -> None:
        assert not isinstance(answer.body, bytes)
        self._chunks: AsyncIterator[bytes] = answer.body
        self._data = b""

    async def __anext__(self) -> tuple[str, dict[str, Any]]:
        async with asyncio.timeout(60):
            size = int.from_bytes(await self._read(4), "big")
            event = message_class("meta/v1.WatchEvent").FromString(await self._read(size))
        return event.type, protobuf.decode(event.object.raw)

    async def _read(self, size: int) -> bytes:
        while len(self._data) < size:
            self._data += await anext(self._chunks)
        data, self._data = self._data[:size], self._data[size:]
        return data

    async def close(self) -> None:
        await self._chunks.aclose()  # type: ignore[attr-defined]


def named(api_version: str, kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **more}


async def certified(client: GoClient, spec: CertificateSpec, folder: Path, name: str) -> tuple[Path, Path]:
    """As the kubelet's certificate manager: a request, and a watch of it alone until it is signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    asked = {
        "request": base64.b64encode(spec.request(key)).decode(),
        "signerName": spec.signer,
        "usages": list(spec.usages),
    }
    request = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
               "metadata": {"generateName": "csr-"}, "spec": asked}  # fmt: skip
    made = await client.ok("POST", CERTIFICATES, request)
    fields = f"metadata.name={made['metadata']['name']}"
    listed = await client.ok("GET", CERTIFICATES, fields=fields)
    (found,) = listed["items"]
    since = ("resourceVersion", listed["metadata"]["resourceVersion"])
    async with client.watch(CERTIFICATES, fields, since, ("allowWatchBookmarks", "true")) as events:
        while not (found.get("status") or {}).get("certificate"):
            kind, obj = await anext(events)
            found = obj if kind == "MODIFIED" else found
    pair = folder / f"{name}.crt", folder / f"{name}.key"
    pair[0].write_bytes(base64.b64decode(found["status"]["certificate"]))
    pair[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return pair


@pytest.fixture
async def joining(server: Server) -> AsyncIterator[GoClient]:
    client = GoClient(server.url, server.cluster.config.pki / "ca.crt", token=server.token)
    yield client
    await client.close()


@pytest.fixture
async def kubelet(server: Server, joining: GoClient, tmp_path: Path) -> AsyncIterator[GoClient]:
    """With the certificate that its token has brought it."""
    pair = await certified(joining, client_of_node(NAME), tmp_path, "kubelet-client")
    client = GoClient(server.url, server.cluster.config.pki / "ca.crt", pair=pair)
    yield client
    await client.close()


@pytest.fixture
async def node(kubelet: GoClient) -> dict[str, Any]:
    """The kubelet's Node, as it is registered."""
    assert (await kubelet.ask("GET", f"/api/v1/nodes/{NAME}"))[0] == 404
    spec = {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]}
    await kubelet.ok("POST", "/api/v1/nodes", named("v1", "Node", NAME, spec=spec))
    addresses = [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": NAME}]
    status = {
        "addresses": addresses,
        "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready"}],
        "nodeInfo": {"kubeletVersion": "v1.36.1", "containerRuntimeVersion": "containerd://2.1.4"},
    }
    return await kubelet.ok("PATCH", f"/api/v1/nodes/{NAME}/status", {"status": status}, patch=MERGE)


async def test_kubeadm_reads_what_it_needs_with_a_token(server: Server, joining: GoClient) -> None:
    stranger = GoClient(server.url, server.cluster.config.pki / "ca.crt")
    try:
        info = await stranger.ok("GET", "/api/v1/namespaces/kube-public/configmaps/cluster-info")
        status, _ = await stranger.ask("GET", f"{SYSTEM}/kubeadm-config")
    finally:
        await stranger.close()
    assert status == 403
    token_id, _, secret = server.token.partition(".")
    header, _, said = info["data"][f"jws-kubeconfig-{token_id}"].split(".")
    content = base64.urlsafe_b64encode(info["data"]["kubeconfig"].encode()).rstrip(b"=")
    expected = hmac.digest(secret.encode(), header.encode() + b"." + content, hashlib.sha256)
    assert base64.urlsafe_b64decode(said + "=") == expected
    assert len(yaml.safe_load(info["data"]["kubeconfig"])["clusters"]) == 1

    config = server.cluster.config
    cluster = yaml.safe_load((await joining.ok("GET", f"{SYSTEM}/kubeadm-config"))["data"]["ClusterConfiguration"])
    kubelet = yaml.safe_load((await joining.ok("GET", f"{SYSTEM}/kubelet-config"))["data"]["kubelet"])
    proxy = (await joining.ok("GET", f"{SYSTEM}/kube-proxy"))["data"]

    assert (cluster["apiVersion"], cluster["kind"]) == ("kubeadm.k8s.io/v1beta4", "ClusterConfiguration")
    assert cluster["networking"] == {
        "dnsDomain": "cluster.local", "podSubnet": config.pod_cidr, "serviceSubnet": config.service_cidr,
    }  # fmt: skip
    assert cluster["kubernetesVersion"] == f"v{config.kubernetes_version}.0"
    assert (kubelet["kind"], kubelet["clusterDNS"]) == ("KubeletConfiguration", [config.cluster_dns])
    assert kubelet["rotateCertificates"]
    assert kubelet["serverTLSBootstrap"]
    assert yaml.safe_load(proxy["config.conf"])["clusterCIDR"] == config.pod_cidr
    assert yaml.safe_load(proxy["kubeconfig.conf"])["clusters"][0]["cluster"]["server"].startswith("https://")
    # Whether there is a node of its name.
    assert (await joining.ask("GET", f"/api/v1/nodes/{NAME}"))[0] == 404
    await joining.refusal("GET", f"{SYSTEM}/extension-apiserver-authentication")
    await joining.refusal("GET", "/api/v1/namespaces/kube-system/secrets")


async def test_a_kubelet_registers_and_says_that_it_lives(
    server: Server, kubelet: GoClient, node: dict[str, Any]
) -> None:
    lease = named("coordination.k8s.io/v1", "Lease", NAME, spec={"holderIdentity": NAME, "leaseDurationSeconds": 40})
    lease["metadata"]["namespace"] = "kube-node-lease"
    held = await kubelet.ok("POST", LEASES, lease)
    held["spec"]["renewTime"] = "2026-01-02T03:04:05.678901Z"
    await kubelet.ok("PUT", f"{LEASES}/{NAME}", held)
    csi = named("storage.k8s.io/v1", "CSINode", NAME, spec={"drivers": []})
    await kubelet.ok("POST", CSI_NODES, csi)
    drivers = {"spec": {"drivers": [{"name": "csi.example.com", "nodeID": NAME, "topologyKeys": []}]}}
    await kubelet.ok("PATCH", f"{CSI_NODES}/{NAME}", drivers, patch=MERGE)

    (seen,) = await kubelet.streamed("/api/v1/nodes", f"metadata.name={NAME}")

    assert seen["metadata"]["uid"] == node["metadata"]["uid"]
    assert [one["metadata"]["name"] for one in await kubelet.streamed("/api/v1/services")] == ["kubernetes"]
    for path in (
        "/apis/storage.k8s.io/v1/csidrivers",
        "/apis/node.k8s.io/v1/runtimeclasses",
    ):
        await kubelet.streamed(path)

    async def has_range() -> Any:
        return (await server.client.get(NODES, NAME))["spec"].get("podCIDRs")

    assert await server.until(has_range)
    for path, fields in (
        ("/api/v1/nodes", ""),
        ("/api/v1/nodes/another", ""),
        ("/api/v1/pods", ""),
        ("/api/v1/pods", "spec.nodeName=another"),
        (LEASES, ""),
        (f"{CSI_NODES}/another", ""),
    ):
        await kubelet.refusal("GET", path, fields=fields)
    assert "is not allowed to modify node" in await kubelet.refusal(
        "POST", "/api/v1/nodes", named("v1", "Node", "another")
    )


def pod_of(name: str, volumes: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    container = {"name": "main", "image": "registry.k8s.io/pause:3.10"}
    spec = {"nodeName": NAME, "containers": [container], "volumes": list(volumes), "serviceAccountName": "default"}
    return named("v1", "Pod", name, spec=spec)


async def bring(server: Server, *volumes: dict[str, Any]) -> dict[str, Any]:
    return await server.client.create(
        PODS, {**pod_of("web", volumes), "metadata": {"name": "web", "namespace": "default"}}
    )


async def test_a_kubelet_reads_what_its_pods_mount_and_nothing_else(
    server: Server, kubelet: GoClient, node: dict[str, Any]
) -> None:
    where = {"namespace": "default"}
    for name in ("mounted", "other"):
        await server.client.create(SECRETS, {"metadata": {"name": name, **where}, "stringData": {"a": "b"}})
        await server.client.create(CONFIG_MAPS, {"metadata": {"name": name, **where}, "data": {"a": "b"}})
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": "disk",
             "storageClassName": ""}  # fmt: skip
    await server.client.create(PERSISTENT_VOLUME_CLAIMS, {"metadata": {"name": "data", **where}, "spec": claim})
    volume = {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"},
        "claimRef": {"name": "data", **where},
    }  # fmt: skip
    await server.client.create(PERSISTENT_VOLUMES, {"metadata": {"name": "disk"}, "spec": volume})
    await bring(
        server,
        {"name": "a", "secret": {"secretName": "mounted"}},
        {"name": "b", "configMap": {"name": "mounted"}},
        {"name": "c", "persistentVolumeClaim": {"claimName": "data"}},
    )

    (seen,) = await kubelet.streamed("/api/v1/pods", f"spec.nodeName={NAME}")
    assert seen["metadata"]["name"] == "web"
    for plural in ("secrets", "configmaps"):
        path = f"/api/v1/namespaces/default/{plural}"
        (one,) = await kubelet.streamed(path, "metadata.name=mounted")
        assert one["data"]
        await kubelet.ok("GET", f"{path}/mounted")
        await kubelet.refusal("GET", f"{path}/other")
        await kubelet.refusal("GET", path, fields="metadata.name=other")
        await kubelet.refusal("GET", path)
    await kubelet.ok("GET", "/api/v1/namespaces/default/persistentvolumeclaims/data")
    await kubelet.ok("GET", "/api/v1/persistentvolumes/disk")
    await kubelet.ok("GET", "/api/v1/namespaces/default/serviceaccounts/default")


async def test_a_kubelet_tells_of_its_pods(server: Server, kubelet: GoClient, node: dict[str, Any]) -> None:
    web = await bring(server)
    path = "/api/v1/namespaces/default/pods"
    running = {"metadata": {"uid": web["metadata"]["uid"]}, "status": {"phase": "Running", "podIP": "10.42.7.2"}}
    assert (await kubelet.ok("PATCH", f"{path}/web/status", running, patch=MERGE))["status"]["phase"] == "Running"
    mirror = named("v1", "Pod", f"static-{NAME}", spec={**pod_of("x")["spec"], "serviceAccountName": ""})
    owner = {"apiVersion": "v1", "kind": "Node", "name": NAME, "uid": node["metadata"]["uid"], "controller": True}
    mirror["metadata"] |= {"annotations": {"kubernetes.io/config.mirror": "abc"}, "ownerReferences": [owner]}
    await kubelet.ok("POST", path, mirror)
    assert "can only create mirror pods" in await kubelet.refusal("POST", path, pod_of("own"))
    event = named("v1", "Event", "web.1", reason="Started", message="Started", type="Normal", count=1)
    event["involvedObject"] = {"kind": "Pod", "namespace": "default", "name": "web", "uid": web["metadata"]["uid"]}
    await kubelet.ok("POST", "/api/v1/namespaces/default/events", event)

    options = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
               "preconditions": {"uid": web["metadata"]["uid"]}}  # fmt: skip
    await kubelet.ok("DELETE", f"{path}/web", options)

    assert await server.client.find(PODS, "web", "default") is None


async def test_a_kubelet_has_tokens_for_whom_its_pods_mount_them(
    server: Server, kubelet: GoClient, node: dict[str, Any]
) -> None:
    sources = [{"serviceAccountToken": {"path": "t", "audience": "vault", "expirationSeconds": 3607}}]
    web = await bring(server, {"name": "t", "projected": {"sources": sources}})
    bound = {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": web["metadata"]["uid"]}
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"

    def request(audience: str) -> dict[str, Any]:
        spec = {"audiences": [audience], "expirationSeconds": 3607, "boundObjectRef": bound}
        return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": spec}

    made = await kubelet.ok("POST", path, request("vault"))
    assert "not found in pod spec volume" in await kubelet.refusal("POST", path, request("bank"))

    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {},
              "spec": {"token": made["status"]["token"], "audiences": ["vault"]}}  # fmt: skip
    reviewed = await kubelet.ok("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)
    assert reviewed["status"]["user"]["username"] == "system:serviceaccount:default:default"
    access = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}, "spec": {
        "user": "system:apiserver", "groups": [],
        "resourceAttributes": {"verb": "get", "resource": "nodes", "subresource": "proxy", "name": NAME},
    }}  # fmt: skip
    reviewed = await kubelet.ok("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", access)
    assert reviewed["status"]["allowed"]


async def test_the_devices_of_a_node_are_published_by_it_alone(
    server: Server, kubelet: GoClient, node: dict[str, Any]
) -> None:
    def devices(name: str, of: str) -> dict[str, Any]:
        pool = {"name": of, "generation": 1, "resourceSliceCount": 1}
        spec = {"driver": "dra.example.com", "nodeName": of, "pool": pool, "devices": [{"name": "d0"}]}
        return named("resource.k8s.io/v1", "ResourceSlice", name, spec=spec)

    own = await kubelet.ok("POST", SLICES, devices("own", NAME))
    assert "same NodeName as the requesting node" in await kubelet.refusal("POST", SLICES, devices("x", "another"))
    admin = server.cluster.config.pki / "admin.crt", server.cluster.config.pki / "admin.key"
    other = GoClient(server.url, server.cluster.config.pki / "ca.crt", pair=admin)
    try:
        await other.ok("POST", SLICES, devices("others", "another"))
    finally:
        await other.close()

    own["spec"]["devices"].append({"name": "d1"})
    assert len((await kubelet.ok("PUT", f"{SLICES}/own", own))["spec"]["devices"]) == 2
    await kubelet.ok("GET", f"{SLICES}/own")
    await kubelet.refusal("GET", f"{SLICES}/others")
    await kubelet.refusal("DELETE", f"{SLICES}/others")
    (seen,) = await kubelet.streamed(SLICES, f"spec.nodeName={NAME}")
    assert seen["metadata"]["name"] == "own"
    await kubelet.ok("DELETE", f"{SLICES}/own")


async def test_a_serving_certificate_that_is_asked_for_early_comes_once_the_node_says_its_address(
    server: Server, kubelet: GoClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "_NODE_SAYS_S", 0.05)
    asking = asyncio.create_task(certified(kubelet, serving_of_node(NAME, ["127.0.0.1"]), tmp_path, "early"))
    try:

        async def asked() -> Any:
            listed = (await server.client.list(CERTIFICATE_SIGNING_REQUESTS)).items
            return [one for one in listed if one["spec"]["signerName"] == "kubernetes.io/kubelet-serving"]

        await server.until(asked)
        await kubelet.ok("POST", "/api/v1/nodes", named("v1", "Node", NAME))
        addresses = [{"type": "InternalIP", "address": "127.0.0.1"}]
        assert not asking.done()
        await kubelet.ok("PATCH", f"/api/v1/nodes/{NAME}/status", {"status": {"addresses": addresses}}, patch=MERGE)

        async with asyncio.timeout(60):
            certificate, _ = await asking
        assert certificate.exists()
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def test_its_logs_are_asked_for_at_its_port_with_a_certificate_that_it_can_check(
    server: Server, kubelet: GoClient, node: dict[str, Any], tmp_path: Path
) -> None:
    pair = await certified(kubelet, serving_of_node(NAME, ["127.0.0.1"]), tmp_path, "serving")
    asked: list[tuple[str, str]] = []

    async def logs(request: web.Request) -> web.Response:
        transport = request.transport
        assert transport is not None
        subject = transport.get_extra_info("peercert")["subject"]
        asked.append((request.path, dict(entry[0] for entry in subject)["commonName"]))
        return web.Response(text="hello\n", content_type="text/plain")

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(server.cluster.config.pki / "ca.crt"))
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_cert_chain(*pair)
    app = web.Application()
    app.router.add_get("/containerLogs/{rest:.*}", logs)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
        endpoint = {"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}}
        await kubelet.ok("PATCH", f"/api/v1/nodes/{NAME}/status", endpoint, patch=MERGE)
        await bring(server)

        answer = await server.client.request("GET", "/api/v1/namespaces/default/pods/web/log")

        assert answer == b"hello\n"
        assert asked == [("/containerLogs/default/web/main", "system:apiserver")]
    finally:
        await runner.cleanup()
