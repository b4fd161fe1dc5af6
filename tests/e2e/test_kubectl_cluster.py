"""kubectl's verbs about the cluster and about who may do what, against simulated nodes."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from navarch.cli.kubectl import find_kubectl

from .conftest import Cluster
from .objects import deployment


def test_discovery(simulated: Cluster) -> None:
    resources = simulated.kubectl("api-resources")
    versions = simulated.kubectl("api-versions").split()

    assert {"apps/v1", "batch/v1", "v1", "rbac.authorization.k8s.io/v1", "discovery.k8s.io/v1"} <= set(versions)
    # Of resources of one name, like pods and what they use, the first is meant by it.
    lines = {line.split()[0]: line.split() for line in reversed(resources.splitlines()[1:])}
    assert lines["deployments"] == ["deployments", "deploy", "apps/v1", "true", "Deployment"]
    assert lines["nodes"] == ["nodes", "no", "v1", "false", "Node"]
    assert "is running at" in simulated.kubectl("cluster-info")
    assert "v1.37" in simulated.kubectl("version")


def test_nodes_cordon_drain_taint(simulated: Cluster, namespace: str) -> None:
    nodes = [node["metadata"]["name"] for node in simulated.get("nodes")["items"]]
    assert len(nodes) == 3
    node = nodes[0]
    simulated.apply(deployment("web", 6), namespace=namespace)
    simulated.kubectl("rollout", "status", "deployment/web", "-n", namespace, "--timeout=60s")
    try:
        assert f"node/{node} cordoned" in simulated.kubectl("cordon", node)
        assert "SchedulingDisabled" in simulated.kubectl("get", "node", node)
        drained = simulated.kubectl("drain", node, "--ignore-daemonsets", "--force", "--timeout=60s")
        assert f"node/{node} drained" in drained
        on_node = simulated.get("pods", "-n", namespace, f"--field-selector=spec.nodeName={node}")["items"]
        assert [pod for pod in on_node if not pod["metadata"].get("deletionTimestamp")] == []
        simulated.kubectl("rollout", "status", "deployment/web", "-n", namespace, "--timeout=60s")
    finally:
        assert "uncordoned" in simulated.kubectl("uncordon", node)
    simulated.kubectl("taint", "node", node, "dedicated=x:NoSchedule")
    assert {"key": "dedicated", "value": "x", "effect": "NoSchedule"} in simulated.get("node", node)["spec"]["taints"]
    simulated.kubectl("taint", "node", node, "dedicated-")


def test_auth(simulated: Cluster, namespace: str) -> None:
    assert "kubernetes-admin" in simulated.kubectl("auth", "whoami")
    assert simulated.kubectl("auth", "can-i", "delete", "nodes").strip() == "yes"
    account = f"system:serviceaccount:{namespace}:default"
    denied = simulated.try_kubectl("auth", "can-i", "list", "pods", "-n", namespace, "--as", account)
    assert denied.stdout.strip() == "no"

    simulated.kubectl("create", "role", "reader", "--verb=list", "--resource=pods", "-n", namespace)
    simulated.kubectl(
        "create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:default", "-n", namespace
    )

    assert simulated.kubectl("auth", "can-i", "list", "pods", "-n", namespace, "--as", account).strip() == "yes"
    forbidden = simulated.try_kubectl("get", "secrets", "-n", namespace, "--as", account)
    assert f'User "{account}" cannot list resource "secrets" in API group "" in the namespace' in forbidden.stderr


def test_a_service_account_token_authenticates(simulated: Cluster, namespace: str, tmp_path: Path) -> None:
    token = simulated.kubectl("create", "token", "default", "-n", namespace).strip()
    config = simulated.config
    base = [find_kubectl(), "--server", config.server_url, "--certificate-authority", str(config.pki / "ca.crt")]

    who = subprocess.run(
        [*base, "--token", token, "auth", "whoami", "-o", "json"], capture_output=True, text=True, check=False,
        env={"HOME": str(tmp_path)},
    )  # fmt: skip
    wrong = subprocess.run(
        [*base, "--token", token[:-4] + "AAAA", "get", "pods"], capture_output=True, text=True, check=False,
        env={"HOME": str(tmp_path)},
    )  # fmt: skip

    assert json.loads(who.stdout)["status"]["userInfo"]["username"] == f"system:serviceaccount:{namespace}:default"
    assert "Unauthorized" in wrong.stderr or "must be logged in" in wrong.stderr


def test_certificates(simulated: Cluster, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jane")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    manifest = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "jane"},
        "spec": {
            "request": base64.b64encode(request.public_bytes(Encoding.PEM)).decode(),
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"],
        },
    }
    simulated.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
    assert "Pending" in simulated.kubectl("get", "csr", "jane")
    assert "approved" in simulated.kubectl("certificate", "approve", "jane")

    issued = simulated.wait_until(lambda: simulated.get("csr", "jane")["status"].get("certificate"), what="issued")

    certificate = x509.load_pem_x509_certificate(base64.b64decode(issued))
    assert certificate.subject == subject
    simulated.kubectl("delete", "csr", "jane")


def test_proxy_and_raw(simulated: Cluster) -> None:
    assert simulated.kubectl("get", "--raw", "/readyz") == "ok"
    assert "ok" in simulated.kubectl("get", "--raw", "/livez?verbose")
    assert "apiserver_request_total" in simulated.kubectl("get", "--raw", "/metrics")
    command = [find_kubectl(), "--kubeconfig", str(simulated.config.admin_kubeconfig), "proxy", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        line = proxy.stdout.readline()
        address = line.split()[-1]
        import urllib.request

        with urllib.request.urlopen(f"http://{address}/api/v1/namespaces/default", timeout=10) as answer:
            assert json.load(answer)["metadata"]["name"] == "default"
        proxy.terminate()


def test_kustomize_and_config(simulated: Cluster, tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text(
        "namePrefix: pre-\nconfigMapGenerator:\n- name: settings\n  literals: [a=1]\n"
    )

    built = simulated.kubectl("kustomize", str(tmp_path))

    assert "name: pre-settings-" in built
    assert simulated.kubectl("config", "current-context").strip() == "navarch-e2e-sim"


def test_status_command_reports_every_process(simulated: Cluster) -> None:
    done = simulated.navarch("status", "--name", simulated.name, "-o", "json")

    report = json.loads(done.stdout)
    assert report["ready"]
    assert report["nodes"] == {"ready": 3, "total": 3}
    assert {entry["name"] for entry in report["processes"]} == {"supervisor", "apiserver", "controllers"}
    assert all(entry["state"] == "running" for entry in report["processes"])


def test_the_users_kubeconfig_has_the_cluster_as_current_context(simulated: Cluster) -> None:
    done = subprocess.run(
        [find_kubectl(), "get", "namespaces", "-o", "name"],
        env=simulated.env,
        capture_output=True,
        text=True,
        check=True,
    )

    expected = {"default", "kube-system", "kube-public", "kube-node-lease"}
    assert {f"namespace/{name}" for name in expected} <= set(done.stdout.split())
