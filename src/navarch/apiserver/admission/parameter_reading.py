"""Who writes an admission policy has to be allowed to read its parameters: a policy says what is in them.

In: a policy that names a kind of parameters, or a binding that refers to some, on its way to the store.  Out: the same,
or 422. For a policy it takes the verb `get` on all objects of that kind, for a binding on those that it refers to.
"""

from __future__ import annotations

from typing import Final

from navarch.api.errors import forbidden_field, invalid
from navarch.api.go_text import go_text
from navarch.api.meta import Obj, Resource
from navarch.apiserver.admission.base import Attributes, Plugin, Reader
from navarch.apiserver.auth.base import Decide, RequestAttributes
from navarch.apiserver.policies.params import Params, ParamsError
from navarch.apiserver.user import User
from navarch.kinds.resources import (
    MUTATING_ADMISSION_POLICIES,
    MUTATING_ADMISSION_POLICY_BINDINGS,
    VALIDATING_ADMISSION_POLICIES,
    VALIDATING_ADMISSION_POLICY_BINDINGS,
)

_MASTERS: Final = "system:masters"
_POLICIES: Final = (VALIDATING_ADMISSION_POLICIES, MUTATING_ADMISSION_POLICIES)
_POLICY_OF: Final[dict[str, Resource]] = {
    VALIDATING_ADMISSION_POLICY_BINDINGS.plural: VALIDATING_ADMISSION_POLICIES,
    MUTATING_ADMISSION_POLICY_BINDINGS.plural: MUTATING_ADMISSION_POLICIES,
}


class ParameterReading(Plugin):
    """Without an authorizer everybody may read everything."""

    name = "AdmissionPolicyParameters"
    resources = frozenset(
        (each.group, plural) for each in _POLICIES for plural in (each.plural, f"{each.plural[:-3]}ybindings")
    )

    def __init__(self, reader: Reader, authorize: Decide, params: Params) -> None:
        self._reader = reader
        self._authorize = authorize
        self._params = params

    async def validate(self, attributes: Attributes) -> None:
        obj = attributes.obj
        if obj is None or _MASTERS in attributes.user.groups:
            return
        spec = obj.get("spec") or {}
        policies = _POLICY_OF.get(attributes.kind.resource.plural)
        if policies is None:
            kind = spec.get("paramKind")
            if kind is None or kind == ((attributes.old or {}).get("spec") or {}).get("paramKind"):
                return
            await self._require(
                attributes,
                "spec.paramKind",
                self._reading(kind, "*", "*"),
                'must have "get" permission on all objects of the referenced paramKind '
                f"(kind={kind.get('kind', '')}, apiVersion={kind.get('apiVersion', '')})",
            )
            return
        ref = spec.get("paramRef")
        if ref is None:
            return
        policy = self._reader.get(policies, "", str(spec.get("policyName") or ""))
        kind = ((policy or {}).get("spec") or {}).get("paramKind")
        await self._require(
            attributes,
            "spec.paramRef",
            self._reading(kind, str(ref.get("namespace") or ""), str(ref.get("name") or "")),
            'does not have "get" permission on the object referenced by paramRef',
        )

    def _reading(self, kind: Obj | None, namespace: str, name: str) -> RequestAttributes:
        """Of everything where it is not known of what."""
        if kind is None:
            return RequestAttributes("get", "*", "*", "*", "", namespace, name)
        group, _, version = str(kind.get("apiVersion") or "").rpartition("/")
        try:
            plural = self._params.kind(kind).resource.plural
        except ParamsError:
            plural = "*"
        return RequestAttributes("get", group, version, plural, "", namespace, name)

    async def _require(self, attributes: Attributes, field: str, asked: RequestAttributes, words: str) -> None:
        if (await self._authorize(attributes.user, asked)).allowed:
            return
        assert attributes.obj is not None
        name = attributes.name or attributes.obj["metadata"].get("name", "")
        error = forbidden_field(field, f"user {_shown(attributes.user)} {words}")
        raise invalid(attributes.kind.resource.kind, attributes.kind.resource.group, name, [error])


def _shown(user: User) -> str:
    """As Go prints it."""
    extra = {key: list(values) for key, values in user.extra.items()}
    return f"&{{{user.name} {user.uid} {go_text(list(user.groups))} {go_text(extra)}}}"
