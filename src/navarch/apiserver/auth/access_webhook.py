"""Webhooks that say who may do what, in their order among the other authorizers.

In: a user and what is asked for.  Out: a decision. The first authorizer that has an opinion decides; a webhook is sent
a SubjectAccessReview, and its answers are remembered, those that allow for longer. What is asked in the
middle of a request (whether somebody may impersonate, escalate, create by an update) is decided in the same way.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from navarch.api.cel.environment import Environment, Program
from navarch.api.cel.errors import CelError
from navarch.api.cel.types import DYN, STRING, map_of
from navarch.api.meta import Obj
from navarch.apiserver.auth.base import Decision, RequestAttributes
from navarch.apiserver.auth.outbound import OutboundError, ask
from navarch.apiserver.user import User
from navarch.client.config import Target
from navarch.records import frozen
from navarch.world import World

log = logging.getLogger(__name__)

REQUESTS: Final = Environment({"request": map_of(STRING, DYN)})
_NO_OPINION: Final = Decision(False)
_MASTERS: Final = Decision(True)
_REMEMBERED: Final = 8192
# Of what strangers name, in characters: longer questions are not remembered.
_LONGEST: Final = 10_000


class Step(Protocol):
    async def decide(self, user: User, attributes: RequestAttributes) -> Decision: ...


class Plain:
    """An authorizer that need not ask anybody."""

    def __init__(self, authorize: Callable[[User, RequestAttributes], Decision]) -> None:
        self._authorize = authorize

    async def decide(self, user: User, attributes: RequestAttributes) -> Decision:
        return self._authorize(user, attributes)


class InOrder:
    """`core.Core.deciding`: the group `system:masters` may do everything, everybody else what the first step says that
    has an opinion."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = tuple(steps)

    async def __call__(self, user: User, attributes: RequestAttributes) -> Decision:
        if "system:masters" in user.groups:
            return _MASTERS
        reasons = []
        for step in self._steps:
            decision = await step.decide(user, attributes)
            if decision.allowed or decision.denied:
                return decision
            if decision.reason:
                reasons.append(decision.reason)
        return Decision(False, "\n".join(reasons))


@frozen
class AccessWebhookSettings:
    """`denies`: whoever cannot be asked forbids, instead of having no opinion. All `conditions` must hold for it to be
    asked at all."""

    name: str
    target: Target
    version: str = "v1"
    authorized_s: float = 300.0
    unauthorized_s: float = 30.0
    denies: bool = False
    conditions: Sequence[Program] = ()
    timeout_s: float = 30.0


class AccessWebhook:
    def __init__(self, settings: AccessWebhookSettings, world: World) -> None:
        self._settings = settings
        self._world = world
        self._known: OrderedDict[object, tuple[float, Decision]] = OrderedDict()

    async def decide(self, user: User, attributes: RequestAttributes) -> Decision:
        settings = self._settings
        spec = _spec(user, attributes)
        try:
            if not _concerned(settings.conditions, spec):
                return _NO_OPINION
        except CelError as error:
            return self._failed(f"match condition: {error.text}")
        extra = tuple(sorted(user.extra.items()))
        key = (user.name, user.uid, tuple(user.groups), extra, attributes)
        now = self._world.monotonic()
        known = self._known.get(key)
        if known is not None and known[0] > now:
            return known[1]
        target = settings.target
        headers = {"Authorization": f"Bearer {target.token()}"} if target.token is not None else None
        review = {
            "apiVersion": f"authorization.k8s.io/{settings.version}",
            "kind": "SubjectAccessReview",
            "metadata": {"creationTimestamp": None},
            "spec": spec,
        }
        try:
            answer = await ask(target.server, target.tls, review, headers, timeout_s=settings.timeout_s)
        except OutboundError as error:
            return self._failed(str(error))
        decision = _decision(answer)
        lasting_s = settings.authorized_s if decision.allowed else settings.unauthorized_s
        if lasting_s > 0 and _size(user, attributes) <= _LONGEST:
            self._known[key] = (now + lasting_s, decision)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return decision

    def _failed(self, why: str) -> Decision:
        log.warning("authorization webhook %s: %s", self._settings.name, why)
        return Decision(False, denied=True) if self._settings.denies else _NO_OPINION


def _concerned(conditions: Sequence[Program], spec: Obj) -> bool:
    """Whether all hold: one that does not decides, whatever others fail.  Raises CelError."""
    failed: CelError | None = None
    for condition in conditions:
        try:
            if condition.evaluate([spec])[0] is not True:
                return False
        except CelError as error:
            failed = failed or error
    if failed is not None:
        raise failed
    return True


def _size(user: User, attributes: RequestAttributes) -> int:
    extra = sum(len(key) + sum(map(len, values)) for key, values in user.extra.items())
    return len(user.name) + len(user.uid) + sum(map(len, user.groups)) + extra + sum(map(len, attributes))


def _spec(user: User, attributes: RequestAttributes) -> Obj:
    spec: Obj = {}
    if attributes.is_resource:
        stated = {
            "namespace": attributes.namespace,
            "verb": attributes.verb,
            "group": attributes.group,
            "version": attributes.version,
            "resource": attributes.resource,
            "subresource": attributes.subresource,
            "name": attributes.name,
        }
        spec["resourceAttributes"] = {name: value for name, value in stated.items() if value}
    else:
        spec["nonResourceAttributes"] = {"path": attributes.path, "verb": attributes.verb}
    spec["user"] = user.name
    if user.groups:
        spec["groups"] = list(user.groups)
    if user.extra:
        spec["extra"] = {key: list(values) for key, values in user.extra.items()}
    if user.uid:
        spec["uid"] = user.uid
    return spec


def _decision(review: Any) -> Decision:
    status = review.get("status") if isinstance(review, dict) else None
    if not isinstance(status, dict):
        return _NO_OPINION
    reason = str(status.get("reason") or "")
    if status.get("denied") is True:
        return Decision(False, reason, denied=True)
    return Decision(status.get("allowed") is True, reason)
