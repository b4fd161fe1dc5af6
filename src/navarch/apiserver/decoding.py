"""A request's body to the object it states: parsed, of the right kind, checked against the kind's schema.

In: bytes and their content type.  Out: an object that the request owns, without unknown fields; what was unknown
becomes warnings or a refusal, as `fieldValidation` says.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, cast

import orjson

from navarch.api import protobuf, yaml_reader
from navarch.api.duplicates import duplicate_fields
from navarch.api.errors import bad_request, invalid, not_supported, unsupported_media_type
from navarch.api.meta import Obj
from navarch.apiserver.core import Compiled, Core
from navarch.client.transport import Request
from navarch.kinds.base import Kind

MAX_BODY = 3 * 1024 * 1024
JSON = "application/json"
YAML = "application/yaml"
APPLY_YAML = "application/apply-patch+yaml"
APPLY_CBOR = "application/apply-patch+cbor"
_YAML_TYPES = frozenset({YAML, "application/x-yaml", "text/yaml"})
_SHOWN_BYTES = 512
_INLINE_YAML = 32 * 1024
# orjson encodes no deeper.
_MAX_DEPTH = 250
_LONGEST_INTEGER = 20
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def media_type_of(request: Request) -> str:
    return request.headers.get("content-type", "").split(";", 1)[0].strip().lower()


def parse_json(body: bytes) -> Any:
    """Raises ValueError."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _parse_json_as_go(body)
    if body.count(b"[") + body.count(b"{") > _MAX_DEPTH:
        _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    """What cannot be encoded again must not come in."""
    try:
        # Some levels are left for what an object is wrapped in.
        orjson.dumps([[[[value]]]])
    except orjson.JSONEncodeError:
        raise ValueError(f"exceeded max depth of {_MAX_DEPTH}") from None


def _parse_json_as_go(body: bytes) -> Any:
    """JSON that orjson refuses and Kubernetes takes: integers beyond 64 bits, and what is no Unicode, which becomes
    U+FFFD.  Raises ValueError."""
    try:
        value = json.loads(body.decode("utf-8", "replace"), parse_int=_integer, parse_constant=_no_constant)
        if _ESCAPED_SURROGATE.search(body):
            value = json.loads(_SURROGATE.sub("\ufffd", json.dumps(value, ensure_ascii=False)))
    except RecursionError:
        raise ValueError(f"exceeded max depth of {_MAX_DEPTH}") from None
    _check_depth(value)
    return value


def _integer(text: str) -> int | float:
    if len(text) <= _LONGEST_INTEGER:
        value = int(text)
        if -(2**63) <= value < 2**64:
            return value
    return float(text)


def _no_constant(text: str) -> Any:
    raise ValueError(f"invalid character {text[0]!r} looking for beginning of value")


def parse_yaml(body: bytes) -> Any:
    """Raises ValueError."""
    return _parse_yaml(body).value


def _parse_yaml(body: bytes) -> yaml_reader.Document:
    if body[:1] == b"{":
        # JSON is YAML, and what most clients send under that name.
        try:
            return yaml_reader.Document(parse_json(body))
        except ValueError:
            pass
    try:
        document = yaml_reader.load(body)
    except ValueError as error:
        raise ValueError(f"error converting YAML to JSON: {error}") from None
    if body.count(b"*") or len(body) > _INLINE_YAML:
        _check_depth(document.value)
    return document


async def convert_long_yaml(request: Request) -> None:
    """Turn a long YAML body into JSON away from the event loop, where parsing it could take half a second."""
    media_type = media_type_of(request)
    if len(request.body) <= _INLINE_YAML or (media_type not in _YAML_TYPES and media_type != APPLY_YAML):
        return
    try:
        document = await asyncio.get_running_loop().run_in_executor(None, _parse_yaml, request.body)
    except ValueError as error:
        raise bad_request(str(error)) from None
    if document.duplicates:
        # The handler says so, as `fieldValidation` asks.
        return
    request.body = orjson.dumps(document.value)
    if media_type != APPLY_YAML:
        request.headers = {**request.headers, "content-type": JSON}


def as_go_says(error: Exception) -> Exception:
    """A JSON decoder's complaint in the words that Kubernetes' users know."""
    if not isinstance(error, json.JSONDecodeError):
        return error
    rest = error.doc[error.pos :].lstrip()
    if not rest:
        return ValueError("unexpected end of JSON input")
    place = {
        "Expecting value": "looking for beginning of value",
        "Extra data": "after top-level value",
        "Expecting ',' delimiter": "after object key:value pair",
        "Expecting ':' delimiter": "after object key",
        "Expecting property name enclosed in double quotes": "looking for beginning of object key string",
    }.get(error.msg, "in string literal")
    return ValueError(f"invalid character '{rest[0]}' {place}")


def parse_body(request: Request, kind_name: str) -> Obj:
    """The body as JSON or YAML.  Raises StatusError 400, 415."""
    media_type = media_type_of(request)
    body = request.body
    try:
        if media_type in _YAML_TYPES:
            value = parse_yaml(body)
        elif media_type in ("", JSON, "application/x-www-form-urlencoded", "application/octet-stream", "*/*"):
            value = parse_json(body)
        else:
            raise unsupported_media_type((JSON, YAML))
    except (ValueError, RecursionError) as error:
        shown = body[:_SHOWN_BYTES].decode("utf-8", "replace")
        message = (
            f"the object provided is unrecognized (must be of type {kind_name}): couldn't get version/kind; "
            f"json parse error: {as_go_says(error)} ({shown.encode().hex()[:64]})"
        )
        raise bad_request(message) from None
    if not isinstance(value, dict):
        raise bad_request(
            f"the object provided is unrecognized (must be of type {kind_name}): couldn't get version/kind; "
            f"json parse error: json: cannot unmarshal {_go_type(value)} into Go value of type struct"
        )
    return value


