"""Which etcd: `etcd://[user[:password]@]host:port[,host:port…][/prefix][?ca=…&cert=…&key=…&…]`, taken apart.

The query's options are files on this machine, so that nothing secret needs to be in the URL: `ca`, `cert` and `key`
(PEM), `password-file`; `server-name` is the name that the certificates bear where that is not the host; `tls=true`
checks against the system's authorities. Any of the TLS options switches TLS on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from navarch.numbers import integer_or

DEFAULT_PORT: Final = 2379
_OPTIONS: Final = ("ca", "cert", "key", "password-file", "server-name", "tls")


class TargetError(ValueError):
    """The URL cannot be used; the message says what would do."""


@dataclass(frozen=True, slots=True)
class Target:
    """`prefix` is put before every key: clusters that share an etcd have different ones."""

    endpoints: tuple[str, ...]
    prefix: str = ""
    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str = ""
    user: str = ""
    password: str = ""

    def __str__(self) -> str:
        """Without the password: this ends up in messages."""
        return "etcd://" + ",".join(self.endpoints) + self.prefix


def parse(url: str) -> Target:
    """Raises TargetError."""
    parts = urlsplit(url)
    if parts.scheme != "etcd":
        raise TargetError(f"{url!r} does not begin with etcd://")
    user, _, hosts = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    endpoints = tuple(_endpoint(host) for host in hosts.split(",") if host)
    if not endpoints:
        raise TargetError("an etcd URL names at least one host, as in etcd://10.0.0.1:2379,10.0.0.2:2379")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise TargetError(f"an etcd URL has no option {unknown[0]!r}: {', '.join(_OPTIONS)}")
    if ("cert" in options) != ("key" in options):
        raise TargetError("cert and key of an etcd URL go together")
    if "password-file" in options:
        password = _read(options["password-file"]).strip()
    if options.get("tls", "true") not in ("true", "false"):
        raise TargetError("tls of an etcd URL is true or false")
    files = {name: Path(options[name]) for name in ("ca", "cert", "key") if options.get(name)}
    if files and options.get("tls") == "false":
        raise TargetError("an etcd URL with ca, cert or key cannot have tls=false")
    return Target(
        endpoints,
        prefix=parts.path.rstrip("/"),
        tls=bool(files) or options.get("tls") == "true" or "server-name" in options,
        server_name=options.get("server-name", ""),
        user=unquote(name),
        password=unquote(password),
        ca=files.get("ca"),
        cert=files.get("cert"),
        key=files.get("key"),
    )


def _endpoint(host: str) -> str:
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, str(DEFAULT_PORT)
    if not name or not 0 < integer_or(port, 0) < 65536:
        raise TargetError(f"{host!r} of an etcd URL is no host:port")
    return f"{name}:{port}"


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        raise TargetError(f"cannot read {path}: {error.strerror}") from error
