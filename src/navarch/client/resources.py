"""The built-in resources, for callers of `Client`: `client.list(PODS, "default")`."""

from __future__ import annotations

from navarch.kinds.resources import *  # noqa: F403
