"""A request's body to the object it states: parsed, of the right kind, checked against the kind's schema.

In: bytes and their content type.  Out: an object that the request owns, without unknown fields; what was unknown
becomes warnings or a refusal, as `fieldValidation` says.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Any, Protocol

import orjson

from navarch.api import protobuf, yaml_reader
from navarch.api.alike import Alike, Templates
from navarch.api.duplicates import has_duplicates, strict_problems
from navarch.api.errors import StatusError, bad_request, invalid, invalid_value, unsupported_media_type
from navarch.api.go_text import check_type_meta, go_kind, go_package
from navarch.api.json_errors import why_no_json
from navarch.api.meta import Obj, Resource
from navarch.api.schema import Compiled
from navarch.apiserver.core import Core
from navarch.apiserver.longwork import LongWork
from navarch.apiserver.negotiation import OFFERED
from navarch.apiserver.served import ServedKind
from navarch.client.transport import Request
from navarch.records import frozen, mutable

MAX_BODY = 3 * 1024 * 1024
JSON = "application/json"
YAML = "application/yaml"
APPLY = "application/apply-patch"
APPLY_YAML = f"{APPLY}+yaml"
APPLY_CBOR = "application/apply-patch+cbor"
_GROUPS_OF_EVENTS = {"", "events.k8s.io"}
_JSON_TYPES = frozenset({"", JSON})
# Where Kubernetes' list of built-in kinds is.
SCHEME = "k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"
# Kubernetes repeats so much of a body that it cannot read.
_SHOWN_BYTES = 30
# Reading it takes some milliseconds at most.
_SHORT_YAML = 4 * 1024
# orjson encodes no deeper.
_MAX_DEPTH = 250
_LONGEST_INTEGER = 20
# As many as Kubernetes tells of.
_MOST_PROBLEMS = 100
_YAML_ERRORS = "yaml: unmarshal errors:\n"
# Python's own decoder is slower, and nothing else runs meanwhile.
_ODD_MAX = 64 * 1024
# Mending so many takes some milliseconds.
_ESCAPES_MAX = 10_000
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_LONE_SURROGATES = (
    re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"),
    re.compile(rb"(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"),
)


def media_type_of(request: Request) -> str:
    return request.headers.get("content-type", "").split(";", 1)[0].strip().lower()


def parse_json(body: bytes) -> Any:
    """Raises ValueError in the words of Go's decoder."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _parse_json_as_go(body)
    if body.count(b"[") + body.count(b"{") > _MAX_DEPTH:
        _check_depth(value)
    return value


def as_bytes(value: Any) -> bytes:
    """A decoded body, encoded again."""
    return orjson.dumps(value)


def _check_depth(value: Any) -> None:
    """What cannot be encoded again must not come in."""
    try:
        # Some levels are left for what an object is wrapped in.
        orjson.dumps([[[[value]]]])
    except orjson.JSONEncodeError:
        raise too_deep() from None


def too_deep() -> ValueError:
    return ValueError(f"exceeded max depth of {_MAX_DEPTH}")


def _parse_json_as_go(body: bytes) -> Any:
    """JSON that orjson refuses and Kubernetes takes: what is no Unicode becomes U+FFFD, numbers may be of any size.
    Raises ValueError."""
    sent = body
    body = body.decode("utf-8", "replace").encode()
    if _ESCAPED_SURROGATE.search(body) and b"\0" not in body and body.count(b"\\u") <= _ESCAPES_MAX:
        # Escaped backslashes are out of the way meanwhile, as what no JSON contains.
        body = body.replace(b"\\\\", b"\0\0")
        for pattern in _LONE_SURROGATES:
            body = pattern.sub(b"\xef\xbf\xbd", body)
        body = body.replace(b"\0\0", b"\\\\")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        value = _parse_odd_json(body, sent, str(error))
    _check_depth(value)
    return value


def _parse_odd_json(body: bytes, sent: bytes, said: str) -> Any:
    if len(body) <= _ODD_MAX:
        try:
            # As text: of bytes it would take a mark of their order, and UTF-16.
            return json.loads(body.decode(), parse_int=_integer, parse_constant=_no_constant)
        except RecursionError:
            raise too_deep() from None
        except ValueError:
            pass
    if "depth" in said:
        raise too_deep()
    raise ValueError(why_no_json(sent) or "json: cannot unmarshal number into Go value of type float64")


def _integer(text: str) -> int | float:
    if len(text) <= _LONGEST_INTEGER:
        value = int(text)
        if -(2**63) <= value < 2**64:
            return value
    return float(text)


def _no_constant(text: str) -> Any:
    raise ValueError(text)


def parse_yaml(body: bytes) -> yaml_reader.Document:
    """Raises ValueError."""
    document = yaml_reader.Document()
    if not _read_json(body, document):
        for _ in _yaml_steps(body, document):
            pass
    return document


