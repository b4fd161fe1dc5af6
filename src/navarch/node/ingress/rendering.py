"""HAProxy's files: a configuration, two maps from host and path to backend, a list of certificates. Pure.

Invariant: nothing that somebody wrote into an Ingress stands in the configuration itself but names made of DNS labels
and addresses that were read as such; hosts and paths are words in maps (`rules` has seen to that), looked up by value.
File names are relative to the folder in which HAProxy runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from navarch.node.ingress.backends import Backend
from navarch.node.ingress.certificates import Pem
from navarch.node.ingress.rules import Routes, Target

CONFIGURATION: Final = "haproxy.cfg"
SOCKET: Final = "admin.sock"
_SPOKEN: Final = {"http": "", "https": " ssl verify none", "h2": " proto h2"}

_LOOKUPS: Final = """\
    http-request set-var(txn.path) path,url_dec
    http-request set-var(txn.host) req.hdr(host),field(1,:),lower
    http-request set-var(txn.wild) var(txn.host),regsub(^[^.]*,*)
    http-request set-var(txn.to) var(txn.host),concat(,txn.path),map_str({exact})
    http-request set-var(txn.to) var(txn.host),concat(,txn.path,/),map_beg({prefix}) if !{{ var(txn.to) -m found }}
    http-request set-var(txn.to) var(txn.wild),concat(,txn.path),map_str({exact}) if !{{ var(txn.to) -m found }}
    http-request set-var(txn.to) var(txn.wild),concat(,txn.path,/),map_beg({prefix}) if !{{ var(txn.to) -m found }}
    http-request set-var(txn.to) var(txn.path),map_str({exact}) if !{{ var(txn.to) -m found }}
    http-request set-var(txn.to) var(txn.path),concat(/),map_beg({prefix}) if !{{ var(txn.to) -m found }}
"""
_HEADERS: Final = """\
    http-request del-header X-Forwarded-For
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Real-IP %[src]
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Port %[dst_port]
    http-request set-header X-Forwarded-Proto http if !{ ssl_fc }
    http-request set-header X-Forwarded-Proto https if { ssl_fc }
"""


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the proxy listens, and as whom its worker runs (empty: as who started it)."""

    addresses: tuple[str, ...]
    http_port: int = 80
    https_port: int = 443
    user: str = ""


@dataclass(frozen=True, slots=True)
class Rendered:
    """`files` by name; `generation` follows from them, and HAProxy tells it when it serves them."""

    generation: str
    files: Mapping[str, bytes]


def render(
    listening: Listening,
    routes: Routes,
    backends: Sequence[Backend],
    certificates: Iterable[tuple[Pem, Sequence[str]]],
    stand_in: Pem,
) -> Rendered:
    """`certificates` with the hosts for which they are shown; the first of a host counts."""
    ordered = sorted(backends, key=lambda backend: backend.name)
    names = {backend.target: backend.name for backend in ordered}
    files: dict[str, bytes] = {"exact.map": _map(routes.exact, names), "prefix.map": _map(routes.prefix, names)}
    lines = [f"certs/{stand_in.name}.pem"]
    files[lines[0]] = stand_in.data
    for pem, hosts in certificates:
        file = f"certs/{pem.name}.pem"
        files[file] = pem.data
        lines.append(" ".join((file, *hosts)))
    files["certs.list"] = "".join(f"{line}\n" for line in lines).encode()
    body = _configuration(listening, ordered)
    digest = hashlib.sha256(body.encode())
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + files[name] + b"\0")
    generation = digest.hexdigest()[:24]
    # Maps and certificates lie in a folder of the generation: what runs keeps its own.
    placed = {f"{generation}/{name}": data for name, data in files.items()}
    placed[f"{generation}/certs.list"] = b"".join(f"{generation}/{line}\n".encode() for line in lines)
    placed[CONFIGURATION] = body.replace("@GENERATION@", generation).encode()
    return Rendered(generation, placed)


def _map(routes: Mapping[tuple[str, str], Target], names: Mapping[Target, str]) -> bytes:
    lines = [f"{host}{path} {names[target]}\n" for (host, path), target in sorted(routes.items()) if target in names]
    return "".join(lines).encode(errors="surrogateescape")


def _configuration(listening: Listening, backends: Sequence[Backend]) -> str:
    lookups = _LOOKUPS.format(exact="@GENERATION@/exact.map", prefix="@GENERATION@/prefix.map")
    parts = [_global(listening), _frontend(listening, lookups)]
    parts += [_backend(backend) for backend in backends]
    return "\n".join(parts)


def _global(listening: Listening) -> str:
    user = f"    user {listening.user}\n    group {listening.user}\n    chroot empty\n" if listening.user else ""
    return f"""\
global
{user}    fd-hard-limit 20000
    stats socket unix@{SOCKET} mode 600 level admin expose-fd listeners
    set-var proc.generation str(@GENERATION@)
    ssl-default-bind-options ssl-min-ver TLSv1.2
    hard-stop-after 1h

defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout queue 30s
    timeout http-request 15s
    timeout http-keep-alive 60s
    timeout tunnel 1h
    option redispatch 1
    option idle-close-on-response
    retries 3
"""


def _frontend(listening: Listening, lookups: str) -> str:
    binds = ""
    for address in listening.addresses:
        at = f"[{address}]" if ":" in address else address
        binds += f"    bind {at}:{listening.http_port}\n"
        binds += f"    bind {at}:{listening.https_port} ssl crt-list @GENERATION@/certs.list alpn h2,http/1.1\n"
    return f"""\
frontend ingress
{binds}{lookups}{_HEADERS}    use_backend %[var(txn.to)] if {{ var(txn.to) -m found }}
    default_backend nowhere

backend nowhere
    http-request return status 404 content-type text/plain string "no Ingress has this host and path"
"""


def _backend(backend: Backend) -> str:
    spoken = _SPOKEN[backend.protocol]
    lines = [f"backend {backend.name}", "    balance roundrobin"]
    for number, address in enumerate(backend.slots):
        if address is None:
            lines.append(f"    server s{number} 127.0.0.1:1{spoken} disabled")
            continue
        at = f"[{address.ip}]" if ":" in address.ip else address.ip
        lines.append(f"    server s{number} {at}:{address.port}{spoken}")
    return "\n".join(lines) + "\n"
