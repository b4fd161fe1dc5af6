"""Tokens that others than this server made: bootstrap tokens, OpenID Connect issuers, a webhook."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from navarch.api.errors import StatusError
from navarch.apiserver.auth.authentication_config import AuthenticationError, parse
from navarch.apiserver.auth.authenticator import ClusterAuthenticator
from navarch.apiserver.auth.bootstrap_tokens import BootstrapTokens
from navarch.apiserver.auth.jwt_issuers import CLAIMS, USERS, Check, From, Issuer, JWTIssuers
from navarch.apiserver.auth.token_webhook import TokenWebhook
from navarch.apiserver.user import ANONYMOUS, User
from navarch.client.config import Target
from navarch.client.transport import Request
from navarch.world import RealWorld
from tests.apiserver.auth.reader import ListReader
from tests.apiserver.auth.test_tokens import World
from tests.clocks import SetClock


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


# Bootstrap tokens

TOKEN = "abcdef.0123456789abcdef"


def bootstrap_secret(**changes: str) -> dict[str, Any]:
    said = {
        "token-id": "abcdef",
        "token-secret": "0123456789abcdef",
        "usage-bootstrap-authentication": "true",
        "auth-extra-groups": "system:bootstrappers:workers",
        **changes,
    }
    return {
        "kind": "Secret",
        "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in said.items()},
    }


async def test_a_bootstrap_token_is_a_user_with_the_groups_of_its_secret(clock: SetClock) -> None:
    tokens = BootstrapTokens(ListReader(bootstrap_secret()), clock)

    assert await tokens.check(TOKEN, ()) == User(
        "system:bootstrap:abcdef", ("system:bootstrappers", "system:bootstrappers:workers")
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"token-secret": "another"},
        {"usage-bootstrap-authentication": "false"},
        {"expiration": "2000-01-01T00:00:00Z"},
        {"expiration": "whenever"},
        {"auth-extra-groups": "system:masters"},
        {"token-id": "fedcba"},
    ],
)
async def test_what_is_not_good_any_more_or_never_was_is_nobody(clock: SetClock, changes: dict[str, str]) -> None:
    tokens = BootstrapTokens(ListReader(bootstrap_secret(**changes)), clock)

    assert await tokens.check(TOKEN, ()) is None
    assert await tokens.check("something else", ()) is None


# OpenID Connect


class Provider:
    """An issuer with its keys, as providers publish them."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        self._keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self.rotate("1")

    def rotate(self, name: str) -> None:
        self._name = name
        self._keys = {name: ec.generate_private_key(ec.SECP256R1())}

    def token(self, clock: SetClock, **claims: Any) -> str:
        said = {"iss": self.url, "aud": "kube", "sub": "42", "exp": int(clock.time.timestamp()) + 600, **claims}
        return jwt.encode(said, self._keys[self._name], algorithm="ES256", headers={"kid": self._name})

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if request.path.endswith("openid-configuration"):
            return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})
        key = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self._keys[self._name].public_key()))
        return web.json_response({"keys": [{**key, "kid": self._name, "use": "sig", "alg": "ES256"}]})


@pytest.fixture
async def provider(served: tuple[str, list[Any]]) -> Provider:
    made = Provider()
    made.url, handlers = served
    handlers.append(made.answer)
    return made


@pytest.fixture
def issuer(provider: Provider) -> Issuer:
    return Issuer(provider.url, ("kube",), From("sub", "oidc:"), groups=From("groups", "oidc:"))


def issuers(issuer: Issuer, clock: SetClock) -> JWTIssuers:
    return JWTIssuers([issuer], RealWorld(1, clock=clock))


async def test_claims_say_who_a_token_stands_for(provider: Provider, issuer: Issuer, clock: SetClock) -> None:
    known = issuers(issuer, clock)

    assert await known.check(provider.token(clock, groups=["a", "b"]), ()) == User("oidc:42", ("oidc:a", "oidc:b"))
    assert await known.check(provider.token(clock, groups="a"), ()) == User("oidc:42", ("oidc:a",))
    assert provider.asked == ["/.well-known/openid-configuration", "/keys"]


@pytest.mark.parametrize(
    "claims",
    [{"exp": 1}, {"aud": "other"}, {"iss": "https://other"}, {"sub": ""}, {"sub": 4}, {"groups": [1]}, {"nbf": 2**33}],
)
async def test_tokens_that_are_not_good_are_nobodys(
    provider: Provider, issuer: Issuer, clock: SetClock, claims: dict[str, Any]
) -> None:
    assert await issuers(issuer, clock).check(provider.token(clock, **claims), ()) is None


async def test_a_forged_token_is_nobodys(provider: Provider, issuer: Issuer, clock: SetClock) -> None:
    known = issuers(issuer, clock)
    await known.check(provider.token(clock), ())
    forger = Provider()
    forger.url = provider.url

    assert await known.check(forger.token(clock), ()) is None
    assert await known.check(jwt.encode({"iss": provider.url}, "", algorithm="none"), ()) is None
    assert await known.check("no token", ()) is None


