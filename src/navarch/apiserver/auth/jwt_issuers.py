"""Tokens of OpenID Connect providers: whose they are is said by their claims, as a configuration reads these.

In: a token, whose `iss` claim names the issuer.  Out: the user; None for a token of nobody who is configured, or one
that is not good. The issuer's keys are fetched when the first of its tokens comes, and again, at most every ten
seconds, when a token names a key that is not known.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Final

from navarch.api.cel.environment import Environment, Program
from navarch.api.cel.errors import CelError
from navarch.api.cel.types import DYN, STRING, map_of
from navarch.apiserver.auth.outbound import OutboundError, ask
from navarch.apiserver.user import User
from navarch.records import frozen
from navarch.world import World

log = logging.getLogger(__name__)

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")
CLAIMS: Final = Environment({"claims": map_of(STRING, DYN)})
USERS: Final = Environment({"user": map_of(STRING, DYN)})
_FETCH_EVERY_S: Final = 10.0
# How far ahead of ours an issuer's clock may be.
_LEEWAY_S: Final = 300.0


class RejectedError(Exception):
    """The token is its issuer's, and not good; the text says why."""


@frozen
class From:
    """From where a part of a user comes: a claim, with a prefix put before it, or an expression."""

    claim: str = ""
    prefix: str = ""
    expression: Program | None = None

    def of(self, claims: Mapping[str, Any]) -> Any:
        """None where there is no such claim.  Raises RejectedError."""
        if self.expression is not None:
            return _value(self.expression, claims)
        return claims.get(self.claim) if self.claim else None

    @property
    def is_stated(self) -> bool:
        return bool(self.claim) or self.expression is not None


@frozen
class Check:
    """What must be true of claims, or of the user; `message` is what is said where it is not."""

    expression: Program
    message: str


@frozen
class Issuer:
    """One issuer, as it is configured. `required` are claims that must have one value."""

    url: str
    audiences: tuple[str, ...]
    username: From
    discovery_url: str = ""
    context: ssl.SSLContext | None = None
    algorithms: tuple[str, ...] = ALGORITHMS
    groups: From = field(default_factory=From)
    uid: From = field(default_factory=From)
    extra: tuple[tuple[str, Program], ...] = ()
    required: Mapping[str, str] = field(default_factory=dict)
    claim_checks: Sequence[Check] = ()
    user_checks: Sequence[Check] = ()


