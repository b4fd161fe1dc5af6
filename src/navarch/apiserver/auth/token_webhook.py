"""Tokens that a webhook knows: it is sent a TokenReview and says who the token stands for.

In: a token.  Out: the user, or None where the webhook knows it not, or cannot be asked. Answers are remembered for a
while, good ones and bad ones.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from typing import Any, Final

from navarch.api.meta import Obj
from navarch.apiserver.auth.outbound import OutboundError, ask
from navarch.apiserver.user import User, user_of_info
from navarch.client.config import Target
from navarch.world import World

log = logging.getLogger(__name__)

_REMEMBERED: Final = 4096


class TokenWebhook:
    """`target` is the server of a kubeconfig, whose URL is where reviews are sent."""

    def __init__(self, target: Target, version: str, ttl_s: float, world: World) -> None:
        self._target = target
        self._api_version = f"authentication.k8s.io/{version}"
        self._ttl_s = ttl_s
        self._world = world
        self._known: OrderedDict[tuple[bytes, tuple[str, ...]], tuple[float, User | None]] = OrderedDict()

    async def check(self, token: str, audiences: tuple[str, ...]) -> User | None:
        key = (hashlib.sha256(token.encode()).digest(), audiences)
        now = self._world.monotonic()
        known = self._known.get(key)
        if known is not None and known[0] > now:
            return known[1]
        spec: Obj = {"token": token}
        if audiences:
            spec["audiences"] = list(audiences)
        review = {"apiVersion": self._api_version, "kind": "TokenReview", "spec": spec}
        target = self._target
        headers = {"Authorization": f"Bearer {target.token()}"} if target.token is not None else None
        try:
            answer = await ask(target.server, target.tls, review, headers)
        except OutboundError as error:
            log.warning("the token webhook: %s", error)
            return None
        user = _user(answer, audiences)
        self._known[key] = (now + self._ttl_s, user)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return user


def _user(review: Any, audiences: tuple[str, ...]) -> User | None:
    """Whom the answer names. One that knows of audiences says for which of those that were asked for the token is."""
    status = review.get("status") if isinstance(review, dict) else None
    if not isinstance(status, dict) or status.get("authenticated") is not True:
        return None
    stated = status.get("audiences") or []
    if not isinstance(stated, list) or (stated and audiences and not any(each in audiences for each in stated)):
        return None
    return user_of_info(status.get("user") or {})
