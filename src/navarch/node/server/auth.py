"""Who may ask the kubelet: the API server by its client certificate, others by certificate or token as the cluster's
authorization says (TokenReview, SubjectAccessReview)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple

from aiohttp import web

from navarch.api.errors import StatusError
from navarch.client.base import Client
from navarch.client.resources import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS
from navarch.node.config import ServingConfig
from navarch.tls import UNTRUSTED, peer_certificate
from navarch.world import Clock

_MASTERS: Final = "system:masters"
_API_SERVER: Final = "system:apiserver"
_KEPT_MAX: Final = 1024
_VERBS: Final = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_SUBRESOURCES: Final = {
    "/stats": ("stats",),
    "/metrics": ("metrics",),
    "/logs": ("log",),
    "/checkpoint": ("checkpoint",),
    "/statusz": ("statusz",),
    "/flagz": ("flagz",),
    "/pods": ("pods", "proxy"),
    "/runningpods": ("pods", "proxy"),
    "/healthz": ("healthz", "proxy"),
    "/configz": ("configz", "proxy"),
}
_ENTERING: Final = ("/exec/", "/attach/", "/portForward/", "/run/")


class Caller(NamedTuple):
    name: str
    groups: tuple[str, ...]


_ANONYMOUS: Final = Caller("system:anonymous", ("system:unauthenticated",))


class _Answer(NamedTuple):
    value: Any
    until: datetime


class _Certified(NamedTuple):
    """Whom a certificate names, and from when until when."""

    caller: Caller
    begins: datetime
    ends: datetime


def caller_of_certificate(request: web.Request, now: datetime) -> Caller | None:
    """The subject of the client certificate that TLS has verified, if it is valid now."""
    shown = peer_certificate(request.transport)
    certified = _certified(shown) if shown is not None and shown is not UNTRUSTED else None
    if certified is None or not certified.begins <= now <= certified.ends:
        return None
    return certified.caller if certified.caller.name else None


@lru_cache(maxsize=64)
def _certified(der: bytes) -> _Certified | None:
    """None for one that cannot be read."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        certificate = x509.load_der_x509_certificate(der)
    except ValueError:
        return None
    common, organizations = (
        tuple(str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(oid))
        for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)
    )
    caller = Caller(common[0] if common else "", organizations)
    return _Certified(caller, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def subresource_of(path: str) -> Sequence[str]:
    """The subresources of `nodes`, any of which allows a path."""
    for top, names in _SUBRESOURCES.items():
        if path == top or path.startswith(f"{top}/"):
            return names
    return ("proxy",)


def verb_of(method: str, path: str) -> str:
    """What is asked for. A WebSocket begins with a GET, and who may only read must not enter containers by one."""
    if path.startswith(_ENTERING):
        return "create"
    return _VERBS.get(method, "get")


class Guard:
    """Answers are kept for a while, so that scraping metrics does not review a token each time."""

    def __init__(self, client: Client, node_name: str, clock: Clock, config: ServingConfig) -> None:
        self._client = client
        self._config = config
        self._node_name = node_name
        self._clock = clock
        self._kept: dict[tuple[str, ...], _Answer] = {}

    async def refusal(self, request: web.Request) -> web.Response | None:
        """The answer to a caller that may not; None for one that may."""
        caller = caller_of_certificate(request, self._clock.now()) or await self._caller_of_token(request)
        if caller is None and self._config.anonymous:
            caller = _ANONYMOUS
        if caller is None:
            return web.Response(status=401, text="Unauthorized")
        if self._config.authorization == "AlwaysAllow" or caller.name == _API_SERVER or _MASTERS in caller.groups:
            return None
        verb = verb_of(request.method, request.path)
        for subresource in subresource_of(request.path):
            if await self._allowed(caller, verb, subresource):
                return None
        asked = " ".join(subresource_of(request.path))
        text = f"Forbidden (user={caller.name}, verb={verb}, resource=nodes, subresource(s)=[{asked}])\n"
        return web.Response(status=403, text=text)

    async def _caller_of_token(self, request: web.Request) -> Caller | None:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token or not self._config.tokens:
            return None
        kept = self._recall("token", token)
        if kept is not None:
            return kept.value  # type: ignore[no-any-return]
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        try:
            status = (await self._client.create(TOKEN_REVIEWS, {**review, "metadata": {}})).get("status") or {}
        except (StatusError, OSError):
            return None
        user = status.get("user") or {}
        authenticated = bool(status.get("authenticated"))
        caller = Caller(user.get("username", ""), tuple(user.get("groups") or ())) if authenticated else None
        self._keep(caller, self._config.token_ttl_s, "token", token)
        return caller

    async def _allowed(self, caller: Caller, verb: str, subresource: str) -> bool:
        key = ("access", caller.name, *caller.groups, verb, subresource)
        kept = self._recall(*key)
        if kept is not None:
            return bool(kept.value)
        spec = {
            "user": caller.name,
            "groups": list(caller.groups),
            "resourceAttributes": {
                "verb": verb,
                "group": "",
                "version": "v1",
                "resource": "nodes",
                "subresource": subresource,
                "name": self._node_name,
            },
        }
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}, "spec": spec}
        try:
            answer = await self._client.create(SUBJECT_ACCESS_REVIEWS, review)
        except (StatusError, OSError):
            return False
        allowed = bool((answer.get("status") or {}).get("allowed"))
        self._keep(allowed, self._config.allowed_ttl_s if allowed else self._config.refused_ttl_s, *key)
        return allowed

    def _recall(self, *key: str) -> _Answer | None:
        kept = self._kept.get(key)
        return kept if kept is not None and self._clock.now() < kept.until else None

    def _keep(self, value: Any, for_s: float, *key: str) -> None:
        if len(self._kept) >= _KEPT_MAX:
            self._kept.clear()
        self._kept[key] = _Answer(value, self._clock.now() + timedelta(seconds=for_s))