class JWTIssuers:
    def __init__(self, issuers: Sequence[Issuer], world: World) -> None:
        self._issuers = {issuer.url: _Keys(issuer, world) for issuer in issuers}
        self._world = world

    async def check(self, token: str, audiences: tuple[str, ...]) -> User | None:
        import jwt

        try:
            stated = jwt.decode(token, options={"verify_signature": False}).get("iss")
            known = self._issuers.get(stated) if isinstance(stated, str) else None
            if known is None:
                return None
            claims = await self._verified(token, known)
            return user_of(known.issuer, claims)
        except (RejectedError, OutboundError, jwt.PyJWTError, RecursionError) as error:
            log.info("a token was refused: %s", error)
            return None

    async def _verified(self, token: str, known: _Keys) -> dict[str, Any]:
        """Raises RejectedError, OutboundError, PyJWTError."""
        import jwt

        issuer, header = known.issuer, jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm not in issuer.algorithms:
            raise RejectedError(f"oidc: id token signed with unsupported algorithm {algorithm!r}")
        now_s = self._world.now().timestamp()
        options: Any = {"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False}
        for key in await known.named(header.get("kid")):
            try:
                claims: dict[str, Any] = jwt.decode(token, key, algorithms=[str(algorithm)], options=options)
            except (jwt.InvalidSignatureError, jwt.InvalidKeyError, TypeError, AttributeError):
                # Not signed by it, or it is of another kind than the algorithm's.
                continue
            if not _time(claims, "exp", missing=0.0) > now_s:
                raise RejectedError("oidc: token is expired")
            if not _time(claims, "nbf", missing=now_s) <= now_s + _LEEWAY_S:
                raise RejectedError("oidc: current time is before the nbf (not before) time")
            return claims
        raise RejectedError("failed to verify signature: failed to verify id token signature")


class _Keys:
    """An issuer and its keys."""

    def __init__(self, issuer: Issuer, world: World) -> None:
        self.issuer = issuer
        self._world = world
        self._keys: list[tuple[str | None, Any]] = []
        self._fetched_s = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def named(self, key_id: str | None) -> list[Any]:
        """The keys that a token may be signed with.  Raises OutboundError."""
        found = self._named(key_id)
        if found:
            return found
        if self._fetching is None:
            if self._world.now().timestamp() - self._fetched_s < _FETCH_EVERY_S:
                return found
            self._fetching = asyncio.create_task(self._fetch(), name=f"keys of {self.issuer.url}")
            self._fetching.add_done_callback(self._fetched)
        # All who wait have the same answer, and who gives up waiting takes it from nobody.
        await asyncio.shield(self._fetching)
        return self._named(key_id)

    def _fetched(self, fetching: asyncio.Task[None]) -> None:
        self._fetching = None
        if not fetching.cancelled():
            # Whoever waited has been told; perhaps nobody did.
            fetching.exception()

    def _named(self, key_id: str | None) -> list[Any]:
        return [key for name, key in self._keys if key_id is None or name == key_id]

    async def _fetch(self) -> None:
        import jwt

        self._fetched_s = self._world.now().timestamp()
        issuer = self.issuer
        where = issuer.discovery_url or f"{issuer.url.rstrip('/')}/.well-known/openid-configuration"
        document = await ask(where, issuer.context)
        if not isinstance(document, dict) or document.get("issuer") != issuer.url:
            raise OutboundError(f"{where}: the issuer is not {issuer.url!r}")
        keys = await ask(str(document.get("jwks_uri") or ""), issuer.context)
        found: list[tuple[str | None, Any]] = []
        listed = keys.get("keys") if isinstance(keys, dict) else None
        for stated in listed if isinstance(listed, list) else []:
            try:
                key = jwt.PyJWK(stated)
            except (jwt.PyJWTError, AttributeError, KeyError, TypeError, ValueError):
                # Of a kind that nobody signs with here, or no key at all.
                continue
            if isinstance(key.key, bytes):
                # A secret that is published proves nothing.
                continue
            found.append((key.key_id, key.key))
        self._keys = found


def _time(claims: Mapping[str, Any], name: str, *, missing: float) -> float:
    """Raises RejectedError for what is no time."""
    stated = claims.get(name)
    if stated is None:
        return missing
    if isinstance(stated, bool) or not isinstance(stated, int | float):
        raise RejectedError(f"oidc: the claim {name} is no number")
    return float(stated)


def user_of(issuer: Issuer, claims: Mapping[str, Any]) -> User:
    """Whom claims stand for.  Raises RejectedError."""
    stated = claims.get("aud")
    audiences = [stated] if isinstance(stated, str) else stated if isinstance(stated, list) else []
    if not any(audience in audiences for audience in issuer.audiences):
        raise RejectedError(f"oidc: expected audience in {list(issuer.audiences)} got {audiences}")
    for name, value in issuer.required.items():
        if claims.get(name) != value:
            raise RejectedError(f"oidc: required claim {name} value does not match. Got {claims.get(name)!r}")
    for check in issuer.claim_checks:
        if _value(check.expression, claims) is not True:
            raise RejectedError(check.message)
    user = User(_username(issuer, claims), _groups(issuer, claims), _uid(issuer, claims), _extra(issuer, claims))
    seen = {"username": user.name, "uid": user.uid, "groups": list(user.groups)}
    seen_extra = {key: list(values) for key, values in user.extra.items()}
    for check in issuer.user_checks:
        if _value(check.expression, {**seen, "extra": seen_extra}) is not True:
            raise RejectedError(check.message)
    return user


def _username(issuer: Issuer, claims: Mapping[str, Any]) -> str:
    mapping = issuer.username
    name = mapping.of(claims)
    if not isinstance(name, str) or not name:
        raise RejectedError(f"oidc: parse username claims {mapping.claim!r}: claim not present or no text")
    if mapping.claim == "email" and claims.get("email_verified", True) is not True:
        raise RejectedError("oidc: email not verified")
    return mapping.prefix + name


def _groups(issuer: Issuer, claims: Mapping[str, Any]) -> tuple[str, ...]:
    found = issuer.groups.of(claims)
    if found is None or found == "":
        return ()
    groups = [found] if isinstance(found, str) else found
    if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
        raise RejectedError(f"oidc: parse groups claim {issuer.groups.claim!r}: neither a text nor a list of texts")
    return tuple(issuer.groups.prefix + group for group in groups if group)


def _uid(issuer: Issuer, claims: Mapping[str, Any]) -> str:
    if not issuer.uid.is_stated:
        return ""
    found = issuer.uid.of(claims)
    if not isinstance(found, str):
        raise RejectedError("oidc: parse uid claim: claim not present or no text")
    return found


def _extra(issuer: Issuer, claims: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    extra: dict[str, tuple[str, ...]] = {}
    for key, expression in issuer.extra:
        found = _value(expression, claims)
        values = [found] if isinstance(found, str) else found or []
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise RejectedError(f"oidc: error evaluating extra claim expression for {key!r}: no texts")
        if kept := tuple(value for value in values if value):
            extra[key] = kept
    return extra


def _value(expression: Program, variable: Any) -> Any:
    try:
        return expression.evaluate([variable])[0]
    except CelError as error:
        raise RejectedError(f"oidc: error evaluating {expression.source!r}: {error.text}") from None
