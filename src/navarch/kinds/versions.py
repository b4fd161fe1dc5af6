"""Versions of groups in Kubernetes' order: v10, v2, v1, v1beta2, v1alpha1, then what is no version."""

from __future__ import annotations

import re
from typing import Final

_VERSION: Final = re.compile(r"v([1-9][0-9]*)(?:(alpha|beta)([1-9][0-9]*))?")
_STAGES: Final = {None: 0, "beta": 1, "alpha": 2}


def age(version: str) -> tuple[int, int, int, str]:
    """To sort by, the preferred version first."""
    matched = _VERSION.fullmatch(version)
    if matched is None:
        return (len(_STAGES), 0, 0, version)
    major, stage, minor = matched.groups()
    return (_STAGES[stage], -int(major), -int(minor or 0), version)
