"""An API server such as Kubernetes' sample one runs behind the cluster and lives on what the cluster delegates."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.apiserver.webhooks.server import Authority
from tests.e2e import sample_apiserver
from tests.e2e.conftest import Cluster
from tests.e2e.test_extensions import address_of_this_machine

GROUP, VERSION = sample_apiserver.GROUP, sample_apiserver.VERSION
NAME = f"{VERSION}.{GROUP}"
RBAC = "rbac.authorization.k8s.io"
# As the sample server's own manifests have it.
FOLLOWED = [
    {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "watch", "list"]},
    {
        "apiGroups": ["admissionregistration.k8s.io"],
        "resources": [
            "mutatingwebhookconfigurations",
            "validatingwebhookconfigurations",
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
        ],
        "verbs": ["get", "watch", "list"],
    },
    {
        "apiGroups": ["flowcontrol.apiserver.k8s.io"],
        "resources": ["prioritylevelconfigurations", "flowschemas"],
        "verbs": ["list", "watch"],
    },
]


@dataclass
class Sample:
    port: int
    address: str
    authority: Path
    token: str

    def get(self, path: str, headers: dict[str, str]) -> tuple[int, Any]:
        """Asked directly, not through the cluster."""
        tls = ssl.create_default_context(cafile=str(self.authority))
        request = urllib.request.Request(f"https://{self.address}:{self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, context=tls, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


def access(namespace: str) -> list[Any]:
    subject = [{"kind": "ServiceAccount", "name": "apiserver", "namespace": namespace}]

    def binding(name: str, kind: str, role: str, of: str = "") -> Any:
        metadata = {"name": f"{name}-{namespace}"} | ({"namespace": of} if of else {})
        reference = {"apiGroup": RBAC, "kind": kind, "name": role}
        form = "RoleBinding" if of else "ClusterRoleBinding"
        return {
            "apiVersion": f"{RBAC}/v1",
            "kind": form,
            "metadata": metadata,
            "roleRef": reference,
            "subjects": subject,
        }

    role = {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": f"wardle-{namespace}"}}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "apiserver", "namespace": namespace}},
        {**role, "rules": FOLLOWED},
        binding("wardle", "ClusterRole", f"wardle-{namespace}"),
        binding("wardle-delegator", "ClusterRole", "system:auth-delegator"),
        binding("wardle-reader", "Role", "extension-apiserver-authentication-reader", "kube-system"),
    ]


def registration(namespace: str, address: str, port: int, bundle: str) -> list[Any]:
    ports = [{"name": "https", "port": 443, "targetPort": port}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "api"}, "spec": {"ports": ports}}
    labels = {"kubernetes.io/service-name": "api"}
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "api-1", "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": port}],
        "endpoints": [{"addresses": [address]}],
    }
    spec = {"group": GROUP, "version": VERSION, "groupPriorityMinimum": 1000, "versionPriority": 15}
    spec |= {"service": {"name": "api", "namespace": namespace}, "caBundle": bundle}
    api = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": NAME}, "spec": spec}
    return [service, slice_, api]


@pytest.fixture
def sample(simulated: Cluster, namespace: str, tmp_path: Path) -> Iterator[Sample]:
    address = address_of_this_machine()
    if not address:
        pytest.skip("this machine has no address but loopback")
    objects = access(namespace)
    simulated.kubectl("apply", "-f", "-", stdin=json.dumps(as_list(objects)))
    token = simulated.kubectl("create", "token", "apiserver", "-n", namespace).strip()
    authority = Authority()
    certificate, key = authority.pair([f"api.{namespace}.svc", address])
    (tmp_path / "tls.crt").write_bytes(certificate)
    (tmp_path / "tls.key").write_bytes(key)
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    told = {"server": simulated.config.server_url, "ca": str(simulated.config.pki / "ca.crt"), "token": token}
    told |= {"certificate": str(tmp_path / "tls.crt"), "key": str(tmp_path / "tls.key"), "address": address}
    (tmp_path / "settings.json").write_text(json.dumps(told))
    program = [sys.executable, sample_apiserver.__file__, str(tmp_path / "settings.json")]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        said = process.stdout.readline()
        assert said, process.stderr.read()
        port = int(said)
        simulated.apply(*registration(namespace, address, port, authority.bundle), namespace=namespace)
        simulated.kubectl("wait", "--for=condition=Available", f"apiservice/{NAME}", "--timeout=60s")
        yield Sample(port, address, tmp_path / "ca.crt", token)
    finally:
        simulated.try_kubectl("delete", "--ignore-not-found", "apiservice", NAME)
        simulated.try_kubectl("delete", "--ignore-not-found", "-f", "-", stdin=json.dumps(as_list(objects)))
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def as_list(objects: list[Any]) -> Any:
    return {"apiVersion": "v1", "kind": "List", "items": objects}


def test_its_objects_are_made_read_explained_and_deleted_with_kubectl(
    simulated: Cluster, namespace: str, sample: Sample
) -> None:
    flunder = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Flunder", "metadata": {"name": "one"}}
    simulated.wait_until(
        lambda: simulated.kubectl("api-resources", f"--api-group={GROUP}", "--no-headers"), 60, "discovery"
    )

    made = simulated.kubectl(
        "create", "--validate=false", "-n", namespace, "-f", "-", stdin=json.dumps({**flunder, "spec": {}})
    )
    names = simulated.kubectl("get", "flunders", "-n", namespace, "-o", "name")
    watched = simulated.kubectl("wait", "--for=jsonpath={.metadata.name}=one", "flunder/one", "-n", namespace)
    explained = simulated.kubectl("explain", "flunder.spec")
    gone = simulated.kubectl("delete", "flunder", "one", "-n", namespace, "--wait=false")

    assert made == f"flunder.{GROUP}/one created\n"
    assert names == f"flunder.{GROUP}/one\n"
    assert watched == f"flunder.{GROUP}/one condition met\n"
    assert "reference\t<string>" in explained
    assert gone == f'flunder.{GROUP} "one" deleted from {namespace} namespace\n'


def test_who_may_what_is_decided_by_the_cluster(simulated: Cluster, namespace: str, sample: Sample) -> None:
    path = f"{sample_apiserver.ROOT}/namespaces/{namespace}/flunders"
    refused = simulated.try_kubectl("get", "--raw", path, "--as=jane", "--as-group=developers")
    rule = f"--resource=flunders.{GROUP}"
    simulated.kubectl("create", "role", "flunders", "--verb=list", rule, "-n", namespace)
    simulated.kubectl("create", "rolebinding", "jane", "--role=flunders", "--group=developers", "-n", namespace)
    simulated.kubectl(
        "create", "rolebinding", "it", "--role=flunders", f"--serviceaccount={namespace}:apiserver", "-n", namespace
    )

    listed = json.loads(simulated.kubectl("get", "--raw", path, "--as=jane", "--as-group=developers"))
    direct, _ = sample.get(path, {"Authorization": f"Bearer {sample.token}"})
    # Headers that no front proxy signed are nothing.
    forged, _ = sample.get(path, {"X-Remote-User": "jane", "X-Remote-Group": "developers"})
    other, said = sample.get(path.replace(namespace, "default"), {"Authorization": f"Bearer {sample.token}"})

    assert 'User "jane" cannot list resource "flunders"' in refused.stderr
    assert listed["kind"] == "FlunderList"
    assert (direct, forged, other) == (200, 401, 403)
    assert f'User "system:serviceaccount:{namespace}:apiserver" cannot list' in said["message"]
