"""Images: pull policies, failing pulls and their back-off, a registry on loopback with and without a login."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from navarch.node.images.archives import Platform, busybox_files, host_architecture, write_image
from tests.node.images.test_manager import Registry

from ..ports import free_port
from .batch import Batch, container_status
from .conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.containers]
# `user` with the password `secret`.
LOGIN = "user:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"


def serving(place: Path, users: str = "") -> Iterator[Registry]:
    """A registry with the image `team/app:1` and `:latest`, whose default command says `image`."""
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed")
    registry = Registry(free_port())
    (place / "users").write_text(users)
    auth = f"auth:\n  htpasswd:\n    realm: test\n    path: {place}/users\n" if users else ""
    (place / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {place}/data}}}}\n"
        f"http: {{addr: '{registry.host}'}}\n{auth}"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(place / "config.yml")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        give_up_s = time.monotonic() + 10
        while socket.socket().connect_ex(("127.0.0.1", registry.port)) and time.monotonic() < give_up_s:
            time.sleep(0.05)
        archive = place / "image.tar"
        files = busybox_files(Path("/bin/busybox"))
        entry = Platform(host_architecture(), files, entrypoint=["echo", "entrypoint"], command=["image"], user="1234")
        write_image(archive, "team/app:1", [entry])
        for tag in ("1", "latest"):
            asyncio.run(registry.push(archive, "team/app", tag, "user:secret" if users else ""))
        yield registry
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    yield from serving(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    yield from serving(tmp_path_factory.mktemp("private"), LOGIN)


@pytest.fixture(scope="module")
def batch(containers: Cluster, registry: Registry, private: Registry) -> Iterator[Batch]:
    batch = Batch()
    image = f"{registry.host}/team/app"
    batch.pod("plain", container={"image": f"{image}:1"})
    batch.pod("latest", container={"image": image})
    batch.pod("args", container={"image": f"{image}:1", "args": ["own", "args"]})
    batch.pod("command", container={"image": f"{image}:1", "command": ["echo", "own"]})
    batch.pod("user", "id -u", container={"image": f"{image}:1"}, securityContext={"runAsNonRoot": True})
    batch.pod("absent", "true", container={"image": f"{image}:none"})
    batch.pod("nowhere", "true", container={"image": f"127.0.0.1:{free_port()}/none:1"})
    batch.pod("never", "true", container={"image": f"{image}:other", "imagePullPolicy": "Never"})
    batch.pod("malformed", "true", container={"image": "team/UPPER:1"})
    batch.pod("present", "true", container={"imagePullPolicy": "Never"})
    batch.pod("private-refused", "true", container={"image": f"{private.host}/team/app:latest"})
    batch.pod("private", container={"image": f"{private.host}/team/app:1"}, imagePullSecrets=[{"name": "login"}])
    batch.pod("private-account", container={"image": f"{private.host}/team/app:1"}, serviceAccountName="puller")
    batch.need("ServiceAccount", "puller", imagePullSecrets=[{"name": "login"}])
    login = f'{{"auths": {{"{private.host}": {{"username": "user", "password": "secret"}}}}}}'
    batch.need("Secret", "login", type="kubernetes.io/dockerconfigjson", stringData={".dockerconfigjson": login})
    yield from batch.run(containers)


def test_an_image_is_pulled_and_says_what_to_run(batch: Batch) -> None:
    assert batch.said("plain") == "entrypoint image\n"
    assert batch.said("latest") == "entrypoint image\n"
    assert batch.said("args") == "entrypoint own args\n"
    assert batch.said("command") == "own\n"
    assert batch.said("user") == "1234\n"
    status = container_status(batch.ended("plain"))
    # Both registries hold the same image, which the runtime knows by either name.
    assert status["image"].endswith("/team/app:1")
    assert "/team/app@sha256:" in status["imageID"]
    reasons = [reason for reason, _ in batch.events("latest")]
    assert {"Pulling", "Pulled"} <= set(reasons)


def waiting(reason: str) -> Callable[[dict[str, object]], bool]:
    return lambda pod: container_status(pod)["state"].get("waiting", {}).get("reason") == reason


@pytest.mark.parametrize("name", ["absent", "nowhere", "private-refused"])
def test_a_failing_pull_is_told_and_tried_again_later(batch: Batch, name: str) -> None:
    pod = batch.until(name, waiting("ImagePullBackOff"))

    message = container_status(pod)["state"]["waiting"]["message"]
    assert message.startswith('Back-off pulling image "')
    told = batch.events(name)
    assert ("Failed", "Error: ErrImagePull") in told
    assert any(reason == "Failed" and text.startswith("Failed to pull image") for reason, text in told)
    assert any(reason == "BackOff" for reason, _ in told)
    assert pod["status"]["phase"] == "Pending"
    refused = batch.cluster.try_kubectl("-n", batch.namespace, "logs", name)
    assert f'container "main" in pod "{name}" is waiting to start: ' in refused.stderr


def test_an_image_is_not_pulled_where_that_is_excluded(batch: Batch) -> None:
    assert batch.ended("present")["status"]["phase"] == "Succeeded"
    batch.until("never", waiting("ErrImageNeverPull"))
    assert any("is not present with pull policy of Never" in text for _, text in batch.events("never"))
    batch.until("malformed", waiting("InvalidImageName"))


@pytest.mark.parametrize("name", ["private", "private-account"])
def test_a_pull_secret_opens_a_private_registry(batch: Batch, name: str) -> None:
    assert batch.said(name) == "entrypoint image\n"


def test_a_pod_starts_once_its_image_appears(batch: Batch, registry: Registry, tmp_path: Path) -> None:
    batch.until("absent", waiting("ImagePullBackOff"))
    image = f"{registry.host}/team/app:1"

    batch.kubectl("set", "image", "pod/absent", f"main={image}")

    batch.ended("absent", 40)
