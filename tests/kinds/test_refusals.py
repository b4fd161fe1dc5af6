"""Objects that are refused, kind by kind: each mistake with its field, reason and message, in Kubernetes' order.

The objects are in `refusals.yaml` beside each group's tests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kinds.refusals import errors_of


def _cases() -> list[Any]:
    found: list[Any] = []
    for path in sorted(Path(__file__).parent.glob("*/refusals.yaml")):
        for number, case in enumerate(yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)):
            found.append(pytest.param(case, id=f"{path.parent.name}-{case['kind'].partition('.')[0]}-{number}"))
    return found


@pytest.mark.parametrize("case", _cases())
def test_what_is_refused(case: Any) -> None:
    assert errors_of(case) == case["refused"]
