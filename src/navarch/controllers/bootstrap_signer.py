"""The signatures by which who has a bootstrap token can tell that what the cluster says of itself is true.

In: Secrets of type bootstrap.kubernetes.io/token in kube-system, the ConfigMap `cluster-info` in kube-public. Out: in
that ConfigMap one `jws-kubeconfig-<id>` per token that may sign, and none else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from datetime import datetime
from typing import ClassVar

from navarch.api.meta import Key, Obj, is_deleting, key_of, namespace_of
from navarch.api.time import parse_time
from navarch.client.resources import CONFIG_MAPS, SECRETS
from navarch.controllers.base import Context, Controller, Requeue

TYPE = "bootstrap.kubernetes.io/token"
_SYSTEM = "kube-system"
_INFO = Key("kube-public", "cluster-info")
_SIGNATURE = "jws-kubeconfig-"


class BootstrapSigner(Controller):
    """Signs `cluster-info` with every token that may."""

    name: ClassVar[str] = "bootstrap-signer"
    workers: ClassVar[int] = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._maps = self.watch_primary(CONFIG_MAPS, lambda found: key_of(found) == _INFO)
        self._secrets = self.informer(SECRETS)
        self._secrets.add_indexer("bootstrap-token", _of_tokens)
        self._secrets.add_handler(self._changed, lambda _old, new: self._changed(new), self._changed)

    def _changed(self, secret: Obj) -> None:
        if _is_token(secret):
            self.enqueue(_INFO)

    async def reconcile(self, key: Key) -> Requeue | None:
        cached = self._maps.get(*key)
        if cached is None or is_deleting(cached):
            return None
        info = self.newest(CONFIG_MAPS, cached)
        data = info.get("data") or {}
        content = data.get("kubeconfig", "")
        kept = {name: value for name, value in data.items() if not name.startswith(_SIGNATURE)}
        for secret in self._secrets.by_index("bootstrap-token", TYPE) if content else ():
            said = _text_of(secret)
            token_id, token_secret = said.get("token-id", ""), said.get("token-secret", "")
            signs = said.get("usage-bootstrap-signing") == "true" and token_id and token_secret
            if signs and not is_deleting(secret) and not _is_over(said, self.clock.now()):
                kept[_SIGNATURE + token_id] = signature(content, token_id, token_secret)
        if kept != data:
            await self.write(CONFIG_MAPS, {**info, "data": kept})
        return None


def signature(content: str, token_id: str, token_secret: str) -> str:
    """A JSON Web Signature (HS256) of the content, from which the content itself is left out."""
    header = _encoded(json.dumps({"alg": "HS256", "kid": token_id}, separators=(",", ":")).encode())
    signed = f"{header}.{_encoded(content.encode())}".encode()
    return f"{header}..{_encoded(hmac.digest(token_secret.encode(), signed, hashlib.sha256))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _is_token(secret: Obj) -> bool:
    return secret.get("type") == TYPE and namespace_of(secret) == _SYSTEM


def _of_tokens(secret: Obj) -> tuple[str, ...]:
    return (TYPE,) if _is_token(secret) else ()


def _text_of(secret: Obj) -> dict[str, str]:
    said = {}
    for name, value in (secret.get("data") or {}).items():
        try:
            said[name] = base64.b64decode(value).decode()
        except (binascii.Error, ValueError):
            continue
    return said


def _is_over(said: dict[str, str], now: datetime) -> bool:
    """What cannot be read is over, to be safe."""
    if not said.get("expiration"):
        return False
    try:
        return parse_time(said["expiration"]) <= now
    except ValueError:
        return True
