"""Real etcd servers: TLS, passwords, members that die or hang, keys that expire, values that are too large."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from navarch.store import record
from navarch.store.base import Conflict, Event, Put, StoreUnavailable, TooLarge
from navarch.store.etcd.store import EtcdStore
from navarch.store.etcd.target import Target, TargetError, parse

from ..ports import free_port
from .etcd_server import MISSING, Etcd, etcd_binary

needs_etcd = pytest.mark.skipif(etcd_binary() is None, reason=MISSING)


# The URL


def test_a_url_names_endpoints_a_prefix_and_files(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    target = parse(f"etcd://me@a:1,b,[::1]:3/prod/?ca=/ca.crt&cert=/c.crt&key=/c.key&password-file={tmp_path}/password")

    assert target == Target(
        ("a:1", "b:2379", "[::1]:3"),
        prefix="/prod",
        tls=True,
        ca=Path("/ca.crt"),
        cert=Path("/c.crt"),
        key=Path("/c.key"),
        user="me",
        password="s3cret",
    )
    assert "s3cret" not in str(target)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("etcd://", "at least one host"),
        ("etcd://a:b", "no host:port"),
        ("etcd://a?color=red", "no option 'color'"),
        ("etcd://a?cert=x", "go together"),
        ("etcd://a?ca=x&tls=false", "cannot have tls=false"),
        ("etcd://a?password-file=/nowhere", "cannot read /nowhere"),
        ("http://a", "does not begin with etcd://"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_in_words(url: str, words: str) -> None:
    with pytest.raises(TargetError, match=words):
        parse(url)


# Who may


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a server's and a client's certificate of it, and another authority."""
    folder = tmp_path_factory.mktemp("etcd-pki")
    ca_key = _authority(folder, "ca")
    _authority(folder, "other")
    for name in ("server", "client"):
        _issue(folder, name, ca_key)
    return folder


def _authority(folder: Path, name: str) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    _write(folder, name, key, _builder(name, name, key, ca=True).sign(key, hashes.SHA256()))
    return key


def _issue(folder: Path, name: str, ca_key: ec.EllipticCurvePrivateKey) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = _builder(name, "ca", key, ca=False).add_extension(names, critical=False)
    _write(folder, name, key, builder.sign(ca_key, hashes.SHA256()))


def _builder(subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> x509.CertificateBuilder:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )


