"""EncryptionConfiguration: which resources are encrypted at rest, and how.

In: Kubernetes' file (`apiserver.config.k8s.io/v1`).  Out: for a store's key the providers of its resource. The first
entry that names a resource decides; what none names is stored as it is.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from navarch.api.config_files import TEXTS, ListOf, ShapeError, Struct, fit
from navarch.api.duration import seconds_of
from navarch.api.yaml_reader import load
from navarch.records import frozen
from navarch.store.encryption.kms import KMS
from navarch.store.encryption.providers import AESCBC, AESGCM, Identity, Provider, Providers, SecretBox

_VERSIONS: Final = ("apiserver.config.k8s.io/v1",)
_AES_SIZES: Final = (16, 24, 32)
_CIPHERS: Final[Mapping[str, tuple[Callable[[str, bytes], Provider], tuple[int, ...]]]] = {
    "aescbc": (AESCBC, _AES_SIZES),
    "aesgcm": (AESGCM, _AES_SIZES),
    "secretbox": (SecretBox, (32,)),
}
_TIMEOUT_S: Final = 3.0
_KEYS: Final = Struct({"keys": ListOf(Struct({"name": str, "secret": str}))})
_KMS: Final = Struct({"apiVersion": str, "name": str, "cachesize": int, "endpoint": str, "timeout": str})
_PROVIDER: Final = Struct({"aesgcm": _KEYS, "aescbc": _KEYS, "secretbox": _KEYS, "identity": Struct({}), "kms": _KMS})
_SHAPE: Final = {"resources": ListOf(Struct({"resources": TEXTS, "providers": ListOf(_PROVIDER)}))}
_CORE: Final = "core"


class EncryptionError(ValueError):
    """The configuration cannot be used; the message says where and why."""


@frozen
class Entry:
    """The providers of some resources (`secrets`, `deployments.apps`, `*.apps`, `*.`, `*.*`)."""

    resources: tuple[str, ...]
    providers: Providers

    def covers(self, group: str, plural: str) -> bool:
        named = f"{plural}.{group}" if group else plural
        return any(resource in (named, f"*.{group}", "*.*") for resource in self.resources)


class Encryption:
    """What a configuration says."""

    def __init__(self, entries: Sequence[Entry], kms: Sequence[KMS] = ()) -> None:
        self._entries = tuple(entries)
        self.kms = tuple(kms)
        self._by_resource = lru_cache(4096)(self._of_resource)

    def providers_of(self, key: str) -> Providers | None:
        """None for a key whose values are stored as they are."""
        parts = key.split("/", 4)
        return self._by_resource(parts[2], parts[3]) if len(parts) == 5 else None

    def _of_resource(self, group: str, plural: str) -> Providers | None:
        group = "" if group == _CORE else group
        return next((entry.providers for entry in self._entries if entry.covers(group, plural)), None)


def read(path: Path) -> Encryption:
    """Raises EncryptionError."""
    try:
        document = load(path.read_bytes()).value
    except OSError as error:
        why = f'error opening encryption provider configuration file "{path}": {error.strerror}'
        raise EncryptionError(why) from None
    except ValueError as error:
        raise EncryptionError(f'error decoding encryption provider configuration file "{path}": {error}') from None
    return parse(document)


def parse(document: Any) -> Encryption:
    """Raises EncryptionError."""
    if (
        not isinstance(document, dict)
        or document.get("apiVersion") not in _VERSIONS
        or document.get("kind") != "EncryptionConfiguration"
    ):
        raise EncryptionError("the file is no EncryptionConfiguration of apiserver.config.k8s.io/v1")
    try:
        fit(document, _SHAPE)
    except ShapeError as error:
        raise EncryptionError(str(error)) from None
    stated = document.get("resources") or []
    if not stated:
        raise EncryptionError("resources: Required value: resources list must contain at least one resource")
    entries: list[Entry] = []
    kms: list[KMS] = []
    for index, entry in enumerate(stated):
        path = f"resources[{index}]"
        resources = tuple(str(resource) for resource in entry.get("resources") or ())
        if not resources:
            raise EncryptionError(f"{path}.resources: Required value: resources must be specified")
        _check_resources(f"{path}.resources", resources)
        providers = [*_providers(f"{path}.providers", entry.get("providers") or [])]
        if not providers:
            raise EncryptionError(f"{path}.providers: Required value: at least one provider must be specified")
        kms += [provider for provider in providers if isinstance(provider, KMS)]
        entries.append(Entry(resources, Providers(providers)))
    names = [provider.name for provider in kms]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        why = f"duplicate KMS provider name {doubled[0]}, names must be unique"
        raise EncryptionError(f"resources: Invalid value: {why}")
    return Encryption(entries, kms)


def _check_resources(path: str, resources: Sequence[str]) -> None:
    for index, resource in enumerate(resources):
        where = f'{path}[{index}]: Invalid value: "{resource}": '
        if resource == "*":
            why = "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"
            raise EncryptionError(f"{where}{why}")
        if "/" in resource:
            raise EncryptionError(f"{where}subresources are not supported")
        if resource.startswith("*.") and resource != "*.*" and "*" in resource[1:]:
            raise EncryptionError(f"{where}wildcard resource and wildcard group must be '*.*'")
        if resource in resources[:index]:
            raise EncryptionError(f"{where}the same resource cannot be specified multiple times")
        if masking := _masking(resource, resources):
            raise EncryptionError(
                f"{where}using overlapping resources such as '{resource}' and '{masking}' in the same resource list is "
                "not allowed as they will be masked"
            )
        if resource.lower() != resource:
            raise EncryptionError(f"{where}resource name should be in lower case")


def _masking(resource: str, others: Sequence[str]) -> str:
    """What else in a list names the resource, too; empty if nothing does."""
    if resource != "*.*" and "*.*" in others:
        return "*.*"
    group = f"*.{resource.partition('.')[2]}"
    return group if group != resource and not resource.startswith("*.") and group in others else ""


def _providers(path: str, stated: Sequence[Any]) -> Iterator[Provider]:
    for index, entry in enumerate(stated):
        where = f"{path}[{index}]"
        known = (*_CIPHERS, "identity", "kms")
        kinds = [name for name in known if isinstance(entry, dict) and entry.get(name) is not None]
        if len(kinds) != 1:
            why = "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity"
            if kinds:
                why = "more than one provider specified in a single element, should split into different list elements"
            raise EncryptionError(f"{where}: Invalid value: {why}")
        (kind,) = kinds
        if kind == "identity":
            yield Identity()
        elif kind == "kms":
            yield _kms(f"{where}.kms", entry[kind])
        else:
            yield from _keyed(f"{where}.{kind}", kind, entry[kind])


def _keyed(path: str, kind: str, stated: Any) -> Iterator[Provider]:
    """One provider for each key: a value names the key that has encrypted it."""
    cipher, sizes = _CIPHERS[kind]
    keys = stated.get("keys") or []
    if not keys:
        raise EncryptionError(f"{path}.keys: Required value: keys must be specified")
    seen: set[str] = set()
    for index, key in enumerate(keys):
        where = f"{path}.keys[{index}]"
        name = key.get("name") or ""
        if not name:
            raise EncryptionError(f"{where}.name: Required value: key name must be specified")
        if name in seen:
            raise EncryptionError(f"{where}.name: Invalid value: duplicate key name {name}")
        seen.add(name)
        if not key.get("secret"):
            raise EncryptionError(f"{where}.secret: Required value: secret must be specified")
        try:
            secret = base64.b64decode(key["secret"], validate=True)
        except (binascii.Error, ValueError):
            raise EncryptionError(f"{where}.secret: Invalid value: secret must be base64 encoded") from None
        if len(secret) not in sizes:
            shown = " ".join(map(str, sizes))
            raise EncryptionError(
                f"{where}.secret: Invalid value: secret is not of the expected length, got {len(secret)}, "
                f"expected one of [{shown}]"
            )
        yield cipher(name, secret)


def _kms(path: str, stated: Any) -> KMS:
    version = stated.get("apiVersion") or "v1"
    if version != "v2":
        raise EncryptionError(f"{path}.apiVersion: Invalid value: {version}: unsupported apiVersion, v2 is served")
    name, endpoint = stated.get("name") or "", stated.get("endpoint") or ""
    if not name or ":" in name:
        raise EncryptionError(f"{path}.name: Invalid value: {name}: a name without ':' must be specified")
    if not endpoint.startswith("unix://"):
        raise EncryptionError(f"{path}.endpoint: Invalid value: {endpoint}: unsupported scheme, should be unix")
    try:
        timeout_s = seconds_of(stated["timeout"]) if stated.get("timeout") else _TIMEOUT_S
    except ValueError:
        timeout_s = 0.0
    if timeout_s <= 0:
        raise EncryptionError(f"{path}.timeout: Invalid value: {stated['timeout']}: should be a positive value")
    return KMS(name, endpoint, timeout_s)
