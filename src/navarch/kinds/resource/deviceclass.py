"""DeviceClass: devices that an administrator offers by name, with selectors and configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from navarch.api.errors import FieldError, invalid_value
from navarch.api.meta import Obj
from navarch.api.validation import qualified_name_problems
from navarch.kinds.base import Strategy
from navarch.kinds.resource.names import each
from navarch.kinds.resource.requests import MOST_CONFIGURATIONS
from navarch.kinds.resource.selectors import configuration_problems, selectors_problems
from navarch.kinds.strategies import strategy

_NATIVE: Final = "kubernetes.io"
_LONGEST_NAME: Final = 63


@strategy("resource.k8s.io", "DeviceClass")
class DeviceClassStrategy(Strategy):
    name_rule = "subdomain in bytes"
    has_generation = True
    returns_deleted = True

    def complete(self, obj: Obj) -> None:
        obj.setdefault("spec", {})

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec, before = obj.get("spec") or {}, (old or {}).get("spec") or {}
        selectors, configs = spec.get("selectors"), spec.get("config")
        same = old is not None and selectors == before.get("selectors")
        yield from selectors_problems(selectors, "spec.selectors", stored=same)
        same = old is not None and configs == before.get("config")

        def check(config: Obj, path: str) -> Iterator[FieldError]:
            yield from configuration_problems(config, path, stored=same)

        yield from each(configs, MOST_CONFIGURATIONS, check, "spec.config")
        name = spec.get("extendedResourceName")
        if name is not None and not _is_extended(name):
            yield invalid_value("spec.extendedResourceName", name, "must be a valid extended resource name")


def _is_extended(name: str) -> bool:
    """Whether containers may ask for a resource of this name beyond those that Kubernetes itself knows."""
    domain, slash, _ = name.partition("/")
    if not slash or domain == _NATIVE or domain.endswith(f".{_NATIVE}") or name.startswith("requests."):
        return False
    return not any(qualified_name_problems(f"requests.{name}"))
