"""What form an answer takes: JSON, YAML, protobuf, kubectl's Table, or metadata only.

In: the request's `Accept` header and an object's (or a list's) stored bytes.  Out: a Response. JSON as it is stored is
the common case and is never decoded here.

`Accept` is read as Kubernetes reads it: clauses by quality, those without wildcards first, and of each clause the first
media type on offer that it fits and whose parameters can be met; where none is left, 406 says what there is. Errors
come in the media type that was asked for, too, or in JSON where that is none.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from navarch.api import protobuf, yaml_writer
from navarch.api.errors import StatusError, TextError, not_acceptable
from navarch.api.memo import memo
from navarch.api.meta import Obj
from navarch.apiserver.codec import decode
from navarch.client.transport import Request, Response
from navarch.records import frozen

JSON: Final = "application/json"
YAML: Final = "application/yaml"
PROTOBUF: Final = protobuf.MEDIA_TYPE
# What Kubernetes says that it offers, and in which order it tries.
OFFERED: Final = (JSON, YAML, PROTOBUF)
STREAMED: Final = (f"{JSON};stream=watch", f"{PROTOBUF};stream=watch")
TABLE: Final = "Table"
_METADATA: Final = ("PartialObjectMetadata", "PartialObjectMetadataList")
_META_VERSIONS: Final = ("v1", "v1beta1")
_SERVER_VERSION: Final = "v1"
# Browsers and what people type commands with: they get their JSON indented.
_PEOPLE: Final = ("curl", "Wget", "Mozilla/5.0")
_PEOPLE_START: Final = frozenset(name[:4] for name in _PEOPLE)
_PLAINLY: Final = frozenset({JSON, "", "*/*"})
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_AS_IT_IS: Final = {"X-Content-Type-Options": "nosniff"}
_TEXT: Final = "text/plain; charset=utf-8"


@frozen
class Form:
    """`transform` is "", "Table", "PartialObjectMetadata" or "PartialObjectMetadataList"."""

    media_type: str = JSON
    transform: str = ""
    version: str = "v1"
    pretty: bool = False

    @property
    def plain(self) -> bool:
        """Whether stored JSON bytes are the answer as they are."""
        return not self.transform and self.media_type == JSON and not self.pretty

    @property
    def compact(self) -> bool:
        """Whether it is JSON without indentation."""
        return self.media_type == JSON and not self.pretty

    @property
    def protobuf(self) -> bool:
        return self.media_type == PROTOBUF


PLAIN: Final = Form()


def is_plain(request: Request) -> bool:
    """Whether JSON as it is stored is asked for, as by most: `form_of` would say `PLAIN`."""
    headers = request.headers
    accepted = headers.get("accept", "") in _PLAINLY
    return accepted and not request.query and headers.get("user-agent", "")[:4] not in _PEOPLE_START


def form_of(request: Request, *, messages: bool = True, tables: bool = True, produced: Sequence[str] = ()) -> Form:
    """The first form in `Accept` that can be served; `messages` says whether what is asked for has protobuf messages,
    or its metadata alone, `tables` whether it has rows, `produced` see `check_route`.  Raises StatusError 406."""
    if is_plain(request):
        return PLAIN
    accept, agent = request.headers.get("accept", ""), request.headers.get("user-agent", "")
    if produced:
        check_route(accept, produced)
    forms = _parse_accept(accept)
    if not messages:
        forms = tuple(form for form in forms if form.transform or not form.protobuf)
    if not tables:
        forms = tuple(form for form in forms if form.transform != TABLE)
    if not forms:
        raise not_acceptable(OFFERED)
    form = forms[0]
    return replace(form, pretty=True) if not form.pretty and _for_people(request, agent) else form


def check_route(accept: str, produced: Sequence[str]) -> None:
    """Kubernetes' router looks at `Accept`, too, and knows no wildcards but `*/*`: what a path does not produce never
    comes to its handler, which would say it in other words.  Raises StatusError 406."""
    if any(kind in produced or kind == "*/*" for kind in _kinds(accept)):
        return
    message = f"406: Not Acceptable\n\nAvailable representations: {', '.join(produced)}"
    raise StatusError(406, "NotAcceptable", message, details={})


@memo(256, 1024)
def _kinds(accept: str) -> tuple[str, ...]:
    return tuple(clause.split(";", 1)[0].strip() for clause in (accept or "*/*").split(","))


def stream_form_of(form: Form) -> Form:
    """The form of a watch's events.  Raises StatusError 406 for what has no form in a stream."""
    if form.media_type == YAML:
        raise not_acceptable(STREAMED)
    return form


