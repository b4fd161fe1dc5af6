"""The version of Kubernetes that is served unless another is asked for; apart, for who needs no schemas."""

from __future__ import annotations

from typing import Final

DEFAULT_VERSION: Final = "1.37"
