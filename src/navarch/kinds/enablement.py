"""Which versions of the built-in groups are served: stable ones, and what `--runtime-config` switches on and off.

In: the settings as Kubernetes spells them, `api/all=true`, `api/beta=true`, `resource.k8s.io/v1beta1=true`,
`apps/v1=false`.  Out: a `RuntimeConfig`, which answers for each group and version. What is said of a single version
counts for more than what is said of all of a stability.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Final

from navarch.records import frozen

_VERSION: Final = re.compile(r"v[0-9]+(?:(alpha|beta)[0-9]+)?")
# In this order each overrides the one before.
_STABILITIES: Final = {
    "api/all": ("ga", "beta", "alpha"),
    "api/ga": ("ga",),
    "api/beta": ("beta",),
    "api/alpha": ("alpha",),
}
_BOOLEANS: Final = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True", ""), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}


def stability_of(version: str) -> str:
    """`ga`, `beta` or `alpha`."""
    match = _VERSION.fullmatch(version)
    return (match.group(1) if match else "alpha") or "ga"


@frozen
class RuntimeConfig:
    """Settings by name: `api/…` and `<group>/<version>` (`v1` alone is the core group's)."""

    settings: Mapping[str, bool] = field(default_factory=dict)

    def enabled(self, group: str, version: str) -> bool:
        """Whether a version of a built-in group is served."""
        said = self.settings.get(f"{group}/{version}" if group else version)
        if said is None and not group:
            said = self.settings.get(f"api/{version}")
        if said is not None:
            return said
        stability = stability_of(version)
        on = stability == "ga"
        for name, meant in _STABILITIES.items():
            if name in self.settings and stability in meant:
                on = self.settings[name]
        return on

    def check(self, known: Iterable[tuple[str, str]]) -> None:
        """Raises ValueError where a group is named that there is not, or a version that is to be on."""
        versions = set(known)
        groups = {group for group, _ in versions}
        for name, on in self.settings.items():
            if name in _STABILITIES:
                continue
            group, _, version = name.rpartition("/")
            group = "" if group == "api" else group
            if group not in groups:
                raise ValueError(f"unknown api groups {group}")
            if on and (group, version) not in versions:
                raise ValueError(f"group version {name} that has not been registered")

    def texts(self) -> list[str]:
        """The settings as `parse` reads them."""
        return [f"{name}={'true' if on else 'false'}" for name, on in self.settings.items()]


def parse(texts: Iterable[str]) -> RuntimeConfig:
    """From the values of `--runtime-config`, each one or more settings with commas between.  Raises ValueError."""
    settings: dict[str, bool] = {}
    for text in texts:
        for setting in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = setting.partition("=")
            if value not in _BOOLEANS:
                raise ValueError(f"invalid value of {name}: {value}, must be true or false")
            if name not in _STABILITIES and not _VERSION.fullmatch(name.rpartition("/")[2]):
                raise ValueError(f"invalid name {name}: must be api/all, api/ga, api/beta, api/alpha or group/version")
            settings[name] = _BOOLEANS[value]
    if settings == {"api/all": False}:
        raise ValueError("invalid key with only api/all=false")
    return RuntimeConfig(settings)


DEFAULT: Final = RuntimeConfig()
EVERYTHING: Final = RuntimeConfig({"api/all": True})