def _for_people(request: Request, agent: str) -> bool:
    if request.query and (pretty := request.arg("pretty")):
        return pretty in _TRUE
    return agent.startswith(_PEOPLE)


@memo(256, 1024)
def _parse_accept(accept: str) -> tuple[Form, ...]:
    """What fits, the form that is wanted most first."""
    fitting = (
        _form(media_type, parameters)
        for kind, parameters in _clauses(accept or "*/*")
        for media_type in OFFERED
        if kind in (media_type, "application/*", "*/*")
    )
    return tuple(form for form in fitting if form is not None)


@memo(256, 1024)
def plain_type(accept: str) -> str:
    """The media type of an error, or of what has no other form than itself; empty where nothing fits."""
    for kind, parameters in _clauses(accept or "*/*"):
        for media_type in OFFERED:
            if kind in (media_type, "application/*", "*/*") and not {"as", "g", "v", "sv"} & parameters.keys():
                return media_type
    return ""


def _clauses(accept: str) -> list[tuple[str, Mapping[str, str]]]:
    """Media ranges with their parameters, the one that is wanted most first."""
    ranked: list[tuple[float, int, int, str, Mapping[str, str]]] = []
    for position, clause in enumerate(accept.split(",")):
        kind, *parts = (part.strip() for part in clause.split(";"))
        if not kind:
            continue
        parameters = dict(part.split("=", 1) for part in parts if "=" in part)
        quality = _quality(parameters.pop("q", "1"))
        vague = 2 if kind.startswith("*") else 1 if kind.endswith("*") else 0
        ranked.append((-quality, vague, position, kind, parameters))
    return [(kind, parameters) for _, _, _, kind, parameters in sorted(ranked, key=lambda entry: entry[:3])]


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _form(media_type: str, parameters: Mapping[str, str]) -> Form | None:
    """None where the parameters ask for what this media type cannot give."""
    stream = parameters.get("stream")
    if stream and (stream != "watch" or media_type == YAML):
        return None
    if parameters.get("sv", _SERVER_VERSION) not in ("", _SERVER_VERSION):
        return None
    pretty = parameters.get("pretty") == "1"
    if not {"as", "g", "v"} & parameters.keys():
        return Form(media_type, pretty=pretty)
    transform, version = parameters.get("as", ""), parameters.get("v", "")
    if parameters.get("g") != "meta.k8s.io" or version not in _META_VERSIONS:
        return None
    if transform not in _METADATA and (transform != TABLE or media_type == PROTOBUF):
        # Tables have no message.
        return None
    return Form(media_type, transform, version, pretty)


def no_such_form(form: Form, go_type: str) -> StatusError:
    """406 for a list's form of one object, or the other way round; `go_type` is what Kubernetes calls what it has."""
    what = "not a list" if form.transform.endswith("List") else "a list"
    message = f"you requested {form.transform}, but the requested object is {what} ({go_type})"
    return StatusError(406, "NotAcceptable", message)


def partial_metadata(metadata: Obj, version: str = "v1") -> Obj:
    """A `PartialObjectMetadata` with an object's metadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}", "metadata": metadata}


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


def respond_error(error: StatusError, request: Request | None = None) -> Response:
    """In the media type that the request asks for, if there is a request to ask."""
    if isinstance(error, TextError):
        return Response(error.code, f"{error.message}\n".encode(), {**error.headers, **_AS_IT_IS}, _TEXT)
    status = error.status()
    if request is None:
        return Response(error.code, orjson.dumps(status), error.headers)
    media_type = plain_type(request.headers.get("accept", ""))
    if media_type == YAML:
        return Response(error.code, yaml_writer.write(status).encode(), error.headers, YAML)
    if media_type == PROTOBUF:
        return Response(error.code, protobuf.encode(status), error.headers, PROTOBUF)
    pretty = not media_type or _for_people(request, request.headers.get("user-agent", ""))
    return Response(error.code, orjson.dumps(status, option=orjson.OPT_INDENT_2 if pretty else 0), error.headers)
