"""MutatingAdmissionPolicy and ValidatingAdmissionPolicy: expressions that are objects of the cluster may change or
refuse a write.

Policies and their bindings are followed: they are compiled when they change, and where none names a kind, its writes do
not come here at all. The errors of a policy count by its failure policy, the failures of its validations by what each
binding says: refused, warned of, or noted for the audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from functools import partial
from typing import Any, Final, NamedTuple

import orjson

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, Resource
from navarch.apiserver.admission.base import Attributes, Plugin
from navarch.apiserver.admission.rounds import Rounds
from navarch.apiserver.admission.selection import selects
from navarch.apiserver.admission.versions import Looked, Versions
from navarch.apiserver.caches import Caches
from navarch.apiserver.policies.evaluation import (
    Evaluation,
    EvaluationError,
    Expression,
    OutOfBudgetError,
    hold,
)
from navarch.apiserver.policies.matching import Candidates
from navarch.apiserver.policies.metrics import PolicyMetrics
from navarch.apiserver.policies.model import Binding, Policy, Validation, policies_of
from navarch.apiserver.policies.mutations import MutationError, applied, patched
from navarch.apiserver.policies.params import Params, ParamsError
from navarch.apiserver.policies.requests import Requests
from navarch.apiserver.policies.typechecking import TypeChecking
from navarch.apiserver.webhooks.hooks import relatives
from navarch.apiserver.webhooks.reviews import request_namespace
from navarch.kinds.base import Kind
from navarch.kinds.resources import (
    MUTATING_ADMISSION_POLICIES,
    MUTATING_ADMISSION_POLICY_BINDINGS,
    VALIDATING_ADMISSION_POLICIES,
    VALIDATING_ADMISSION_POLICY_BINDINGS,
)
from navarch.records import frozen, mutable

_REMEMBERED: Final = 8192
_LONGEST_MESSAGE: Final = 5 * 1024
_LONGEST_ANNOTATION: Final = 10 * 1024
_FAILURE: Final = "validation.policy.admission.k8s.io/validation_failure"
_CODES: Final = {"Forbidden": 403, "Unauthorized": 401, "RequestEntityTooLarge": 413, "Invalid": 422}


@frozen
class Policies:
    """What both plugins need of their server."""

    caches: Caches
    versions: Versions
    requests: Requests
    params: Params
    types: TypeChecking
    metrics: PolicyMetrics = field(default_factory=PolicyMetrics)


class _Matched(NamedTuple):
    """A policy whose rules name a kind, and its bindings that do."""

    policy: Policy
    candidates: Candidates
    bindings: tuple[tuple[Binding, Candidates | None], ...]


class _Invocation(NamedTuple):
    """A policy to be evaluated for a write by one binding, with one object of parameters or none."""

    policy: Policy
    binding: Binding
    kind: Kind
    params: Obj | None


class _Failure(NamedTuple):
    """Why a write is refused; `binding` is None where the policy itself is at fault."""

    policy: Policy
    binding: Binding | None
    message: str
    reason: str = "Invalid"


class _PolicyPlugin(Plugin):
    """Which policies a write is for."""

    operations = frozenset({"CREATE", "UPDATE", "DELETE", "CONNECT"})
    subresources = None
    policies: Resource
    bindings: Resource

    def __init__(self, policies: Policies) -> None:
        self._server = policies
        self._compiled: Sequence[Policy] | None = None
        # With the kind itself, so that nothing else can have its number.
        self._matched: dict[tuple[int, str, str], tuple[Kind, Sequence[_Matched]]] = {}
        self._changed: list[Callable[[], None]] = []
        known = policies.caches.by_resource()
        # None in a version of Kubernetes that has no such policies.
        self._caches = [known.get((each.group, each.plural)) for each in (self.policies, self.bindings)]
        for cache in self._caches:
            if cache is not None:
                cache.listeners.append(lambda change: self._forget())

    def follow(self, changed: Callable[[], None]) -> None:
        self._changed.append(changed)

    def _forget(self) -> None:
        self._compiled = None
        self._matched.clear()
        for changed in self._changed:
            changed()

    def forget_kinds(self) -> None:
        self._matched.clear()

    def concerns(self, kind: Kind, operation: str, subresource: str) -> bool:
        return any(self._matching(asked, operation, subresource) for asked in (kind, *relatives(kind)))

    def _matching(self, kind: Kind, operation: str, subresource: str) -> Sequence[_Matched]:
        if self._compiled is None:
            policies, bindings = (
                [cached.obj() for cached in cache.items("")] if cache is not None else [] for cache in self._caches
            )
            self._compiled = policies_of(policies, bindings)
        if not self._compiled:
            return ()
        key = (id(kind), operation, subresource)
        known = self._matched.get(key)
        if known is not None:
            return known[1]
        if len(self._matched) >= _REMEMBERED:
            self._matched.clear()
        found = list(_matched(self._compiled, kind, operation, subresource))
        self._matched[key] = (kind, found)
        return found

    async def _invocations(self, attributes: Attributes) -> list[_Invocation | _Failure]:
        """What is to be evaluated, or why it cannot be, in order.  Raises StatusError."""
        found: list[_Invocation | _Failure] = []
        caches, name = self._server.caches, attributes.name
        for policy, candidates, bindings in self._matching(
            attributes.asked, attributes.operation, attributes.subresource
        ):
            kind = candidates.kind_for(name)
            if kind is None or not selects(caches, policy.matcher.namespaces, policy.matcher.objects, attributes):
                continue
            try:
                param_kind = self._server.params.kind(policy.param_kind) if policy.param_kind else None
            except ParamsError as error:
                found.append(_Failure(policy, None, f"failed to configure policy: {error}"))
                continue
            for binding, its in bindings:
                matcher = binding.matcher
                if matcher is not None and (
                    its is None
                    or its.kind_for(name) is None
                    or not selects(caches, matcher.namespaces, matcher.objects, attributes)
                ):
                    continue
                try:
                    namespace = request_namespace(attributes)
                    params = await self._server.params.of(param_kind, binding.params, namespace)
                except ParamsError as error:
                    found.append(_Failure(policy, binding, f"failed to configure binding: {error}"))
                    continue
                found += [_Invocation(policy, binding, kind, each) for each in params]
        return found


def _matched(policies: Sequence[Policy], kind: Kind, operation: str, subresource: str) -> Iterator[_Matched]:
    for policy in policies:
        candidates = policy.matcher.candidates(kind, operation, subresource)
        if candidates is None:
            continue
        bindings: list[tuple[Binding, Candidates | None]] = []
        for binding in policy.bindings:
            if binding.matcher is None:
                bindings.append((binding, None))
            elif (its := binding.matcher.candidates(kind, operation, subresource)) is not None:
                bindings.append((binding, its))
        if bindings:
            yield _Matched(policy, candidates, tuple(bindings))


class ValidatingAdmissionPolicy(_PolicyPlugin):
    """Refuses what a validation says no to."""

    name = "ValidatingAdmissionPolicy"
    policies = VALIDATING_ADMISSION_POLICIES
    bindings = VALIDATING_ADMISSION_POLICY_BINDINGS

    async def validate(self, attributes: Attributes) -> None:
        denied: list[_Failure] = []
        looked: dict[int, Looked] = {}
        notes: dict[str, list[str]] = {}
        for each in await self._invocations(attributes):
            if isinstance(each, _Failure):
                denied += [each] if each.policy.closed else []
                continue
            policy, binding, kind, params = each
            if id(kind) not in looked:
                looked[id(kind)] = await self._server.versions.looked_at(kind, attributes)
            values = self._server.requests.values(attributes, looked[id(kind)], params)
            found = await self._server.requests.evaluated(
                partial(_judged, policy),
                values,
                policy.variables,
            )
            denied += _act(found, policy, binding, attributes, self._server.metrics)
            for key, value in found.annotations:
                shown = value.encode()[:_LONGEST_ANNOTATION].decode(errors="ignore")
                notes.setdefault(f"{policy.name}/{key}", []).append(shown)
        for key, noted in notes.items():
            attributes.annotations[key] = ", ".join(dict.fromkeys(noted))
        if denied:
            raise _refusal(denied[0], attributes)


class _Failed(NamedTuple):
    """A validation that says no, or that could not be evaluated: that has no reason."""

    number: int
    message: str
    reason: str = ""
    seconds: float = 0.0


@mutable
class _Verdict:
    """What a policy says of a write, and annotations for the audit log."""

    failures: list[_Failed] = field(default_factory=list)
    # What a policy that fails open passes over.
    ignored: list[_Failed] = field(default_factory=list)
    # Refuse whatever the binding's actions are.
    broken: list[str] = field(default_factory=list)
    annotations: list[tuple[str, str]] = field(default_factory=list)


def _judged(policy: Policy, evaluation: Evaluation) -> _Verdict:
    """Raises TooDearError."""
    verdict = _Verdict()
    try:
        if not hold(policy.conditions, evaluation):
            return verdict
        for index, validation in enumerate(policy.validations):
            _judge(index, validation, policy, evaluation, verdict)
        for key, expression in policy.annotations:
            _annotate(key, expression, policy, evaluation, verdict)
    except EvaluationError as error:
        failed = [_Failed(0, str(error))]
        return _Verdict(failures=failed) if policy.closed else _Verdict(ignored=failed)
    return verdict


def _judge(index: int, validation: Validation, policy: Policy, evaluation: Evaluation, verdict: _Verdict) -> None:
    started = evaluation.clock()
    errors = verdict.failures if policy.closed else verdict.ignored
    try:
        if evaluation.value(validation.expression) is True:
            return
    except OutOfBudgetError:
        raise
    except EvaluationError as error:
        errors.append(_Failed(index, str(error), "", evaluation.clock() - started))
        return
    try:
        message = _message(validation, evaluation)
    except OutOfBudgetError as error:
        errors.append(_Failed(index, f"failed messageExpression: {error}", "", evaluation.clock() - started))
        return
    verdict.failures.append(_Failed(index, message, validation.reason, evaluation.clock() - started))


def _message(validation: Validation, evaluation: Evaluation) -> str:
    """As the expression words it, if it does; else as the policy says; else the expression itself."""
    if validation.worded is not None:
        try:
            value = evaluation.value(validation.worded)
        except OutOfBudgetError:
            raise
        except EvaluationError:
            value = None
        text = value.strip() if isinstance(value, str) else ""
        if text and "\n" not in text and len(text.encode()) <= _LONGEST_MESSAGE:
            return text
    return validation.message or f"failed expression: {validation.expression.text.strip()}"


def _annotate(key: str, expression: Expression, policy: Policy, evaluation: Evaluation, verdict: _Verdict) -> None:
    try:
        value = evaluation.value(expression)
    except OutOfBudgetError:
        raise
    except EvaluationError as error:
        if policy.closed:
            verdict.broken.append(str(error))
        return
    if isinstance(value, str) and value.strip():
        verdict.annotations.append((key, value.strip()))


def _act(
    verdict: _Verdict, policy: Policy, binding: Binding, attributes: Attributes, metrics: PolicyMetrics
) -> Iterator[_Failure]:
    """What the binding makes of failures: those that are refusals are given back."""

    def count(failed: _Failed, action: str) -> None:
        metrics.validated(policy.name, binding.name, action, "" if failed.reason else failed.message, failed.seconds)

    for failed in verdict.ignored:
        count(failed, "allow")
    for failed in verdict.failures:
        if "Deny" in binding.actions:
            count(failed, "deny")
            yield _Failure(policy, binding, failed.message, failed.reason or "Invalid")
        if "Warn" in binding.actions:
            count(failed, "warn")
            where = f"ValidatingAdmissionPolicy '{policy.name}' with binding '{binding.name}'"
            attributes.warnings.append(f"Validation failed for {where}: {failed.message}")
        if "Audit" in binding.actions:
            count(failed, "audit")
            noted = {
                "message": failed.message,
                "policy": policy.name,
                "binding": binding.name,
                "expressionIndex": failed.number,
                "validationActions": list(binding.actions),
            }
            # The first is kept, as in Kubernetes.
            attributes.annotations.setdefault(_FAILURE, orjson.dumps([noted]).decode())
    for message in verdict.broken:
        metrics.validated(policy.name, binding.name, "deny", message, 0.0)
        yield _Failure(policy, binding, message)


def _refusal(failure: _Failure, attributes: Attributes) -> StatusError:
    bound = f" with binding '{failure.binding.name}'" if failure.binding is not None else ""
    message = f"ValidatingAdmissionPolicy '{failure.policy.name}'{bound} denied request: {failure.message}"
    error = attributes.refused(message)
    error.reason = failure.reason
    error.code = _CODES.get(failure.reason, 422)
    error.details = {**(error.details or {}), "causes": [{"message": message}]}
    return error


class _Key(NamedTuple):
    """What tells an invocation from others in its second round."""

    policy: str
    binding: str
    params: tuple[str, str]


class MutatingAdmissionPolicy(_PolicyPlugin):
    """Changes what its mutations say."""

    name = "MutatingAdmissionPolicy"
    policies = MUTATING_ADMISSION_POLICIES
    bindings = MUTATING_ADMISSION_POLICY_BINDINGS

    async def mutate(self, attributes: Attributes) -> None:
        rounds: Rounds[_Key] = attributes.state.setdefault(self.name, Rounds())
        if attributes.again:
            rounds.begin_again(attributes.obj)
        invocations = await self._invocations(attributes)
        failures = [each for each in invocations if isinstance(each, _Failure)]
        for invocation in invocations:
            if isinstance(invocation, _Failure):
                continue
            key = _key(invocation)
            if attributes.again and key not in rounds.once_more:
                continue
            try:
                changed = await self._mutate(invocation, attributes, failures)
            except EvaluationError as error:
                failures.append(_Failure(invocation.policy, invocation.binding, str(error)))
                continue
            if changed is None:
                continue
            if changed:
                rounds.changed()
                attributes.reinvoke = True
            if invocation.policy.reinvocable:
                rounds.called.append(key)
        rounds.ended(attributes.obj)
        refused = [failure for failure in failures if failure.policy.closed]
        if refused:
            raise _mutation_refusal(refused, attributes)

    async def _mutate(self, invocation: _Invocation, attributes: Attributes, failures: list[_Failure]) -> bool | None:
        """Whether the object was changed; None where the policy is not for it.  Raises EvaluationError, StatusError."""
        policy, binding, kind, params = invocation
        server, clock = self._server, self._server.requests.clock
        if policy.conditions and not await server.requests.conditions_hold(policy.conditions, attributes, kind, params):
            return None
        changed = False
        if attributes.obj is None:
            return changed
        for patch_type, expression in policy.mutations:
            looked = await server.versions.looked_at(kind, attributes)
            values = server.requests.values(attributes, looked, params)
            started, problem = clock(), ""
            try:
                value = await server.requests.evaluated(partial(_valued, expression), values, policy.variables)
                made = self._made(patch_type, value, looked, attributes)
            except (EvaluationError, MutationError) as error:
                problem = str(error)
                failures.append(_Failure(policy, binding, problem))
                continue
            finally:
                server.metrics.mutated(policy.name, binding.name, problem, clock() - started)
            shown = await server.versions.shown(kind, attributes)
            changed = await server.versions.adopt(attributes, shown, made) or changed
        return changed

    def _made(self, patch_type: str, value: Any, looked: Looked, attributes: Attributes) -> Obj:
        """Raises MutationError."""
        assert looked.obj is not None
        if patch_type == "JSONPatch":
            return patched(looked.obj, value)
        compiled = self._server.versions.schema(looked.kind, attributes)
        return applied(looked.obj, value, compiled.root if compiled is not None else None)


def _valued(expression: Expression, evaluation: Evaluation) -> Any:
    return evaluation.value(expression)


def _key(invocation: _Invocation) -> _Key:
    metadata = (invocation.params or {}).get("metadata") or {}
    params = (str(metadata.get("namespace") or ""), str(metadata.get("name") or ""))
    return _Key(invocation.policy.name, invocation.binding.name, params)


def _mutation_refusal(failures: Sequence[_Failure], attributes: Attributes) -> StatusError:
    messages = []
    for failure in failures:
        bound = f" with binding '{failure.binding.name}'" if failure.binding is not None else ""
        messages.append(f"policy '{failure.policy.name}'{bound} denied request: {failure.message}")
    error = attributes.refused("admission request denied by policy")
    error.message, error.reason = messages[0], "Invalid"
    error.details = {**(error.details or {}), "causes": [{"message": message} for message in messages]}
    return error
