"""What a mutation makes of an object: its expression's value as a patch, or as a configuration that is merged.

In: the object in the version that the policy looks at, the value.  Out: another object.  Raises MutationError with
Kubernetes' words.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from navarch.api.cel.values import Duration, Message, Optional, Timestamp, type_name
from navarch.api.errors import StatusError
from navarch.api.merge import merged
from navarch.api.meta import Obj
from navarch.api.patch import json_patch
from navarch.api.patch_failures import TEST_FAILED, failure
from navarch.api.strategic import SchemaNodeLike, child_node
from navarch.api.typed import problems


class MutationError(Exception):
    """The mutation does not fit; the text says why."""


def json_value(value: Any) -> Any:
    """The JSON for a CEL value.  Raises MutationError."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return int(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): json_value(each) for key, each in value.items()}
    if isinstance(value, list):
        return [json_value(each) for each in value]
    if isinstance(value, (Timestamp, Duration)):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Optional):
        return json_value(value.value) if value.present else None
    raise MutationError(
        "JSONPath valueExpression evaluated to a type that could not marshal to JSON: "
        f"unsupported type: {type_name(value)}"
    )


def check_type_names(value: Any, path: str = "Object") -> None:
    """An object is made by the name of its place: `Object.spec{…}` only as the field `spec` of the whole.  Raises
    MutationError."""
    if isinstance(value, Message):
        if value.type_name != path:
            raise MutationError(
                f'type mismatch: unexpected type name "{value.type_name}", expected "{path}", which matches field name '
                "path from root Object type"
            )
        for name, each in value.items():
            check_type_names(each, f"{path}.{name}")
    elif isinstance(value, list):
        for each in value:
            check_type_names(each, path)
    elif isinstance(value, dict):
        for each in value.values():
            check_type_names(each, path)


# Configurations


def applied(obj: Obj, value: Any, node: SchemaNodeLike | None) -> Obj:
    """The object with an ApplyConfiguration merged into it: as server-side apply merges, but owned by nobody."""
    check_type_names(value)
    configuration: Obj = json_value(value)
    if wrong := problems(configuration, node):
        raise MutationError(f"error applying patch: failed to convert patch object to typed object: {wrong}")
    atomic = list(_atomic(configuration, node, ""))
    if atomic:
        raise MutationError(
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: "
            + ", ".join(atomic)
        )
    return merged(obj, configuration, node)


def _atomic(value: Any, node: SchemaNodeLike | None, path: str) -> Iterator[str]:
    """What would be replaced as a whole, though only a part of it may be meant."""
    if node is None or node.preserve_unknown:
        return
    if isinstance(value, dict):
        if node.atomic:
            yield path
        for name, each in value.items():
            yield from _atomic(each, child_node(node, name), f"{path}.{name}")
    elif isinstance(value, list):
        if node.kind == "array" and node.list_type not in ("map", "set"):
            yield path
        for index, each in enumerate(value):
            yield from _atomic(each, node.items, f"{path}[{index}]")


# Patches


def patched(obj: Obj, value: Any) -> Obj:
    """The object with the operations of a JSONPatch done. A `test` that fails leaves the object as it is."""
    operations = [_operation(each) for each in value]
    try:
        return json_patch(obj, operations)
    except StatusError as error:
        why = failure(obj, operations) or error.message
        if why.endswith(TEST_FAILED):
            return obj
        raise MutationError(f"JSON Patch: {why}") from None


def _operation(value: Any) -> Obj:
    check_type_names_of_value(value)
    operation: Obj = {name: json_value(value[name]) for name in ("op", "path") if name in value}
    operation.setdefault("op", "")
    operation.setdefault("path", "")
    if value.get("from"):
        operation["from"] = value["from"]
    if "value" in value:
        operation["value"] = json_value(value["value"])
    return operation


def check_type_names_of_value(operation: Any) -> None:
    held = operation.get("value")
    if isinstance(held, Message):
        check_type_names(held, held.type_name)
