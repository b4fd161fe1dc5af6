"""The expressions of admission: what those of policies and webhooks' match conditions can speak of.

In: expressions of an object.  Out: what is wrong with them, in Kubernetes' words, and programs that admission runs. The
variables of an environment are in the order of `NAMES`; `Values` of a request come in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

from navarch.api.cel.environment import Environment, Program
from navarch.api.cel.errors import CompileError
from navarch.api.cel.schemas import time_of
from navarch.api.cel.types import (
    BOOL,
    DYN,
    INT,
    NULL,
    STRING,
    TIMESTAMP,
    Field,
    ObjectType,
    Type,
    list_of,
    map_of,
    object_type,
)
from navarch.api.errors import FieldError, invalid_value

AUTHORIZER: Final = "kubernetes.authorization.Authorizer"
RESOURCE_CHECK: Final = "kubernetes.authorization.ResourceCheck"
JSON_PATCH: Final = "JSONPatch"


def _fields(types: Mapping[str, Type]) -> dict[str, Field]:
    return {name: Field(kind, name, time_of if kind == TIMESTAMP else None) for name, kind in types.items()}


def _object(name: str, types: Mapping[str, Type]) -> ObjectType:
    return object_type(name, _fields(types))


_KIND: Final = _object("kubernetes.GroupVersionKind", {"group": STRING, "version": STRING, "kind": STRING})
_RESOURCE: Final = _object("kubernetes.GroupVersionResource", {"group": STRING, "version": STRING, "resource": STRING})
_USER: Final = _object(
    "kubernetes.UserInfo",
    {"username": STRING, "uid": STRING, "groups": list_of(STRING), "extra": map_of(STRING, list_of(STRING))},
)
REQUEST: Final = _object(
    "kubernetes.AdmissionRequest",
    {
        "kind": _KIND,
        "resource": _RESOURCE,
        "subResource": STRING,
        "requestKind": _KIND,
        "requestResource": _RESOURCE,
        "requestSubResource": STRING,
        "name": STRING,
        "namespace": STRING,
        "operation": STRING,
        "userInfo": _USER,
        "dryRun": BOOL,
        "options": DYN,
    },
)
_CONDITION: Final = _object(
    "kubernetes.NamespaceCondition",
    {"status": STRING, "type": STRING, "lastTransitionTime": TIMESTAMP, "message": STRING, "reason": STRING},
)
NAMESPACE: Final = _object(
    "kubernetes.Namespace",
    {
        "metadata": _object(
            "kubernetes.NamespaceMetadata",
            {
                "name": STRING,
                "generateName": STRING,
                "namespace": STRING,
                "labels": map_of(STRING, STRING),
                "annotations": map_of(STRING, STRING),
                "UID": STRING,
                "creationTimestamp": TIMESTAMP,
                "deletionGracePeriodSeconds": INT,
                "deletionTimestamp": TIMESTAMP,
                "generation": INT,
                "resourceVersion": STRING,
                "finalizers": list_of(STRING),
            },
        ),
        "spec": _object("kubernetes.NamespaceSpec", {"finalizers": list_of(STRING)}),
        "status": _object("kubernetes.NamespaceStatus", {"conditions": list_of(_CONDITION), "phase": STRING}),
    },
)
_BASE: Final[Mapping[str, Type]] = {
    "object": DYN,
    "oldObject": DYN,
    "namespaceObject": NAMESPACE,
    "request": REQUEST,
}
_AUTHORIZING: Final[Mapping[str, Type]] = {
    "authorizer": object_type(AUTHORIZER, {}),
    "authorizer.requestResource": object_type(RESOURCE_CHECK, {}),
}
# The order of a request's values; an environment that lacks one of the variables is given its value all the same.
NAMES: Final = (*_BASE, *_AUTHORIZING, "params", "variables")

_PATCH: Final = _object(JSON_PATCH, {"op": STRING, "path": STRING, "from": STRING, "value": DYN})
PATCHES: Final = list_of(_PATCH)
CONFIGURATION: Final = object_type("Object", {})


def _any(name: str) -> Type:
    return DYN


def _patch_types(name: str) -> Type | None:
    """`JSONPatch`, `Object`, and `Object.spec.template`: any field of the object that is patched."""
    if name == JSON_PATCH:
        return _PATCH
    if name == "Object" or name.startswith("Object."):
        return object_type(name, {}, any_field=_any)
    return None


class AdmissionEnvironment(Environment):
    """An environment whose frame has the place of every variable there may be."""

    def __init__(self, variables: Mapping[str, Type], *, mutating: bool = False) -> None:
        super().__init__(variables, _patch_types if mutating else _none, patching=mutating)
        self.names = NAMES

    def with_variables(self, variables: Mapping[str, Type]) -> AdmissionEnvironment:
        """The environment of expressions that can use these variables of their policy."""
        kind = _object("kubernetes.variables", variables)
        return AdmissionEnvironment({**self.variables, "variables": kind}, mutating=self._patching)


def _none(name: str) -> Type | None:
    return None


@lru_cache
def environment(*, params: bool = False, authorizing: bool = True, mutating: bool = False) -> AdmissionEnvironment:
    variables = {**_BASE, **(_AUTHORIZING if authorizing else {}), **({"params": DYN} if params else {})}
    return AdmissionEnvironment(variables, mutating=mutating)


def typed_environment(obj: Type, params: Type | None) -> AdmissionEnvironment:
    """Of expressions about objects, and parameters, whose types are known."""
    typed = {"object": obj, "oldObject": obj, **({"params": params} if params is not None else {})}
    return AdmissionEnvironment({**_BASE, **_AUTHORIZING, **typed})


class ExpressionError(Exception):
    """An expression that cannot be used; the text is what is wrong with it."""


def compiled(environment: Environment, expression: str, *wanted: Type) -> Program:
    """Raises ExpressionError."""
    try:
        program = environment.compile(expression)
    except CompileError as error:
        raise ExpressionError(f"compilation failed: {error}") from None
    if wanted and program.type not in wanted and not any(_same(program.type, each) for each in wanted):
        names = " ".join(str(each) for each in wanted)
        shown = names if len(wanted) == 1 else f"one of [{names}]"
        raise ExpressionError(f"must evaluate to {shown} but got {program.type}")
    return program


def _same(found: Type, wanted: Type) -> bool:
    """Objects of one name are of one type, whatever is known of their fields."""
    return str(found) == str(wanted)


def problems(environment: Environment, expression: str, path: str, *wanted: Type) -> Iterator[FieldError]:
    """What is wrong with an expression of an object."""
    try:
        compiled(environment, expression, *wanted)
    except ExpressionError as error:
        yield invalid_value(path, expression, str(error))


def condition_problems(expression: str, path: str, *, params: bool = False) -> Iterator[FieldError]:
    """What is wrong with a match condition's expression."""
    yield from problems(environment(params=params), expression.strip(), path, BOOL)


MESSAGE: Final[Sequence[Type]] = (STRING,)
ANNOTATION: Final[Sequence[Type]] = (STRING, NULL)
