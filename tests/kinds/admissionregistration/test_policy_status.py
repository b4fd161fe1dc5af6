"""What a controller says of an admission policy's types: of which field, as a path."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kinds.writing import updated

AT = "status.typeChecking.expressionWarnings[0]"


@pytest.mark.parametrize(
    ("warning", "problems"),
    [
        ({"fieldRef": "spec.validations[0].expression", "warning": "odd"}, []),
        ({"fieldRef": " ", "warning": "odd"}, [f"{AT}.fieldRef: Required value"]),
        ({"fieldRef": "spec.variables"}, [f"{AT}.warning: Required value"]),
        ({"fieldRef": "spec.validations[0", "warning": "odd"}, [f"{AT}.fieldRef: Invalid value"]),
    ],
)
def test_a_warning_names_a_field(warning: Any, problems: list[str]) -> None:
    stored = {"metadata": {"name": "p"}, "spec": {"validations": [{"expression": "true"}]}}
    checked = {**stored, "status": {"typeChecking": {"expressionWarnings": [warning]}}}

    found = updated("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", stored, checked, "status")[1]

    assert [error[: len(start)] for error, start in zip(found, problems, strict=True)] == problems
