"""ConfigMap: keys that fit file names, at most 1 MiB in all, and never changed once `immutable`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from navarch.api.errors import FieldError, forbidden_field, invalid_value, too_long
from navarch.api.meta import Obj
from navarch.api.validation import config_map_key_problems
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.strategies import strategy

LIMIT_BYTES: Final = 1024 * 1024
_FROZEN: Final = "field is immutable when `immutable` is set"


def decoded_size(encoded: str) -> int:
    """How many bytes a base64 text stands for."""
    return len(encoded) * 3 // 4 - encoded[-2:].count("=")


def validate_data_keys(data: Mapping[str, Any], path: str) -> Iterator[FieldError]:
    for key in data:
        for problem in config_map_key_problems(key):
            yield invalid_value(f"{path}[{key}]", key, problem)


def validate_frozen(obj: Obj, old: Obj, fields: tuple[str, ...]) -> Iterator[FieldError]:
    """An object that was made `immutable` keeps that and its data."""
    if not old.get("immutable"):
        return
    if not obj.get("immutable"):
        yield forbidden_field("immutable", _FROZEN)
    for field in fields:
        if (obj.get(field) or {}) != (old.get(field) or {}):
            yield forbidden_field(field, _FROZEN)


def _data_cell(obj: Obj, now: datetime) -> int:
    return len(obj.get("data") or ()) + len(obj.get("binaryData") or ())


@strategy("", "ConfigMap")
class ConfigMapStrategy(Strategy):
    columns = (NAME, Column("Data", _data_cell, description="How many keys it has"), AGE)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        if old is not None:
            yield from validate_frozen(obj, old, ("data", "binaryData"))
        data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
        yield from validate_data_keys(data, "data")
        for key in data:
            if key in binary:
                yield invalid_value(f"data[{key}]", key, "duplicate of key present in binaryData")
        yield from validate_data_keys(binary, "binaryData")
        size = sum(len(value.encode()) for value in data.values()) + sum(map(decoded_size, binary.values()))
        if size > LIMIT_BYTES:
            yield too_long("[]", LIMIT_BYTES)
