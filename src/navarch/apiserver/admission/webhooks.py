"""MutatingAdmissionWebhook and ValidatingAdmissionWebhook: others, over HTTPS, may change or refuse a write.

Who is asked is configured by objects (`webhooks/hooks.py`), which are followed: a change counts from the next write on,
and where no configuration names a kind, its writes do not come here at all. Those that may change an object are asked
one after another, each about what the one before made of it, and some once more where a later one changed something;
those that may only refuse are asked at the same time, about what would be stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from navarch.api.errors import StatusError, bad_request, forbidden, internal
from navarch.api.meta import Obj, Resource, new_uid
from navarch.api.patch import json_patch
from navarch.api.patch_failures import failure
from navarch.apiserver.admission.base import Attributes, Plugin
from navarch.apiserver.admission.rounds import Rounds
from navarch.apiserver.admission.selection import selects
from navarch.apiserver.admission.versions import Versions
from navarch.apiserver.caches import Caches
from navarch.apiserver.codec import decode
from navarch.apiserver.policies.evaluation import EvaluationError
from navarch.apiserver.policies.requests import Requests
from navarch.apiserver.webhooks import reviews
from navarch.apiserver.webhooks.client import CallError, WebhookClient
from navarch.apiserver.webhooks.hooks import (
    Hook,
    Invocation,
    hooks_of,
    ineffective,
    invocations,
    is_review,
    relatives,
)
from navarch.apiserver.webhooks.metrics import CALL_FAILED, MUTATING, REFUSED, VALIDATING, WebhookMetrics
from navarch.apiserver.webhooks.reviews import AnswerError, Shown
from navarch.kinds.base import Kind
from navarch.kinds.resources import MUTATING_WEBHOOK_CONFIGURATIONS, VALIDATING_WEBHOOK_CONFIGURATIONS
from navarch.world import World

log = logging.getLogger(__name__)

_REMEMBERED: Final = 8192
_FAILED_OPEN: Final = "failed-open.{}.webhook.admission.k8s.io/round_{}_index_{}"
_ANSWERED: Final = "{}.webhook.admission.k8s.io/round_{}_index_{}"


class CallFailedError(Exception):
    """A webhook gave no answer that counts; the text says why."""


class Webhooks:
    """What both plugins need of their server."""

    def __init__(
        self,
        caches: Caches,
        versions: Versions,
        requests: Requests,
        client: WebhookClient,
        world: World,
        *,
        spares_reviews: bool = False,
    ) -> None:
        """`spares_reviews`: nobody is asked about reviews of tokens and of access."""
        self.spares_reviews = spares_reviews
        self.metrics = WebhookMetrics()
        self.caches = caches
        self.versions = versions
        self.requests = requests
        self.client = client
        self.world = world

    async def call(self, hook: Hook, attributes: Attributes, shown: Shown, *, mutating: bool) -> list[Any]:
        """Ask, take down what the answer says beside yes and no, and count; what its patch does.  Raises
        CallFailedError; StatusError for a refusal."""
        metrics, operation = self.metrics, attributes.operation
        type_ = MUTATING if mutating else VALIDATING
        began = self.world.monotonic()
        code, rejected = 200, False
        try:
            return await self._ask(hook, attributes, shown, mutating=mutating)
        except CallFailedError:
            code, rejected = 503, hook.closed
            if rejected:
                metrics.rejected(hook.name, type_, operation, CALL_FAILED, code)
            else:
                metrics.failed_open(hook.name, type_)
            raise
        except StatusError as error:
            code, rejected = error.code, True
            metrics.rejected(hook.name, type_, operation, REFUSED, code)
            raise
        finally:
            seconds = self.world.monotonic() - began
            metrics.asked(hook.name, type_, operation, code, seconds, rejected=rejected)

    async def _ask(self, hook: Hook, attributes: Attributes, shown: Shown, *, mutating: bool) -> list[Any]:
        if attributes.dry_run and not hook.may_run_dry:
            raise bad_request(f'admission webhook "{hook.name}" does not support dry run')
        if hook.client is None or hook.wrong:
            raise CallFailedError(hook.wrong)
        uid = new_uid(self.world.identities("reviews"))
        question = reviews.review(hook.version, uid, attributes, shown)
        try:
            data = await self.client.ask(hook.client, question, hook.timeout_s)
            answer = reviews.read_answer(data, hook.version, uid, mutating=mutating)
        except CallError as error:
            raise CallFailedError(f"failed to call webhook: {error}") from error
        except AnswerError as error:
            raise CallFailedError(str(error)) from error
        for name, value in answer.annotations.items():
            attributes.annotations[f"{hook.name}/{name}"] = value
        attributes.warnings.extend(answer.warnings)
        if not answer.allowed:
            raise reviews.refusal(hook.name, answer.status)
        try:
            return reviews.operations_in(answer)
        except AnswerError as error:
            raise CallFailedError(str(error)) from error


class _WebhookPlugin(Plugin):
    """Who is asked about a write."""

    operations = frozenset({"CREATE", "UPDATE", "DELETE", "CONNECT"})
    subresources = None
    configurations: Resource

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks
        self._hooks: Sequence[Hook] | None = None
        # With the kind itself, so that nothing else can have its number.
        self._invocations: dict[tuple[int, str, str], tuple[Kind, Sequence[Invocation]]] = {}
        self._changed: list[Callable[[], None]] = []
        self._cache = webhooks.caches.of(self.configurations)
        self._cache.listeners.append(lambda change: self._forget())

    def follow(self, changed: Callable[[], None]) -> None:
        self._changed.append(changed)

    def _forget(self) -> None:
        self._hooks = None
        self._invocations.clear()
        for changed in self._changed:
            changed()

    def forget_kinds(self) -> None:
        self._invocations.clear()

    def concerns(self, kind: Kind, operation: str, subresource: str) -> bool:
        return any(self._matching(asked, operation, subresource) for asked in (kind, *relatives(kind)))

    def _matching(self, kind: Kind, operation: str, subresource: str) -> Sequence[Invocation]:
        if self._hooks is None:
            self._hooks = hooks_of(cached.obj() for cached in self._cache.items(""))
        if not self._hooks:
            return ()
        key = (id(kind), operation, subresource)
        known = self._invocations.get(key)
        if known is not None:
            return known[1]
        if len(self._invocations) >= _REMEMBERED:
            self._invocations.clear()
        spared = self._webhooks.spares_reviews and is_review(kind.resource)
        found = [] if spared else invocations(self._hooks, kind, operation, subresource)
        self._invocations[key] = (kind, found)
        return found

    def _asked(self, attributes: Attributes) -> Sequence[Invocation]:
        return self._matching(attributes.asked, attributes.operation, attributes.subresource)

    async def _selects(self, invocation: Invocation, attributes: Attributes) -> bool:
        """Raises StatusError: 404 for a namespace that is not there, 403 where a condition cannot be told."""
        hook = invocation.hook
        if not selects(self._webhooks.caches, hook.namespaces, hook.objects, attributes):
            return False
        if not hook.conditions:
            return True
        try:
            return await self._webhooks.requests.conditions_hold(hook.conditions, attributes, invocation.kind)
        except EvaluationError as error:
            if not hook.closed:
                return False
            resource = attributes.asked.resource
            raise forbidden(resource.plural, resource.group, attributes.name, str(error)) from error


class MutatingAdmissionWebhook(_WebhookPlugin):
    """Those that may change what is written."""

    name = "MutatingAdmissionWebhook"
    configurations = MUTATING_WEBHOOK_CONFIGURATIONS

    async def mutate(self, attributes: Attributes) -> None:
        rounds: Rounds[Hook] = attributes.state.setdefault(self.name, Rounds())
        if attributes.again:
            rounds.begin_again(attributes.obj)
        shown: Shown | None = None
        for index, invocation in enumerate(self._asked(attributes)):
            hook = invocation.hook
            if (attributes.again and hook not in rounds.once_more) or not await self._selects(invocation, attributes):
                continue
            if shown is None or shown.kind is not invocation.kind:
                shown = await self._webhooks.versions.shown(invocation.kind, attributes)
            if await self._call(hook, index, attributes, shown):
                rounds.changed()
                attributes.reinvoke = True
                shown = None
            if hook.reinvocable:
                rounds.called.append(hook)
        rounds.ended(attributes.obj)

    async def _call(self, hook: Hook, index: int, attributes: Attributes, shown: Shown) -> bool:
        """Whether the object was changed.  Raises StatusError."""
        changed = False
        number = int(attributes.again)
        try:
            operations = await self._webhooks.call(hook, attributes, shown, mutating=True)
            if operations:
                if attributes.obj is None:
                    why = "attempted to modify the object, which is not supported for this operation"
                    raise internal(f'admission webhook "{hook.name}" {why}')
                changed = await self._patched(attributes, shown, operations)
                self._note("patch", number, index, attributes, hook, {"patch": operations, "patchType": "JSONPatch"})
        except CallFailedError as error:
            _failed(hook, error)
            attributes.annotations[_FAILED_OPEN.format("mutation", number, index)] = hook.name
        finally:
            self._note("mutation", number, index, attributes, hook, {"mutated": changed})
        return changed

    async def _patched(self, attributes: Attributes, shown: Shown, operations: list[Any]) -> bool:
        """Do what an answer's patch says; whether that changed anything.  Raises StatusError 500."""
        before = decode(shown.obj)
        try:
            made = json_patch(before, operations)
        except StatusError as error:
            raise internal(failure(before, operations) or error.message) from error
        return await self._webhooks.versions.adopt(attributes, shown, made)

    def _note(self, what: str, number: int, index: int, attributes: Attributes, hook: Hook, said: Obj) -> None:
        value = {"configuration": hook.configuration, "webhook": hook.name, **said}
        attributes.annotations[_ANSWERED.format(what, number, index)] = orjson.dumps(value).decode()