async def test_a_new_key_is_fetched_when_a_token_names_it(provider: Provider, issuer: Issuer, clock: SetClock) -> None:
    known = issuers(issuer, clock)
    await known.check(provider.token(clock), ())
    provider.rotate("2")
    at_once = await known.check(provider.token(clock), ())
    clock.time += timedelta(seconds=11)
    later = await known.check(provider.token(clock), ())

    # Who makes up names of keys makes nobody fetch them over and over.
    assert at_once is None
    assert later == User("oidc:42")


async def test_expressions_say_it_too(provider: Provider, issuer: Issuer, clock: SetClock) -> None:
    mapped = replace(
        issuer,
        username=From(expression=CLAIMS.compile("'user-' + claims.sub")),
        groups=From(expression=CLAIMS.compile("claims.roles.split(',')")),
        uid=From("sub"),
        extra=(("example.com/tenant", CLAIMS.compile("claims.tenant")),),
        required={"hd": "example.com"},
        claim_checks=(Check(CLAIMS.compile("claims.level > 3"), "too low"),),
        user_checks=(Check(USERS.compile("!user.username.startsWith('system:')"), "reserved"),),
    )
    known = issuers(mapped, clock)
    good = {"roles": "a,b", "tenant": "t", "hd": "example.com", "level": 4}

    assert await known.check(provider.token(clock, **good), ()) == User(
        "user-42", ("a", "b"), "42", {"example.com/tenant": ("t",)}
    )
    assert await known.check(provider.token(clock, **{**good, "level": 3}), ()) is None
    assert await known.check(provider.token(clock, **{**good, "hd": "other"}), ()) is None
    reserved = replace(mapped, username=From(expression=CLAIMS.compile("'system:admin'")))
    assert await issuers(reserved, clock).check(provider.token(clock, **good), ()) is None


async def test_an_email_must_be_verified(provider: Provider, issuer: Issuer, clock: SetClock) -> None:
    known = issuers(replace(issuer, username=From("email")), clock)

    assert await known.check(provider.token(clock, email="a@b.c", email_verified=True), ()) == User("a@b.c")
    assert await known.check(provider.token(clock, email="a@b.c", email_verified=False), ()) is None


# A webhook


async def test_a_webhook_is_asked_once_for_a_token(served: tuple[str, list[Any]], clock: SetClock) -> None:
    url, handlers = served
    asked: list[Any] = []

    async def review(request: web.Request) -> web.Response:
        said = await request.json()
        asked.append((request.headers["Authorization"], said["apiVersion"], said["spec"]))
        good = said["spec"]["token"] == "good"
        user = {"username": "jane", "uid": "1", "groups": ["a"], "extra": {"k": ["v"]}}
        return web.json_response({"status": {"authenticated": good, "user": user}})

    handlers.append(review)
    webhook = TokenWebhook(Target(f"{url}/authenticate", None, lambda: "mine"), "v1", 60.0, RealWorld(1, clock=clock))

    assert [await webhook.check("good", ("aud",)) for _ in range(3)] == [User("jane", ("a",), "1", {"k": ("v",)})] * 3
    assert await webhook.check("bad", ()) is None
    assert asked[0] == ("Bearer mine", "authentication.k8s.io/v1", {"token": "good", "audiences": ["aud"]})
    assert len(asked) == 2


async def test_a_webhook_that_does_not_answer_knows_nobody(clock: SetClock) -> None:
    webhook = TokenWebhook(Target("http://127.0.0.1:1/", None, None), "v1", 60.0, RealWorld(1, clock=clock))

    assert await webhook.check("good", ()) is None


# Together


class _Everybody:
    async def check(self, token: str, audiences: tuple[str, ...]) -> User | None:
        return User("jane") if token == "theirs" else None


async def test_tokens_of_others_are_asked_about_last_and_good_for_this_server_alone(tmp_path: Path) -> None:
    authenticator = ClusterAuthenticator(World(tmp_path).tokens, sources=[_Everybody()])

    user, audiences = await authenticator.review_token("theirs", ())

    assert user == User("jane", ("system:authenticated",))
    assert audiences == ("https://issuer",)
    with pytest.raises(StatusError, match="Unauthorized"):
        await authenticator.review_token("theirs", ("another",))
    with pytest.raises(StatusError, match="Unauthorized"):
        await authenticator.review_token("nobodys", ())


async def test_anonymous_requests_go_where_the_configuration_lets_them(tmp_path: Path) -> None:
    configured = parse(
        {**CONFIGURATION, "anonymous": {"enabled": True, "conditions": [{"path": "/healthz"}]}, "jwt": []}
    )
    assert configured.anonymous is not None
    authenticator = ClusterAuthenticator(World(tmp_path).tokens, anonymous_paths=configured.anonymous.paths)

    assert await authenticator.authenticate(Request("GET", "/healthz"), None) is ANONYMOUS
    with pytest.raises(StatusError, match="Unauthorized"):
        await authenticator.authenticate(Request("GET", "/version"), None)


