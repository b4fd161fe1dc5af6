"""What the expressions of admission are given of a write, and how they are evaluated without holding others up.

In: a write's attributes, the kind in whose version its objects are looked at, parameters.  Out: the values of the
variables, in the order of the admission environment; and whatever a function makes of an `Evaluation` with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from navarch.api.cel.functions.authorizer import Authorizer, Decision, Question, request_resource
from navarch.api.meta import Obj
from navarch.apiserver.admission.base import Attributes, Reader
from navarch.apiserver.admission.versions import Looked, Versions
from navarch.apiserver.auth.base import Decide, RequestAttributes
from navarch.apiserver.auth.base import Decision as Decided
from navarch.apiserver.policies.conditions import Conditions
from navarch.apiserver.policies.evaluation import (
    CONDITIONS_BUDGET,
    QUICK,
    Evaluation,
    Expression,
    TooDearError,
    hold,
)
from navarch.apiserver.user import User
from navarch.apiserver.webhooks.reviews import request_of
from navarch.kinds.base import Kind
from navarch.kinds.resources import NAMESPACES
from navarch.world import World

T = TypeVar("T")
AtOnce = Callable[[User, RequestAttributes], Decided | None]
# What others have said of what was asked in one write, by the user's name.
Answers = dict[tuple[str, RequestAttributes], Decided]
_NO_VARIABLES: Final[Mapping[str, Expression]] = {}
_BUDGET_OF_POLICY: Final = CONDITIONS_BUDGET * 4
_SHOWN_OF_NAMESPACE: Final = (
    "name", "generateName", "namespace", "labels", "annotations", "uid", "creationTimestamp",
    "deletionGracePeriodSeconds", "deletionTimestamp", "generation", "resourceVersion", "finalizers",
)  # fmt: skip


class UnansweredError(Exception):
    """An expression asks what others have to be asked."""

    def __init__(self, user: User, asked: RequestAttributes, answers: Answers) -> None:
        super().__init__("not answered yet")
        self.user = user
        self.asked = asked
        self.answers = answers


class Requests:
    """`at_once` answers what `authorizer` is asked, None where that takes asking others: then `decide` does."""

    def __init__(self, reader: Reader, versions: Versions, at_once: AtOnce, decide: Decide, world: World) -> None:
        self._reader = reader
        self._versions = versions
        self._at_once = at_once
        self._decide = decide
        self._world = world
        self.clock = world.monotonic

    async def conditions_hold(
        self, conditions: Conditions, attributes: Attributes, kind: Kind, params: Obj | None = None
    ) -> bool:
        """Whether a write is one that all conditions are for.  Raises EvaluationError, StatusError."""
        values = self.values(attributes, await self._versions.looked_at(kind, attributes), params)
        if kind is not attributes.asked:
            # Conditions see the object and its kind in the version of the rule, but what was asked for as it was.
            *before, request, authorizer, resource, parameters = values
            values = (*before, {**request, "resource": request["requestResource"]}, authorizer, resource, parameters)
        return await self.evaluated(
            lambda evaluation: hold(conditions, evaluation), values, _NO_VARIABLES, CONDITIONS_BUDGET
        )

    def values(self, attributes: Attributes, looked: Looked, params: Obj | None) -> tuple[Any, ...]:
        """All but `variables`."""
        answers: Answers = {}
        authorizer = Authorizer(lambda account, question: self._answer(attributes.user, account, question, answers))
        resource = attributes.asked.resource
        request = request_of(attributes, looked.kind)
        namespace = request.get("namespace", "")
        return (
            looked.obj,
            looked.old,
            self._namespace(attributes, namespace),
            {**request, "dryRun": attributes.dry_run, "options": attributes.options or None},
            authorizer,
            request_resource(
                authorizer, resource.group, resource.plural, attributes.subresource, namespace, attributes.name
            ),
            params,
        )

    def _namespace(self, attributes: Attributes, name: str) -> Obj | None:
        """What is shown of the namespace that a write is in; nothing of one that is itself written."""
        if not name or attributes.asked.resource == NAMESPACES:
            return None
        found = self._reader.get(NAMESPACES, "", name)
        if found is None:
            return None
        metadata = {each: found["metadata"][each] for each in _SHOWN_OF_NAMESPACE if each in found["metadata"]}
        return {"metadata": metadata, "spec": found.get("spec") or {}, "status": found.get("status") or {}}

    def _answer(self, user: User, account: tuple[str, str] | None, question: Question, answers: Answers) -> Decision:
        """Raises UnansweredError."""
        if account is not None:
            namespace, name = account
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
            user = User(f"system:serviceaccount:{namespace}:{name}", groups)
        asked = RequestAttributes(
            question.verb,
            question.group,
            "*" if question.resource else "",
            question.resource,
            question.subresource,
            question.namespace,
            question.name,
            question.path,
            question.field_selector,
        )
        decision = self._at_once(user, asked)
        if decision is None:
            key = (user.name, asked)
            if key not in answers:
                raise UnansweredError(user, asked, answers)
            decision = answers[key]
        return Decision(decision.allowed, decision.reason)

    async def evaluated(
        self,
        function: Callable[[Evaluation], T],
        values: tuple[Any, ...],
        variables: Mapping[str, Expression],
        budget: int = _BUDGET_OF_POLICY,
    ) -> T:
        """What the function makes of the values. What takes longer than a moment is begun anew beside the event loop:
        expressions change nothing.  Raises EvaluationError."""
        quick: int | None = QUICK
        while True:
            evaluation = Evaluation(values, variables, self.clock, quick=quick, budget=budget)
            try:
                if quick is not None:
                    return function(evaluation)
                return await self._world.in_thread(function, evaluation)
            except TooDearError:
                quick = None
            except UnansweredError as waiting:
                # Each turn has one answer more; what an expression can ask is bounded by what it may cost.
                key = (waiting.user.name, waiting.asked)
                waiting.answers[key] = await self._decide(waiting.user, waiting.asked)
