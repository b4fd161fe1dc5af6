"""Numbers and texts as Kubernetes' decoder takes them, and what it says of those that it does not.

In: a JSON value.  Out: what to store for it, in its canonical form, or `DecodeError`, whose message grows its field
path while it unwinds through `schema_decode.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from navarch.api import quantity
from navarch.api.errors import StatusError, bad_request
from navarch.api.schema_scalars import ScalarError, canonical_micro_time, canonical_time, check_base64

# Checks a value and returns what to store for it.
Scalar = Callable[[Any], Any]
_INT32: Final = 2**31
_INT64: Final = 2**63
META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."
QUANTITY: Final = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_INT_OR_STRING: Final = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"


class DecodeError(Exception):
    """`value` cannot become Go's `go_type`; `message` replaces the usual wording where set."""

    def __init__(self, value: Any, go_type: str, message: str = "") -> None:
        super().__init__(message)
        self.value = value
        self.go_type = go_type
        self.message = message
        self.struct = ""
        self.steps: list[str] = []

    def at(self, struct: str, step: str) -> DecodeError:
        """The error seen from one struct further out."""
        if not self.struct:
            self.struct = struct
        self.steps.append(step)
        return self

    def __str__(self) -> str:
        if self.message:
            return self.message
        where = "value"
        if self.struct:
            where = f"struct field {self.struct}.{'.'.join(reversed(self.steps))}"
        return f"json: cannot unmarshal {json_kind(self.value, self.go_type)} into Go {where} of type {self.go_type}"


def json_kind(value: Any, go_type: str) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return f"number {value!r}" if go_type.startswith(("int", "float")) else "number"
    return _JSON_KINDS.get(type(value), "null")


def decode_failure(error: DecodeError, version: str, kind: str) -> StatusError:
    """The 400 that a client reads."""
    return bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {error}')


def _int32(value: Any) -> Any:
    if type(value) is not int or not -_INT32 <= value < _INT32:
        raise DecodeError(value, "int32")
    return value


def _int64(value: Any) -> Any:
    if type(value) is not int or not -_INT64 <= value < _INT64:
        raise DecodeError(value, "int64")
    return value


def _double(value: Any) -> Any:
    if type(value) is not int and type(value) is not float:
        raise DecodeError(value, "float64")
    return value


def _int_or_string(value: Any) -> Any:
    if type(value) is not str and (type(value) is not int or not -_INT32 <= value < _INT32):
        kind = json_kind(value, "int32")
        raise DecodeError(value, "int32", f"json: cannot unmarshal {kind} into Go value of type int32")
    return value


def _amount(canonical: Callable[[Any], str]) -> Scalar:
    """A quantity, in the form that is stored."""

    def decode(value: Any) -> Any:
        if type(value) is not str and type(value) is not int and type(value) is not float:
            raise DecodeError(value, "", quantity.WRONG_FORMAT)
        try:
            return canonical(value)
        except ValueError as error:
            raise DecodeError(value, "", str(error)) from None

    return decode


_quantity: Final = _amount(quantity.canonical)
resource_amount: Final = _amount(quantity.canonical_resource)
"""A quantity in a list of resources."""


def _text_scalar(convert: Callable[[str], str]) -> Scalar:
    """A scalar that is a JSON string with a format of its own."""

    def check(value: Any) -> Any:
        if type(value) is not str:
            kind = json_kind(value, "string")
            raise DecodeError(value, "string", f"json: cannot unmarshal {kind} into Go value of type string")
        try:
            return convert(value)
        except ScalarError as error:
            raise DecodeError(value, "", str(error)) from None

    return check


def anything(value: Any) -> Any:
    return value


RAW: Final = "io.k8s.apimachinery.pkg.runtime.RawExtension"
NAMED_SCALARS: Final[Mapping[str, Scalar]] = {
    QUANTITY: _quantity,
    _INT_OR_STRING: _int_or_string,
    META + "Time": _text_scalar(canonical_time),
    META + "MicroTime": _text_scalar(canonical_micro_time),
    # Any JSON, though its schema says that it is an object.
    RAW: anything,
}
FORMATS: Final[Mapping[tuple[str, str], Scalar]] = {
    ("integer", "int32"): _int32,
    ("integer", "int64"): _int64,
    ("integer", ""): _int64,
    ("number", "double"): _double,
    ("number", "float"): _double,
    ("number", ""): _double,
    ("string", "byte"): _text_scalar(check_base64),
    ("string", "date-time"): _text_scalar(canonical_time),
}
_JSON_KINDS: Final[Mapping[type, str]] = {str: "string", list: "array", dict: "object"}
