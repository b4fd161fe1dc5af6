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
