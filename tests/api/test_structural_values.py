"""What schemas say of values: much of it is told where nobody waits."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.api.patience import TooLongError, impatiently
from navarch.api.structural_values import Values

MANY = 5_000
REQUIRED = Values({"type": "object", "required": [f"f{number}" for number in range(MANY)]})
ENUM = Values({"type": "string", "enum": [f"v{number}" for number in range(MANY)]})


@pytest.mark.parametrize(("schema", "value", "errors"), [(REQUIRED, {}, MANY), (ENUM, "w", 1)])
def test_what_takes_long_to_tell_is_not_told_where_others_wait(schema: Values, value: Any, errors: int) -> None:
    with pytest.raises(TooLongError):
        impatiently(schema.errors, value)

    assert len(schema.errors(value)) == errors


def test_what_fits_is_judged_at_once() -> None:
    assert impatiently(REQUIRED.errors, {f"f{number}": 1 for number in range(MANY)}) == []
    assert impatiently(ENUM.errors, "v7") == []


@pytest.mark.parametrize("value", [1, 1.0, True, "1", {"a": [1]}, [2]])
def test_values_of_any_type_can_be_listed(value: Any) -> None:
    schema = Values({"enum": [1, True, "1", {"a": [1]}, [2]]})

    assert schema.errors(value) == []


@pytest.mark.parametrize("value", [2, 0, False, "2", {"a": [2]}, [1]])
def test_a_value_that_is_not_listed_is_refused_whatever_its_type(value: Any) -> None:
    schema = Values({"enum": [1, True, "1", {"a": [1]}, [2]]})

    (error,) = schema.errors(value)

    assert error.detail == 'supported values: "1", "true", "1", "{\\"a\\":[1]}", "[2]"'


ASN = {"type": "integer", "format": "int32", "minimum": 0, "maximum": 4294967295}


def told(schema: Any, value: Any) -> list[str]:
    spec = {"type": "object", "properties": {"asn": schema}}
    errors = Values({"type": "object", "properties": {"spec": spec}}).errors({"spec": {"asn": value}})
    return [str(error) for error in errors]


def test_a_bound_beyond_the_numbers_of_its_format_is_told_of_every_value() -> None:
    beyond = '<nil>: Invalid value: "": Maximum boundary value must be of type integer with format int32 in spec.asn'

    assert told(ASN, 64512) == [beyond]
    assert told(ASN, 4200000000) == [
        '<nil>: Invalid value: "": Checked value must be of type integer with format int32 in spec.asn',
        beyond,
    ]
    assert told(ASN, 4294967296)[1:] == [
        beyond,
        "spec.asn: Invalid value: 4294967296: spec.asn in body should be less than or equal to 4.294967295e+09",
    ]
    assert told({**ASN, "format": "int64"}, 4200000000) == []
    assert told({**ASN, "format": "uint32"}, 4200000000) == []


@pytest.mark.parametrize(
    ("schema", "value", "problem"),
    [
        ({"type": "integer", "minimum": 0.5}, 1, "Minimum boundary value must be of type integer (default format)"),
        ({"type": "integer", "multipleOf": 0.5}, 1, "MultipleOf value must be of type integer (default format)"),
        ({"type": "integer", "maximum": 1e19}, 1, "Maximum boundary value must be of type integer (default format)"),
        ({"type": "number", "format": "float"}, 1e39, "Checked value must be of type number with format float"),
        ({"type": "number", "format": "float", "maximum": 1e39}, 1.5, "Maximum boundary value must be of type number"),
    ],
)
def test_bounds_that_are_no_numbers_of_the_type_are_told(schema: Any, value: Any, problem: str) -> None:
    (error,) = told(schema, value)

    assert problem in error


def test_fractions_and_large_numbers_are_bounds_of_numbers() -> None:
    assert told({"type": "number", "minimum": 0.5, "maximum": 1e300, "multipleOf": 0.5}, 1.5) == []
    assert told({"type": "number", "format": "double", "maximum": 1e300}, 1e299) == []