class ValidatingAdmissionWebhook(_WebhookPlugin):
    """Those that may refuse what would be written."""

    name = "ValidatingAdmissionWebhook"
    configurations = VALIDATING_WEBHOOK_CONFIGURATIONS

    async def validate(self, attributes: Attributes) -> None:
        chosen = [
            (index, invocation)
            for index, invocation in enumerate(self._asked(attributes))
            if await self._selects(invocation, attributes)
        ]
        shown: dict[int, Shown] = {}
        for _, invocation in chosen:
            if id(invocation.kind) not in shown:
                shown[id(invocation.kind)] = await self._webhooks.versions.shown(invocation.kind, attributes)
        if len(chosen) == 1:
            index, invocation = chosen[0]
            await self._call(invocation.hook, index, attributes, shown[id(invocation.kind)])
            return
        refused: dict[int, StatusError] = {}

        async def one(index: int, invocation: Invocation) -> None:
            try:
                await self._call(invocation.hook, index, attributes, shown[id(invocation.kind)])
            except StatusError as error:
                refused[index] = error

        async with asyncio.TaskGroup() as tasks:
            for index, invocation in chosen:
                tasks.create_task(one(index, invocation))
        if refused:
            # The first in order, whoever was the quickest.
            raise refused[min(refused)]

    async def _call(self, hook: Hook, index: int, attributes: Attributes, shown: Shown) -> None:
        try:
            await self._webhooks.call(hook, attributes, shown, mutating=False)
        except CallFailedError as error:
            _failed(hook, error)
            attributes.annotations[_FAILED_OPEN.format("validating", 0, index)] = hook.name


def _failed(hook: Hook, error: CallFailedError) -> None:
    """Raises StatusError 500 unless the webhook's answer may be done without."""
    if hook.closed:
        raise internal(f'failed calling webhook "{hook.name}": {error}') from error
    log.warning('failed calling webhook "%s", going on without it: %s', hook.name, error)


class IneffectiveRules(Plugin):
    """Tells who configures webhooks of rules for what no webhook is asked about."""

    name = "IneffectiveWebhookRules"
    resources = frozenset(
        (each.group, each.plural) for each in (MUTATING_WEBHOOK_CONFIGURATIONS, VALIDATING_WEBHOOK_CONFIGURATIONS)
    )

    async def validate(self, attributes: Attributes) -> None:
        for number, webhook in enumerate((attributes.obj or {}).get("webhooks") or ()):
            for index, rule in enumerate(webhook.get("rules") or ()):
                for name in ineffective(rule):
                    where, why = f"webhooks[{number}].rules[{index}]", "is excluded from admission webhooks"
                    attributes.warnings.append(f"{where}: {name} {why}; this rule will have no effect")
