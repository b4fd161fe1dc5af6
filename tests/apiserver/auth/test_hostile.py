"""Issuers and webhooks that hang, lie or send nonsense: nobody gets in by them, nobody is kept out who is good."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from navarch.api.errors import StatusError
from navarch.apiserver.auth.access_webhook import REQUESTS, AccessWebhook, AccessWebhookSettings
from navarch.apiserver.auth.authenticator import ClusterAuthenticator
from navarch.apiserver.auth.base import Decision, RequestAttributes
from navarch.apiserver.auth.jwt_issuers import From, Issuer, JWTIssuers
from navarch.apiserver.auth.token_webhook import TokenWebhook
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import User
from navarch.client.config import Target
from navarch.client.transport import Request
from navarch.world import RealWorld
from tests.apiserver.auth.test_tokens import World
from tests.apiserver.conftest import CONFIG_MAPS, Api, config_map
from tests.clocks import SetClock

SIGNED_WITH = ec.generate_private_key(ec.SECP256R1())


class Provider:
    """An issuer whose documents a test replaces; it answers when `open` is set."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.open = asyncio.Event()
        self.open.set()
        self.asked = 0
        key = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(SIGNED_WITH.public_key()))
        self.keys: Any = {"keys": [{**key, "kid": "1", "alg": "ES256"}]}

    def token(self, **claims: Any) -> str:
        said = {"iss": self.url, "aud": "kube", "sub": "42", "exp": 2**33, **claims}
        return jwt.encode(said, SIGNED_WITH, algorithm="ES256", headers={"kid": "1"})

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        await self.open.wait()
        if request.path.endswith("openid-configuration"):
            return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})
        return web.json_response(self.keys)


@pytest.fixture
async def provider(served: tuple[str, list[Any]]) -> Provider:
    made = Provider(served[0])
    served[1].append(made.answer)
    return made


@pytest.fixture
def issuers(provider: Provider) -> JWTIssuers:
    return JWTIssuers([Issuer(provider.url, ("kube",), From("sub"))], RealWorld(1, clock=SetClock()))


async def test_all_whose_tokens_come_while_keys_are_fetched_get_in(provider: Provider, issuers: JWTIssuers) -> None:
    provider.open.clear()
    waiting = [asyncio.create_task(issuers.check(provider.token(), ())) for _ in range(5)]
    while not provider.asked:
        await asyncio.sleep(0)
    waiting[0].cancel()
    provider.open.set()

    assert await asyncio.gather(*waiting[1:]) == [User("42")] * 4
    assert provider.asked == 2


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": "soon"},
        {"exp": []},
        {"exp": True},
        {"exp": float("nan")},
        {"nbf": "soon"},
        {"nbf": float("nan")},
        {"aud": [["kube"]]},
        {"aud": {"kube": 1}},
        {"aud": None},
        {"sub": None},
    ],
)
async def test_claims_of_odd_types_are_nobodys(provider: Provider, issuers: JWTIssuers, claims: dict[str, Any]) -> None:
    assert await issuers.check(provider.token(**claims), ()) is None


def of_another_kind() -> dict[str, Any]:
    public = rsa.generate_private_key(65537, 2048).public_key()
    return {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(public)), "kid": "1"}


@pytest.mark.parametrize(
    "keys",
    [
        {"keys": None},
        {"keys": "abc"},
        {"keys": [None, 1, "k", {}, {"kty": "EC"}, {"kty": 4}]},
        [],
        "nonsense",
        {"keys": [{"kty": "oct", "kid": "1", "k": "c2VjcmV0"}]},
        {"keys": [of_another_kind()]},
    ],
)
async def test_keys_that_are_none_let_nobody_in(provider: Provider, issuers: JWTIssuers, keys: Any) -> None:
    provider.keys = keys

    assert await issuers.check(provider.token(), ()) is None


async def test_nonsense_among_the_keys_keeps_nobody_out(provider: Provider, issuers: JWTIssuers) -> None:
    provider.keys = {
        "keys": [None, {"kty": "oct", "kid": "1", "k": "c2VjcmV0"}, of_another_kind(), *provider.keys["keys"]]
    }

    assert await issuers.check(provider.token(), ()) == User("42")


