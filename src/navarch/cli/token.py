"""`navarch token`: tokens by which machines join the cluster, and bearer tokens of service accounts."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
from typing import Any

import click

from navarch.api.time import human_duration, parse_time
from navarch.cli.kubectl import find_kubectl
from navarch.cli.options import cluster_options, duration_s, load_cluster, output_option
from navarch.cli.steps import say
from navarch.cluster import invitation
from navarch.cluster.config import ClusterConfig, ConfigError, flags_of
from navarch.cluster.lifecycle import StartError
from navarch.cluster.readiness import Probe
from navarch.cluster.state import ClusterState
from navarch.world import MACHINE

_SECRETS = "/api/v1/namespaces/kube-system/secrets"


@click.group()
def token() -> None:
    """Tokens: for machines that join (create, list, delete), and for clients (account).

    \b
    Example:
      navarch up -d --bind-address 0.0.0.0
      navarch token create                prints the command to run on the other machine
    """


@token.command()
@cluster_options
@click.option("--ttl", metavar="DURATION", default="24h", show_default=True, help="How long it is good; 0 is for ever.")
@click.option("--description", default="", help="What it is for.")
@output_option
def create(name: str, data_dir: str | None, ttl: str, description: str, output: str) -> None:
    """Make a token by which machines join, and print the whole command with it and the hash of the CA."""
    config = _running(name, data_dir)
    ttl_s = duration_s(ttl)
    server = invitation.join_url(config)
    if not server:
        raise ConfigError(
            "the API server listens where no other machine reaches it; start the cluster with --bind-address: "
            f"`navarch down{flags_of(config)}` and `navarch up{flags_of(config)} --bind-address 0.0.0.0`"
        )
    made = invitation.new_token()
    secret = invitation.token_secret(made, now=MACHINE.now(), ttl_s=ttl_s, description=description)
    _ask(config, "POST", _SECRETS, json.dumps(secret))
    pin = invitation.ca_hash((config.pki / "ca.crt").read_bytes())
    command = shlex.join(["navarch", "agent", "--server", server, "--token", made, "--ca-hash", pin])
    if output == "json":
        described = {"token": made, "server": server, "caHash": pin, "command": command,
                     "expiration": secret["stringData"].get("expiration")}  # fmt: skip
        click.echo(json.dumps(described))
        return
    click.echo(command)


@token.command("list")
@cluster_options
@output_option
def list_(name: str, data_dir: str | None, output: str) -> None:
    """List the tokens by which machines join."""
    config = _running(name, data_dir)
    answer = _ask(config, "GET", f"{_SECRETS}?fieldSelector=type%3D{invitation.TOKEN_TYPE}")
    rows = [_described(secret) for secret in answer["items"]]
    if output == "json":
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        say(f"There are no tokens; `navarch token create{flags_of(config)}` makes one.")
        return
    header = ("TOKEN", "TTL", "EXPIRES", "DESCRIPTION")
    lines = [(row["token"], row["ttl"], row["expiration"] or "never", row["description"] or "-") for row in rows]
    widths = [max(len(line[column]) for line in (header, *lines)) for column in range(len(header))]
    for line in (header, *lines):
        click.echo("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@token.command()
@cluster_options
@click.argument("tokens", nargs=-1, required=True, metavar="TOKEN…")
def delete(name: str, data_dir: str | None, tokens: tuple[str, ...]) -> None:
    """Take tokens back, given whole or by what is before the dot. Machines that have joined stay."""
    config = _running(name, data_dir)
    for text in tokens:
        token_id = text.partition(".")[0]
        if len(token_id) != 6 or not token_id.isascii() or not token_id.isalnum():
            raise ConfigError(f"invalid token {text!r}: it looks like abcdef.0123456789abcdef")
        _ask(config, "DELETE", f"{_SECRETS}/bootstrap-token-{token_id}")
        say(f"Token {token_id} is taken back.")


@token.command()
@cluster_options
@click.option("--account", default="navarch-admin", show_default=True, help="Service account in kube-system.")
@click.option("--role", default="cluster-admin", show_default=True, help="Cluster role to bind it to.")
@click.option("--duration", default="24h", show_default=True, help="How long the token is good.")
def account(name: str, data_dir: str | None, account: str, role: str, duration: str) -> None:
    """Print a bearer token of a service account, which is made and bound to a cluster role if need be: for scripts and
    other clients that cannot use a client certificate."""
    config = _running(name, data_dir)
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


def _running(name: str, data_dir: str | None) -> ClusterConfig:
    """The cluster, whose API server is here and runs.  Raises ConfigError."""
    config = load_cluster(name, data_dir)
    if config.is_agent:
        raise ConfigError(f"this machine is a node of {config.server}; tokens are made on the server")
    if not ClusterState.load(config.run).supervisor_alive:
        raise ConfigError(f"cluster {config.name!r} is not running; start it with `navarch up{flags_of(config)}`")
    return config


def _described(secret: dict[str, Any]) -> dict[str, Any]:
    said = {key: base64.b64decode(value).decode(errors="replace") for key, value in (secret.get("data") or {}).items()}
    expiration = said.get("expiration")
    ttl = "forever"
    if expiration:
        left = parse_time(expiration) - MACHINE.now()
        ttl = human_duration(left) if left.total_seconds() > 0 else "over"
    return {
        "token": f"{said.get('token-id', '')}.{said.get('token-secret', '')}",
        "ttl": ttl,
        "expiration": expiration,
        "description": said.get("description", ""),
    }


def _ask(config: ClusterConfig, method: str, path: str, body: str | None = None) -> dict[str, Any]:
    """Raises StartError with the API server's words."""
    status, answer = Probe(config).get(path, method=method, body=body)
    said = json.loads(answer)
    if status >= 400:
        raise StartError(f"the API server says: {said.get('message', status)}")
    return dict(said)


def _run(command: list[str], text: str = "") -> str:
    """What kubectl printed.  Raises StartError with its words where it failed."""
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise StartError(
            f"no token: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'kubectl failed'}"
        )
    return done.stdout