def _go_type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "null"


def field_validation_of(request: Request, options_kind: str = "CreateOptions") -> str:
    """`Ignore`, `Warn` (the default) or `Strict`.  Raises StatusError 422."""
    text = request.arg("fieldValidation") if request.query else ""
    if text in ("", "Warn", "Strict", "Ignore"):
        return text or "Warn"
    error = not_supported("fieldValidation", text, ("", "Ignore", "Strict", "Warn"))
    raise invalid(options_kind, "meta.k8s.io", "", [error])


def decode_object(core: Core, kind: Kind, request: Request, warnings: list[str]) -> Obj:
    """The object that a create or update states, in the kind that its path names."""
    resource = kind.resource
    obj = parse_body(request, resource.kind)
    duplicates = _duplicates(request, obj)
    check_type(obj, kind)
    unknown = check_fields(core.compiled(kind), obj)
    if unknown or duplicates:
        problems = duplicates + [f'unknown field "{path}"' for path in unknown]
        validation = field_validation_of(request)
        if validation == "Strict":
            raise bad_request(
                f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
                f"strict decoding error: {', '.join(problems)}"
            )
        if validation == "Warn":
            warnings.extend(problems)
    return obj


def check_type(obj: Obj, kind: Kind) -> None:
    """apiVersion and kind, if stated, must be those of the path; they are filled in where missing."""
    resource = kind.resource
    api_version, stated = obj.get("apiVersion"), obj.get("kind")
    if not api_version and not stated:
        obj["apiVersion"], obj["kind"] = resource.api_version, resource.kind
    if not isinstance(api_version, (str, type(None))) or not isinstance(stated, (str, type(None))):
        raise bad_request(
            f"the object provided is unrecognized (must be of type {resource.kind}): "
            "apiVersion and kind must be strings"
        )
    if api_version and api_version != resource.api_version:
        raise bad_request(
            f"the API version in the data ({api_version}) does not match "
            f"the expected API version ({resource.api_version})"
        )
    if stated and stated != resource.kind:
        version = resource.version
        raise bad_request(
            f'{stated} in version "{version}" cannot be handled as a {resource.kind}: '
            f"converting ({version}.{stated}) to ({resource.group or 'core'}.{resource.kind}): unknown conversion"
        )
    obj["apiVersion"], obj["kind"] = resource.api_version, resource.kind
    metadata = obj.get("metadata")
    if metadata is None:
        obj["metadata"] = {}
    elif not isinstance(metadata, dict):
        raise bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: json: cannot '
            f"unmarshal {_go_type(metadata)} into Go struct field {resource.kind}.metadata of type v1.ObjectMeta"
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


def _duplicates(request: Request, obj: Obj) -> list[str]:
    """What strict decoding says of keys that were given more than once."""
    if media_type_of(request) not in _YAML_TYPES:
        return [f'duplicate field "{path}"' for path in duplicate_fields(request.body, obj)]
    duplicates = _parse_yaml(request.body).duplicates
    return [f"yaml: unmarshal errors:\n  {text}" for text in duplicates]


def parse_patch(request: Request) -> Any:
    """The body of a patch.  Raises StatusError 400."""
    media_type = media_type_of(request)
    try:
        return parse_yaml(request.body) if media_type == APPLY_YAML else parse_json(request.body)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"error decoding patch: {as_go_says(error)}") from None


def object_from_apply(body: Any, kind: Kind) -> Obj:
    if not isinstance(body, dict):
        raise bad_request("error decoding YAML: the configuration to apply must be an object")
    obj = cast(Obj, body)
    resource = kind.resource
    if not obj.get("apiVersion") or not obj.get("kind"):
        raise bad_request("error decoding YAML: apiVersion and kind must be set")
    check_type(obj, kind)
    if resource.namespaced is False:
        obj["metadata"].pop("namespace", None)
    return obj


def accept_protobuf(request: Request) -> None:
    """Turn a protobuf body into the JSON body that it stands for.  Raises StatusError 400, 415."""
    media_type = media_type_of(request)
    if media_type in ("application/cbor", "application/apply-patch+cbor"):
        raise unsupported_media_type((JSON, YAML, protobuf.MEDIA_TYPE))
    if media_type == protobuf.MEDIA_TYPE:
        try:
            request.body = orjson.dumps(protobuf.decode(request.body))
        except ValueError as error:
            raise bad_request(f"unable to decode the request body: {error}") from error
        request.headers = {**request.headers, "content-type": JSON}


def check_name(obj: Obj, name: str) -> None:
    stated = obj["metadata"].get("name")
    if stated and stated != name:
        raise bad_request(f"the name of the object ({stated}) does not match the name on the URL ({name})")


def check_namespace(obj: Obj, kind: Kind, namespace: str) -> None:
    """Fill in the namespace of the path, or refuse another one."""
    metadata = obj["metadata"]
    if not kind.resource.namespaced:
        # A stated namespace is refused by validation.
        return
    stated = metadata.get("namespace")
    if not stated:
        metadata["namespace"] = namespace
    elif stated != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
