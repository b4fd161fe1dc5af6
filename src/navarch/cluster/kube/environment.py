"""What the programs of `navarch envtest` are told by the environment, because harnesses have no flags for it."""

from __future__ import annotations

import os
from typing import Final

from navarch.api.version import DEFAULT_VERSION

CONTROLLERS: Final = "NAVARCH_ENVTEST_CONTROLLERS"
VERSION: Final = "NAVARCH_KUBERNETES_VERSION"
# What envtest lacks most.
_USUAL: Final = ("garbage-collector", "namespace")


def kubernetes_version() -> str:
    return os.environ.get(VERSION) or DEFAULT_VERSION


def controllers_wanted() -> tuple[str, ...]:
    """The controllers that shall run within kube-apiserver; `true` stands for those that envtest lacks most."""
    stated = os.environ.get(CONTROLLERS, "").strip()
    if stated.lower() in ("", "0", "false", "no"):
        return ()
    if stated.lower() in ("1", "true", "yes"):
        return _USUAL
    return tuple(name.strip() for name in stated.split(",") if name.strip())
