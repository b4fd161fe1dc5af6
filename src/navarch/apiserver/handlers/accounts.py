"""`serviceaccounts/<name>/token`: a TokenRequest, answered by the token issuer."""

from __future__ import annotations

from typing import Final

from navarch.api import apply as managed
from navarch.api.errors import conflict, invalid, invalid_value, unknown_path
from navarch.api.meta import Obj, Resource
from navarch.apiserver import decoding
from navarch.apiserver.admitting import CREATE, admission
from navarch.apiserver.auth.base import TOKEN_LIFETIME_S
from navarch.apiserver.call import Call, warning_headers
from navarch.apiserver.core import Core
from navarch.apiserver.handlers.objects import Objects
from navarch.apiserver.negotiation import respond_obj
from navarch.client.transport import Response

_GROUP: Final = "authentication.k8s.io"
_SHORTEST_S: Final = 600
_LONGEST_S: Final = 1 << 32
_DEFINITION: Final = "io.k8s.api.authentication.v1.TokenRequest"
_REQUEST: Final = decoding.Subkind(Resource(_GROUP, "v1", "tokenrequests", "TokenRequest", True), _DEFINITION)


class Accounts:
    def __init__(self, core: Core, objects: Objects) -> None:
        self._core = core
        self._objects = objects

    async def token(self, call: Call) -> Response:
        """Raises StatusError 404 for an unknown account, 4xx for what the issuer refuses."""
        issuer = self._core.token_issuer
        if issuer is None:
            raise unknown_path()
        request = self._read(call)
        async with admission(
            self._core.admission,
            call.origin(),
            call.kind,
            CREATE,
            namespace=call.namespace,
            name=call.route.name,
            subresource=call.route.subresource,
            obj=request,
        ) as admitted:
            request = await admitted.mutate(request) or request
            account = await self._account(call, request)
            self._complete(request, account, issuer.api_audiences)
            _check_lifetime(request["spec"]["expirationSeconds"])
            await admitted.validate(request)
            request["status"] = await issuer.issue(account, request["spec"])
            admitted.landed(request)
        return respond_obj(call.form, request, 201, warning_headers(call.warnings))

    def _read(self, call: Call) -> Obj:
        """What is asked for, with the lifetime that it has where none is stated, and whose words these are."""
        core = self._core
        request = decoding.decode_posted(core, _REQUEST, call.request, call.namespace, call.warnings)
        request.setdefault("spec", {}).setdefault("expirationSeconds", TOKEN_LIFETIME_S)
        managed.update_managed_fields(
            None,
            request,
            core.schemas.compile(_DEFINITION).root,
            manager=call.manager,
            api_version=_REQUEST.resource.api_version,
            subresource=call.route.subresource,
            now=core.now_text(),
        )
        return request

    async def _account(self, call: Call, request: Obj) -> Obj:
        """The account that the token is to be of.  Raises StatusError 404, 409, 422."""
        name, metadata = call.route.name, request["metadata"]
        if (stated := metadata.get("name")) and stated != name:
            error = invalid_value("metadata.name", stated, "must match the service account name if specified")
            raise invalid("TokenRequest", _GROUP, name, [error])
        account = (await self._objects.reading.get(call.kind, call.namespace, name)).obj()
        stated, uid = metadata.get("uid"), account["metadata"]["uid"]
        if stated and stated != uid:
            why = f"the UID in the token request ({stated}) does not match the UID of the service account ({uid})"
            raise conflict("TokenRequest", _GROUP, name, why)
        return account

    def _complete(self, request: Obj, account: Obj, audiences: tuple[str, ...]) -> None:
        """What the server says of the request. An object that nobody names to bind the token to is null."""
        metadata, spec = request["metadata"], request["spec"]
        for name in ("name", "namespace", "uid"):
            metadata[name] = account["metadata"][name]
        metadata["creationTimestamp"] = self._core.now_text()
        if not spec.get("audiences"):
            spec["audiences"] = list(audiences)
        spec.setdefault("boundObjectRef", None)


def _check_lifetime(lifetime_s: int) -> None:
    """Raises StatusError 422."""
    if lifetime_s < _SHORTEST_S:
        why = "may not specify a duration less than 10 minutes"
    elif lifetime_s > _LONGEST_S:
        why = "may not specify a duration larger than 2^32 seconds"
    else:
        return
    raise invalid("TokenRequest", _GROUP, "", [invalid_value("spec.expirationSeconds", lifetime_s, why)])
