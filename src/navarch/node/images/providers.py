"""Credential providers: programs that know the credentials of registries, as clouds have them.

In: a `CredentialProviderConfig` (kubelet.config.k8s.io/v1) and the folder of the programs.  Out: logins for an image. A
provider is run with a request on its standard input and answers on its standard output
(credentialprovider.kubelet.k8s.io/v1); what it says is kept for as long as it says, for the image, its registry or all.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from navarch.api import durations, yaml_reader
from navarch.api.config_files import TEXTS, ListOf, ShapeError, Struct, fit
from navarch.api.meta import Obj
from navarch.node.runtime.base import Login
from navarch.world import Clock

log = logging.getLogger(__name__)

_KIND: Final = "CredentialProviderConfig"
_VERSIONS: Final = ("kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1beta1", "kubelet.config.k8s.io/v1alpha1")
_PROTOCOLS: Final = tuple(f"credentialprovider.kubelet.k8s.io/{one}" for one in ("v1", "v1beta1", "v1alpha1"))
_RUN_S: Final = 60.0
_LONGEST_ANSWER: Final = 1 << 20
_FIELDS: Final = {
    "providers": ListOf(
        Struct(
            {
                "name": str,
                "matchImages": TEXTS,
                "defaultCacheDuration": str,
                "apiVersion": str,
                "args": TEXTS,
                "env": ListOf(Struct({"name": str, "value": str})),
            }
        )
    )
}


class ProviderError(ValueError):
    """The configuration cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Provider:
    name: str
    images: tuple[str, ...]
    cache_s: float
    protocol: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


def read(path: Path) -> list[Provider]:
    """Raises ProviderError."""
    try:
        document: Any = yaml_reader.load(path.read_bytes()).value
        if not isinstance(document, dict):
            raise ProviderError("must be an object")
        if document.get("apiVersion") not in _VERSIONS or document.get("kind") != _KIND:
            raise ProviderError(f"expected apiVersion {_VERSIONS[0]} and kind {_KIND}")
        fit(document, _FIELDS)
        providers = [_provider(one) for one in document.get("providers") or ()]
    except (OSError, ShapeError, ProviderError, ValueError) as error:
        raise ProviderError(f"failed to read credential provider config {path}: {error}") from None
    if not providers:
        raise ProviderError(f"failed to read credential provider config {path}: at least 1 plugin must be provided")
    names = [one.name for one in providers]
    for name in names:
        if names.count(name) > 1:
            raise ProviderError(f'providers.name: Duplicate value: "{name}"')
    return providers


def _provider(stated: Obj) -> Provider:
    name = stated.get("name") or ""
    if not name:
        raise ProviderError("providers.name: Required value: provider name is required")
    if "/" in name or name in (".", "..") or " " in name:
        raise ProviderError(f'providers.name: Invalid value: "{name}": provider name cannot contain path separators')
    if not stated.get("matchImages"):
        raise ProviderError("providers.matchImages: Required value: at least 1 item in matchImages is required")
    if stated.get("apiVersion") not in _PROTOCOLS:
        words = f"apiVersion must be one of [{', '.join(_PROTOCOLS)}]"
        raise ProviderError(f'providers.apiVersion: Unsupported value: "{stated.get("apiVersion")}": {words}')
    if stated.get("defaultCacheDuration") is None:
        raise ProviderError("providers.defaultCacheDuration: Required value: defaultCacheDuration is required")
    return Provider(
        name,
        tuple(stated["matchImages"]),
        durations.parse_s(stated["defaultCacheDuration"]),
        stated["apiVersion"],
        tuple(stated.get("args") or ()),
        {one["name"]: one.get("value") or "" for one in stated.get("env") or ()},
    )


class CredentialProviders:
    """`fits` says whether a pattern (`*.registry.example`) is for an image, `registry_of` where an image is from."""

    def __init__(
        self,
        providers: list[Provider],
        folder: Path,
        clock: Clock,
        fits: Callable[[str, str], bool],
        registry_of: Callable[[str], str],
    ) -> None:
        self._providers = providers
        self._folder = folder
        self._clock = clock
        self._fits = fits
        self._registry_of = registry_of
        self._kept: dict[tuple[str, str], tuple[datetime, Obj]] = {}

    async def logins(self, image: str) -> list[Login]:
        """What all providers that are for the image know; one that fails is told of and left out."""
        found: list[Login] = []
        for provider in self._providers:
            if not any(self._fits(pattern, image) for pattern in provider.images):
                continue
            try:
                entries = await self._ask(provider, image)
            except (OSError, ValueError, TimeoutError) as error:
                log.error("credential provider %s: %s", provider.name, error or "no answer in time")
                continue
            fitting = sorted((pattern for pattern in entries if self._fits(pattern, image)), key=len, reverse=True)
            for pattern in fitting:
                entry = entries[pattern]
                found.append(Login(username=entry.get("username", ""), password=entry.get("password", "")))
        return found

    async def _ask(self, provider: Provider, image: str) -> Obj:
        now = self._clock.now()
        for key in (image, self._registry_of(image), ""):
            kept = self._kept.get((provider.name, key))
            if kept is not None and now < kept[0]:
                return kept[1]
        answer = await self._run(provider, image)
        entries: Obj = answer.get("auth") or {}
        said = answer.get("cacheDuration")
        cache_s = provider.cache_s if said is None else durations.parse_s(said)
        kinds = {"Image": image, "Registry": self._registry_of(image), "Global": ""}
        stated = str(answer.get("cacheKeyType") or "")
        if stated not in kinds:
            raise ValueError(f'credential provider plugin did not return a valid cacheKeyType: "{stated}"')
        if cache_s > 0:
            self._kept = {name: kept for name, kept in self._kept.items() if now < kept[0]}
            self._kept[provider.name, kinds[stated]] = (now + timedelta(seconds=cache_s), entries)
        return entries

    async def _run(self, provider: Provider, image: str) -> Obj:
        request = {"apiVersion": provider.protocol, "kind": "CredentialProviderRequest", "image": image}
        process = await asyncio.create_subprocess_exec(
            str(self._folder / provider.name),
            *provider.args,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **provider.env},
        )
        try:
            async with asyncio.timeout(_RUN_S):
                output, errors = await process.communicate(json.dumps(request).encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            words = errors.decode(errors="replace")[:1000].strip()
            raise ValueError(f"error execing credential provider plugin: exit status {process.returncode}: {words}")
        answer = json.loads(output[:_LONGEST_ANSWER])
        if not isinstance(answer, dict) or answer.get("apiVersion") != provider.protocol:
            raise ValueError("apiVersion from credential plugin response did not match expected apiVersion")
        return answer
