"""`navarch envtest`: a folder for test harnesses that start kube-apiserver and etcd themselves."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import click

from navarch.cli.checks import served_version
from navarch.cli.kubectl import find_kubectl
from navarch.cluster.config import ConfigError
from navarch.cluster.kube import assets


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), help="Where to put it; below your cache folder by default.")
@click.option("--kubernetes-version", default="", help="The version of Kubernetes to be, such as 1.36.")
def envtest(folder: Path | None, kubernetes_version: str) -> None:
    """Print a folder with kube-apiserver, etcd and kubectl for controller-runtime's envtest and its likes.

    \b
    Examples:
      KUBEBUILDER_ASSETS="$(navarch envtest)" go test ./...
      KUBEBUILDER_ASSETS="$(navarch envtest --kubernetes-version 1.36)" go test ./...
      NAVARCH_ENVTEST_CONTROLLERS=true    beside these: collects garbage, and deletes what is in namespaces
    """
    if kubernetes_version:
        kubernetes_version = served_version(kubernetes_version)
    target = (folder or _default_folder(kubernetes_version)).absolute()
    try:
        kubectl: str | None = find_kubectl()
    except ConfigError:
        kubectl = None
    assets.write(target, kubectl=kubectl, kubernetes_version=kubernetes_version)
    click.echo(str(target))


def _default_folder(kubernetes_version: str) -> Path:
    """One for each installation, so that none is changed under those that use it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    which = hashlib.sha256(f"{sys.executable} {kubernetes_version}".encode()).hexdigest()[:12]
    return cache / "navarch" / f"envtest-{which}"
