"""Which pods may use an image that is on the node, and where credentials come from."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any, cast

import pytest

from navarch.node.config import ImagesConfig
from navarch.node.images.manager import ImageManager, ImageState, fits, registry_of
from navarch.node.images.providers import CredentialProviders, ProviderError, read
from navarch.node.images.records import PullRecords
from navarch.node.references import ObjectSource
from navarch.node.runtime.base import Image, Login, Runtime, RuntimeFailure
from navarch.world import RealWorld

Obj = dict[str, Any]
IMAGE = "registry.example/team/app:1"
RIGHT = Login(username="u", password="right")


class Registry:
    """A runtime's images, of a registry that wants the password."""

    def __init__(self, *, public: bool = False) -> None:
        self.public = public
        self.here: dict[str, Image] = {}
        self.pulls: list[Login | None] = []

    async def image_status(self, image: str) -> Image | None:
        return self.here.get(image)

    async def pull_image(self, image: str, login: Login | None) -> str:
        self.pulls.append(login)
        if not self.public and (login is None or login.password != "right"):
            raise RuntimeFailure("403 Forbidden")
        self.here[image] = Image(f"sha256:{image}", (image,))
        return image


class Secrets:
    """Pull secrets by name; each says its password."""

    def __init__(self, **passwords: str) -> None:
        self.passwords = passwords

    async def secret(self, namespace: str, name: str) -> Obj | None:
        if name not in self.passwords:
            return None
        entry = {"username": "u", "password": self.passwords[name]}
        config = base64.b64encode(json.dumps({"auths": {"registry.example": entry}}).encode()).decode()
        metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}"}
        return {"metadata": metadata, "data": {".dockerconfigjson": config}}


def manager(
    place: Path,
    registry: Registry,
    secrets: Secrets,
    policy: str = "NeverVerifyPreloadedImages",
    allowlist: tuple[str, ...] = (),
    **more: Any,
) -> ImageManager:
    world = RealWorld()
    records = PullRecords(place, policy, allowlist, world)
    return ImageManager(cast(Runtime, registry), cast(ObjectSource, secrets), world, records=records, **more)


async def use(images: ImageManager, name: str, *secrets: str, policy: str = "IfNotPresent") -> ImageState:
    """What a pod with these pull secrets comes to in the end."""
    references = [{"name": secret} for secret in secrets]
    pod = {"metadata": {"name": name, "namespace": "ns", "uid": name}, "spec": {"imagePullSecrets": references}}
    container = {"name": "c", "image": IMAGE, "imagePullPolicy": policy}
    while True:
        woken = asyncio.Event()
        state = await images.ensure(pod, container, 0, lambda kind, reason, message: None, woken.set)
        if state.image is not None or state.reason:
            return state
        async with asyncio.timeout(10):
            await woken.wait()


async def test_an_image_pulled_with_a_secret_serves_those_who_have_it_alone(tmp_path: Path) -> None:
    registry = Registry()
    images = manager(tmp_path, registry, Secrets(mine="right", same="right", wrong="wrong"))

    assert (await use(images, "owner", "mine")).image
    assert (await use(images, "other-of-same-secret", "mine")).image
    assert (await use(images, "same-credentials", "same")).image
    assert registry.pulls == [RIGHT]

    assert (await use(images, "stranger")).reason == "ErrImagePull"
    assert (await use(images, "liar", "wrong")).reason == "ErrImagePull"
    never = await use(images, "never", policy="Never")
    assert never.reason == "ErrImageNeverPull"
    assert never.message.endswith("but does not have the proper credentials to access it")


async def test_a_restart_forgets_nobody(tmp_path: Path) -> None:
    registry = Registry()
    await use(manager(tmp_path, registry, Secrets(mine="right")), "owner", "mine")

    again = manager(tmp_path, registry, Secrets(mine="right"))

    assert (await use(again, "owner", "mine")).image
    assert (await use(again, "stranger")).reason == "ErrImagePull"


