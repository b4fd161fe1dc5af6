"""Kubeconfig files: from a context to a transport, as kubectl reads them."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from navarch.client.http import HTTPTransport
from navarch.records import frozen


class ConfigError(Exception):
    """The kubeconfig cannot be used; the message says which entry is wrong."""


def default_kubeconfig() -> Path:
    """The file that kubectl writes to: the first of `$KUBECONFIG`, else `~/.kube/config`."""
    listed = [part for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return Path(listed[0]) if listed else Path.home() / ".kube" / "config"


@frozen
class Target:
    """A server, and how to speak to it; `token` gives the one of the moment."""

    server: str
    tls: ssl.SSLContext | None
    token: Callable[[], str] | None


def load_kubeconfig(path: Path | str, context: str = "", *, connections: int = 32) -> HTTPTransport:
    """A transport for `context` (default: the file's current one).  Raises ConfigError."""
    target = load_target(path, context)
    return HTTPTransport(target.server, tls=target.tls, token=target.token, connections=connections)


def load_target(path: Path | str, context: str = "") -> Target:
    """Raises ConfigError."""
    # Components of a cluster are told by other means: their start is spared the parser.
    import yaml

    path = Path(path)
    try:
        # The C loader reads a kubeconfig in a tenth of the time, which shows at the start of every component.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        config = yaml.load(path.read_text(), Loader=loader) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read kubeconfig {path}: {error}") from error
    context = context or config.get("current-context", "")
    chosen = _named(config, "contexts", "context", context, path)
    cluster = _named(config, "clusters", "cluster", chosen.get("cluster", ""), path)
    user = _named(config, "users", "user", chosen.get("user", ""), path)
    server = cluster.get("server", "")
    if not server:
        raise ConfigError(f"{path}: the cluster of context {context!r} names no server")
    tls = _tls(cluster, user, path.parent) if server.startswith("https") else None
    return Target(server, tls, _token(user, path.parent))


def _named(config: dict[str, Any], section: str, word: str, name: str, path: Path) -> dict[str, Any]:
    for entry in config.get(section) or []:
        if entry.get("name") == name:
            return cast(dict[str, Any], entry.get(word) or {})
    raise ConfigError(f"{path}: no entry named {name!r} in {section}")


def _tls(cluster: dict[str, Any], user: dict[str, Any], folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif data := cluster.get("certificate-authority-data"):
        context.load_verify_locations(cadata=base64.b64decode(data).decode())
    elif file := cluster.get("certificate-authority"):
        context.load_verify_locations(cafile=str(folder / file))
    else:
        context.load_default_certs()
    if data := user.get("client-certificate-data"):
        # The ssl module loads client certificates from files only; this one lives for a moment and is ours alone.
        with tempfile.NamedTemporaryFile(prefix="navarch-", suffix=".pem") as pem:
            pem.write(base64.b64decode(data) + b"\n" + base64.b64decode(user.get("client-key-data", "")))
            pem.flush()
            context.load_cert_chain(pem.name)
    elif file := user.get("client-certificate"):
        context.load_cert_chain(str(folder / file), str(folder / user.get("client-key", "")))
    return context


def _token(user: dict[str, Any], folder: Path) -> Any:
    if token := user.get("token"):
        return lambda: token
    if file := user.get("tokenFile"):
        return lambda: (folder / file).read_text().strip()
    return None
