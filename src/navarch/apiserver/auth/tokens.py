"""Service-account tokens: JSON Web Tokens bound to an account and, where asked for, to a pod, a node or a secret.

In: a ServiceAccount and a TokenRequest's spec, or a token to check.  Out: a signed token, or the account's `User`.
A token is good while its signature, audience and times are, and while everything that it is bound to still exists with
the same UID. Claims are those of Kubernetes' bound tokens
(https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from base64 import b64encode
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from navarch.api.errors import bad_request, conflict, not_found, unauthorized
from navarch.api.meta import Obj, Resource, is_deleting, new_uid, uid_of
from navarch.api.time import format_time
from navarch.apiserver.admission.base import Reader
from navarch.apiserver.auth.base import TOKEN_LIFETIME_S, TokenRefused
from navarch.apiserver.auth.legacy_tokens import LastUse, is_invalidated
from navarch.apiserver.auth.signing_keys import Signer, Verifier, load_signer, load_verifiers
from navarch.apiserver.user import User
from navarch.world import World

_SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", True)
_PODS = Resource("", "v1", "pods", "Pod", True)
_NODES = Resource("", "v1", "nodes", "Node", False)
_SECRETS = Resource("", "v1", "secrets", "Secret", True)
_BINDABLE = {"Pod": _PODS, "Node": _NODES, "Secret": _SECRETS}

_LEGACY_ISSUER = "kubernetes/serviceaccount"
# Injected tokens are asked for with this lifetime; clients that never re-read the file still work for a year, with a
# warning time in the token, as Kubernetes' --service-account-extend-token-expiration does.
_INJECTED_S = 3607
_EXTENDED_S = 365 * 24 * 3600
_INVALIDATED = "service account token has been invalidated"
_RECHECK_S = 10.0
_CACHE_LIMIT = 4096


class ServiceAccountTokens:
    """Issues tokens with the first key in `key_file` and believes those of it and of `more_keys`; `api_audiences` are
    those of the API server itself. The first of `issuers` is whom tokens are from, all are believed."""

    def __init__(
        self,
        key_file: Path,
        *,
        issuers: Sequence[str],
        api_audiences: Iterable[str],
        reader: Reader,
        world: World,
        more_keys: Sequence[Path] = (),
        public_url: str = "",
        last_use: LastUse | None = None,
    ) -> None:
        self.issuer = issuers[0]
        self.api_audiences = tuple(api_audiences)
        self._issuers = frozenset((*issuers, _LEGACY_ISSUER))
        self._key_file = key_file
        self._more_keys = more_keys
        self._reader = reader
        self._world = world
        self._public_url = public_url
        self._last_use = last_use
        self._loaded: tuple[Signer, list[Verifier]] | None = None
        # token digest -> (claims, time of the last check of what it is bound to)
        # By their digest: what they say, when they were looked at, and whom they name.
        self._checked: dict[bytes, tuple[dict[str, Any], float, User]] = {}

    def _keys(self) -> tuple[Signer, list[Verifier]]:
        # Loaded at the first token: cryptography is slow to import and a start-up does not need it.
        if self._loaded is None:
            signer = load_signer(self._key_file)
            others = {verifier.key_id: verifier for verifier in load_verifiers(self._more_keys)}
            self._loaded = signer, list({signer.verifier.key_id: signer.verifier, **others}.values())
        return self._loaded

    async def issue(self, service_account: Obj, request_spec: Obj) -> Obj:
        """The `status` of a TokenRequest.  Raises StatusError for something that the token cannot be bound to."""
        audiences = request_spec.get("audiences") or list(self.api_audiences)
        lifetime_s = int(request_spec.get("expirationSeconds") or TOKEN_LIFETIME_S)
        now = self._world.now()
        expires = now + timedelta(seconds=lifetime_s)
        bound = self._bound(service_account, request_spec.get("boundObjectRef"))
        warn_after: datetime | None = None
        if lifetime_s == _INJECTED_S and "pod" in bound and set(audiences).issubset(self.api_audiences):
            warn_after, expires = expires, now + timedelta(seconds=_EXTENDED_S)
        token = self._sign(service_account, audiences, now, expires, bound, warn_after)
        return {"token": token, "expirationTimestamp": format_time(warn_after or expires)}

    def legacy_token(self, service_account: Obj, secret: Obj) -> str:
        """The token of a `kubernetes.io/service-account-token` secret, which does not expire."""
        metadata = service_account["metadata"]
        claims = {
            "iss": _LEGACY_ISSUER,
            "sub": f"system:serviceaccount:{metadata['namespace']}:{metadata['name']}",
            "kubernetes.io/serviceaccount/namespace": metadata["namespace"],
            "kubernetes.io/serviceaccount/secret.name": secret["metadata"]["name"],
            "kubernetes.io/serviceaccount/service-account.name": metadata["name"],
            "kubernetes.io/serviceaccount/service-account.uid": metadata["uid"],
        }
        return self._encode(claims)

    async def check(self, token: str, audiences: Iterable[str] = ()) -> tuple[User, tuple[str, ...]]:
        """The account behind a token and the audiences (of those asked for) it is good for.  Raises StatusError 401."""
        wanted = tuple(audiences) or self.api_audiences
        digest = hashlib.sha256(token.encode()).digest()
        now_s = self._world.now().timestamp()
        known = self._checked.get(digest)
        claims = known[0] if known is not None else self._decode(token)
        if now_s >= float(claims.get("exp", now_s + 1)):
            self._checked.pop(digest, None)
            raise TokenRefused("service account token has expired")
        audiences_of_token = _audiences(claims, self.api_audiences)
        matching = tuple(a for a in wanted if a in audiences_of_token)
        if not matching:
            stated, asked = _listed(audiences_of_token), _listed(wanted)
            raise TokenRefused(f"token audiences {stated} is invalid for the target audiences {asked}")
        if known is None or now_s - known[1] > _RECHECK_S:
            secret = self._require_bound_objects(claims, token)
            if secret is not None and self._last_use is not None:
                await self._last_use.note(secret)
            if len(self._checked) >= _CACHE_LIMIT:
                self._checked.clear()
            known = self._checked[digest] = (claims, now_s, _user(claims))
        return known[2], matching

    def recognized(self, token: str) -> User | None:
        """The account behind a token that `check` knows and has looked at lately; else None."""
        known = self._checked.get(hashlib.sha256(token.encode()).digest())
        if known is None:
            return None
        claims, looked_s, user = known
        now_s = self._world.now().timestamp()
        if now_s >= float(claims.get("exp", now_s + 1)) or now_s - looked_s > _RECHECK_S:
            return None
        audiences = _audiences(claims, self.api_audiences)
        return user if any(each in audiences for each in self.api_audiences) else None

    def forget(self) -> None:
        """Check again what tokens are bound to: something among it was deleted."""
        self._checked.clear()

    def openid_configuration(self) -> Obj:
        """`/.well-known/openid-configuration`."""
        return {
            "issuer": self.issuer,
            "jwks_uri": self._public_url or f"{self.issuer.rstrip('/')}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": sorted({key.algorithm for key in self._keys()[1]}),
        }

    def jwks(self) -> Obj:
        """`/openid/v1/jwks`: the public keys that tokens are checked with."""
        return {"keys": [key.jwk for key in self._keys()[1]]}

    def _bound(self, service_account: Obj, reference: Obj | None) -> dict[str, Obj]:
        """The objects a token is to be bound to, by their word in the claims."""
        if not reference:
            return {}
        kind, name = reference.get("kind", ""), reference.get("name", "")
        group, _, version = reference.get("apiVersion", "").rpartition("/")
        resource = None if group else _BINDABLE.get(kind)
        if resource is None:
            raise bad_request(f"cannot bind token to object of type {group}/{version}, Kind={kind}")
        namespace = service_account["metadata"]["namespace"] if resource.namespaced else ""
        target = self._reader.get(resource, namespace, name)
        if target is None:
            raise not_found(resource.plural, resource.group, name)
        bound = {kind.lower(): {"name": name, "uid": uid_of(target)}}
        if kind == "Pod":
            if (target.get("spec") or {}).get("serviceAccountName") != service_account["metadata"]["name"]:
                raise bad_request(
                    f'cannot bind token for serviceaccount "{service_account["metadata"]["name"]}" to pod running '
                    f"with different serviceaccount name."
                )
            if node_name := target["spec"].get("nodeName"):
                node = self._reader.get(_NODES, "", node_name)
                bound["node"] = {"name": node_name, **({} if node is None else {"uid": uid_of(node)})}
        uid = reference.get("uid")
        if uid and uid != uid_of(target):
            why = f"the UID in the bound object reference ({uid}) does not match the UID in record. "
            why += "The object might have been deleted and then recreated"
            raise conflict(kind, "", name, why)
        return bound

    def _sign(
        self,
        service_account: Obj,
        audiences: list[str],
        now: datetime,
        expires: datetime,
        bound: dict[str, Obj],
        warn_after: datetime | None,
    ) -> str:
        metadata = service_account["metadata"]
        private: Obj = {
            "namespace": metadata["namespace"],
            **bound,
            "serviceaccount": {"name": metadata["name"], "uid": metadata["uid"]},
        }
        if warn_after is not None:
            private["warnafter"] = int(warn_after.timestamp())
        return self._encode(
            {
                "aud": audiences,
                "exp": int(expires.timestamp()),
                "iat": int(now.timestamp()),
                "iss": self.issuer,
                "jti": new_uid(self._world.identities("tokens")),
                "kubernetes.io": private,
                "nbf": int(now.timestamp()),
                "sub": f"system:serviceaccount:{metadata['namespace']}:{metadata['name']}",
            }
        )

    def _encode(self, claims: Obj) -> str:
        import jwt

        signer = self._keys()[0]
        verifier = signer.verifier
        return jwt.encode(claims, signer.key, algorithm=verifier.algorithm, headers={"kid": verifier.key_id})

    def _decode(self, token: str) -> dict[str, Any]:
        claims = self._verified(token)
        now_s = self._world.now().timestamp()
        if float(claims.get("nbf", 0)) > now_s + 1:
            raise TokenRefused("service account token is not valid yet")
        if claims.get("iss") not in self._issuers:
            raise unauthorized()
        return claims

    def _verified(self, token: str) -> dict[str, Any]:
        """What a token claims that one of our keys has signed.  Raises StatusError 401."""
        import jwt

        options: Any = {"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False}
        try:
            stated = jwt.get_unverified_header(token).get("kid", "")
        except (jwt.PyJWTError, RecursionError) as error:
            raise unauthorized() from error
        keys = self._keys()[1]
        # Older tokens name no key.
        for key in [key for key in keys if key.key_id == stated] or keys:
            with contextlib.suppress(jwt.PyJWTError):
                claims: dict[str, Any] = jwt.decode(token, key.key, algorithms=[key.algorithm], options=options)
                return claims
        raise unauthorized()

    def _require_bound_objects(self, claims: dict[str, Any], token: str) -> Obj | None:
        """The Secret that the token lies in, if it does.  Raises StatusError 401."""
        account = _account(claims)
        self._require(_SERVICE_ACCOUNTS, account["namespace"], account["name"], account["uid"])
        name = claims.get("kubernetes.io/serviceaccount/secret.name")
        secret = None
        if name is not None:
            secret = self._reader.get(_SECRETS, account["namespace"], name)
            # A secret that has been given another token since takes the first one back.
            if secret is None or (secret.get("data") or {}).get("token") != b64encode(token.encode()).decode():
                raise TokenRefused(_INVALIDATED)
            if is_invalidated(secret):
                raise TokenRefused(_INVALIDATED)
        private = claims.get("kubernetes.io") or {}
        for word, resource in (("pod", _PODS), ("secret", _SECRETS), ("node", _NODES)):
            reference = private.get(word)
            if not reference or (word == "node" and "pod" in private):
                continue
            namespace = account["namespace"] if resource.namespaced else ""
            self._require(resource, namespace, reference["name"], reference["uid"])
        return secret

    def _require(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        found = self._reader.get(resource, namespace, name)
        if found is None:
            raise TokenRefused(f'{resource.plural} "{name}" not found')
        of_account = resource is _SERVICE_ACCOUNTS
        # A pod's token stays good while the pod ends; an account that is going away is gone for its tokens.
        if of_account and is_deleting(found):
            raise TokenRefused(f"service account {namespace}/{name} has been deleted")
        if uid_of(found) != uid:
            what = "service account" if of_account else resource.kind.lower()
            claim = "claim" if of_account else f"service account {what} ref claim"
            raise TokenRefused(f"{what} UID ({uid_of(found)}) does not match {claim} ({uid})")


def _listed(texts: Iterable[str]) -> str:
    """As Go quotes a list."""
    return f"[{' '.join(json.dumps(text, ensure_ascii=False) for text in texts)}]"


def _audiences(claims: dict[str, Any], default: tuple[str, ...]) -> tuple[str, ...]:
    stated = claims.get("aud")
    if stated is None:
        return default
    return (stated,) if isinstance(stated, str) else tuple(stated)


def _account(claims: dict[str, Any]) -> dict[str, str]:
    private = claims.get("kubernetes.io")
    if private:
        account = private.get("serviceaccount") or {}
        return {
            "namespace": private.get("namespace", ""),
            "name": account.get("name", ""),
            "uid": account.get("uid", ""),
        }
    prefix = "kubernetes.io/serviceaccount/"
    return {
        "namespace": claims.get(f"{prefix}namespace", ""),
        "name": claims.get(f"{prefix}service-account.name", ""),
        "uid": claims.get(f"{prefix}service-account.uid", ""),
    }


def service_account_user(
    namespace: str, name: str, uid: str = "", extra: dict[str, tuple[str, ...]] | None = None
) -> User:
    """The user that a service account is."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return User(f"system:serviceaccount:{namespace}:{name}", groups, uid, extra or {})


def _user(claims: dict[str, Any]) -> User:
    account = _account(claims)
    private = claims.get("kubernetes.io") or {}
    extra: dict[str, tuple[str, ...]] = {}
    if "jti" in claims:
        extra["authentication.kubernetes.io/credential-id"] = (f"JTI={claims['jti']}",)
    for word in ("node", "pod"):
        if word in private:
            extra[f"authentication.kubernetes.io/{word}-name"] = (private[word]["name"],)
            if uid := private[word].get("uid"):
                extra[f"authentication.kubernetes.io/{word}-uid"] = (uid,)
    return service_account_user(account["namespace"], account["name"], account["uid"], extra)