async def test_an_image_pulled_without_credentials_serves_all(tmp_path: Path) -> None:
    registry = Registry(public=True)
    images = manager(tmp_path, registry, Secrets())

    assert (await use(images, "one")).image
    assert (await use(images, "two")).image
    assert registry.pulls == [None]


@pytest.mark.parametrize(
    ("policy", "allowlist", "usable"),
    [
        ("NeverVerify", (), True),
        ("NeverVerifyPreloadedImages", (), True),
        ("NeverVerifyAllowlistedImages", ("registry.example/team/*",), True),
        ("NeverVerifyAllowlistedImages", ("registry.example/other",), False),
        ("AlwaysVerify", (), False),
    ],
)
async def test_an_image_that_was_there_before_is_as_the_policy_says(
    tmp_path: Path, policy: str, allowlist: tuple[str, ...], usable: bool
) -> None:
    registry = Registry()
    registry.here[IMAGE] = Image("sha256:x", (IMAGE,))

    state = await use(manager(tmp_path, registry, Secrets(), policy, allowlist), "one")

    assert (state.image is not None) == usable


async def test_pulls_are_no_more_a_second_than_configured(tmp_path: Path) -> None:
    # So slow that none comes back while the test runs.
    rare = ImagesConfig(pulls_per_s=1, pull_burst=0)
    images = manager(tmp_path, Registry(public=True), Secrets(), config=rare)

    refused = await use(images, "one")

    assert (refused.reason, refused.message) == ("ErrImagePull", "pull QPS exceeded")


def provider(place: Path, cache: str) -> CredentialProviders:
    """One that notes how often it is run."""
    right, other = ({"username": "u", "password": each} for each in ("right", "other"))
    answer = {
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "kind": "CredentialProviderResponse",
        "cacheKeyType": cache,
        "auth": {"*.example": other, "registry.example": right},
    }
    script = place / "helper"
    lines = ["#!/bin/sh", f"cat > {place}/asked", f"echo $WHO $1 >> {place}/runs", f"echo '{json.dumps(answer)}'", ""]
    script.write_text("\n".join(lines))
    script.chmod(0o755)
    config = place / "providers.yaml"
    config.write_text("""
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- name: helper
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  matchImages: ["*.example"]
  defaultCacheDuration: 1h
  args: [get]
  env: [{name: WHO, value: kubelet}]
""")
    return CredentialProviders(read(config), place, RealWorld(), fits, registry_of)


@pytest.mark.parametrize(("cache", "runs"), [("Image", 2), ("Registry", 1), ("Global", 1)])
async def test_a_provider_is_asked_and_its_answer_kept(tmp_path: Path, cache: str, runs: int) -> None:
    providers = provider(tmp_path, cache)

    found = await providers.logins(IMAGE)
    await providers.logins(IMAGE)
    await providers.logins("registry.example/other:1")

    # The pattern that says most comes first.
    assert [login.password for login in found] == ["right", "other"]
    assert (tmp_path / "runs").read_text().splitlines() == ["kubelet get"] * runs
    asked = json.loads((tmp_path / "asked").read_text())
    assert asked["kind"] == "CredentialProviderRequest"
    assert not await providers.logins("elsewhere.test/app:1")


async def test_an_image_pulled_by_the_nodes_own_credentials_serves_all(tmp_path: Path) -> None:
    registry = Registry()
    images = manager(tmp_path / "records", registry, Secrets(), providers=provider(tmp_path, "Registry"))

    assert (await use(images, "one")).image
    assert (await use(images, "two")).image
    assert registry.pulls == [RIGHT]


def test_what_is_wrong_with_a_providers_configuration_is_said(tmp_path: Path) -> None:
    file = tmp_path / "providers.yaml"
    file.write_text("apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders: [{name: a/b}]\n")

    with pytest.raises(ProviderError, match="provider name cannot contain path separators"):
        read(file)
