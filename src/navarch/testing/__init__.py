"""What people build their tests on: `EmbeddedCluster` for tests that have an event loop, `ServedCluster` for those
that have none, and the pytest plugin with a fixture for each.

The names are loaded when they are used: pytest loads this package in every project that has Navarch installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from navarch.testing.embedded import ComponentFailed, EmbeddedCluster
    from navarch.testing.served import ServedCluster

__all__ = ["ComponentFailed", "EmbeddedCluster", "ServedCluster"]


def __getattr__(name: str) -> Any:
    if name == "ServedCluster":
        from navarch.testing.served import ServedCluster

        return ServedCluster
    if name in __all__:
        from navarch.testing import embedded

        return getattr(embedded, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
