"""What the expressions of ValidatingAdmissionPolicies make of the types of the resources that they are for.

In: policies, and the schemas of what is served, custom resources included.  Out: `status.typeChecking`, with a warning
per expression that cannot work on a type, and `status.observedGeneration`. A warning refuses nothing: what a write
carries is only known when it comes. In Kubernetes this is a controller's; here it is done as soon as a policy is
written, by the server that has the schemas, and every now and then for those that were left (`sweep`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from navarch.api.cel.environment import Environment
from navarch.api.cel.errors import CompileError
from navarch.api.cel.openapi import object_type_of
from navarch.api.cel.types import Type
from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.apiserver.admission.base import Attributes, Plugin
from navarch.apiserver.served import Served, ServedKind
from navarch.client.base import Client
from navarch.kinds.admissionregistration.expressions import AdmissionEnvironment, typed_environment
from navarch.kinds.resources import VALIDATING_ADMISSION_POLICIES

log = logging.getLogger(__name__)

SWEEP_EVERY_S: Final = 10.0
_MANAGER: Final = "validatingadmissionpolicy-status"
_MOST_TYPES: Final = 10
_POLICIES: Final = VALIDATING_ADMISSION_POLICIES


class TypeChecking(Plugin):
    """A plugin, because it is told of every policy that is written."""

    name = "ValidatingAdmissionPolicyStatus"
    resources = frozenset({(_POLICIES.group, _POLICIES.plural)})

    def __init__(self, served: Callable[[], Served], client: Client) -> None:
        self._served = served
        self._client = client
        self._types: dict[ServedKind, Type | None] = {}

    async def committed(self, attributes: Attributes, stored: Obj) -> None:
        await self._look_at(stored)

    async def sweep(self) -> None:
        """Those that nobody has looked at since they were last written."""
        if self._served().by_path(_POLICIES.group, _POLICIES.version, _POLICIES.plural) is None:
            return
        for policy in (await self._client.list(_POLICIES))[0]:
            await self._look_at(policy)

    async def _look_at(self, policy: Obj) -> None:
        generation = policy["metadata"].get("generation", 0)
        if (policy.get("status") or {}).get("observedGeneration") == generation:
            return
        warnings = self._warnings(policy.get("spec") or {})
        said = {
            "apiVersion": _POLICIES.api_version,
            "kind": _POLICIES.kind,
            "metadata": {"name": policy["metadata"]["name"]},
            "status": {
                "observedGeneration": generation,
                "typeChecking": {"expressionWarnings": warnings} if warnings else {},
            },
        }
        try:
            await self._client.apply(_POLICIES, said, field_manager=_MANAGER, force=True, subresource="status")
        except StatusError as error:
            # Deleted meanwhile; or the next sweep tries again.
            log.info("the types of policy %s were not noted: %s", policy["metadata"]["name"], error)

    def _warnings(self, spec: Obj) -> list[Obj]:
        kinds = self._kinds(spec)
        if len(self._types) > 2 * _MOST_TYPES:
            self._types.clear()
        params = self._param_type(spec.get("paramKind"))
        environments = [
            (_shown(kind), _with_variables(typed_environment(found, params), spec.get("variables") or ()))
            for kind in kinds
            if (found := self._type(kind)) is not None
        ]
        warnings: list[Obj] = []
        for index, validation in enumerate(spec.get("validations") or ()):
            for field in ("expression", "messageExpression"):
                wrong = list(_wrong(validation.get(field) or "", environments))
                if wrong:
                    path = f"spec.validations[{index}].{field}"
                    warnings.append({"fieldRef": path, "warning": "\n".join(wrong)})
        return warnings

    def _kinds(self, spec: Obj) -> Sequence[ServedKind]:
        """What the rules name without asterisks, sorted; no more than a few."""
        served = self._served()
        found: dict[ServedKind, None] = {}
        for group, version, plural in _named((spec.get("matchConstraints") or {}).get("resourceRules") or ()):
            kind = served.by_path(group, version, plural)
            if kind is not None and len(found) < _MOST_TYPES:
                found[kind] = None
        return sorted(found, key=lambda kind: (kind.resource.group, kind.resource.version, kind.resource.kind))

    def _param_type(self, kind: Obj | None) -> Type | None:
        if kind is None:
            return None
        group, _, version = str(kind.get("apiVersion") or "").rpartition("/")
        found = self._served().by_kind(group, version, str(kind.get("kind") or ""))
        return self._type(found) if found is not None else None

    def _type(self, kind: ServedKind) -> Type | None:
        schemas, name = kind.schemas, kind.definition
        if schemas is None or name is None:
            return None
        if kind not in self._types:
            self._types[kind] = object_type_of(
                schemas.definition(name), lambda each: schemas.definition(each) if each in schemas else None
            )
        return self._types[kind]


def _named(rules: Iterable[Obj]) -> Iterator[tuple[str, str, str]]:
    for rule in rules:
        groups, versions = rule.get("apiGroups") or (), rule.get("apiVersions") or ()
        if any("*" in each for each in (*groups, *versions)):
            continue
        plurals = sorted(each for each in rule.get("resources") or () if "*" not in each and "/" not in each)
        for group in sorted(groups):
            for version in sorted(versions):
                for plural in plurals:
                    yield group, version, plural


def _shown(kind: ServedKind) -> str:
    resource = kind.resource
    return f"{resource.group}/{resource.version}, Kind={resource.kind}"


def _with_variables(environment: AdmissionEnvironment, variables: Sequence[Obj]) -> AdmissionEnvironment:
    """With the types that the policy's variables have by these types; of a variable that has none nothing is known."""
    known: dict[str, Type] = {}
    if variables:
        environment = environment.with_variables(known)
    for variable in variables:
        try:
            known[str(variable.get("name"))] = environment.compile(str(variable.get("expression") or "")).type
        except CompileError:
            continue
        environment = environment.with_variables(known)
    return environment


def _wrong(expression: str, environments: Sequence[tuple[str, Environment]]) -> Iterator[str]:
    for kind, environment in environments if expression.strip() else ():
        try:
            environment.compile(expression)
        except CompileError as error:
            yield f"{kind}: {error}\n"