def _yaml_steps(body: bytes, into: yaml_reader.Document) -> Iterator[None]:
    try:
        yield from yaml_reader.steps(body, into)
    except ValueError as error:
        raise ValueError(f"error converting YAML to JSON: {error}") from None
    if b"*" in body:
        _check_depth(into.value)


def _read_json(body: bytes, into: yaml_reader.Document) -> bool:
    """JSON is YAML, and what most clients send under that name: whether this is.  Raises ValueError."""
    if body[:1] == b"{":
        with contextlib.suppress(orjson.JSONDecodeError):
            into.value = orjson.loads(body)
            _check_depth(into.value)
            return True
    return False


async def as_json(request: Request, work: LongWork) -> Request:
    """The request, its body turned into JSON if it is YAML or protobuf.  Raises StatusError 400, 415.

    A YAML body that is wrong stays as it is: the handler says so, each in its own words."""
    media_type = media_type_of(request)
    if media_type == protobuf.MEDIA_TYPE:
        return await work.apart(len(request.body), _from_protobuf, request)
    if media_type not in (YAML, APPLY_YAML):
        return request
    document = yaml_reader.Document()
    try:
        if len(request.body) <= _SHORT_YAML:
            document = parse_yaml(request.body)
        elif not await work.apart(len(request.body), _read_json, request.body, document):
            await work.do(_yaml_steps(request.body, document))
    except ValueError as error:
        wrong = str(error)
        return ReadRequest(request.method, request.path, request.query, request.headers, request.body, wrong=wrong)
    headers = request.headers if media_type == APPLY_YAML else {**request.headers, "content-type": JSON}
    value, size = document.value, len(request.body)
    body = as_bytes(value) if size <= _SHORT_YAML else await work.apart(size, as_bytes, value)
    began, duplicates = request.body[:_SHOWN_BYTES], document.duplicates
    return ReadRequest(request.method, request.path, request.query, headers, body, began=began, duplicates=duplicates)


def _from_protobuf(request: Request) -> Request:
    headers = {**request.headers, "content-type": JSON}
    try:
        body = orjson.dumps(protobuf.decode(request.body))
    except ValueError as error:
        # The handler says so, as of YAML.
        wrong = str(error)
        return ReadRequest(request.method, request.path, request.query, headers, request.body, wrong=wrong)
    return Request(request.method, request.path, request.query, headers, body)


@mutable
class ReadRequest(Request):
    """A request whose body was YAML or protobuf: what was wrong with it (then `body` is as it came), its beginning, and
    which keys were given again."""

    wrong: str = ""
    began: bytes = b""
    duplicates: list[str] = field(default_factory=list)


def parsed(request: Request) -> Any:
    """The body as JSON, which it is since `as_json`.  Raises ValueError."""
    if isinstance(request, ReadRequest) and request.wrong:
        raise ValueError(request.wrong)
    return parse_json(request.body)


def _summary(request: Request) -> str:
    """The beginning of the body, as Kubernetes shows it."""
    data = request.began or request.body if isinstance(request, ReadRequest) else request.body
    if not data:
        return "<empty>"
    shown, more = data[:_SHOWN_BYTES], " ..." if len(data) > _SHOWN_BYTES else ""
    return (shown.decode("utf-8", "replace") if data[:1] == b"{" else shown.hex()) + more


def parse_body(request: Request, kind_name: str) -> Obj:
    """The body as JSON or YAML.  Raises StatusError 400, 415."""
    media_type = media_type_of(request)
    if media_type == protobuf.MEDIA_TYPE:
        # Left as it came, since there was nothing to read.
        request = _from_protobuf(request)
    elif media_type not in _JSON_TYPES and media_type != YAML:
        raise unsupported_media_type(OFFERED)
    try:
        value: Obj | None = parsed(request)
        if value is None:
            # As Go reads it into an object: nothing is said of any field.
            return {}
        check_type_meta(value)
    except ValueError as error:
        why = str(error)
        if not (isinstance(request, ReadRequest) and request.wrong):
            why = f"couldn't get version/kind; json parse error: {why}"
        raise bad_request(
            f"the object provided is unrecognized (must be of type {kind_name}): {why} ({_summary(request)})"
        ) from None
    return value


def field_validation_of(request: Request) -> str:
    """`Ignore`, `Warn` (the default) or `Strict`; what else there is has been refused (`write_options`)."""
    return (request.arg("fieldValidation") if request.query else "") or "Warn"


class Stating(Protocol):
    """Of what a body is an object: a served kind, or the kind of a subresource."""

    @property
    def resource(self) -> Resource: ...
    @property
    def own_schemas(self) -> object | None: ...


