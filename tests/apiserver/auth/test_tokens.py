"""Service-account tokens: good while signature, audience, time and everything they are bound to are."""

from __future__ import annotations

import base64
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from navarch.api.errors import StatusError
from navarch.apiserver.auth.authenticator import ClusterAuthenticator
from navarch.apiserver.auth.base import TokenRefused
from navarch.apiserver.auth.legacy_tokens import LastUse
from navarch.apiserver.auth.tokens import ServiceAccountTokens
from navarch.apiserver.user import ANONYMOUS, User
from navarch.client.transport import Request
from navarch.world import RealWorld
from tests.clocks import SetClock

from .reader import ListReader

ACCOUNT = {"kind": "ServiceAccount", "metadata": {"name": "robot", "namespace": "dev", "uid": "sa-1"}}
POD = {
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "dev", "uid": "pod-1"},
    "spec": {"serviceAccountName": "robot"},
}


class World:
    """A token issuer over a few objects and a clock that a test moves."""

    def __init__(self, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        file = folder / "sa.key"
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.reader = ListReader(ACCOUNT, POD)
        self.clock = SetClock()
        self.tokens = ServiceAccountTokens(
            file,
            issuers=["https://issuer"],
            api_audiences=["https://issuer"],
            reader=self.reader,
            world=RealWorld(1, clock=self.clock),
        )

    async def token(self, **spec: Any) -> str:
        return str((await self.tokens.issue(ACCOUNT, spec))["token"])


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_token_stands_for_its_account(world: World) -> None:
    user, audiences = await world.tokens.check(await world.token())

    assert user.name == "system:serviceaccount:dev:robot"
    assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:dev", "system:authenticated")
    assert user.uid == "sa-1"
    assert audiences == ("https://issuer",)


async def test_a_token_ends_with_its_time(world: World) -> None:
    token = await world.token(expirationSeconds=600)
    await world.tokens.check(token)
    world.clock.time += timedelta(seconds=601)

    with pytest.raises(StatusError, match="Unauthorized"):
        await world.tokens.check(token)


async def test_a_token_ends_with_the_pod_that_it_is_bound_to(world: World) -> None:
    token = await world.token(boundObjectRef={"kind": "Pod", "name": "web", "uid": "pod-1"})
    user, _ = await world.tokens.check(token)
    assert user.extra["authentication.kubernetes.io/pod-name"] == ("web",)
    world.reader.objects.remove(POD)
    world.clock.time += timedelta(seconds=11)

    with pytest.raises(StatusError):
        await world.tokens.check(token)


async def test_a_token_for_another_audience_is_refused(world: World) -> None:
    token = await world.token(audiences=["vault"])

    with pytest.raises(StatusError):
        await world.tokens.check(token)
    assert (await world.tokens.check(token, ["vault"]))[1] == ("vault",)


async def test_a_token_with_a_changed_byte_is_refused(world: World) -> None:
    token = await world.token()
    head, body, signature = token.split(".")

    with pytest.raises(StatusError):
        await world.tokens.check(f"{head}.{body}.{signature[:-8]}AAAAAAAA")


async def test_an_injected_token_works_beyond_its_stated_hour(world: World) -> None:
    pod = {"kind": "Pod", "apiVersion": "v1", "name": "web"}
    status = await world.tokens.issue(ACCOUNT, {"expirationSeconds": 3607, "boundObjectRef": pod})
    alone = await world.tokens.issue(ACCOUNT, {"expirationSeconds": 3607})
    world.clock.time += timedelta(hours=5)

    assert status["expirationTimestamp"] == "2030-01-01T01:00:07Z"
    assert (await world.tokens.check(status["token"]))[0].uid == "sa-1"
    # One that is no pod's was asked for by somebody who knows when it ends.
    with pytest.raises(StatusError):
        await world.tokens.check(alone["token"])


async def test_a_token_of_a_pod_names_the_node_that_is_gone(world: World) -> None:
    world.reader.objects.append(
        {
            "kind": "Pod",
            "metadata": {"name": "x", "namespace": "dev", "uid": "1"},
            "spec": {"serviceAccountName": "robot", "nodeName": "gone"},
        }
    )

    user, _ = await world.tokens.check(await world.token(boundObjectRef={"kind": "Pod", "name": "x"}))

    assert user.extra["authentication.kubernetes.io/node-name"] == ("gone",)
    assert "authentication.kubernetes.io/node-uid" not in user.extra


async def test_binding_to_a_pod_of_another_account_is_refused(world: World) -> None:
    world.reader.objects.append(
        {"kind": "Pod", "metadata": {"name": "x", "namespace": "dev", "uid": "1"}, "spec": {"serviceAccountName": "a"}}
    )

    with pytest.raises(StatusError) as refused:
        await world.token(boundObjectRef={"kind": "Pod", "name": "x"})
    assert refused.value.code == 400


@pytest.mark.parametrize("header", ["Basic abc", "Bearer ", "Bearer not-a-token"])
async def test_wrong_credentials_are_refused_and_not_taken_for_none(world: World, header: str) -> None:
    authenticator = ClusterAuthenticator(world.tokens)

    with pytest.raises(StatusError) as refused:
        await authenticator.authenticate(Request("GET", "/", headers={"authorization": header}), None)
    assert refused.value.code == 401


async def test_certificates_static_tokens_and_nothing(world: World) -> None:
    authenticator = ClusterAuthenticator(world.tokens, static_tokens={"s3cret": User("ci", ("ops",))})
    subject = {"subject": ((("organizationName", "system:masters"),), (("commonName", "admin"),))}

    by_certificate = await authenticator.authenticate(Request("GET", "/"), subject)
    by_token = await authenticator.authenticate(Request("GET", "/", headers={"authorization": "Bearer s3cret"}), None)

    assert by_certificate == User("admin", ("system:masters", "system:authenticated"))
    assert by_token == User("ci", ("ops", "system:authenticated"))
    assert await authenticator.authenticate(Request("GET", "/"), None) is ANONYMOUS


async def test_a_token_that_was_looked_at_lately_is_recognized_as_long_as_it_is_good(world: World) -> None:
    authenticator = ClusterAuthenticator(world.tokens)
    token = await world.token(expirationSeconds=600)
    request = Request("GET", "/", headers={"authorization": f"Bearer {token}"})
    foreign = await world.token(audiences=["vault"])
    await world.tokens.check(foreign, ["vault"])

    def recognized(request: Request) -> User | None:
        return authenticator.recognized(request, None)

    assert recognized(request) is None
    user = await authenticator.authenticate(request, None)
    assert recognized(request) is user
    assert await authenticator.authenticate(request, None) is user
    assert recognized(Request("GET", "/", headers={"authorization": f"Bearer {foreign}"})) is None
    assert recognized(Request("GET", "/", headers={"authorization": f"Bearer {token}x"})) is None
    assert recognized(Request("GET", "/")) is None

    world.clock.time += timedelta(seconds=11)
    assert recognized(request) is None, "what it is bound to has to be looked at"
    assert await authenticator.authenticate(request, None) == user
    authenticator.forget()
    assert recognized(request) is None
    await authenticator.authenticate(request, None)
    world.clock.time += timedelta(seconds=600)
    assert recognized(request) is None


async def test_a_token_in_a_secret_is_good_while_the_secret_holds_it(world: World) -> None:
    secret = {"kind": "Secret", "metadata": {"name": "s", "namespace": "dev", "uid": "s-1"}, "data": {}}
    token = world.tokens.legacy_token(ACCOUNT, secret)
    world.reader.objects.append(secret)

    with pytest.raises(StatusError):
        await world.tokens.check(token)
    secret["data"] = {"token": base64.b64encode(token.encode()).decode()}
    assert (await world.tokens.check(token))[0].name == "system:serviceaccount:dev:robot"
    secret["data"] = {"token": "b3RoZXI="}
    world.clock.time += timedelta(minutes=1)
    with pytest.raises(StatusError):
        await world.tokens.check(token)


async def test_the_day_of_its_last_use_is_noted_once_and_an_invalidated_token_is_refused(world: World) -> None:
    written: list[dict[str, str]] = []

    class Writer:
        async def update(self, resource: Any, obj: Any, subresource: str = "", manager: str = "") -> Any:
            written.append(obj["metadata"]["labels"])
            secret["metadata"] = obj["metadata"]
            return obj

    secret: dict[str, Any] = {"kind": "Secret", "metadata": {"name": "s", "namespace": "dev", "uid": "s-1"}}
    token = world.tokens.legacy_token(ACCOUNT, secret)
    secret["data"] = {"token": base64.b64encode(token.encode()).decode()}
    world.reader.objects.append(secret)
    world.tokens._last_use = LastUse(Writer(), world.clock)

    for _ in range(3):
        await world.tokens.check(token)
        world.clock.time += timedelta(minutes=1)
    assert written == [{"kubernetes.io/legacy-token-last-used": f"{world.clock.time:%Y-%m-%d}"}]
    secret["metadata"]["labels"]["kubernetes.io/legacy-token-invalid-since"] = "2026-01-01"
    with pytest.raises(StatusError):
        await world.tokens.check(token)


# Keys


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _tokens(world: World, key: Path, *more: Path) -> ServiceAccountTokens:
    return ServiceAccountTokens(
        key,
        issuers=["https://issuer", "https://older"],
        api_audiences=["https://issuer"],
        reader=world.reader,
        world=RealWorld(1, clock=world.clock),
        more_keys=more,
    )


@pytest.mark.parametrize(
    ("key", "algorithm", "kind"),
    [
        (rsa.generate_private_key(65537, 2048), "RS256", "RSA"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256", "EC"),
        (ec.generate_private_key(ec.SECP384R1()), "ES384", "EC"),
    ],
)
async def test_tokens_are_signed_with_keys_of_either_kind(
    world: World, tmp_path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, algorithm: str, kind: str
) -> None:
    file = tmp_path / "other.key"
    file.write_bytes(_pem(key))
    tokens = _tokens(world, file)

    token = (await tokens.issue(ACCOUNT, {}))["token"]

    assert jwt.get_unverified_header(token)["alg"] == algorithm
    assert (await tokens.check(token))[0].uid == "sa-1"
    assert [(each["kty"], each["alg"]) for each in tokens.jwks()["keys"]] == [(kind, algorithm)]
    assert tokens.openid_configuration()["id_token_signing_alg_values_supported"] == [algorithm]


async def test_tokens_of_a_key_that_signs_no_more_are_believed(world: World, tmp_path: Path) -> None:
    old, new = tmp_path / "old.key", tmp_path / "new.key"
    old.write_bytes(_pem(rsa.generate_private_key(65537, 2048)))
    new.write_bytes(_pem(ec.generate_private_key(ec.SECP256R1())))
    token = (await _tokens(world, old).issue(ACCOUNT, {}))["token"]

    user, _ = await _tokens(world, new, old).check(token)

    assert user.uid == "sa-1"
    with pytest.raises(StatusError, match="Unauthorized"):
        await _tokens(world, new).check(token)


async def test_who_reviews_a_token_is_told_why_it_is_refused(world: World) -> None:
    token = await world.token(audiences=["vault"])

    with pytest.raises(TokenRefused) as refused:
        await world.tokens.check(token)
    assert refused.value.why == ('token audiences ["vault"] is invalid for the target audiences ["https://issuer"]')
    assert refused.value.message == "Unauthorized"
    world.reader.objects.remove(ACCOUNT)
    with pytest.raises(TokenRefused) as refused:
        await world.tokens.check(token, ["vault"])
    assert refused.value.why == 'serviceaccounts "robot" not found'
    world.clock.time += timedelta(hours=2)
    with pytest.raises(TokenRefused) as refused:
        await world.tokens.check(token, ["vault"])
    assert refused.value.why == "service account token has expired"


async def test_a_static_token_is_for_the_api_server_alone(world: World) -> None:
    authenticator = ClusterAuthenticator(world.tokens, static_tokens={"s3cret": User("ci", ("ops",))})

    assert (await authenticator.review_token("s3cret", ("https://issuer", "vault")))[1] == ("https://issuer",)
    with pytest.raises(StatusError):
        await authenticator.review_token("s3cret", ("vault",))