async def test_a_token_nested_without_end_is_nobodys(tmp_path: Any, provider: Provider, issuers: JWTIssuers) -> None:
    deep = urlsafe_b64encode(b"[" * 100_000).rstrip(b"=").decode()
    authenticator = ClusterAuthenticator(World(tmp_path).tokens, sources=[issuers])

    for token in (f"{deep}.{deep}.x", f"eyJhbGciOiJFUzI1NiJ9.{deep}.x"):
        request = Request("GET", "/api", headers={"authorization": f"Bearer {token}"})
        with pytest.raises(Exception, match="Unauthorized"):
            await authenticator.authenticate(request, None)


@pytest.mark.parametrize(
    "status",
    [
        {"authenticated": True, "user": "root"},
        {"authenticated": True, "user": {"username": "jane", "groups": "system:masters"}},
        {"authenticated": True, "user": {"username": 4}},
        {"authenticated": True, "user": {"username": "jane", "extra": {"k": "v"}}},
        {"authenticated": True, "user": {"username": "jane", "extra": ["k"]}},
        {"authenticated": "yes", "user": {"username": "jane"}},
        {"authenticated": True, "user": {"username": "jane"}, "audiences": ["another"]},
        {"authenticated": True, "user": {"username": "jane"}, "audiences": "kube"},
        [],
    ],
)
async def test_a_token_webhook_that_says_nonsense_knows_nobody(served: tuple[str, list[Any]], status: Any) -> None:
    async def review(request: web.Request) -> web.Response:
        return web.json_response({"status": status})

    served[1].append(review)
    webhook = TokenWebhook(Target(served[0], None, None), "v1", 60.0, RealWorld(1))

    assert await webhook.check("token", ("kube",)) is None


async def test_a_condition_that_does_not_hold_decides_before_one_that_fails() -> None:
    fails, does_not_hold = REQUESTS.compile("request.no.such == 1"), REQUESTS.compile("request.user == 'joe'")
    settings = AccessWebhookSettings(
        "w", Target("http://127.0.0.1:1/", None, None), denies=True, conditions=[fails, does_not_hold]
    )

    assert await AccessWebhook(settings, RealWorld(1)).decide(User("jane"), RequestAttributes("get")) == Decision(False)


async def test_what_others_forbid_inside_a_request_is_forbidden(server: ApiServer, api: Api) -> None:
    """Impersonating, and creating by an apply, are decided by whoever decides on requests."""
    asked: list[RequestAttributes] = []

    async def decide(user: User, attributes: RequestAttributes) -> Decision:
        asked.append(attributes)
        return Decision(attributes.verb not in ("impersonate", "create"), denied=True)

    server.core.deciding = decide
    jane = Api(server, User("jane", ("system:authenticated",)))
    creating, _ = await jane.patch(f"{CONFIG_MAPS}/new?fieldManager=m", config_map("new"), "apply")
    jane.headers["impersonate-user"] = "root"
    impersonating, _ = await jane("GET", CONFIG_MAPS)

    assert (impersonating, creating) == (403, 403)
    assert [attributes.verb for attributes in asked] == ["patch", "create", "impersonate"]


def certificate(*uids: str) -> bytes:
    """A client's, in DER form."""
    named = [x509.NameAttribute(NameOID.COMMON_NAME, "jane"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "devs")]
    named += [x509.NameAttribute(ObjectIdentifier("1.3.6.1.4.1.57683.2"), uid) for uid in uids]
    subject, now = x509.Name(named), datetime.now(UTC)
    built = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(SIGNED_WITH.public_key())
    built = built.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    return built.sign(SIGNED_WITH, hashes.SHA256()).public_bytes(Encoding.DER)


async def test_a_certificate_names_its_users_uid_and_itself(tmp_path: Any) -> None:
    tokens, shown = World(tmp_path).tokens, certificate("u1")
    extra = {"authentication.kubernetes.io/credential-id": (f"X509SHA256={sha256(shown).hexdigest()}",)}
    groups = ("devs", "system:authenticated")

    user = await ClusterAuthenticator(tokens).authenticate(Request("GET", "/"), shown)
    without = await ClusterAuthenticator(tokens, certificate_uids=False).authenticate(Request("GET", "/"), shown)

    assert user == User("jane", groups, "u1", extra)
    assert without == User("jane", groups, "", extra)


async def test_a_certificate_with_several_uids_is_nobodys(tmp_path: Any) -> None:
    with pytest.raises(StatusError, match="Unauthorized"):
        await ClusterAuthenticator(World(tmp_path).tokens).authenticate(Request("GET", "/"), certificate("a", "b"))
