"""What all tests share: property tests have no deadline per example, as a busy machine says nothing about the code."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("navarch", deadline=None)
settings.load_profile("navarch")