def _write(folder: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@pytest.fixture(scope="module")
def tls_etcd(keys: Path) -> Iterator[Etcd]:
    if etcd_binary() is None:
        pytest.skip(MISSING)
    with Etcd(tls=keys) as etcd:
        yield etcd


async def written(url: str) -> int:
    store = EtcdStore(parse(url))
    await store.open()
    try:
        return await store.commit([Put("/a/1", b"x")])
    finally:
        await store.close()


async def test_with_certificates(tls_etcd: Etcd, keys: Path) -> None:
    shown = f"cert={keys}/client.crt&key={keys}/client.key"
    assert await written(f"{tls_etcd.url}?ca={keys}/ca.crt&{shown}") > 0


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("ca={keys}/other.crt&cert={keys}/client.crt&key={keys}/client.key", "does not check against the given CA"),
        ("ca={keys}/ca.crt", "TLS|certificate"),
        ("ca={keys}/missing.crt", "cannot read .*missing.crt"),
        ("", "cannot be reached|no answer|127.0.0.1"),
    ],
)
async def test_with_the_wrong_certificates_the_message_says_what_is_wrong(
    tls_etcd: Etcd, keys: Path, query: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("navarch.store.etcd.client.CALL_TIMEOUT_S", 2.0)
    with pytest.raises(StoreUnavailable, match=words):
        await written(f"{tls_etcd.url}?{query.format(keys=keys)}")


async def admin(etcd: Etcd, method: str, *texts: str, token: str = "") -> None:
    """A call of etcd's Auth service whose fields are all strings."""
    message = b"".join(
        bytes([8 * number + 2, len(text)]) + text.encode() for number, text in enumerate(texts, 1) if text
    )
    async with grpc.aio.insecure_channel(etcd.endpoints[0]) as channel:
        call = channel.unary_unary(f"/etcdserverpb.Auth/{method}")
        await call(message, timeout=10, metadata=(("token", token),) if token else None)


@needs_etcd
async def test_with_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("navarch.store.etcd.client.CALL_TIMEOUT_S", 3.0)
    (tmp_path / "password").write_text("s3cret\n")
    (tmp_path / "wrong").write_text("guess\n")
    with Etcd(arguments=("--auth-token-ttl", "1")) as etcd:
        await admin(etcd, "UserAdd", "root", "s3cret")
        await admin(etcd, "UserAdd", "nobody", "s3cret")
        await admin(etcd, "RoleAdd", "root")
        await admin(etcd, "UserGrantRole", "root", "root")
        await admin(etcd, "AuthEnable")
        hosts = etcd.endpoints[0]

        store = EtcdStore(parse(f"etcd://root@{hosts}?password-file={tmp_path}/password"))
        await store.open()
        revision = await store.commit([Put("/a/1", b"x")])
        async with asyncio.timeout(20), aclosing(store.watch("/a/", revision - 1)) as stream:  # type: ignore[type-var]
            async for item in stream:
                if isinstance(item, Event):
                    break
        # Tokens end after a second here.
        await asyncio.sleep(2.5)
        assert await store.commit([Put("/a/1", b"y", expected=revision)]) == revision + 1
        await store.close()

        for url, words in [
            (f"etcd://{hosts}", "asks for a user"),
            (f"etcd://root@{hosts}?password-file={tmp_path}/wrong", "refuses user 'root'"),
            (f"etcd://nobody@{hosts}?password-file={tmp_path}/password", "refuses user 'nobody'.*permission denied"),
        ]:
            with pytest.raises(StoreUnavailable, match=words):
                await written(url)


@needs_etcd
async def test_a_password_for_an_etcd_that_wants_none_is_pointed_out(etcd: Etcd) -> None:
    with pytest.raises(StoreUnavailable, match="no authentication enabled"):
        await written(f"etcd://root:x@{etcd.endpoints[0]}")


async def test_nobody_there_is_said_within_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("navarch.store.etcd.client.CALL_TIMEOUT_S", 1.0)
    port = free_port()
    async with asyncio.timeout(5):
        with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{port} cannot be reached"):
            await written(f"etcd://127.0.0.1:{port}")


# Members that die


@pytest.fixture
def three() -> Iterator[Etcd]:
    if etcd_binary() is None:
        pytest.skip(MISSING)
    with Etcd(members=3) as etcd:
        yield etcd


async def test_members_may_be_killed_one_after_the_other_under_load(three: Etcd) -> None:
    """No write fails, none is lost, none is done twice, and the watch sees each once, in order."""
    store = EtcdStore(parse(three.url))
    await store.open()
    since = await store.revision()
    seen: list[Event] = []
    stop = asyncio.Event()
    acknowledged: dict[str, int] = {}

    async def follow() -> None:
        async with aclosing(store.watch("/a/", since)) as stream:  # type: ignore[type-var]
            async for item in stream:
                if isinstance(item, Event):
                    seen.append(item)  # noqa: PERF401 - others look at it meanwhile

    async def write(worker: int) -> None:
        number = 0
        while not stop.is_set():
            key = f"/a/{worker}/{number}"
            acknowledged[key] = await store.commit([Put(key, key.encode(), expected=0)])
            number += 1

    following = asyncio.create_task(follow())
    writers = [asyncio.create_task(write(worker)) for worker in range(4)]
    for victim in range(3):
        await asyncio.sleep(0.7)
        await asyncio.to_thread(three.kill, victim)
        await asyncio.sleep(1.5)
        three.start(victim)
        await asyncio.to_thread(three.wait)
    stop.set()
    async with asyncio.timeout(30):
        await asyncio.gather(*writers)
        while len(seen) < len(acknowledged):
            await asyncio.sleep(0.01)
    following.cancel()
    stored = {entry.key: entry.mod_revision for entry in (await store.range("/a/")).entries}
    await store.close()

    assert stored == acknowledged
    assert {event.key: event.revision for event in seen} == acknowledged
    assert len(seen) == len(acknowledged)
    assert [event.revision for event in seen] == sorted(event.revision for event in seen)
    assert len(acknowledged) > 50


async def test_a_member_that_hangs_is_left_for_another(three: Etcd) -> None:
    store = EtcdStore(parse(three.url))
    await store.open()
    first = await store.commit([Put("/a/1", b"one", expected=0)])
    three.pause(0)
    try:
        async with asyncio.timeout(15):
            second = await store.commit([Put("/a/1", b"two", expected=first)])
            assert await store.commit([Put("/a/1", b"three", expected=second)]) == second + 1
    finally:
        three.resume(0)
    await store.close()


async def test_without_a_quorum_writes_and_reads_say_so_and_go_on_afterwards(
    three: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("navarch.store.etcd.store._COMMIT_TIMEOUT_S", 3.0)
    monkeypatch.setattr("navarch.store.etcd.client.CALL_TIMEOUT_S", 3.0)
    store = EtcdStore(parse(three.url))
    await store.open()
    await store.commit([Put("/a/1", b"x")])
    for member in (1, 2):
        await asyncio.to_thread(three.kill, member)

    async with asyncio.timeout(15):
        with pytest.raises(StoreUnavailable):
            await store.commit([Put("/a/2", b"x")])
        with pytest.raises(StoreUnavailable):
            await store.revision()
        with pytest.raises(StoreUnavailable):
            await store.check()
    for member in (1, 2):
        three.start(member)
    await asyncio.to_thread(three.wait)

    assert await store.commit([Put("/a/3", b"x")]) == await store.revision()
    await store.check()
    await store.close()


# Whose it is


async def test_the_objects_of_another_cluster_are_not_touched(etcd_url: str) -> None:
    mine = EtcdStore(parse(etcd_url), owner="mine 1234")
    await mine.open()
    also_mine = EtcdStore(parse(etcd_url), owner="mine 1234")
    await also_mine.open()
    with pytest.raises(StoreUnavailable, match="belongs to the cluster 'mine'"):
        await EtcdStore(parse(etcd_url), owner="mine 5678").open()
    await mine.close()
    await also_mine.close()


@needs_etcd
async def test_another_etcd_than_before_is_refused(etcd_url: str, tmp_path: Path) -> None:
    noted = tmp_path / "store.record"
    store = EtcdStore(parse(etcd_url), record=noted)
    await store.open()
    await store.close()

    with Etcd() as other, pytest.raises(StoreUnavailable, match=r"another etcd .*--accept-loss"):
        await EtcdStore(parse(other.url), record=noted).open()
    known = record.read(noted)
    assert known is not None
    record.create(noted, known._replace(revision=known.revision + 1_000_000))
    with pytest.raises(StoreUnavailable, match=r"lost its newest state.*--accept-loss"):
        await EtcdStore(parse(etcd_url), record=noted).open()


# Values and keys


async def test_a_value_that_is_too_large_is_refused_as_such(etcd_url: str) -> None:
    store = EtcdStore(parse(etcd_url))
    await store.open()
    for size in (1_600_000, 3_000_000):
        with pytest.raises(TooLarge, match="--max-request-bytes"):
            await store.commit([Put("/a/1", b"x" * size)])
    assert await store.commit([Put("/a/1", b"x" * 1_000_000)])
    await store.close()


async def test_long_ranges_come_in_pages_of_one_moment(etcd_url: str) -> None:
    store = EtcdStore(parse(etcd_url))
    await store.open()
    for start in range(0, 2500, 100):
        await store.commit([Put(f"/a/{i:05}", b"x") for i in range(start, start + 100)])

    page = await store.range("/a/")
    part = await store.range("/a/", limit=1500, after="/a/00099")
    past = await store.range("/a/", revision=page.revision - 1)
    await store.close()

    assert [entry.key for entry in page.entries] == [f"/a/{i:05}" for i in range(2500)]
    assert ([part.entries[0].key, part.entries[-1].key], part.more, part.remaining) == (
        ["/a/00100", "/a/01599"],
        True,
        900,
    )
    assert len(past.entries) == 2400


async def test_keys_expire_by_a_lease_that_they_share(etcd_url: str) -> None:
    store = EtcdStore(parse(etcd_url))
    await store.open()
    since = await store.commit([Put("/kept", b"k", ttl_s=1), Put("/short/0", b"x", ttl_s=1)])
    await store.commit([Put("/kept", b"k")])
    await store.commit([Put(f"/short/{i}", b"x", ttl_s=1) for i in range(1, 20)])
    assert len({lease.id for lease in store._leases._known.values()}) == 1

    gone: set[str] = set()
    async with asyncio.timeout(20), aclosing(store.watch("/short/", since)) as stream:  # type: ignore[type-var]
        async for item in stream:
            if isinstance(item, Event) and item.value is None:
                gone.add(item.key)
            if len(gone) == 20:
                break
    assert [entry.key for entry in (await store.range("/")).entries] == ["/kept"]
    await store.close()


async def test_a_lease_that_is_gone_before_its_time_is_replaced(etcd_url: str) -> None:
    store = EtcdStore(parse(etcd_url))
    await store.open()
    await store.commit([Put("/a", b"x", ttl_s=600)])
    known = store._leases._known[600]
    store._leases._known[600] = known._replace(id=4711)

    await store.commit([Put("/b", b"x", ttl_s=600)])

    assert store._leases._known[600].id != 4711
    await store.close()


# Answers that are lost


@needs_etcd
@pytest.mark.parametrize("happened", [True, False])
async def test_a_write_whose_answer_is_lost_happens_once(
    etcd_url: str, happened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call fails as if the connection broke, after or before etcd did it."""
    from navarch.store.etcd.client import Unanswered

    store = EtcdStore(parse(etcd_url))
    await store.open()
    first = await store.commit([Put("/a/1", b"one", expected=0)])
    attempt = store._client.attempt
    lost = 0

    async def losing(method: str, request: object, give_up_s: float) -> object:
        nonlocal lost
        if method == "KV/Txn" and not lost:
            lost += 1
            if happened:
                await attempt(method, request, give_up_s)
            raise Unanswered("connection reset", sent=True)
        return await attempt(method, request, give_up_s)

    monkeypatch.setattr(store._client, "attempt", losing)
    revision = await store.commit([Put("/a/1", b"two", expected=first), Put("/a/2", b"new", expected=0)])

    assert lost == 1
    assert revision == first + 1
    assert {entry.mod_revision for entry in (await store.range("/a/")).entries} == {revision}
    with pytest.raises(Conflict):
        await store.commit([Put("/a/1", b"three", expected=first)])
    await store.close()


@needs_etcd
async def test_an_outcome_that_cannot_be_told_is_not_guessed(etcd_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from navarch.store.etcd.client import Unanswered

    store, other = EtcdStore(parse(etcd_url)), EtcdStore(parse(etcd_url))
    await store.open()
    await other.open()
    first = await store.commit([Put("/a/1", b"one", expected=0)])
    attempt = store._client.attempt
    lost = 0

    async def losing(method: str, request: object, give_up_s: float) -> object:
        nonlocal lost
        if method == "KV/Txn" and not lost:
            lost += 1
            await attempt(method, request, give_up_s)
            await other.commit([Put("/a/1", b"theirs")])
            raise Unanswered("connection reset", sent=True)
        return await attempt(method, request, give_up_s)

    monkeypatch.setattr(store._client, "attempt", losing)
    with pytest.raises(StoreUnavailable, match="whether it happened is not known"):
        await store.commit([Put("/a/1", b"two", expected=first)])
    await store.close()
    await other.close()
