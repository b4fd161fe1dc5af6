"""`navarch token`: bearer tokens for clients and benchmarks that cannot use a client certificate."""

from __future__ import annotations

import json
import subprocess

import click

from navarch.cli.kubectl import find_kubectl
from navarch.cli.options import cluster_options, load_cluster


@click.group()
def token() -> None:
    """Create tokens for clients."""


@token.command()
@cluster_options
@click.option("--account", default="navarch-admin", show_default=True, help="Service account in kube-system.")
@click.option("--role", default="cluster-admin", show_default=True, help="Cluster role to bind it to.")
@click.option("--duration", default="24h", show_default=True, help="How long the token is good.")
def create(name: str, data_dir: str | None, account: str, role: str, duration: str) -> None:
    """Print a token of a service account, which is made and bound to a cluster role if need be."""
    config = load_cluster(name, data_dir)
    kubectl = [find_kubectl(), "--kubeconfig", str(config.admin_kubeconfig), "--namespace", "kube-system"]
    subject = {"kind": "ServiceAccount", "name": account, "namespace": "kube-system"}
    group = "rbac.authorization.k8s.io"
    objects = {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": "kube-system"}},
            {
                "apiVersion": f"{group}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": f"{account}:{role}"},
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
                "subjects": [subject],
            },
        ],
    }
    subprocess.run(
        [*kubectl, "apply", "-f", "-"], input=json.dumps(objects).encode(), check=True, stdout=subprocess.DEVNULL
    )
    subprocess.run([*kubectl, "create", "token", account, f"--duration={duration}"], check=True)
