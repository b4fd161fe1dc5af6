"""What is stored is encrypted as the configuration says, and read back; keys are rotated; a lost key is told of."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from navarch.apiserver.server import ApiServer
from navarch.store.base import Delete, Event, Put, StoreUnavailable
from navarch.store.encryption.config import EncryptionError, parse
from navarch.store.encryption.providers import AESCBC, AESGCM, PREFIX, DecryptError, Provider, SecretBox
from navarch.store.encryption.store import EncryptedStore
from navarch.store.memory import MemoryStore
from navarch.world import RealWorld
from tests.apiserver.conftest import CONFIG_MAPS, Api, config_map
from tests.store.encryption.kms_plugin import Plugin

SECRETS = "/api/v1/namespaces/default/secrets"
KEY = "/registry/core/secrets/default/s"


def secret(fill: str = "k") -> str:
    return base64.b64encode(fill.encode() * 32).decode()


def keyed(cipher: str, *names: str) -> dict[str, Any]:
    return {cipher: {"keys": [{"name": name, "secret": secret(name[0])} for name in names]}}


IDENTITY: dict[str, Any] = {"identity": {}}


def configuration(*providers: dict[str, Any], resources: tuple[str, ...] = ("secrets",)) -> dict[str, Any]:
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": list(resources), "providers": list(providers)}],
    }


def encrypted(inner: MemoryStore, *providers: dict[str, Any], **more: Any) -> EncryptedStore:
    return EncryptedStore(inner, parse(configuration(*providers, **more)))


@pytest.fixture
async def inner() -> AsyncIterator[MemoryStore]:
    store = MemoryStore()
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def plugin(tmp_path: Path) -> AsyncIterator[Plugin]:
    made = Plugin(tmp_path)
    await made.start()
    yield made
    await made.stop()


def kms(plugin: Plugin) -> dict[str, Any]:
    return {"kms": {"apiVersion": "v2", "name": "vault", "endpoint": plugin.endpoint, "timeout": "5s"}}


# Ciphers


@pytest.mark.parametrize("cipher", [AESCBC("k", b"k" * 32), AESGCM("k", b"k" * 32), SecretBox("k", b"k" * 32)])
@pytest.mark.parametrize("value", [b"", b"x", b"x" * 15, b"x" * 16, b"x" * 10_000])
def test_what_is_encrypted_reads_back_and_is_never_the_same_twice(cipher: Provider, value: bytes) -> None:
    once, twice = cipher.encrypt(value, KEY), cipher.encrypt(value, KEY)

    assert once != twice
    assert cipher.decrypt(once, KEY) == cipher.decrypt(twice, KEY) == value


@pytest.mark.parametrize("cipher", [AESGCM("k", b"k" * 32), SecretBox("k", b"k" * 32)])
def test_what_was_changed_is_refused(cipher: Provider) -> None:
    data = bytearray(cipher.encrypt(b"value", KEY))
    data[-1] ^= 1

    with pytest.raises(DecryptError):
        cipher.decrypt(bytes(data), KEY)


def test_what_was_moved_to_another_key_is_refused() -> None:
    cipher = AESGCM("k", b"k" * 32)

    with pytest.raises(DecryptError):
        cipher.decrypt(cipher.encrypt(b"value", KEY), f"{KEY}2")


@pytest.mark.parametrize("data", [b"", b"short", b"x" * 33, b"\x00" * 64])
@pytest.mark.parametrize("cipher", [AESCBC("k", b"k" * 32), AESGCM("k", b"k" * 32), SecretBox("k", b"k" * 32)])
def test_what_is_no_ciphertext_is_refused(cipher: Provider, data: bytes) -> None:
    with pytest.raises(DecryptError):
        cipher.decrypt(data, KEY)


# The store


@pytest.mark.parametrize("cipher", ["aescbc", "aesgcm", "secretbox"])
async def test_the_inner_store_sees_only_ciphertext_and_everybody_else_the_value(
    inner: MemoryStore, cipher: str
) -> None:
    store = encrypted(inner, keyed(cipher, "a"), IDENTITY)
    revision = await store.commit([Put(KEY, b"value", 0)])

    stored, read = await inner.get(KEY), await store.get(KEY)
    page = await store.range("/registry/")
    events = store.watch("/registry/", 0)
    event = await anext(events)
    await events.aclose()

    assert stored is not None
    assert read is not None
    assert stored.value.startswith(f"k8s:enc:{cipher}:v1:a:".encode())
    assert b"value" not in stored.value
    assert read.value == page.entries[0].value == b"value"
    assert event == Event(KEY, b"value", revision, revision)


async def test_what_no_entry_names_is_stored_as_it_is(inner: MemoryStore) -> None:
    store = encrypted(inner, keyed("aesgcm", "a"))
    await store.commit([Put("/registry/core/configmaps/default/c", b"value", 0)])

    entry = await inner.get("/registry/core/configmaps/default/c")

    assert entry is not None
    assert entry.value == b"value"


@pytest.mark.parametrize(
    ("resource", "key", "covered"),
    [
        ("secrets", "/registry/core/secrets/d/s", True),
        ("secrets", "/registry/example.com/secrets/d/s", False),
        ("widgets.example.com", "/registry/example.com/widgets/d/w", True),
        ("*.example.com", "/registry/example.com/gadgets//g", True),
        ("*.", "/registry/core/pods/d/p", True),
        ("*.", "/registry/apps/deployments/d/p", False),
        ("*.*", "/registry/apps/deployments/d/p", True),
    ],
)
def test_resources_are_named_one_by_one_by_group_or_all(resource: str, key: str, covered: bool) -> None:
    encryption = parse(configuration(keyed("aesgcm", "a"), resources=(resource,)))

    assert (encryption.providers_of(key) is not None) == covered


async def test_keys_are_rotated_by_writing_again(inner: MemoryStore) -> None:
    await encrypted(inner, keyed("aescbc", "a")).commit([Put(KEY, b"value", 0)])
    store = encrypted(inner, keyed("aescbc", "b", "a"))

    before = await store.get(KEY)
    was_stale = KEY in store.stale
    assert before is not None
    await store.commit([Put(KEY, before.value, before.mod_revision)])
    after = await inner.get(KEY)

    assert was_stale
    assert KEY not in store.stale
    assert after is not None
    assert after.value.startswith(b"k8s:enc:aescbc:v1:b:")


async def test_encryption_begins_and_ends_with_identity(inner: MemoryStore) -> None:
    await inner.commit([Put(KEY, b"value", 0)])

    begun = encrypted(inner, keyed("aesgcm", "a"), IDENTITY)
    plain = await begun.get(KEY)
    assert plain is not None
    assert plain.value == b"value"
    assert KEY in begun.stale
    await begun.commit([Put(KEY, b"value")])
    ended = encrypted(inner, IDENTITY, keyed("aesgcm", "a"))
    read = await ended.get(KEY)

    assert read is not None
    assert read.value == b"value"
    assert KEY in ended.stale


async def test_whoever_lost_the_key_gets_what_is_stored_and_a_line_in_the_log(
    inner: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    await encrypted(inner, keyed("aesgcm", "a")).commit([Put(KEY, b"value", 0)])

    entry = await encrypted(inner, keyed("aesgcm", "b")).get(KEY)

    assert entry is not None
    assert entry.value.startswith(PREFIX)
    assert f"the stored value of {KEY} cannot be decrypted: no matching prefix found" in caplog.text


async def test_deletions_and_conflicts_are_those_of_the_inner_store(inner: MemoryStore) -> None:
    store = encrypted(inner, keyed("aesgcm", "a"))
    revision = await store.commit([Put(KEY, b"value", 0)])

    await store.commit([Delete(KEY, revision)])

    assert await store.get(KEY) is None
    assert store.max_ops == inner.max_ops


# A key management service


async def test_a_service_is_asked_for_a_seed_and_never_for_a_value(inner: MemoryStore, plugin: Plugin) -> None:
    store = encrypted(inner, kms(plugin), IDENTITY)
    await store.open()
    for number in range(5):
        await store.commit([Put(f"{KEY}{number}", b"value", 0)])
    stored = await inner.get(f"{KEY}0")
    read = await store.get(f"{KEY}0")
    await store.close()

    assert plugin.asked == ["encrypt"]
    assert stored is not None
    assert stored.value.startswith(b"k8s:enc:kms:v2:vault:")
    assert read is not None
    assert read.value == b"value"


async def test_a_server_that_starts_anew_asks_once_for_each_seed_that_it_meets(
    inner: MemoryStore, plugin: Plugin
) -> None:
    first = encrypted(inner, kms(plugin))
    await first.open()
    await first.commit([Put(f"{KEY}{number}", b"value", 0) for number in range(5)])
    await inner.open()
    await first.close()
    plugin.asked.clear()

    second = encrypted(inner, kms(plugin))
    await second.open()
    page = await second.range("/registry/")
    await second.close()

    assert {entry.value for entry in page.entries} == {b"value"}
    assert plugin.asked == ["encrypt", "decrypt"]


async def test_what_an_older_key_of_the_service_has_encrypted_is_stale(inner: MemoryStore, plugin: Plugin) -> None:
    store = encrypted(inner, kms(plugin))
    await store.open()
    await store.commit([Put(KEY, b"value", 0)])
    plugin.key_id = "2"
    await store._encryption.kms[0]._renew()

    read = await store.get(KEY)
    was_stale = KEY in store.stale
    await store.commit([Put(KEY, b"value")])
    await store.get(KEY)
    await store.close()

    assert read is not None
    assert read.value == b"value"
    assert was_stale
    assert KEY not in store.stale


async def test_a_service_that_is_not_well_keeps_the_store_from_opening(inner: MemoryStore, plugin: Plugin) -> None:
    plugin.healthz = "sealed"

    with pytest.raises(StoreUnavailable, match="unhealthy: healthz is 'sealed'"):
        await encrypted(inner, kms(plugin)).open()


# Configurations


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "no EncryptionConfiguration"),
        ({**configuration(IDENTITY), "resources": []}, "resources list must contain at least one resource"),
        (configuration(IDENTITY, resources=()), "resources must be specified"),
        (configuration(), "at least one provider must be specified"),
        (configuration(IDENTITY, resources=("*",)), "use '\\*\\.' to encrypt all the resources from core API group"),
        (configuration(IDENTITY, resources=("Secrets",)), "should be in lower case"),
        (configuration({}), "does not contain any of the expected providers"),
        (configuration({**IDENTITY, **keyed("aesgcm", "a")}), "more than one provider specified in a single element"),
        (configuration({"aesgcm": {"keys": []}}), "keys must be specified"),
        (configuration({"aesgcm": {"keys": [{"secret": secret()}]}}), "key name must be specified"),
        (configuration(keyed("aesgcm", "a", "a")), "duplicate key name a"),
        (configuration({"aescbc": {"keys": [{"name": "a", "secret": "?"}]}}), "secret must be base64 encoded"),
        (
            configuration({"secretbox": {"keys": [{"name": "a", "secret": "YQ=="}]}}),
            r"secret is not of the expected length, got 1, expected one of \[32\]",
        ),
        (configuration({"kms": {"name": "a", "endpoint": "unix:///a"}}), "unsupported apiVersion"),
        (configuration({"kms": {"apiVersion": "v2", "name": "a", "endpoint": "http://a"}}), "should be unix"),
    ],
)
def test_configurations_that_cannot_be_are_refused(document: Any, message: str) -> None:
    with pytest.raises(EncryptionError, match=message):
        parse(document)


# Through the API


async def test_secrets_are_encrypted_and_a_replacement_that_changes_nothing_encrypts_them_anew() -> None:
    inner = MemoryStore()
    await inner.open()

    async def api_with(*providers: dict[str, Any]) -> tuple[Api, ApiServer]:
        await inner.open()
        server = ApiServer(encrypted(inner, *providers), world=RealWorld(1))
        await server.start()
        return Api(server), server

    api, server = await api_with(keyed("aesgcm", "a"))
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
    await api.ok("POST", SECRETS, {"metadata": {"name": "s"}, "stringData": {"k": "hidden"}})
    await api.ok("POST", CONFIG_MAPS, config_map("c", k="seen"))
    await server.stop()
    api, server = await api_with(keyed("aesgcm", "b", "a"))
    found = await api.ok("GET", f"{SECRETS}/s")

    await api.ok("PUT", f"{SECRETS}/s", found)

    entry = await inner.get(KEY)
    assert found["data"] == {"k": base64.b64encode(b"hidden").decode()}
    assert entry is not None
    assert entry.value.startswith(b"k8s:enc:aesgcm:v1:b:")
    before = entry.mod_revision
    await asyncio.sleep(0)
    await api.ok("PUT", f"{SECRETS}/s", await api.ok("GET", f"{SECRETS}/s"))
    again = await inner.get(KEY)
    assert again is not None
    assert again.mod_revision == before
    await server.stop()
    await inner.close()


# Keys that change while a server runs


async def test_a_key_that_was_replaced_under_its_old_name_still_reads(inner: MemoryStore) -> None:
    await encrypted(inner, keyed("aescbc", "a")).commit([Put(KEY, b"value", 0)])
    replaced = {"aescbc": {"keys": [{"name": "a", "secret": secret("x")}]}}

    store = encrypted(inner, replaced, keyed("aescbc", "a"))
    read = await store.get(KEY)

    assert read is not None
    assert read.value == b"value"
    assert KEY in store.stale


async def test_another_configuration_makes_stale_what_the_first_key_has_not_encrypted(inner: MemoryStore) -> None:
    store = encrypted(inner, keyed("aesgcm", "a"))
    await store.commit([Put(KEY, b"value", 0)])

    await store.use(parse(configuration(keyed("aesgcm", "b", "a"))))
    stale = set(store.stale)
    await store.use(parse(configuration(keyed("aesgcm", "a"))))

    assert stale == {KEY}
    assert store.stale == set()


async def test_what_a_new_key_of_the_service_makes_old_is_written_anew(inner: MemoryStore, plugin: Plugin) -> None:
    store = encrypted(inner, kms(plugin))
    await store.open()
    await store.commit([Put(KEY, b"value", 0)])

    plugin.key_id = "2"
    await store.services[0].look()
    stale = set(store.stale)
    await store.close()

    assert stale == {KEY}


async def test_what_a_service_could_not_decrypt_is_read_when_it_can(inner: MemoryStore, plugin: Plugin) -> None:
    first = ApiServer(encrypted(inner, kms(plugin)), world=RealWorld(1))
    await first.start()
    await Api(first).ok("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
    await Api(first).ok("POST", SECRETS, {"metadata": {"name": "s"}, "stringData": {"k": "v"}})
    await first.stop()
    await inner.open()
    plugin.refuses = True
    store = encrypted(inner, kms(plugin))
    server = ApiServer(store, world=RealWorld(1))
    store.readable_again = server.core.caches.read_again
    await server.start()
    status, _ = await Api(server)("GET", f"{SECRETS}/s")

    plugin.healthz = "sealed"
    await store.services[0].look()
    problem, plugin.refuses, plugin.healthz = store.services[0].problem, False, "ok"
    await store.services[0].look()
    found = await Api(server).ok("GET", f"{SECRETS}/s")
    await server.stop()

    assert status == 500
    assert "sealed" in problem
    assert found["data"] == {"k": "dg=="}


async def test_a_service_is_not_asked_for_each_value_of_a_seed_that_it_refuses(
    inner: MemoryStore, plugin: Plugin
) -> None:
    first = encrypted(inner, kms(plugin))
    await first.open()
    await first.commit([Put(f"{KEY}{number}", b"value", 0) for number in range(20)])
    await inner.open()
    await first.close()
    plugin.asked.clear()
    plugin.refuses = True

    second = encrypted(inner, kms(plugin))
    await second.open()
    await second.range("/registry/")
    await second.close()

    assert plugin.asked == ["encrypt", "decrypt"]


async def test_a_service_that_is_silent_for_long_keeps_others_from_writing_and_nobody_from_reading(
    inner: MemoryStore, plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = encrypted(inner, kms(plugin))
    await store.open()
    await store.commit([Put(KEY, b"value", 0)])
    plugin.healthz = "sealed"
    await store.services[0].look()
    await store.commit([Put(KEY, b"other")])
    monkeypatch.setattr("navarch.store.encryption.kms._GOOD_FOR_S", -1.0)

    with pytest.raises(StoreUnavailable, match="healthz is 'sealed'"):
        await store.commit([Put(KEY, b"third")])
    read = await store.get(KEY)
    await store.close()

    assert read is not None
    assert read.value == b"other"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resources": "secrets"}, "resources: must be a list"),
        ({"resources": [None]}, r"resources\[0\]: must be an object"),
        ({"resources": ["secrets"]}, r"resources\[0\]: must be an object"),
        ({"resources": [{"resources": "secrets"}]}, r"resources\[0\].resources: must be a list"),
        ({"resources": [{"resources": [1]}]}, r"resources\[0\].resources\[0\]: must be a string"),
        ({"resources": [{"resources": ["a"], "providers": [{"aescbc": []}]}]}, "aescbc: must be an object"),
        ({"resources": [{"resources": ["a"], "providers": [{"aescbc": {"keys": [4]}}]}]}, r"keys\[0\]: must be an obj"),
        ({"resources": [{"resources": ["a"], "providers": [{"kms": {"timeout": 3}}]}]}, "timeout: must be a string"),
        ({"resourses": []}, 'unknown field "resourses"'),
    ],
)
def test_configurations_of_another_form_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EncryptionError, match=message):
        parse({**configuration(IDENTITY), **changes})


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (("secrets", "*."), "such as 'secrets' and '\\*.' in the same"),
        (("deployments.apps", "*.apps"), "such as 'deployments.apps' and '\\*.apps'"),
        (("*.apps", "*.*"), "such as '\\*.apps' and '\\*.\\*'"),
        (("secrets", "secrets"), "the same resource cannot be specified multiple times"),
    ],
)
def test_a_list_names_a_resource_once(resources: tuple[str, ...], message: str) -> None:
    with pytest.raises(EncryptionError, match=message):
        parse(configuration(IDENTITY, resources=resources))
