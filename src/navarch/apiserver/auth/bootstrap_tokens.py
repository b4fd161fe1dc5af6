"""Bootstrap tokens (`abcdef.0123456789abcdef`): Secrets in kube-system by which machines join a cluster.

In: a token.  Out: the user `system:bootstrap:<id>` with the groups that its Secret names; None for what is no token of
this kind, or one that is over, of another use, or of a Secret that is being deleted.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from typing import Final

from navarch.api.meta import Obj, Resource, is_deleting
from navarch.api.time import parse_time
from navarch.apiserver.admission.base import Reader
from navarch.apiserver.user import User
from navarch.world import Clock

_SECRETS: Final = Resource("", "v1", "secrets", "Secret", True)
_TOKEN: Final = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_GROUP: Final = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")
_TYPE: Final = "bootstrap.kubernetes.io/token"
_DEFAULT_GROUP: Final = "system:bootstrappers"


class BootstrapTokens:
    def __init__(self, reader: Reader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock

    async def check(self, token: str, audiences: tuple[str, ...]) -> User | None:
        matched = _TOKEN.fullmatch(token)
        if matched is None:
            return None
        token_id, secret = matched.groups()
        found = self._reader.get(_SECRETS, "kube-system", f"bootstrap-token-{token_id}")
        if found is None or is_deleting(found) or found.get("type") != _TYPE:
            return None
        said = _data(found)
        if said.get("token-id") != token_id or not hmac.compare_digest(said.get("token-secret", ""), secret):
            return None
        if said.get("usage-bootstrap-authentication") != "true" or self._is_over(said.get("expiration", "")):
            return None
        groups = [group.strip() for group in said.get("auth-extra-groups", "").split(",") if group.strip()]
        if not all(_GROUP.fullmatch(group) for group in groups):
            return None
        return User(f"system:bootstrap:{token_id}", tuple(dict.fromkeys((_DEFAULT_GROUP, *groups))))

    def _is_over(self, expiration: str) -> bool:
        if not expiration:
            return False
        try:
            return parse_time(expiration) <= self._clock.now()
        except ValueError:
            # What cannot be read is over, to be safe.
            return True


def _data(secret: Obj) -> dict[str, str]:
    said: dict[str, str] = {}
    for name, value in (secret.get("data") or {}).items():
        try:
            said[name] = base64.b64decode(value).decode("ascii")
        except (binascii.Error, ValueError):
            continue
    return said
