"""Configuration files that change while a server runs."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from navarch.apiserver.bootstrap import bootstrap
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import ANONYMOUS, User
from navarch.client.transport import Request
from navarch.cluster import pki
from navarch.cluster.assembly import attach, bootstrap_config, make_server, server_settings
from navarch.cluster.config import ClusterConfig, ConfigError
from navarch.store.memory import MemoryStore
from tests.apiserver.conftest import Api

GROUP = "apiserver.config.k8s.io/v1"
SECRETS = "/api/v1/namespaces/default/secrets"
KEY = "/registry/core/secrets/default/s"


def encryption(*names: str) -> str:
    keys = [{"name": name, "secret": base64.b64encode(name[0].encode() * 32).decode()} for name in names]
    entry = {"resources": ["secrets"], "providers": [{"secretbox": {"keys": keys}}]}
    return yaml.safe_dump({"apiVersion": GROUP, "kind": "EncryptionConfiguration", "resources": [entry]})


def authentication(*paths: str) -> str:
    anonymous = {"enabled": True, "conditions": [{"path": path} for path in paths]}
    return yaml.safe_dump({"apiVersion": GROUP, "kind": "AuthenticationConfiguration", "anonymous": anonymous})


def authorization(*types: str) -> str:
    authorizers = [{"type": type_, "name": type_.lower()} for type_ in types]
    return yaml.safe_dump({"apiVersion": GROUP, "kind": "AuthorizationConfiguration", "authorizers": authorizers})


FILES = {
    "encryption-provider-config": encryption("one"),
    "authentication-config": authentication("/healthz"),
    "authorization-config": authorization("Node", "RBAC"),
}


class Running:
    """A server and the files that it was given."""

    def __init__(self, server: ApiServer, folder: Path, store: MemoryStore) -> None:
        self.server = server
        self.store = store
        self._folder = folder

    async def change(self, flag: str, text: str) -> None:
        """Replace a file and have the server look."""
        (self._folder / flag).write_text(text)
        about = flag.partition("-")[0]
        (chore,) = [chore for chore in self.server.chores if chore.name == f"{about} configuration"]
        await chore.do()

    async def anonymous_gets(self, path: str) -> User | None:
        try:
            return await self.server.core.authenticator.authenticate(Request("GET", path), None)
        except Exception:
            return None


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    for flag, text in FILES.items():
        (tmp_path / flag).write_text(text)
    flags = {flag: str(tmp_path / flag) for flag in FILES}
    flags["encryption-provider-config-automatic-reload"] = "true"
    config = ClusterConfig("reloading", str(tmp_path / "data"), apiserver_flags=flags)
    pki.ensure(config)
    store = MemoryStore()
    server = make_server(config, store=store)
    await server.start()
    settings = server_settings(config)
    attach(server, settings)
    await bootstrap(server, bootstrap_config(settings))
    yield Running(server, tmp_path, store)
    await server.stop()


async def test_secrets_are_encrypted_with_the_key_that_the_file_says_now(running: Running) -> None:
    api = Api(running.server)
    await api.ok("POST", SECRETS, {"metadata": {"name": "s"}, "stringData": {"k": "v"}})

    await running.change("encryption-provider-config", encryption("two", "one"))
    found = await api.ok("GET", f"{SECRETS}/s")
    await api.ok("PUT", f"{SECRETS}/s", found)

    entry = await running.store.get(KEY)
    assert entry is not None
    assert entry.value.startswith(b"k8s:enc:secretbox:v1:two:")


async def test_anonymous_requests_go_where_the_file_lets_them_now(running: Running) -> None:
    before = [await running.anonymous_gets(path) for path in ("/healthz", "/version")]

    await running.change("authentication-config", authentication("/version"))
    after = [await running.anonymous_gets(path) for path in ("/healthz", "/version")]

    assert before == [ANONYMOUS, None]
    assert after == [None, ANONYMOUS]


async def test_authorizers_come_and_go_but_for_those_that_cannot(running: Running) -> None:
    jane = Api(running.server, User("jane", ("system:authenticated",)))
    refused, _ = await jane("GET", SECRETS)
    await running.change("authorization-config", authorization("RBAC", "Node", "AlwaysAllow"))
    allowed, _ = await jane("GET", SECRETS)
    await running.change("authorization-config", authorization("Node", "AlwaysDeny"))
    still, _ = await jane("GET", SECRETS)

    assert (refused, allowed, still) == (403, 200, 200)


@pytest.mark.parametrize("flag", list(FILES))
async def test_what_cannot_be_used_is_told_and_all_stays_as_it_was(running: Running, flag: str) -> None:
    api, about = Api(running.server), flag.partition("-")[0]
    await api.ok("POST", SECRETS, {"metadata": {"name": "s"}, "stringData": {"k": "v"}})

    await running.change(flag, "kind: Nonsense")
    await running.change(flag, FILES[flag] + "\n")

    name = f"apiserver_{about}_config_controller_automatic_reloads_total"
    _, metrics = await api("GET", "/metrics")
    assert f'{name}{{status="failure"}} 1\n' in metrics
    assert f'{name}{{status="success"}} 1\n' in metrics
    assert (await api.ok("GET", f"{SECRETS}/s"))["data"] == {"k": "dg=="}
    assert await running.anonymous_gets("/healthz") == ANONYMOUS


async def test_health_says_how_key_services_are(running: Running) -> None:
    _, text = await Api(running.server)("GET", "/readyz?verbose")

    checks = text.splitlines()
    assert checks.index("[+]kms-providers ok") == checks.index("[+]etcd-readiness ok") + 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"authorization-config": "f", "authorization-mode": "RBAC"}, "can not be specified when --authorization-mode"),
        ({"authentication-config": "f", "oidc-issuer-url": "https://i"}, "mutually exclusive"),
        ({"authorization-webhook-config-file": "f"}, "without mode Webhook"),
        ({"encryption-provider-config-automatic-reload": "true"}, "must be set with --encryption-provider-config"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(tmp_path: Path, flags: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        server_settings(ClusterConfig("both", str(tmp_path), apiserver_flags=flags))
