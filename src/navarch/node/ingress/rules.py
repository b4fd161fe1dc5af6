"""What Ingresses mean: which host and path leads to which port of which Service, and who presents which certificate.

In: the Ingresses of this controller's classes. Out: `Routes`. Where two Ingresses say something of the same host and
path, the older one counts. Pure. Invariant: hosts and paths that come out can be written into a map of HAProxy, one
word each; whatever cannot is refused with a problem, though the API server should have refused it before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import unquote

from navarch.api.meta import Key, Obj, is_deleting, key_of, namespace_of

_HOST: Final = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LONGEST_HOST: Final = 253
_LONGEST_PATH: Final = 4096


class Target(NamedTuple):
    """A port of a Service, by its number or its name."""

    namespace: str
    service: str
    port: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something of an Ingress that cannot be served, in the words of an event on it."""

    ingress: Key
    reason: str
    message: str


class TlsEntry(NamedTuple):
    """Hosts for which the certificate of a Secret is shown; without any, those that the certificate names."""

    ingress: Key
    secret: Key
    hosts: tuple[str, ...]


@dataclass(slots=True)
class Routes:
    """`exact` and `prefix` by host and path, where the host is empty for every one; prefixes end in a slash. `tls` has
    the entry first that counts where several name a host."""

    exact: dict[tuple[str, str], Target] = field(default_factory=dict)
    prefix: dict[tuple[str, str], Target] = field(default_factory=dict)
    tls: list[TlsEntry] = field(default_factory=list)
    users: dict[Target, Key] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read(ingresses: Iterable[Obj]) -> Routes:
    """The routes of all of these."""
    found = Routes()
    living = [ingress for ingress in ingresses if not is_deleting(ingress)]
    living.sort(key=lambda ingress: (ingress["metadata"].get("creationTimestamp") or "", str(key_of(ingress))))
    for ingress in living:
        _take(ingress, found)
    # What an Ingress has for the rest comes after what any says of a path.
    for ingress in living:
        _take_default(ingress, found)
    return found


def _take(ingress: Obj, found: Routes) -> None:
    spec = ingress.get("spec") or {}
    for rule in spec.get("rules") or ():
        host = _host(ingress, rule.get("host") or "", found)
        if host is None:
            continue
        for entry in (rule.get("http") or {}).get("paths") or ():
            _take_path(ingress, host, entry, found)
    for entry in spec.get("tls") or ():
        if not entry.get("secretName"):
            continue
        hosts = tuple(host for text in entry.get("hosts") or () if (host := _host(ingress, text, found)))
        if hosts or not entry.get("hosts"):
            secret = Key(namespace_of(ingress), str(entry["secretName"]))
            found.tls.append(TlsEntry(key_of(ingress), secret, hosts))


def _take_path(ingress: Obj, host: str, entry: Obj, found: Routes) -> None:
    path = _path(ingress, entry.get("path") or "/", found)
    target = _target(ingress, entry.get("backend") or {}, found)
    if path is None or target is None:
        return
    if entry.get("pathType") == "Exact":
        _put(found, found.exact, (host, path), target, ingress)
        return
    if entry.get("pathType") == "ImplementationSpecific":
        # As others write `/shop/*` there: all that is below.
        path = path.removesuffix("*")
    _put(found, found.prefix, (host, path.rstrip("/") + "/"), target, ingress)


def _take_default(ingress: Obj, found: Routes) -> None:
    spec = ingress.get("spec") or {}
    backend = spec.get("defaultBackend")
    target = _target(ingress, backend, found) if backend else None
    if target is None:
        return
    hosts = [rule.get("host") or "" for rule in spec.get("rules") or ()] or [""]
    for host in dict.fromkeys(hosts):
        if _is_host(host) and (host, "/") not in found.prefix:
            _put(found, found.prefix, (host, "/"), target, ingress)


def _put(found: Routes, into: dict[tuple[str, str], Target], at: tuple[str, str], target: Target, ingress: Obj) -> None:
    if into.setdefault(at, target) != target:
        message = f"host {at[0] or '*'!r} and path {at[1]!r} belong to another, older Ingress"
        found.problems.append(Problem(key_of(ingress), "Conflict", message))
        return
    found.users.setdefault(target, key_of(ingress))


def _is_host(host: str) -> bool:
    return not host or (len(host) <= _LONGEST_HOST and _HOST.fullmatch(host) is not None)


def _host(ingress: Obj, host: str, found: Routes) -> str | None:
    if _is_host(host):
        return host
    found.problems.append(Problem(key_of(ingress), "InvalidHost", f"host {host!r} cannot be served"))
    return None


def _path(ingress: Obj, text: str, found: Routes) -> str | None:
    """The path as it is compared: decoded, as those of requests are."""
    path = unquote(text, errors="surrogateescape")
    # A map of HAProxy has a word per line: what would end the word or the line cannot be in it.
    if path.startswith("/") and len(path) <= _LONGEST_PATH and path.isprintable() and not any(map(str.isspace, path)):
        return path
    found.problems.append(Problem(key_of(ingress), "InvalidPath", f"path {text!r} cannot be served"))
    return None


def _target(ingress: Obj, backend: Obj, found: Routes) -> Target | None:
    service = backend.get("service")
    if not service:
        kind = (backend.get("resource") or {}).get("kind")
        message = f"backend of kind {kind!r} cannot be served: only Services can"
        found.problems.append(Problem(key_of(ingress), "UnsupportedBackend", message))
        return None
    port = service.get("port") or {}
    target = Target(namespace_of(ingress), str(service.get("name")), str(port.get("number") or port.get("name")))
    if all(_LABEL.fullmatch(part) for part in target):
        return target
    found.problems.append(Problem(key_of(ingress), "InvalidBackend", f"service {target.service!r} cannot be served"))
    return None
