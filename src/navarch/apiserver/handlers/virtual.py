"""Kinds that are answered rather than stored: reviews of tokens and of access, component statuses, bindings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from navarch.api import apply as managed
from navarch.api.errors import StatusError, bad_request, invalid, method_not_allowed, not_found, unknown_path
from navarch.api.meta import Obj, Resource
from navarch.api.table import render
from navarch.apiserver import decoding
from navarch.apiserver.admitting import CREATE, admission
from navarch.apiserver.auth.base import Decision, RequestAttributes, TokenRefused, Unresolved
from navarch.apiserver.call import Call, warning_headers
from navarch.apiserver.core import Core
from navarch.apiserver.handlers.objects import Objects
from navarch.apiserver.negotiation import respond_obj
from navarch.apiserver.user import User
from navarch.client.transport import Response
from navarch.kinds import resources as r
from navarch.kinds.base import NAME, Column
from navarch.store.base import StoreUnavailable

Handler = Callable[[Call], Awaitable[Response]]

# What Kubernetes calls the first store that it is told of.
_STORE = "etcd-0"

# As Kubernetes says it of what none of those that it asks knows.
_NO_TOKEN = "invalid bearer token"
_COMPONENT_COLUMNS = (
    NAME,
    Column("Status", lambda obj, now: _condition(obj, "status")),
    Column("Message", lambda obj, now: _condition(obj, "message")),
    Column("Error", lambda obj, now: _condition(obj, "error")),
)


def _condition(obj: Obj, field: str) -> str:
    condition = obj["conditions"][0]
    if field == "status":
        return "Healthy" if condition["status"] == "True" else "Unhealthy"
    return str(condition.get(field) or "")


class Virtual:
    def __init__(self, core: Core, objects: Objects, bind: Handler) -> None:
        self._core = core
        self._objects = objects
        self._create: dict[Resource, Handler] = {
            r.BINDINGS: bind,
            r.TOKEN_REVIEWS: self._token_review,
            r.SELF_SUBJECT_REVIEWS: self._self_subject_review,
            r.SUBJECT_ACCESS_REVIEWS: self._subject_access_review,
            r.LOCAL_SUBJECT_ACCESS_REVIEWS: self._local_access_review,
            r.SELF_SUBJECT_ACCESS_REVIEWS: self._self_access_review,
            r.SELF_SUBJECT_RULES_REVIEWS: self._self_rules_review,
        }

    def find(self, call: Call) -> Handler:
        """Raises StatusError 404, 405."""
        resource = call.kind.resource
        if resource == r.COMPONENT_STATUSES and call.verb in ("get", "list"):
            return self._component_statuses
        if call.verb != "create":
            raise method_not_allowed()
        handler = self._create.get(resource)
        if handler is None:
            raise unknown_path()
        return handler

    def _read(self, call: Call) -> Obj:
        review = decoding.decode_object(self._core, call.kind, call.request, call.warnings)
        review.setdefault("spec", {})
        return review

    async def _admitted(self, call: Call, check: Callable[[Obj], None] = lambda review: None) -> Obj:
        """What is asked, after admission, which takes questions for objects that are made.  Raises StatusError."""
        review = self._read(call)
        decoding.check_namespace(review, call.kind, call.namespace)
        had_metadata = "metadata" in review
        review.setdefault("metadata", {})
        async with admission(
            self._core.admission, call.origin(), call.kind, CREATE, namespace=call.namespace, name="", obj=review
        ) as admitted:
            review = await admitted.mutate(review) or review
            check(review)
            await admitted.validate(review)
            admitted.landed(review)
        if not had_metadata and not review["metadata"]:
            del review["metadata"]
        return review

    async def _asked(self, call: Call) -> Obj:
        """A question that makes sense.  Raises StatusError 400, 403, 422."""

        def check(review: Obj) -> None:
            errors = list(call.kind.strategy.validate(review, None))
            if errors:
                # Kubernetes names no kind here.
                raise invalid("", call.kind.resource.group, "", errors)

        return await self._admitted(call, check)

    def _answer(self, call: Call, review: Obj, status: Obj) -> Response:
        compiled = call.kind.compiled
        if compiled is not None:
            managed.update_managed_fields(
                None,
                review,
                compiled.root,
                manager=call.manager,
                api_version=call.kind.resource.api_version,
                subresource="",
                now=self._core.now_text(),
            )
        return respond_obj(call.form, {**review, "status": status}, 201, warning_headers(call.warnings))

    # Who is it

    async def _token_review(self, call: Call) -> Response:
        review = await self._admitted(call, _check_token)
        token = review["spec"]["token"]
        audiences = tuple(review["spec"].get("audiences") or ())
        try:
            user, accepted = await self._core.authenticator.review_token(token, audiences)
        except TokenRefused as error:
            return self._answer(call, review, {"user": {}, "error": f"[{_NO_TOKEN}, {error.why}]"})
        except StatusError:
            return self._answer(call, review, {"user": {}, "error": _NO_TOKEN})
        status: Obj = {"authenticated": True, "user": user.info()}
        if accepted:
            status["audiences"] = list(accepted)
        return self._answer(call, review, status)

    async def _self_subject_review(self, call: Call) -> Response:
        review = await self._admitted(call)
        answer = {
            "kind": review["kind"],
            "apiVersion": review["apiVersion"],
            "metadata": {"creationTimestamp": self._core.now_text()},
            "status": {"userInfo": call.user.info()},
        }
        return respond_obj(call.form, answer, 201, warning_headers(call.warnings))

    # May they

    async def _self_access_review(self, call: Call) -> Response:
        review = await self._asked(call)
        decision = await self._core.decide(call.user, _attributes(review["spec"]))
        return self._answer(call, review, _status(decision))

    async def _subject_access_review(self, call: Call) -> Response:
        return await self._reviewed(call, await self._asked(call))

    async def _local_access_review(self, call: Call) -> Response:
        return await self._reviewed(call, await self._asked(call))

    async def _reviewed(self, call: Call, review: Obj) -> Response:
        spec = review["spec"]
        name, groups = spec.get("user") or "", spec.get("groups") or []
        extra = {key: tuple(values) for key, values in (spec.get("extra") or {}).items()}
        user = User(name, tuple(groups), spec.get("uid") or "", extra)
        return self._answer(call, review, _status(await self._core.decide(user, _attributes(spec))))

    async def _self_rules_review(self, call: Call) -> Response:
        review = await self._admitted(call, _check_namespace)
        namespace = review["spec"]["namespace"]
        resource_rules, path_rules = self._core.authorizer.rules(call.user, namespace)
        status = {"resourceRules": resource_rules, "nonResourceRules": path_rules, "incomplete": False}
        problems = self._core.authorizer.unresolved(call.user, namespace)
        if self._core.deciding is not None:
            problems = [*problems, Unresolved("webhook authorizer does not support user rule resolution", partly=True)]
        if problems:
            # Somebody who does not say what it would allow may allow more than this.
            status["incomplete"] = any(problem.partly for problem in problems)
            texts = [problem.text for problem in problems]
            status["evaluationError"] = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
        answer = {
            "kind": review["kind"],
            "apiVersion": review["apiVersion"],
            "metadata": {},
            "spec": {},
            "status": status,
        }
        return respond_obj(call.form, answer, 201, warning_headers(call.warnings))

    # Component statuses

    async def _component_statuses(self, call: Call) -> Response:
        known = {**self._core.components, _STORE: self._store_problem}
        if call.route.name:
            if call.route.name not in known:
                raise not_found("componentstatuses", "", call.route.name)
            known = {call.route.name: known[call.route.name]}
        problems = await asyncio.gather(*(probe() for probe in known.values()))
        items = [_component(name, problem) for name, problem in zip(known, problems, strict=True)]
        if call.form.transform == "Table":
            table = render(_COMPONENT_COLUMNS, [(item, None) for item in items], self._core.now())
            table["metadata"] = {}
            return respond_obj(call.form, table, 200, warning_headers(call.warnings))
        headers = warning_headers(call.warnings)
        if call.route.name:
            return respond_obj(call.form, items[0], 200, headers)
        untyped = [{"metadata": item["metadata"], "conditions": item["conditions"]} for item in items]
        answer = {"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": untyped}
        return respond_obj(call.form, answer, 200, headers)

    async def _store_problem(self) -> str:
        try:
            await self._core.caches.store.revision()
        except StoreUnavailable as error:
            return str(error)
        return ""


def _component(name: str, problem: str) -> Obj:
    condition = {"type": "Healthy", "status": "True", "message": "ok"}
    if problem:
        condition = {"type": "Healthy", "status": "False", "message": "", "error": problem}
    return {"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name}, "conditions": [condition]}


def _check_token(review: Obj) -> None:
    if not review["spec"].get("token"):
        raise bad_request("token is required for TokenReview in authentication")


def _check_namespace(review: Obj) -> None:
    if not review["spec"].get("namespace"):
        raise bad_request("no namespace on request")


def _attributes(spec: Obj) -> RequestAttributes:
    """What a review asks about."""
    resource: Any = spec.get("resourceAttributes")
    path: Any = spec.get("nonResourceAttributes")
    if path is not None:
        return RequestAttributes((path.get("verb") or "").lower(), path=path.get("path") or "")
    return RequestAttributes(
        resource.get("verb") or "",
        resource.get("group") or "",
        resource.get("version") or "",
        resource.get("resource") or "*",
        resource.get("subresource") or "",
        resource.get("namespace") or "",
        resource.get("name") or "",
        "",
        _field_selector(resource.get("fieldSelector") or {}),
    )


def _field_selector(stated: Obj) -> str:
    """As a list's query would have it."""
    terms = [
        f"{term.get('key', '')}={term['values'][0]}"
        for term in stated.get("requirements") or ()
        if term.get("operator") == "In" and len(term.get("values") or ()) == 1
    ]
    return stated.get("rawSelector") or ",".join(terms)


def _status(decision: Decision) -> Obj:
    status: Obj = {"allowed": decision.allowed}
    if decision.denied:
        status["denied"] = True
    if decision.reason:
        status["reason"] = decision.reason
    return status
