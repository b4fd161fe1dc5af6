"""Who is it, may they, and what proves it: the three seams between the API server and its auth package.

A request carries credentials; an `Authenticator` turns them into a `User`; an `Authorizer` decides on the request's
`RequestAttributes`; a `TokenIssuer` answers `serviceaccounts/token`. The server calls them in that order and does
nothing for a request that one of them refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from navarch.api.errors import StatusError, unauthorized
from navarch.api.meta import Obj
from navarch.apiserver.user import ANONYMOUS, LOOPBACK, User
from navarch.client.transport import Request
from navarch.records import frozen


class RequestAttributes(NamedTuple):
    """What authorization looks at. `path` is set for non-resource requests, whose `resource` is empty; `fields` is the
    field selector of a list, watch or collection delete, as it was stated."""

    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    fields: str = ""

    @property
    def is_resource(self) -> bool:
        return bool(self.resource)


@frozen
class Decision:
    """`denied` is an explicit no (SubjectAccessReview's `status.denied`); not `allowed` without it is no opinion."""

    allowed: bool
    reason: str = ""
    denied: bool = False


# Says whether somebody may do something, everybody asked whom that takes.
Decide = Callable[[User, RequestAttributes], Awaitable[Decision]]


class Authenticator(Protocol):
    async def authenticate(self, request: Request, peer_cert: Mapping[str, Any] | bytes | None) -> User:
        """The user behind the request; `peer_cert` is the client's verified certificate in DER form, if it showed one.
        Without any credentials: ANONYMOUS, where that is allowed.  Raises StatusError 401."""
        ...

    def recognized(self, request: Request, peer_cert: Mapping[str, Any] | bytes | None) -> User | None:
        """Whom `authenticate` would find, if that can be told without asking anybody and is not ANONYMOUS; else None.
        Raises nothing."""
        ...

    async def review_token(self, token: str, audiences: tuple[str, ...]) -> tuple[User, tuple[str, ...]]:
        """For TokenReview: the user behind a token and the audiences it was accepted for.  Raises StatusError 401."""
        ...


class Unresolved(NamedTuple):
    """Why not all that somebody may do could be listed; `partly` where that may be more than what is listed."""

    text: str
    partly: bool = False


class Authorizer(Protocol):
    def authorize(self, user: User, attributes: RequestAttributes) -> Decision: ...

    def rules(self, user: User, namespace: str) -> tuple[list[Obj], list[Obj]]:
        """For SelfSubjectRulesReview: the resource rules and the non-resource rules that apply to the user."""
        ...

    def unresolved(self, user: User, namespace: str) -> list[Unresolved]:
        """What these rules lack."""
        ...


class TokenRefused(StatusError):
    """401 for a token that is ours and no good; only who reviews it is told why."""

    def __init__(self, why: str) -> None:
        super().__init__(401, "Unauthorized", "Unauthorized")
        self.why = why


# The lifetime of a token that is asked for without one.
TOKEN_LIFETIME_S: Final = 3600


class TokenIssuer(Protocol):
    @property
    def api_audiences(self) -> tuple[str, ...]:
        """Whom a token is for that is asked for without saying so: the API server."""
        ...

    async def issue(self, service_account: Obj, request_spec: Obj) -> Obj:
        """The `status` of a TokenRequest (`token`, `expirationTimestamp`).  Raises StatusError."""
        ...

    def openid_configuration(self) -> Obj:
        """Who issues, for those who check tokens without asking: OpenID Connect's discovery document."""
        ...

    def jwks(self) -> Obj:
        """The public keys that tokens are signed with."""
        ...


class EveryoneIsAdmin:
    """Authenticator and authorizer of an API server without auth: tests and simulations."""

    async def authenticate(self, request: Request, peer_cert: Mapping[str, Any] | bytes | None) -> User:
        return LOOPBACK

    def recognized(self, request: Request, peer_cert: Mapping[str, Any] | bytes | None) -> User | None:
        return LOOPBACK

    async def review_token(self, token: str, audiences: tuple[str, ...]) -> tuple[User, tuple[str, ...]]:
        raise unauthorized()

    def authorize(self, user: User, attributes: RequestAttributes) -> Decision:
        return Decision(user is not ANONYMOUS)

    def rules(self, user: User, namespace: str) -> tuple[list[Obj], list[Obj]]:
        everything: Obj = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
        return [everything], [{"verbs": ["*"], "nonResourceURLs": ["*"]}]

    def unresolved(self, user: User, namespace: str) -> list[Unresolved]:
        return []
