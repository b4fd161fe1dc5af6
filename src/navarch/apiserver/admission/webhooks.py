"""MutatingAdmissionWebhook and ValidatingAdmissionWebhook: others, over HTTPS, may change or refuse a write.

Who is asked is configured by objects (`webhooks/hooks.py`), which are followed: a change counts from the next write on,
and where no configuration names a kind, its writes do not come here at all. Those that may change an object are asked
one after another, each about what the one before made of it, and some once more where a later one changed something;
those that may only refuse are asked at the same time, about what would be stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import orjson

from navarch.api.errors import StatusError, bad_request, forbidden, internal, not_found
from navarch.api.meta import Obj, Resource, new_uid
from navarch.api.patch import json_patch
from navarch.api.schema import SchemaSet
from navarch.apiserver.admission.base import Attributes, Plugin
from navarch.apiserver.caches import Caches
from navarch.apiserver.codec import decode
from navarch.apiserver.encodings import Encodings
from navarch.apiserver.served import ServedKind
from navarch.apiserver.webhooks import reviews
from navarch.apiserver.webhooks.client import CallError, WebhookClient
from navarch.apiserver.webhooks.hooks import Hook, Invocation, hooks_of, invocations, relatives
from navarch.apiserver.webhooks.metrics import CALL_FAILED, MUTATING, REFUSED, VALIDATING, WebhookMetrics
from navarch.apiserver.webhooks.reviews import Answer, AnswerError, Shown
from navarch.kinds.base import Kind
from navarch.kinds.registry import definition_name
from navarch.kinds.resources import MUTATING_WEBHOOK_CONFIGURATIONS, NAMESPACES, VALIDATING_WEBHOOK_CONFIGURATIONS
from navarch.world import World

log = logging.getLogger(__name__)

_REMEMBERED: Final = 8192
_FAILED_OPEN: Final = "failed-open.{}.webhook.admission.k8s.io/round_{}_index_{}"
_ANSWERED: Final = "{}.webhook.admission.k8s.io/round_{}_index_{}"


class CallFailedError(Exception):
    """A webhook gave no answer that counts; the text says why."""


class Webhooks:
    """What both plugins need of their server. `condition` says whether a hook's conditions hold for a write."""

    def __init__(
        self,
        caches: Caches,
        encodings: Encodings,
        schemas: SchemaSet,
        client: WebhookClient,
        world: World,
    ) -> None:
        self.metrics = WebhookMetrics()
        self.caches = caches
        self.encodings = encodings
        self.schemas = schemas
        self.client = client
        self.world = world

    async def call(self, hook: Hook, attributes: Attributes, shown: Shown, *, mutating: bool) -> Answer:
        """Ask, take down what the answer says beside yes and no, and count.  Raises CallFailedError; StatusError for a
        refusal."""
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

    async def _ask(self, hook: Hook, attributes: Attributes, shown: Shown, *, mutating: bool) -> Answer:
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
        return answer

    async def shown(self, kind: Kind, attributes: Attributes) -> Shown:
        """The objects of a write in the version of a kind.  Raises StatusError."""
        return Shown(
            kind,
            await self._bytes(kind, attributes, attributes.obj),
            await self._bytes(kind, attributes, attributes.old),
        )

    async def _bytes(self, kind: Kind, attributes: Attributes, obj: Obj | None) -> bytes:
        if obj is None:
            return b"null"
        group, version, name = reviews.object_kind(attributes.kind, attributes.subresource)
        api_version = f"{group}/{version}" if group else version
        rest = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata")}
        data = orjson.dumps({"apiVersion": api_version, "kind": name, "metadata": obj.get("metadata"), **rest})
        source = attributes.kind
        if not self.is_own(attributes) or not isinstance(kind, ServedKind) or not isinstance(source, ServedKind):
            return data
        return await self._converted(source, kind, data)

    async def _converted(self, source: ServedKind, target: ServedKind, data: bytes) -> bytes:
        """Bytes of an object of one kind as another version's."""
        if source is target:
            return data
        if target.is_storage:
            return _head_first(await self.encodings.stored(source, decode(data)))
        return await self.encodings.data(target, data)

    @staticmethod
    def is_own(attributes: Attributes) -> bool:
        """Whether what is written is an object of the kind, and none of another one by a subresource."""
        resource = attributes.kind.resource
        own = (resource.group, resource.version, resource.kind)
        return reviews.object_kind(attributes.kind, attributes.subresource) == own and attributes.operation != "CONNECT"

    async def patched(self, attributes: Attributes, shown: Shown, answer: Answer) -> bool:
        """Do what an answer's patch says; whether that changed anything.  Raises StatusError 500."""
        obj, kind = attributes.obj, attributes.kind
        assert obj is not None
        own = self.is_own(attributes) and isinstance(kind, ServedKind)
        before = shown.obj if not own or shown.kind is kind else await self._bytes(kind, attributes, obj)
        try:
            made = json_patch(decode(shown.obj), answer.patch)
            if not isinstance(made, dict) or not isinstance(made.get("metadata", {}), dict):
                raise bad_request("the patched object is no object")
            self._decode(shown.kind, attributes, made)
        except StatusError as error:
            raise internal(error.message) from error
        if self.is_own(attributes) and isinstance(kind, ServedKind):
            if isinstance(shown.kind, ServedKind) and shown.kind is not kind:
                made = decode(await self._converted(shown.kind, kind, _head_first(made)))
            if kind.compiled is not None:
                kind.compiled.default(made)
            kind.strategy.defaults(made)
        obj.clear()
        obj.update(made)
        after = await self._bytes(kind, attributes, obj)
        # The same in another order is no change.
        return after != before and (len(after) != len(before) or _sorted(after) != _sorted(before))

    def _decode(self, kind: Kind, attributes: Attributes, made: Obj) -> None:
        """Types checked, unknown fields dropped.  Raises StatusError."""
        if self.is_own(attributes):
            compiled = kind.compiled if isinstance(kind, ServedKind) else None
        else:
            definition = definition_name(*reviews.object_kind(kind, attributes.subresource))
            compiled = self.schemas.compile(definition) if definition in self.schemas else None
        if compiled is not None:
            compiled.decode(made)


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
        found = invocations(self._hooks, kind, operation, subresource)
        self._invocations[key] = (kind, found)
        return found

    def _asked(self, attributes: Attributes) -> Sequence[Invocation]:
        return self._matching(attributes.asked, attributes.operation, attributes.subresource)

    def _selects(self, hook: Hook, attributes: Attributes) -> bool:
        """Raises StatusError: 404 for a namespace that is not there, 403 where a condition cannot be told."""
        if not hook.namespaces.matches_everything:
            labels = self._namespace_labels(attributes)
            if labels is not None and not hook.namespaces.matches(labels):
                return False
        if not hook.objects.matches_everything and not any(
            hook.objects.matches((obj.get("metadata") or {}).get("labels"))
            for obj in (attributes.obj, attributes.old)
            if obj is not None and "metadata" in obj
        ):
            return False
        return self._conditions_hold(hook, attributes)

    def _conditions_hold(self, hook: Hook, attributes: Attributes) -> bool:
        if not hook.conditions:
            return True
        resource = attributes.asked.resource
        why = "match conditions cannot be evaluated by this server"
        raise forbidden(resource.plural, resource.group, attributes.name, why)

    def _namespace_labels(self, attributes: Attributes) -> Mapping[str, str] | None:
        """Those of the namespace that a write is in; None where it is in none."""
        resource, obj = attributes.asked.resource, attributes.obj
        if resource == NAMESPACES and not attributes.subresource and obj is not None:
            found: Mapping[str, str] = obj["metadata"].get("labels") or {}
            return found
        name = reviews.request_namespace(attributes)
        if not name:
            return None
        cached = self._webhooks.caches.of(NAMESPACES).get("", name)
        if cached is None:
            raise not_found("namespaces", "", name)
        return cached.labels


