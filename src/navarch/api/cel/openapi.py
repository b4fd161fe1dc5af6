"""CEL's types for what an OpenAPI document describes: definitions that refer to one another, some of them to
themselves.

In: a definition, and a function that knows all others by name.  Out: its type. A definition within itself has no type
there; what is an integer or a string, or has any form, is of type dyn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from navarch.api.cel.schemas import Declarations
from navarch.api.cel.types import Type
from navarch.api.meta import Obj

_PREFIX: Final = "#/components/schemas/"
_DEEPEST: Final = 32
Others = Callable[[str], Obj | None]
_INT_OR_STRING: Final[Obj] = {"x-kubernetes-int-or-string": True}


def object_type_of(definition: Obj, others: Others) -> Type | None:
    declared = Declarations().of(_resolved(definition, others, ()))
    return declared.type if declared is not None else None


def _resolved(schema: Any, others: Others, within: tuple[str, ...]) -> Obj:
    """The schema with what it refers to in place of the references."""
    if not isinstance(schema, dict) or len(within) > _DEEPEST:
        return {}
    parts: list[Obj] = schema.get("allOf") or []
    reference = schema.get("$ref") or (parts[0].get("$ref") if len(parts) == 1 else None)
    if reference:
        name = str(reference).removeprefix(_PREFIX)
        return {} if name in within else _resolved(others(name), others, (*within, name))
    if schema.get("format") == "int-or-string" or schema.get("x-kubernetes-int-or-string") or "oneOf" in schema:
        return _INT_OR_STRING
    found = {key: value for key, value in schema.items() if key not in ("properties", "items", "additionalProperties")}
    if "properties" in schema:
        found["properties"] = {name: _resolved(each, others, within) for name, each in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            found[key] = _resolved(schema[key], others, within)
    return found
