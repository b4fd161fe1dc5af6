"""What all tests share: property tests have no deadline per example, as a busy machine says nothing about the code, and
try the same examples each time, so that a run can be repeated."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("navarch", deadline=None, derandomize=True)
settings.load_profile("navarch")
