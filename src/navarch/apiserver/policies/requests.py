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
from navarch.apiserver.admission.certificates import Authorize
from navarch.apiserver.admission.versions import Looked, Versions
from navarch.apiserver.auth.base import RequestAttributes
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
_NO_VARIABLES: Final[Mapping[str, Expression]] = {}
_BUDGET_OF_POLICY: Final = CONDITIONS_BUDGET * 4
_SHOWN_OF_NAMESPACE: Final = (
    "name", "generateName", "namespace", "labels", "annotations", "uid", "creationTimestamp",
    "deletionGracePeriodSeconds", "deletionTimestamp", "generation", "resourceVersion", "finalizers",
)  # fmt: skip


class Requests:
    """`authorize` answers what `authorizer` is asked."""

    def __init__(self, reader: Reader, versions: Versions, authorize: Authorize | None, world: World) -> None:
        self._reader = reader
        self._versions = versions
        self._authorize = authorize
        self._world = world
        self.clock = world.monotonic

    async def conditions_hold(
        self, conditions: Conditions, attributes: Attributes, kind: Kind, params: Obj | None = None
    ) -> bool:
        """Whether a write is one that all conditions are for.  Raises EvaluationError, StatusError."""
        values = self.values(attributes, await self._versions.looked_at(kind, attributes), params)
        return await self.evaluated(
            lambda evaluation: hold(conditions, evaluation), values, _NO_VARIABLES, CONDITIONS_BUDGET
        )

    def values(self, attributes: Attributes, looked: Looked, params: Obj | None) -> tuple[Any, ...]:
        """All but `variables`."""
        authorizer = Authorizer(lambda account, question: self._decide(attributes.user, account, question))
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

    def _decide(self, user: User, account: tuple[str, str] | None, question: Question) -> Decision:
        if self._authorize is None:
            return Decision(allowed=False, error="this server has no authorizer")
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
        decision = self._authorize(user, asked)
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
        clock = self.clock
        try:
            return function(Evaluation(values, variables, clock, quick=QUICK, budget=budget))
        except TooDearError:
            return await self._world.in_thread(
                lambda: function(Evaluation(values, variables, clock, quick=None, budget=budget))
            )