# Configurations

ISSUER: dict[str, Any] = {
    "issuer": {"url": "https://issuer.example.com", "audiences": ["kube"]},
    "claimMappings": {"username": {"claim": "sub", "prefix": ""}},
}
NAMED = {"username": {"claim": "sub", "prefix": ""}}
CONFIGURATION: dict[str, Any] = {
    "apiVersion": "apiserver.config.k8s.io/v1",
    "kind": "AuthenticationConfiguration",
    "jwt": [ISSUER],
}


def test_a_configuration_says_all_of_an_issuer() -> None:
    stated = {
        **ISSUER,
        "claimValidationRules": [
            {"claim": "hd", "requiredValue": "example.com"},
            {"expression": "claims.exp - claims.nbf <= 86400", "message": "too long"},
        ],
        "userValidationRules": [{"expression": "!user.username.startsWith('system:')", "message": "reserved"}],
    }
    (issuer,) = parse({**CONFIGURATION, "jwt": [stated]}).issuers

    assert (issuer.url, issuer.audiences, issuer.username.claim) == ("https://issuer.example.com", ("kube",), "sub")
    assert issuer.required == {"hd": "example.com"}
    assert [check.message for check in (*issuer.claim_checks, *issuer.user_checks)] == ["too long", "reserved"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"issuer": {"audiences": ["a"]}}, r"jwt\[0\].issuer.url: Required value: URL is required"),
        ({"issuer": {"url": "http://a", "audiences": ["a"]}}, "URL scheme must be https"),
        ({"issuer": {"url": "https://a"}}, r"jwt\[0\].issuer.audiences: Required value"),
        ({"issuer": {"url": "https://a", "audiences": ["a", "b"]}}, "audienceMatchPolicy must be MatchAny"),
        ({"claimMappings": {}}, r"claimMappings.username: Required value: claim or expression is required"),
        ({"claimMappings": {"username": {"claim": "sub"}}}, "prefix is required when claim is set"),
        (
            {"claimMappings": {"username": {"claim": "sub", "prefix": "", "expression": "claims.sub"}}},
            "claim and expression can't both be set",
        ),
        ({"claimMappings": {"username": {"expression": "nonsense("}}}, "compilation failed"),
        ({"claimValidationRules": [{}]}, "claim or expression is required"),
        ({"userValidationRules": [{}]}, "expression is required"),
        ({"issuer": "https://a"}, r"jwt\[0\].issuer: must be an object"),
        ({"issuer": {"url": "https://a", "audiences": "kube"}}, r"audiences: must be a list"),
        ({"isuser": {}}, r'unknown field "jwt\[0\].isuser"'),
        ({"issuer": {"url": "https://me@a", "audiences": ["a"]}}, "URL must not contain a username or password"),
        ({"issuer": {"url": "https://a?b", "audiences": ["a"]}}, "URL must not contain a query"),
        (
            {"issuer": {"url": "https://a", "discoveryURL": "https://a/", "audiences": ["a"]}},
            "must be different from URL",
        ),
        ({"issuer": {"url": "https://own", "audiences": ["a"]}}, "must not overlap with disallowed issuers"),
        ({"claimValidationRules": [{"expression": "claims.level"}]}, "must evaluate to bool"),
        ({"userValidationRules": [{"expression": "user.username"}]}, "must evaluate to bool"),
        ({"claimValidationRules": [{"claim": "a", "expression": "true"}]}, "can't both be set"),
        (
            {"claimValidationRules": [{"claim": "a"}, {"claim": "a"}]},
            r"claimValidationRules\[1\].claim: Duplicate value",
        ),
        (
            {"claimMappings": {"username": {"expression": "claims.email"}}},
            "claims.email_verified must be used in claimMappings.username.expression",
        ),
        (
            {"claimMappings": {**NAMED, "extra": [{"key": "k8s.io/a", "valueExpression": "'a'"}]}},
            "subdomains are reserved",
        ),
        (
            {"claimMappings": {**NAMED, "extra": [{"key": "a.b/c", "valueExpression": "'a'"}] * 2}},
            r'extra\[1\].key: Duplicate value: "a.b/c"',
        ),
    ],
)
def test_configurations_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AuthenticationError, match=message):
        parse({**CONFIGURATION, "jwt": [{**ISSUER, **changes}]}, ["https://own"])


def test_whoever_looks_at_whether_an_address_is_verified_may_name_users_by_it() -> None:
    named = {"claimMappings": {"username": {"expression": "claims.email"}}}
    rule = {"claimValidationRules": [{"expression": "claims.?email_verified.orValue(true) == true"}]}

    (issuer,) = parse({**CONFIGURATION, "jwt": [{**ISSUER, **named, **rule}]}).issuers

    assert issuer.username.expression is not None


def test_one_issuer_is_not_configured_twice() -> None:
    with pytest.raises(AuthenticationError, match=r"jwt\[1\].issuer.url: Duplicate value"):
        parse({**CONFIGURATION, "jwt": [ISSUER, ISSUER]})