@frozen
class Subkind:
    """The kind of what is posted to a subresource (Eviction, Binding, TokenRequest); `also` names other versions of it
    that say the same."""

    resource: Resource
    definition: str
    also: tuple[str, ...] = ()
    own_schemas: None = None


def decode_posted(core: Core, kind: Subkind, request: Request, namespace: str, warnings: list[str]) -> Obj:
    """The object that is posted to a subresource, of the kind that belongs there, in the namespace of the path.
    Raises StatusError 400, 415."""
    obj = parse_body(request, kind.resource.kind)
    doubled = _doubled(request, obj)
    if obj.get("apiVersion") in kind.also:
        obj["apiVersion"] = kind.resource.api_version
    _check_registered(obj, kind)
    check_type(obj, kind)
    unknown = check_fields(core.schemas.compile(kind.definition), obj)
    if (unknown or doubled) and (problems := _problems(request, kind, unknown, doubled)):
        report_problems(kind, request, problems, warnings)
    check_namespace(obj, kind, namespace)
    return obj


async def decode_body(core: Core, kind: ServedKind, request: Request, warnings: list[str]) -> Obj:
    """`decode_object`, away from the event loop if the body is long."""
    size = len(request.body) + (0 if kind.own_schemas is None else kind.own_schemas.adds)
    return await core.work.apart(size, decode_object, core, kind, request, warnings)


def decode_object(core: Core, kind: ServedKind, request: Request, warnings: list[str]) -> Obj:
    """The object that a create or update states, in the kind that its path names."""
    obj, doubled = _stated_object(kind, request)
    _complete(kind, request, obj, warnings, doubled=doubled)
    return obj


def decode_alike(kind: ServedKind, known: Templates, request: Request, warnings: list[str]) -> tuple[Obj, Alike | None]:
    """`decode_object` of a short new one; what it has in common with others: then it has all its defaults already."""
    obj, doubled = _stated_object(kind, request)
    key = None if doubled else known.key_of(obj)
    if key is not None and (found := known.find(key, obj)) is not None:
        return found
    if _complete(kind, request, obj, warnings, doubled=doubled) and key is not None:
        return obj, known.learn(key, obj, kind.strategy.defaults)
    return obj, None


def _stated_object(kind: ServedKind, request: Request) -> tuple[Obj, bool]:
    """The object as the body has it, of the right kind; whether keys may have been given more than once."""
    obj = parse_body(request, kind.resource.kind)
    doubled = _doubled(request, obj)
    if kind.own_schemas is None:
        _check_registered(obj, kind)
    else:
        _check_stated(request, obj, kind)
    check_type(obj, kind)
    return obj, doubled


def _complete(kind: ServedKind, request: Request, obj: Obj, warnings: list[str], *, doubled: bool) -> bool:
    """Check a stated object's fields, in place; whether there is nothing to be said against them."""
    unknown = check_fields(kind.compiled, obj)
    if (unknown or doubled) and (problems := _problems(request, kind, unknown, doubled)):
        report_problems(kind, request, problems, warnings)
    return not unknown


def report_problems(kind: Stating, request: Request, problems: Sequence[str], warnings: list[str]) -> None:
    """What strict decoding found, as `fieldValidation` wants it.  Raises StatusError 400, 422."""
    resource, validation = kind.resource, field_validation_of(request)
    if validation == "Strict":
        raise bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
            f"strict decoding error: {', '.join(problems)}"
        )
    if validation == "Warn":
        for problem in problems:
            # One warning for each line of what the YAML parser says.
            lines = problem.removeprefix(_YAML_ERRORS).split("\n") if problem.startswith(_YAML_ERRORS) else [problem]
            warnings.extend(line.strip() for line in lines)


def _check_registered(obj: Obj, kind: Stating) -> None:
    """What a body says that it is must be something at all.  Raises StatusError 400."""
    resource = kind.resource
    version, stated = obj.get("apiVersion") or resource.api_version, obj.get("kind") or resource.kind
    if not isinstance(version, str) or not isinstance(stated, str):
        return
    if (version, stated) == (resource.api_version, resource.kind) or protobuf.is_kind(version, stated):
        return
    raise bad_request(
        f'{stated} in version "{version.rpartition("/")[2]}" cannot be handled as a {resource.kind}: '
        f'no kind "{stated}" is registered for version "{version}" in scheme "{SCHEME}"'
    )


def _check_stated(request: Request, obj: Obj, kind: Stating) -> None:
    """An object of a custom kind says itself what it is.  Raises StatusError 400."""
    resource = kind.resource
    if not obj.get("kind"):
        shown = request.body.decode("utf-8", "replace")
        raise bad_request(
            f"the object provided is unrecognized (must be of type {resource.kind}): "
            f"Object 'Kind' is missing in '{shown}' ({_summary(request)})"
        )
    if not obj.get("apiVersion"):
        raise bad_request(
            f"the API version in the data () does not match the expected API version ({resource.api_version})"
        )


