"""Certificates are renewed while the cluster runs; nobody's connection ends for it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from navarch.client.resources import NAMESPACES
from navarch.cluster import certificates, kubeconfig, pki, run_apiserver
from navarch.cluster.certificates import Speaker
from navarch.cluster.config import ClusterConfig
from navarch.cluster.renewal import renew
from tests.ports import free_port

OF_NODES = {"kubelet", "kubelet-serving", "proxy", "dns", "ingress"}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterConfig:
    monkeypatch.setattr(run_apiserver, "LOOK_EVERY_S", 0.02)
    made = ClusterConfig(
        "lasting", str(tmp_path / "c"), port=free_port(), store="memory", node_name="n1", nodes=1,
        kubeconfig=str(tmp_path / "kubeconfig"),
    )  # fmt: skip
    pki.ensure(made)
    return made


@pytest.fixture
async def serving(config: ClusterConfig) -> AsyncIterator[Speaker]:
    """The API server's process, and an administrator who has found it ready."""
    server = asyncio.create_task(run_apiserver.run(config))
    admin = Speaker(config, "admin", "test")
    try:
        async with asyncio.timeout(60):
            while True:
                if server.done():
                    server.result()
                try:
                    await admin.client.get(NAMESPACES, "default")
                    break
                except OSError:
                    await asyncio.sleep(0.02)
        yield admin
    finally:
        await admin.client.close()
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)


def a_year_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are about to end."""
    monkeypatch.setattr(pki, "_RENEW_BEFORE", timedelta(days=400))


def serials(config: ClusterConfig) -> dict[str, int]:
    return {
        file.stem: x509.load_pem_x509_certificate(file.read_bytes()).serial_number for file in config.pki.glob("*.crt")
    }


async def shown_by(config: ClusterConfig) -> tuple[int, asyncio.StreamReader, asyncio.StreamWriter]:
    """The serial of what a new connection is shown, and that connection."""
    tls = ssl.create_default_context(cafile=str(config.pki / "ca.crt"))
    tls.load_cert_chain(config.pki / "admin.crt", config.pki / "admin.key")
    reader, writer = await asyncio.open_connection("127.0.0.1", config.port, ssl=tls)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(shown).serial_number, reader, writer


def test_what_processes_show_is_renewed_and_what_nodes_look_after_is_left_to_them(
    config: ClusterConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = serials(config)
    renew(config)
    assert serials(config) == before

    a_year_later(monkeypatch)
    renew(config)

    after = serials(config)
    assert {name for name in before if after[name] == before[name]} == {"ca", "front-proxy-ca", *OF_NODES}


def test_the_users_kubeconfig_has_the_new_certificate_where_it_had_the_old_one(
    config: ClusterConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_year_later(monkeypatch)
    renew(config)
    assert not Path(config.kubeconfig).exists()
    kubeconfig.merge(config)
    merged = yaml.safe_load(Path(config.kubeconfig).read_text())
    others = {"name": "other", "user": {"token": "t"}}
    merged["users"].append(others)
    merged["current-context"] = "other"
    Path(config.kubeconfig).write_text(yaml.safe_dump(merged))

    renew(config)

    found = yaml.safe_load(Path(config.kubeconfig).read_text())
    assert found["users"] == [*yaml.safe_load(config.admin_kubeconfig.read_text())["users"], others]
    assert found["users"][0] != merged["users"][0]
    assert found["current-context"] == "other"


async def test_the_api_server_shows_the_new_one_and_ends_no_connection(
    config: ClusterConfig, serving: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, reader, writer = await shown_by(config)
    writers = [writer]
    try:
        a_year_later(monkeypatch)
        await asyncio.to_thread(renew, config)
        monkeypatch.undo()

        async with asyncio.timeout(60):
            while (found := await shown_by(config))[0] == before:
                writers.append(found[2])
                await asyncio.sleep(0.02)
        writers.append(found[2])
        assert found[0] == serials(config)["apiserver"]
        writer.write(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    finally:
        for each in writers:
            each.close()


async def test_who_speaks_to_it_goes_on_with_its_own_new_one(
    config: ClusterConfig, serving: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[object] = []
    real = certificates.show
    monkeypatch.setattr(certificates, "show", lambda *arguments: (used.append(arguments[1].name), real(*arguments)))
    a_year_later(monkeypatch)
    await asyncio.to_thread(renew, config)

    serving.look()

    assert "admin.crt" in used
    assert (await serving.client.get(NAMESPACES, "default"))["metadata"]["name"] == "default"


async def test_half_a_pair_is_not_shown(config: ClusterConfig, serving: Speaker) -> None:
    (config.pki / "admin.crt").write_bytes((config.pki / "scheduler.crt").read_bytes())

    serving.look()

    assert (await serving.client.get(NAMESPACES, "default"))["metadata"]["name"] == "default"
