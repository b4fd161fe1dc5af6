"""Bootstrap tokens that are over: their Secrets are deleted when their time has come.

In: Secrets of type bootstrap.kubernetes.io/token in kube-system. Out: those whose `expiration` is past deleted. What
cannot be read has no end here; nobody is let in by it either.
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import ClassVar

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, is_deleting, namespace_of, uid_of
from navarch.api.time import parse_time
from navarch.client.resources import SECRETS
from navarch.controllers.base import Context, Controller, Requeue

_NAMESPACE = "kube-system"
_TYPE = "bootstrap.kubernetes.io/token"


def expiry(secret: Obj) -> datetime | None:
    """When the token is over; None where it never is, or where there is no token."""
    if secret.get("type") != _TYPE or namespace_of(secret) != _NAMESPACE or is_deleting(secret):
        return None
    try:
        return parse_time(base64.b64decode((secret.get("data") or {}).get("expiration") or "").decode("ascii"))
    except (binascii.Error, ValueError):
        return None


class TokenCleaner(Controller):
    name: ClassVar[str] = "bootstrap-token-cleaner"
    workers: ClassVar[int] = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._secrets = self.watch_primary(SECRETS, lambda secret: expiry(secret) is not None)

    async def reconcile(self, key: Key) -> Requeue | None:
        secret = self._secrets.get(*key)
        due = expiry(secret) if secret is not None else None
        if secret is None or due is None:
            return None
        wait_s = (due - self.clock.now()).total_seconds()
        if wait_s > 0:
            return Requeue(wait_s)
        try:
            await self.client.delete(
                SECRETS, key.name, key.namespace, uid=uid_of(secret),
                resource_version=secret["metadata"]["resourceVersion"],
            )  # fmt: skip
        except StatusError as error:
            # Changed or gone since: its event has it looked at again.
            if error.code not in (404, 409):
                raise
        return None