def check_type(obj: Obj, kind: Stating) -> None:
    """apiVersion and kind, if stated, must be those of the path; they are filled in where missing."""
    resource = kind.resource
    api_version, stated = obj.get("apiVersion"), obj.get("kind")
    if api_version == resource.api_version and stated == resource.kind and type(obj.get("metadata")) is dict:
        return
    if not api_version and not stated:
        obj["apiVersion"], obj["kind"] = resource.api_version, resource.kind
    if not isinstance(api_version, (str, type(None))) or not isinstance(stated, (str, type(None))):
        raise bad_request(
            f"the object provided is unrecognized (must be of type {resource.kind}): "
            "apiVersion and kind must be strings"
        )
    if api_version and api_version != resource.api_version:
        if kind.own_schemas is None and not _is_same_type(api_version, stated, resource):
            raise _unknown_conversion(api_version, stated or resource.kind, resource)
        raise bad_request(
            f"the API version in the data ({api_version}) does not match "
            f"the expected API version ({resource.api_version})"
        )
    if stated and stated != resource.kind and kind.own_schemas is not None:
        metadata = obj.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else ""
        error = invalid_value("kind", stated, f"must be {resource.kind}")
        raise invalid(stated, resource.group, str(name or ""), [error])
    if stated and stated != resource.kind:
        raise _unknown_conversion(resource.version, stated, resource)
    obj["apiVersion"], obj["kind"] = resource.api_version, resource.kind
    metadata = obj.get("metadata")
    if metadata is None:
        obj["metadata"] = {}
    elif not isinstance(metadata, dict):
        raise bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: json: cannot '
            f"unmarshal {go_kind(metadata)} into Go struct field {resource.kind}.metadata of type v1.ObjectMeta"
        )


def _is_same_type(api_version: str, stated: str | None, resource: Resource) -> bool:
    """Whether it is one type in Kubernetes' memory, whose versions differ."""
    group = api_version.rpartition("/")[0]
    same_group = group == resource.group or {group, resource.group} == _GROUPS_OF_EVENTS
    return same_group and stated in (None, "", resource.kind)


def _unknown_conversion(api_version: str, stated: str, resource: Resource) -> StatusError:
    version = api_version.rpartition("/")[2]
    return bad_request(
        f'{stated} in version "{version}" cannot be handled as a {resource.kind}: '
        f"converting ({version}.{stated}) to ({go_package(resource.group)}.{resource.kind}): unknown conversion"
    )


def check_fields(compiled: Compiled | None, obj: Obj) -> list[str]:
    """Types checked, nulls and unknown fields dropped, stated defaults filled in; the unknown fields' paths."""
    if compiled is None:
        return []
    unknown = compiled.decode(obj)
    compiled.default(obj)
    if "metadata" not in obj:
        obj["metadata"] = {}
    return unknown


def _doubled(request: Request, obj: Obj) -> bool:
    """Whether keys may have been given more than once."""
    if isinstance(request, ReadRequest):
        return bool(request.duplicates)
    return has_duplicates(request.body, obj)


def _problems(request: Request, kind: Stating, unknown: Sequence[str], doubled: bool) -> list[str]:
    """What strict decoding says, in Kubernetes' order."""
    texts = [f'unknown field "{path}"' for path in unknown][:_MOST_PROBLEMS]
    if isinstance(request, ReadRequest):
        lines = [f"\n  {text}" for text in request.duplicates]
        return [_YAML_ERRORS.rstrip() + "".join(lines), *texts] if lines else texts
    if not doubled:
        return texts
    if kind.own_schemas is None:
        return strict_problems(request.body, unknown)
    # The text is read without a schema first.
    return strict_problems(request.body, ()) + texts


def duplicates_of(request: Request) -> list[str]:
    """What a YAML body said more than once, in the words of the parser."""
    return request.duplicates if isinstance(request, ReadRequest) else []


def check_name(obj: Obj, name: str) -> None:
    stated = obj["metadata"].get("name")
    if not stated:
        raise bad_request(f"the name of the object ({name} based on URL) was undeterminable: name must be provided")
    if stated != name:
        raise bad_request(f"the name of the object ({stated}) does not match the name on the URL ({name})")


def check_namespace(obj: Obj, kind: Stating, namespace: str) -> None:
    """Fill in the namespace of the path, or refuse another one."""
    metadata = obj["metadata"]
    if not kind.resource.namespaced:
        metadata.pop("namespace", None)
        return
    stated = metadata.get("namespace")
    if not stated:
        metadata["namespace"] = namespace
    elif stated != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
