"""`serviceaccounts/<name>/token`: a TokenRequest, answered by the token issuer."""

from __future__ import annotations

from navarch.api.errors import bad_request, unknown_path
from navarch.api.meta import Obj
from navarch.apiserver import decoding
from navarch.apiserver.admitting import CREATE, admission
from navarch.apiserver.call import Call, warning_headers
from navarch.apiserver.core import Core
from navarch.apiserver.handlers.objects import Objects
from navarch.apiserver.negotiation import respond_obj
from navarch.client.transport import Response

_DEFINITION = "io.k8s.api.authentication.v1.TokenRequest"


class Accounts:
    def __init__(self, core: Core, objects: Objects) -> None:
        self._core = core
        self._objects = objects

    async def token(self, call: Call) -> Response:
        """Raises StatusError 404 for an unknown account, 4xx for what the issuer refuses."""
        issuer = self._core.token_issuer
        if issuer is None:
            raise unknown_path()
        request = decoding.parse_body(call.request, "TokenRequest")
        self._core.schemas.compile(_DEFINITION).decode(request)
        name = call.route.name
        stated = request.get("metadata") or {}
        if stated.get("name") and stated["name"] != name:
            raise bad_request(f"metadata.name: Invalid value: {stated['name']!r}: must match the service account name")
        cached = await self._objects.reading.get(call.kind, call.namespace, name)
        async with admission(
            self._core.admission,
            call.origin(),
            call.kind,
            CREATE,
            namespace=call.namespace,
            name=name,
            subresource=call.route.subresource,
            obj=request,
        ) as admitted:
            request = await admitted.mutate(request) or request
            await admitted.validate(request)
            spec = request.get("spec") or {}
            answer: Obj = {
                "kind": "TokenRequest",
                "apiVersion": "authentication.k8s.io/v1",
                "metadata": {"name": name, "namespace": call.namespace, "creationTimestamp": self._core.now_text()},
                "spec": spec,
                "status": await issuer.issue(cached.obj(), spec),
            }
            admitted.landed(answer)
        return respond_obj(call.form, answer, 201, warning_headers(call.warnings))
