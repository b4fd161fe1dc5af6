"""AdmissionConfiguration (`apiserver.config.k8s.io/v1`): settings of admission plugins.

In: Kubernetes' file.  Out: what PodSecurity does where a namespace says nothing, and for whom it does nothing at all.
Settings of plugins that have none here are accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Final

from navarch.api.config_files import TEXTS, ListOf, Shape, ShapeError, Struct, fit
from navarch.api.meta import Obj
from navarch.api.yaml_reader import load
from navarch.numbers import is_digits
from navarch.records import frozen

_VERSIONS: Final = ("apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1alpha1", "apiserver.k8s.io/v1alpha1")
_POD_SECURITY: Final = tuple(f"pod-security.admission.config.k8s.io/{version}" for version in ("v1", "v1beta1"))
_LEVELS: Final = ("privileged", "baseline", "restricted")
_MODES: Final = ("enforce", "audit", "warn")


_SHAPE: Final = {"plugins": ListOf(Struct({"name": str, "path": str, "configuration": object}))}
_DEFAULTS: Final = Struct({name: str for mode in _MODES for name in (mode, f"{mode}-version")})
_EXEMPTIONS: Final = Struct({"usernames": TEXTS, "runtimeClasses": TEXTS, "namespaces": TEXTS})
_POD_SECURITY_SHAPE: Final = {"defaults": _DEFAULTS, "exemptions": _EXEMPTIONS}


class AdmissionConfigError(ValueError):
    """The configuration cannot be used; the message says where and why."""


@frozen
class PodSecurityConfig:
    """`defaults` have level and version by mode, for the modes that ask for something."""

    defaults: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    users: frozenset[str] = frozenset()
    runtime_classes: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()


def read(path: Path) -> PodSecurityConfig:
    """Raises AdmissionConfigError."""
    document = _loaded(path)
    if document.get("apiVersion") not in _VERSIONS or document.get("kind") != "AdmissionConfiguration":
        raise AdmissionConfigError(f"{path} is no AdmissionConfiguration of apiserver.config.k8s.io/v1")
    _fit(document, _SHAPE)
    for plugin in document.get("plugins") or []:
        if plugin.get("name") == "PodSecurity":
            stated = plugin.get("configuration")
            return parse(stated if stated is not None else _loaded(path.parent / str(plugin.get("path") or "")))
    return PodSecurityConfig()


def _fit(document: Obj, shape: Mapping[str, Shape]) -> None:
    """Raises AdmissionConfigError."""
    try:
        fit(document, shape)
    except ShapeError as error:
        raise AdmissionConfigError(str(error)) from None


def _loaded(path: Path) -> Obj:
    try:
        document = load(path.read_bytes()).value
    except (OSError, ValueError) as error:
        raise AdmissionConfigError(f"unable to read admission control configuration from {path}: {error}") from None
    return document if isinstance(document, dict) else {}


def parse(stated: Any) -> PodSecurityConfig:
    """A PodSecurityConfiguration.  Raises AdmissionConfigError."""
    if (
        not isinstance(stated, dict)
        or stated.get("apiVersion") not in _POD_SECURITY
        or stated.get("kind") != "PodSecurityConfiguration"
    ):
        raise AdmissionConfigError(
            "PodSecurity: no PodSecurityConfiguration of pod-security.admission.config.k8s.io/v1"
        )
    _fit(stated, _POD_SECURITY_SHAPE)
    said, exempt = stated.get("defaults") or {}, stated.get("exemptions") or {}
    defaults: dict[str, tuple[str, str]] = {}
    for mode in _MODES:
        level, version = said.get(mode) or "privileged", said.get(f"{mode}-version") or "latest"
        if level not in _LEVELS:
            raise AdmissionConfigError(
                f'defaults.{mode}: Invalid value: "{level}": must be one of {", ".join(_LEVELS)}'
            )
        if version != "latest" and not (version.startswith("v1.") and is_digits(version[3:])):
            raise AdmissionConfigError(
                f'defaults.{mode}-version: Invalid value: "{version}": must be "latest" or "v1.x"'
            )
        if level != "privileged":
            defaults[mode] = (level, version)
    return PodSecurityConfig(
        defaults,
        frozenset(exempt.get("usernames") or ()),
        frozenset(exempt.get("runtimeClasses") or ()),
        frozenset(exempt.get("namespaces") or ()),
    )
