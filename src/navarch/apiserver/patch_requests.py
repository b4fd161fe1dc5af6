"""The patch that a request states, and whether its outcome is still an object of its kind.

In: a call with a JSON, merge or strategic merge patch.  Out: the decoded patch with what is given twice in it; then,
per attempt, the patched object decoded in place. Errors are in Kubernetes' words, which differ by the kind of patch: a
mistake in the outcome is one of the patch, 422.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import field
from typing import Any, Final, Protocol

from navarch.api import protobuf
from navarch.api.duplicates import has_duplicates, strict_problems
from navarch.api.errors import StatusError, bad_request
from navarch.api.go_text import go_kind, go_package
from navarch.api.meta import Obj, Resource
from navarch.api.scalar_decoders import DecodeError
from navarch.api.schema import Compiled, SchemaSet
from navarch.apiserver import decoding
from navarch.apiserver.call import Call
from navarch.apiserver.patch_errors import converter_text, patch_refused, shown
from navarch.apiserver.patching import JSON_PATCH, STRATEGIC_PATCH, decode_touched, patched, stated_metadata
from navarch.records import frozen

_DEFINITIONS: Final = "io.k8s.api."


class Target(Protocol):
    """What a patch is of: a kind, or a Scale."""

    @property
    def resource(self) -> Resource: ...
    @property
    def compiled(self) -> Compiled | None: ...
    @property
    def versions(self) -> Container[str]: ...
    @property
    def schemas(self) -> SchemaSet | None: ...


@frozen
class Patch:
    """`problems` are what strict decoding has against the patch itself."""

    media_type: str
    body: Any
    problems: list[str] = field(default_factory=list)


def read_patch(call: Call, media_type: str) -> Patch:
    """Raises StatusError 400."""
    request = call.request
    looks = not request.query or decoding.field_validation_of(request) != "Ignore"
    prefix = "error decoding patch: " if looks and media_type != STRATEGIC_PATCH else ""
    try:
        body = decoding.parsed(request)
    except ValueError as error:
        raise bad_request(f"{prefix}{error}") from None
    if looks and (said := _wrong_shape(body, media_type)):
        raise bad_request(f"{prefix}json: cannot unmarshal {said}")
    if not looks:
        return Patch(media_type, body)
    problems = strict_problems(request.body, ()) if has_duplicates(request.body, body) else []
    if media_type == JSON_PATCH:
        problems = [f"json patch {problem}" for problem in [*_unknown_in(body), *problems]]
    return Patch(media_type, body, problems)


def _wrong_shape(body: Any, media_type: str) -> str:
    """What kind of JSON cannot become which Go type."""
    if media_type != JSON_PATCH:
        return "" if isinstance(body, dict) else f"{go_kind(body)} into Go value of type map[string]interface {{}}"
    if not isinstance(body, list):
        return f"{go_kind(body)} into Go value of type []handlers.jsonPatchOp"
    for operation in body:
        if operation is None:
            # An operation of no kind, as Go reads it.
            continue
        if not isinstance(operation, dict):
            return f"{go_kind(operation)} into Go value of type handlers.jsonPatchOp"
        for name in ("op", "path", "from"):
            if not isinstance(operation.get(name, ""), (str, type(None))):
                return f"{go_kind(operation[name])} into Go struct field jsonPatchOp.{name} of type string"
    return ""


def _unknown_in(operations: list[Obj | None]) -> list[str]:
    return [
        f'unknown field "[{index}].{name}"'
        for index, operation in enumerate(operations)
        for name in operation or ()
        if name not in ("op", "path", "from", "value")
    ]


def check_patched(call: Call, kind: Target, old: Obj, patch: Patch, obj: Obj, touched: Iterable[str]) -> None:
    """Decode, in place, what a patch made of `old`.  Raises StatusError 422; warns."""
    strategic = patch.media_type == STRATEGIC_PATCH
    if why := "" if strategic else _of_another_type(obj, kind):
        raise _refused(kind, old, patch, why)
    obj["apiVersion"], obj["kind"] = kind.resource.api_version, kind.resource.kind
    if obj.get("metadata") is None:
        obj["metadata"] = {}
    try:
        unknown = decode_touched(kind.compiled, obj, touched, stated_metadata(patch.body, patch.media_type))
    except DecodeError as error:
        raise _refused(kind, old, patch, converter_text(error) if strategic else str(error)) from None
    if not unknown and not patch.problems:
        return
    validation = decoding.field_validation_of(call.request)
    if len(unknown) > 1 and not strategic:
        unknown = _in_order(kind, old, patch)
    problems = [*patch.problems, *(f'unknown field "{path}"' for path in unknown)]
    if validation == "Strict":
        raise _refused(kind, old, patch, "strict decoding error: " + ", ".join(problems))
    if validation == "Warn":
        call.warnings.extend(problems)


def _refused(kind: Target, old: Obj, patch: Patch, why: str) -> StatusError:
    compiled = kind.compiled
    outcome, _ = patched(old, patch.body, patch.media_type, compiled)
    return patch_refused(shown(old, patch.body, outcome, patch.media_type, compiled), why)


def _in_order(kind: Target, old: Obj, patch: Patch) -> list[str]:
    """The unknown fields in the order in which Kubernetes' decoder meets them: that of the outcome's JSON."""
    compiled = kind.compiled
    assert compiled is not None
    outcome, _ = patched(old, patch.body, patch.media_type, compiled)
    ordered: Obj = decoding.parse_json(shown(old, patch.body, outcome, patch.media_type, compiled).encode())
    return compiled.checked(ordered)


def _of_another_type(obj: Obj, kind: Target) -> str:
    """Why what the outcome says that it is cannot be taken for its kind."""
    resource = kind.resource
    if obj.get("apiVersion") == resource.api_version and obj.get("kind") == resource.kind:
        return ""
    for name in ("apiVersion", "kind"):
        if not isinstance(stated := obj.get(name), (str, type(None))):
            what = f"json: cannot unmarshal {go_kind(stated)} into Go struct field .{name} of type string"
            return f"couldn't get version/kind; json parse error: {what}"
    version, named = obj.get("apiVersion") or resource.api_version, obj.get("kind") or resource.kind
    if (version, named) == (resource.api_version, resource.kind):
        return ""
    if named == resource.kind and version in kind.versions:
        return ""
    try:
        message = protobuf.message_of(version, named)
    except ValueError:
        return f'no kind "{named}" is registered for version "{version}" in scheme "{decoding.SCHEME}"'
    other = _DEFINITIONS + message.replace("/", ".")
    if kind.schemas is not None and other in kind.schemas:
        try:
            kind.schemas.compile(other).checked(decoding.parse_json(decoding.as_bytes(obj)))
        except DecodeError as error:
            return str(error)
    short = version.rpartition("/")[2]
    return f"converting ({short}.{named}) to ({go_package(resource.group)}.{resource.kind}): unknown conversion"
