"""Pulling images: references and credentials (pure), and pulls from a registry on loopback into real containers."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from navarch.node.containerd import ContainerdPaths
from navarch.node.images.archives import Platform, busybox_files, host_architecture, read_layout, write_image
from navarch.node.images.manager import credentials, pull_policy, registry_of, with_default_tag
from tests.node.conftest import Node
from tests.node.engine.test_pods import sh

from ...ports import free_port


@pytest.mark.parametrize(
    ("image", "full", "registry"),
    [
        ("busybox", "busybox:latest", "docker.io"),
        ("library/busybox:1", "library/busybox:1", "docker.io"),
        ("localhost:5000/a/b", "localhost:5000/a/b:latest", "localhost:5000"),
        ("ghcr.io/a/b@sha256:" + "a" * 64, "ghcr.io/a/b@sha256:" + "a" * 64, "ghcr.io"),
    ],
)
def test_references_get_tag_and_registry(image: str, full: str, registry: str) -> None:
    assert (with_default_tag(image), registry_of(image)) == (full, registry)


@pytest.mark.parametrize("image", ["", "UPPER", "a b", "a:", "http://x/y"])
def test_malformed_references_are_refused(image: str) -> None:
    with pytest.raises(ValueError, match="invalid reference format"):
        with_default_tag(image)


def test_latest_is_always_pulled() -> None:
    assert pull_policy({"image": "a"}) == pull_policy({"image": "a:latest"}) == "Always"
    assert pull_policy({"image": "a:1"}) == "IfNotPresent"


def _secret(auths: dict[str, object]) -> dict[str, object]:
    text = base64.b64encode(json.dumps({"auths": auths}).encode()).decode()
    return {"data": {".dockerconfigjson": text}}


def test_the_most_specific_login_comes_first() -> None:
    login = base64.b64encode(b"u:p:w").decode()
    secret = _secret(
        {
            "reg.example:5000": {"username": "host", "password": "x"},
            "reg.example:5000/team": {"auth": login},
            "*.example.org": {"username": "other"},
            "https://index.docker.io/v1/": {"username": "hub", "password": "y"},
        }
    )

    found = credentials(secret, "reg.example:5000/team/app:1")

    assert [(auth.username, auth.password) for auth in found] == [("u", "p:w"), ("host", "x")]
    assert [auth.username for auth in credentials(secret, "busybox")] == ["hub"]
    assert [auth.username for auth in credentials(secret, "a.example.org/x")] == ["other"]


# A registry.

_BCRYPT_OF_SECRET = "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"


class Registry:
    """docker-registry on loopback, with one image under any name that is pushed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.process: asyncio.subprocess.Process | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self, place: Path, users: str = "") -> None:
        auth = f"auth:\n  htpasswd:\n    realm: test\n    path: {place}/users\n" if users else ""
        (place / "users").write_text(users)
        (place / "config.yml").write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {place}/data}}}}\n"
            f"http: {{addr: '{self.host}'}}\n{auth}"
        )
        self.process = await asyncio.create_subprocess_exec(
            "docker-registry",
            "serve",
            str(place / "config.yml"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        for _ in range(100):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            except OSError:
                await asyncio.sleep(0.05)
        raise TimeoutError("docker-registry did not start")

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()

    async def push(self, archive: Path, name: str, tag: str, login: str = "") -> None:
        top, blobs = read_layout(archive)
        base = f"http://{self.host}/v2/{name}"
        async with aiohttp.ClientSession(headers=_basic(login)) as session:
            for digest, data in blobs.items():
                if digest == top["digest"]:
                    continue
                async with session.post(f"{base}/blobs/uploads/") as answer:
                    location = answer.headers["Location"]
                joint = "&" if "?" in location else "?"
                async with session.put(f"{location}{joint}digest={digest}", data=data) as answer:
                    assert answer.status == 201, await answer.text()
            headers = {"Content-Type": top["mediaType"]}
            async with session.put(f"{base}/manifests/{tag}", data=blobs[top["digest"]], headers=headers) as answer:
                assert answer.status == 201, await answer.text()


def _basic(login: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()} if login else {}


@pytest.fixture
async def registry(containerd: ContainerdPaths, tmp_path: Path) -> AsyncIterator[Registry]:
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed")
    registry = Registry(free_port())
    await registry.start(tmp_path)
    yield registry
    await registry.stop()


def _archive(place: Path) -> Path:
    archive = place / "image.tar"
    write_image(archive, "x/y:1", [Platform(host_architecture(), busybox_files(Path("/bin/busybox")), command=["sh"])])
    return archive


@pytest.mark.containers
async def test_an_image_is_pulled_from_a_plain_registry_on_loopback(
    node: Node, registry: Registry, tmp_path: Path
) -> None:
    await registry.push(_archive(tmp_path), "team/app", "1")

    await node.pod("pull", restartPolicy="Never", containers=[sh("echo pulled", image=f"{registry.host}/team/app:1")])

    assert await node.ended("pull") == "Succeeded"
    assert node.log("pull") == "pulled"
    assert node.container("pull")["imageID"].startswith(f"{registry.host}/team/app@sha256:")
    assert {"Pulling", "Pulled"} <= set(node.reasons("pull"))


@pytest.mark.containers
async def test_a_missing_image_backs_off(node: Node, registry: Registry) -> None:
    await node.pod("miss", containers=[sh("true", image=f"{registry.host}/none:1")])

    def reason() -> str:
        return str(node.container("miss").get("state", {}).get("waiting", {}).get("reason"))

    await node.until(lambda: reason() == "ErrImagePull")
    await node.until(lambda: reason() == "ImagePullBackOff")
    message = node.container("miss")["state"]["waiting"]["message"]
    assert message.startswith(f'Back-off pulling image "{registry.host}/none:1": ErrImagePull: ')
    assert {"Pulling", "Failed", "BackOff"} <= set(node.reasons("miss"))


@pytest.mark.containers
async def test_a_pull_secret_opens_a_private_registry(node: Node, containerd: ContainerdPaths, tmp_path: Path) -> None:
    registry = Registry(free_port())
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed")
    await registry.start(tmp_path, f"user:{_BCRYPT_OF_SECRET}\n")
    try:
        await registry.push(_archive(tmp_path), "private", "1", "user:secret")
        text = json.dumps({"auths": {registry.host: {"username": "user", "password": "secret"}}})
        await node.api.put(
            "secrets",
            {
                "metadata": {"name": "login", "namespace": "default"},
                "data": {".dockerconfigjson": base64.b64encode(text.encode()).decode()},
            },
        )

        await node.pod(
            "private",
            restartPolicy="Never",
            imagePullSecrets=[{"name": "login"}],
            containers=[sh("true", image=f"{registry.host}/private:1")],
        )

        assert await node.ended("private") == "Succeeded"
    finally:
        await registry.stop()