class MutatingAdmissionWebhook(_WebhookPlugin):
    """Those that may change what is written."""

    name = "MutatingAdmissionWebhook"
    configurations = MUTATING_WEBHOOK_CONFIGURATIONS

    async def mutate(self, attributes: Attributes) -> None:
        rounds: _Rounds = attributes.state.setdefault(self.name, _Rounds())
        if attributes.again:
            rounds.begin_again(attributes.obj)
        shown: Shown | None = None
        for index, invocation in enumerate(self._asked(attributes)):
            hook = invocation.hook
            if not self._selects(hook, attributes) or (attributes.again and hook not in rounds.once_more):
                continue
            if shown is None or shown.kind is not invocation.kind:
                shown = await self._webhooks.shown(invocation.kind, attributes)
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
            answer = await self._webhooks.call(hook, attributes, shown, mutating=True)
            if answer.patch:
                if attributes.obj is None:
                    why = "attempted to modify the object, which is not supported for this operation"
                    raise internal(f'admission webhook "{hook.name}" {why}')
                changed = await self._webhooks.patched(attributes, shown, answer)
                self._note("patch", number, index, attributes, hook, {"patch": answer.patch, "patchType": "JSONPatch"})
        except CallFailedError as error:
            _failed(hook, error)
            attributes.annotations[_FAILED_OPEN.format("mutation", number, index)] = hook.name
        finally:
            self._note("mutation", number, index, attributes, hook, {"mutated": changed})
        return changed

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
            if self._selects(invocation.hook, attributes)
        ]
        shown: dict[int, Shown] = {}
        for _, invocation in chosen:
            if id(invocation.kind) not in shown:
                shown[id(invocation.kind)] = await self._webhooks.shown(invocation.kind, attributes)
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


class _Rounds:
    """Which webhooks are to be asked once more: those that want to be and were asked before something changed."""

    def __init__(self) -> None:
        self.called: list[Hook] = []
        self.once_more: set[Hook] = set()
        self._last = b""

    def changed(self) -> None:
        self.once_more.update(self.called)
        self.called.clear()

    def ended(self, obj: Obj | None) -> None:
        if self.called or self.once_more:
            self._last = orjson.dumps(obj)

    def begin_again(self, obj: Obj | None) -> None:
        if self.called and orjson.dumps(obj) != self._last:
            # By a plugin of the server's own.
            self.changed()


def _failed(hook: Hook, error: CallFailedError) -> None:
    """Raises StatusError 500 unless the webhook's answer may be done without."""
    if hook.closed:
        raise internal(f'failed calling webhook "{hook.name}": {error}') from error
    log.warning('failed calling webhook "%s", going on without it: %s', hook.name, error)


def _head_first(obj: Obj) -> bytes:
    rest = {name: value for name, value in obj.items() if name not in ("apiVersion", "kind", "metadata")}
    head = {"apiVersion": obj.get("apiVersion"), "kind": obj.get("kind"), "metadata": obj["metadata"]}
    return orjson.dumps({**head, **rest})


def _sorted(data: bytes) -> bytes:
    return orjson.dumps(orjson.loads(data), option=orjson.OPT_SORT_KEYS)
