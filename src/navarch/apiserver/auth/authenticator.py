"""Authentication: a request's client certificate or bearer token becomes a `User`.

A certificate that the cluster's CA signed and that is valid now names the user in its common name and the groups in its
organizations. A
bearer token is a service account's, or one of the static tokens that the cluster was started with. Without credentials
the user is anonymous; with wrong ones the request is refused.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from navarch.api.errors import StatusError, unauthorized
from navarch.apiserver.auth.proxy_headers import ProxyHeaders
from navarch.apiserver.auth.tokens import ServiceAccountTokens
from navarch.apiserver.user import ANONYMOUS, User
from navarch.client.transport import Request
from navarch.tls import UNTRUSTED, ProxyCertificate
from navarch.world import Clock, SystemClock

_AUTHENTICATED = "system:authenticated"
# The part of a certificate's subject that is its user's uid, and where the user says which certificate it was.
_UID = "1.3.6.1.4.1.57683.2"
_CREDENTIAL = "authentication.kubernetes.io/credential-id"
_CACHE_LIMIT = 1024


class TokenSource(Protocol):
    """Somebody else who knows tokens."""

    async def check(self, token: str, audiences: tuple[str, ...]) -> User | None:
        """The user that a token stands for; None for one that is not known, or not good."""
        ...


class ClusterAuthenticator:
    """`static_tokens` maps bearer tokens to users (Kubernetes' --token-auth-file); `sources` are asked in their order
    about tokens that are nobody's here; `anonymous_paths` are where requests without credentials may go, None for
    everywhere; `proxies` says how front proxies name those for whom they speak."""

    def __init__(
        self,
        tokens: ServiceAccountTokens,
        *,
        static_tokens: Mapping[str, User] | None = None,
        anonymous: bool = True,
        anonymous_paths: frozenset[str] | None = None,
        sources: Sequence[TokenSource] = (),
        clock: Clock | None = None,
        certificate_uids: bool = True,
        proxies: ProxyHeaders | None = None,
    ) -> None:
        self._sources = tuple(sources)
        self._anonymous_paths = anonymous_paths
        self._tokens = tokens
        self._static = {token.encode(): user for token, user in (static_tokens or {}).items()}
        self._anonymous = anonymous
        self._certificate_uids = certificate_uids
        self._proxies = proxies
        self._clock = clock or SystemClock()
        self._certificates: dict[bytes, _Certified] = {}

    async def authenticate(self, request: Request, peer_cert: Mapping[str, Any] | bytes | None) -> User:
        """Raises StatusError 401."""
        refused = False
        if peer_cert:
            # Of most requests the certificate is known.
            certified = self._certificates.get(peer_cert) if isinstance(peer_cert, bytes) else None
            certified = certified or self._certified(peer_cert)
            refused = certified is None or not certified.not_before <= self._clock.now() <= certified.not_after
            if certified is not None and not refused:
                user = self._of_certificate(request, peer_cert, certified.user)
                if user.name:
                    return user
                refused = isinstance(peer_cert, ProxyCertificate)
        header = request.headers.get("authorization", "")
        if not header:
            token = _websocket_token(request)
            if token:
                _hide_token(request)
                return (await self.review_token(token, ()))[0]
            if refused or not self._anonymous:
                raise unauthorized()
            if self._anonymous_paths is not None and request.path not in self._anonymous_paths:
                raise unauthorized()
            return ANONYMOUS
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise unauthorized()
        return (await self.review_token(token.strip(), ()))[0]

    def recognized(self, request: Request, peer_cert: Mapping[str, Any] | bytes | None) -> User | None:
        """Who shows a certificate or a token that was good a moment ago, and for nobody but himself."""
        if peer_cert:
            # Front proxies' have a class of their own.
            certified = self._certificates.get(peer_cert) if type(peer_cert) is bytes else None
            if certified is not None and certified.not_before <= self._clock.now() <= certified.not_after:
                return certified.user if certified.user.name else None
            return None
        header = request.headers.get("authorization", "")
        if header[:7] != "Bearer " or self._static:
            return None
        return self._tokens.recognized(header[7:])

    def _of_certificate(self, request: Request, peer_cert: Mapping[str, Any] | bytes, owner: User) -> User:
        """Its owner, or for whom the owner speaks as a front proxy; without a name where it is nobody's here."""
        if not isinstance(peer_cert, ProxyCertificate):
            return owner
        spoken_for = self._proxies.read(request, owner.name) if self._proxies is not None else None
        if spoken_for is not None:
            return _with_group(spoken_for)
        return owner if peer_cert.of_client else User("", ())

    async def review_token(self, token: str, audiences: tuple[str, ...]) -> tuple[User, tuple[str, ...]]:
        """Raises StatusError 401."""
        presented = token.encode()
        for known, user in self._static.items():
            if hmac.compare_digest(known, presented):
                return _with_group(user), self._known_audiences(audiences) if audiences else self._tokens.api_audiences
        try:
            return await self._tokens.check(token, audiences)
        except StatusError:
            for source in self._sources:
                found = await source.check(token, audiences)
                if found is not None:
                    return _with_group(found), self._known_audiences(audiences)
            raise

    def _known_audiences(self, audiences: tuple[str, ...]) -> tuple[str, ...]:
        """Those asked for that are this server's own: the only ones that tokens of others are good for.  Raises
        StatusError 401."""
        own = self._tokens.api_audiences
        found = tuple(audience for audience in audiences or own if audience in own)
        if not found:
            raise unauthorized()
        return found

    def forget(self) -> None:
        """Something that tokens may be bound to was deleted."""
        self._tokens.forget()

    def _certified(self, peer_cert: Mapping[str, Any] | bytes) -> _Certified | None:
        """None for one that cannot be trusted or read."""
        if peer_cert is UNTRUSTED:
            return None
        if not isinstance(peer_cert, bytes):
            return _Certified(_user_of_names(*_names_of_mapping(peer_cert)))
        known = self._certificates.get(peer_cert)
        if known is None:
            try:
                known = _certified_by_der(peer_cert, uids=self._certificate_uids)
            except ValueError:
                return None
            if len(self._certificates) >= _CACHE_LIMIT:
                self._certificates.clear()
            self._certificates[peer_cert] = known
        return known


class _Certified(NamedTuple):
    """Whom a certificate names, and from when until when."""

    user: User
    not_before: datetime = datetime.min.replace(tzinfo=UTC)
    not_after: datetime = datetime.max.replace(tzinfo=UTC)


def _user_of_names(common_name: str, organizations: tuple[str, ...]) -> User:
    return User(common_name, (*organizations, _AUTHENTICATED))


def _names_of_mapping(certificate: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """From `ssl.SSLSocket.getpeercert()`."""
    names = [pair for rdn in certificate.get("subject", ()) for pair in rdn]
    common_name = next((value for key, value in names if key == "commonName"), "")
    return common_name, tuple(value for key, value in names if key == "organizationName")


def _certified_by_der(der: bytes, *, uids: bool) -> _Certified:
    """Raises ValueError."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID, ObjectIdentifier

    certificate = x509.load_der_x509_certificate(der)
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    organizations = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    name = str(common[0].value) if common else ""
    groups = tuple(str(attribute.value) for attribute in organizations)
    stated = certificate.subject.get_attributes_for_oid(ObjectIdentifier(_UID)) if uids else []
    if len(stated) > 1 or (stated and not stated[0].value):
        raise ValueError("a certificate names one uid or none")
    fingerprint = f"X509SHA256={hashlib.sha256(der).hexdigest()}"
    user = User(name, (*groups, _AUTHENTICATED), str(stated[0].value) if stated else "", {_CREDENTIAL: (fingerprint,)})
    return _Certified(user, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


_TOKEN_PROTOCOL = "base64url.bearer.authorization.k8s.io."


def _hide_token(request: Request) -> None:
    """Take the token out of the request, which may go on to a pod."""
    offered = [protocol.strip() for protocol in request.headers["sec-websocket-protocol"].split(",")]
    left = ", ".join(protocol for protocol in offered if not protocol.startswith(_TOKEN_PROTOCOL))
    headers = {name: value for name, value in request.headers.items() if name != "sec-websocket-protocol"}
    request.headers = {**headers, "sec-websocket-protocol": left} if left else headers


def _websocket_token(request: Request) -> str:
    """Browsers cannot set headers on a WebSocket; the token then comes as a subprotocol (Kubernetes' convention)."""
    prefix = _TOKEN_PROTOCOL
    for protocol in request.headers.get("sec-websocket-protocol", "").split(","):
        if protocol.strip().startswith(prefix):
            from base64 import urlsafe_b64decode

            encoded = protocol.strip()[len(prefix) :]
            try:
                return urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
            except ValueError as error:
                raise unauthorized() from error
    return ""


def _with_group(user: User) -> User:
    if _AUTHENTICATED in user.groups:
        return user
    return User(user.name, (*user.groups, _AUTHENTICATED), user.uid, user.extra)
