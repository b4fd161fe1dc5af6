"""What a cluster's file says by kube-apiserver's flags reaches its API server."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from navarch.apiserver.bootstrap import bootstrap
from navarch.apiserver.server import ApiServer
from navarch.cluster import pki
from navarch.cluster.assembly import attach, bootstrap_config, make_server, server_settings
from navarch.cluster.config import ClusterConfig, ConfigError
from navarch.store.memory import MemoryStore
from tests.apiserver.conftest import Api

AUDIT = """
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: Metadata
  resources: [{group: "", resources: [secrets]}]
"""
ENCRYPTION = f"""
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - secretbox: {{keys: [{{name: one, secret: {base64.b64encode(b"k" * 32).decode()}}}]}}
"""
TOKENS = 't0ken,jane,u1,"developers"\n'


@pytest.fixture
def config(tmp_path: Path) -> ClusterConfig:
    for name, text in (("audit.yaml", AUDIT), ("encryption.yaml", ENCRYPTION), ("tokens.csv", TOKENS)):
        (tmp_path / name).write_text(text)
    flags = {
        "audit-policy-file": str(tmp_path / "audit.yaml"),
        "audit-log-path": str(tmp_path / "audit.log"),
        "encryption-provider-config": str(tmp_path / "encryption.yaml"),
        "token-auth-file": str(tmp_path / "tokens.csv"),
    }
    made = ClusterConfig("flags", str(tmp_path / "data"), apiserver_flags=flags)
    pki.ensure(made)
    return made


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def server(config: ClusterConfig, store: MemoryStore) -> AsyncIterator[ApiServer]:
    made = make_server(config, store=store)
    await made.start()
    settings = server_settings(config)
    attach(made, settings)
    await bootstrap(made, bootstrap_config(settings))
    yield made
    await made.stop()


async def test_secrets_are_logged_and_encrypted(server: ApiServer, store: MemoryStore, tmp_path: Path) -> None:
    api = Api(server)
    await api.ok("POST", "/api/v1/namespaces/default/secrets", {"metadata": {"name": "s"}, "stringData": {"k": "v"}})

    events = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    entry = await store.get("/registry/core/secrets/default/s")
    assert [(event["verb"], event["stage"]) for event in events] == [
        ("create", "RequestReceived"),
        ("create", "ResponseComplete"),
    ]
    assert entry is not None
    assert entry.value.startswith(b"k8s:enc:secretbox:v1:one:")


async def test_a_static_token_is_its_user(server: ApiServer) -> None:
    user, _ = await server.core.authenticator.review_token("t0ken", ())

    assert (user.name, user.uid) == ("jane", "u1")
    assert "developers" in user.groups


def test_flags_survive_in_the_clusters_file(config: ClusterConfig) -> None:
    config.save()

    assert ClusterConfig.load(config.root).apiserver_flags == config.apiserver_flags


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("secure-port", "1", "--secure-port is no flag that can be set here"),
        ("audit-log-format", "xml", "invalid audit log format xml"),
        ("goaway-chance", "0.5", "--goaway-chance can not be less than 0 or greater than 0.02"),
        ("goaway-chance", "often", 'invalid argument "often" for "--goaway-chance" flag: strconv.ParseFloat'),
        ("token-auth-file", "/no/such/file", "open /no/such/file: no such file or directory"),
    ],
)
def test_flags_that_cannot_be_set_are_refused(config: ClusterConfig, name: str, value: str, message: str) -> None:
    flags = {**config.apiserver_flags, name: value}

    with pytest.raises(ConfigError, match=message):
        server_settings(replace(config, apiserver_flags=flags))


def test_http2_is_as_the_flags_say(config: ClusterConfig) -> None:
    flags = {"disable-http2-serving": "true", "http2-max-streams-per-connection": "250", "goaway-chance": "0.02"}
    usual = server_settings(config)
    changed = server_settings(replace(config, apiserver_flags=flags))

    assert (usual.http2, usual.http2_streams, usual.goaway_chance) == (True, 0, 0.0)
    assert (changed.http2, changed.http2_streams, changed.goaway_chance) == (False, 250, 0.02)


def test_a_policy_that_is_none_is_refused(config: ClusterConfig, tmp_path: Path) -> None:
    (tmp_path / "audit.yaml").write_text("kind: Policy")

    with pytest.raises(ConfigError, match="loading audit policy file: unknown group version field"):
        make_server(config, store=MemoryStore())


async def test_requests_in_flight_are_limited_as_the_flags_say(tmp_path: Path) -> None:
    flags = {"max-requests-inflight": "30", "max-mutating-requests-inflight": "10"}
    shared = ClusterConfig("shared", str(tmp_path / "shared"), apiserver_flags=flags)
    apart = replace(shared, apiserver_flags={**flags, "enable-priority-and-fairness": "false"})
    pki.ensure(shared)

    async def numbers(config: ClusterConfig) -> str:
        server = make_server(config, store=MemoryStore())
        await server.start()
        attach(server)
        text = await Api(server)("GET", "/metrics")
        await server.stop()
        return str(text[1])

    assert 'apiserver_flowcontrol_nominal_limit_seats{priority_level="catch-all"} 40\n' in await numbers(shared)
    without = await numbers(apart)
    assert "apiserver_flowcontrol_nominal_limit_seats" not in without
    assert 'apiserver_current_inflight_requests{request_kind="mutating"} 0\n' in without
