"""What form an answer takes: JSON, YAML, kubectl's Table, or metadata only.

In: the request's `Accept` header and an object's (or a list's) stored bytes.  Out: a Response. JSON as it is stored is
the common case and is never decoded here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from navarch.api.errors import StatusError, not_acceptable
from navarch.api.memo import memo
from navarch.api.meta import Obj
from navarch.apiserver.codec import decode
from navarch.client.transport import Request, Response

JSON = "application/json"
OFFERED = ("application/json", "application/yaml")

_JSON_TYPES = frozenset({"application/json", "*/*", "application/*"})


@dataclass(frozen=True, slots=True)
class Form:
    """`transform` is "", "Table", "PartialObjectMetadata" or "PartialObjectMetadataList"."""

    media_type: str = "application/json"
    transform: str = ""
    version: str = "v1"
    pretty: bool = False

    @property
    def plain(self) -> bool:
        """Whether stored JSON bytes are the answer as they are."""
        return not self.transform and self.media_type == "application/json" and not self.pretty


_PLAIN = Form()


def form_of(request: Request) -> Form:
    """The first form in `Accept` that can be served.  Raises StatusError 406."""
    accept = request.headers.get("accept", "")
    if accept in ("application/json", "", "*/*") and not request.query:
        return _PLAIN
    form = _parse_accept(accept)
    if form is None:
        raise not_acceptable(OFFERED)
    if request.query:
        pretty = request.arg("pretty")
        if pretty and pretty not in ("0", "false"):
            return Form(form.media_type, form.transform, form.version, True)
    return form


@memo(256, 1024)
def _parse_accept(accept: str) -> Form | None:
    ranked: list[tuple[float, int, Form]] = []
    for position, clause in enumerate((accept or "*/*").split(",")):
        media_type, *parameters = (part.strip() for part in clause.split(";"))
        values = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
        form = _form(media_type.lower(), values)
        if form is not None:
            ranked.append((-_quality(values.get("q", "1")), position, form))
    return min(ranked, key=lambda entry: entry[:2])[2] if ranked else None


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


def _form(media_type: str, values: Mapping[str, str]) -> Form | None:
    if media_type in _JSON_TYPES or not media_type:
        media_type = "application/json"
    elif media_type not in ("application/yaml", "text/yaml"):
        return None
    transform = values.get("as", "")
    if transform in ("", "Table", "PartialObjectMetadata", "PartialObjectMetadataList"):
        if transform and (values.get("g") != "meta.k8s.io" or values.get("v") not in ("v1", "v1beta1")):
            return None
        return Form(media_type, transform, values.get("v", "v1") if transform else "v1")
    return None


def partial_metadata(obj: Obj, version: str = "v1") -> Obj:
    """A `PartialObjectMetadata` with the object's metadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}", "metadata": obj["metadata"]}


def respond(form: Form, data: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON bytes, pretty if asked for; Table and metadata-only transforms are the caller's, YAML is made by
    `answers.in_form` at the end."""
    if form.pretty and form.media_type == JSON:
        return respond_obj(form, decode(data), status, headers)
    return Response(status, data, headers or {})


def respond_obj(form: Form, obj: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    option = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE if form.pretty and form.media_type == JSON else 0
    return Response(status, orjson.dumps(obj, option=option), headers or {})


async def without_body(response: Response) -> Response:
    """The answer to a HEAD: what the GET would be answered with, but for its body. A stream is not begun."""
    body = response.body
    if isinstance(body, bytes):
        headers = {**response.headers, "Content-Length": str(len(body))} if body else response.headers
        return Response(response.status, b"", headers, response.content_type)
    if isinstance(body, AsyncGenerator):
        await body.aclose()
    headers = {name: value for name, value in response.headers.items() if name.lower() != "transfer-encoding"}
    return Response(response.status, b"", headers, response.content_type)


def respond_error(error: StatusError) -> Response:
    return Response(error.code, orjson.dumps(error.status()), error.headers)
