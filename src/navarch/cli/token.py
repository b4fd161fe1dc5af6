"""`navarch token`: bearer tokens for clients and benchmarks that cannot use a client certificate."""

from __future__ import annotations

import json
import subprocess

import click

from navarch.cli.kubectl import find_kubectl
from navarch.cli.options import cluster_options, load_cluster
from navarch.cluster.config import ConfigError, flags_of
from navarch.cluster.lifecycle import StartError
from navarch.cluster.state import ClusterState


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
    if not ClusterState.load(config.run).supervisor_alive:
        raise ConfigError(f"cluster {config.name!r} is not running; start it with `navarch up{flags_of(config)}`")
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
    _run([*kubectl, "apply", "-f", "-"], json.dumps(objects))
    click.echo(_run([*kubectl, "create", "token", account, f"--duration={duration}"]).strip())


def _run(command: list[str], text: str = "") -> str:
    """What kubectl printed.  Raises StartError with its words where it failed."""
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise StartError(
            f"no token: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'kubectl failed'}"
        )
    return done.stdout
