"""AdmissionReview: what a webhook is asked, and what its answer means.

In: a write's attributes and the kind in whose version its objects are shown.  Out: the review's bytes; and of the
answer's bytes an `Answer`. Both versions of the review are spoken; the older one is read less strictly, as ever.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final

import orjson

from navarch.api.errors import StatusError
from navarch.api.json_errors import why_no_json
from navarch.api.meta import Obj
from navarch.apiserver.admission.base import Attributes
from navarch.kinds.base import Kind
from navarch.kinds.discovery_docs import subresources_of
from navarch.numbers import is_digits
from navarch.records import frozen

GROUP: Final = "admission.k8s.io"
VERSIONS: Final = ("v1", "v1beta1")
_HIGHEST_STATUS: Final = 599


class AnswerError(Exception):
    """What came back is no answer to what was asked; the text says why."""


def _invalid(why: str) -> AnswerError:
    return AnswerError(f"received invalid webhook response: {why}")


def _undecodable(why: str) -> AnswerError:
    return AnswerError(f"failed to call webhook: {why}")


def _no_patch(why: str) -> AnswerError:
    return AnswerError(f"received undecodable patch in webhook response: {why}")


@frozen
class Answer:
    """`status` is what a refusal says of itself; `patch` the operations, None where the object stays as it is."""

    allowed: bool
    status: Obj | None = None
    patch: list[Any] | None = None
    warnings: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)


@frozen
class Shown:
    """The objects of a write as bytes, in the version of one kind; `null` for one that there is none of."""

    kind: Kind
    obj: bytes = b"null"
    old: bytes = b"null"


def object_kind(kind: Kind, subresource: str) -> tuple[str, str, str]:
    """Group, version and kind of what is written through a subresource; of the object itself without one."""
    resource = kind.resource
    if subresource:
        for name, found, _ in subresources_of(kind):
            if name == subresource:
                return found
    return resource.group, resource.version, resource.kind


def review(version: str, uid: str, attributes: Attributes, shown: Shown) -> bytes:
    """The question."""
    request = {
        "uid": uid,
        **request_of(attributes, shown.kind),
        "object": orjson.Fragment(shown.obj),
        "oldObject": orjson.Fragment(shown.old),
        "dryRun": attributes.dry_run,
        "options": attributes.options or None,
    }
    return orjson.dumps({"kind": "AdmissionReview", "apiVersion": f"{GROUP}/{version}", "request": request})


def request_of(attributes: Attributes, kind: Kind) -> Obj:
    """What a review says of the request, beside the objects, which are in the version of `kind`."""
    subresource, asked, name = attributes.subresource, attributes.asked, attributes.name
    return {
        "kind": _kind(kind, subresource),
        "resource": _resource(kind),
        **({"subResource": subresource} if subresource else {}),
        "requestKind": _kind(asked, subresource),
        "requestResource": _resource(asked),
        **({"requestSubResource": subresource} if subresource else {}),
        **({"name": name} if name else {}),
        **({"namespace": namespace} if (namespace := request_namespace(attributes)) else {}),
        "operation": attributes.operation,
        "userInfo": attributes.user.info(),
    }


def request_namespace(attributes: Attributes) -> str:
    """The namespace that a request names in its path: of a Namespace, once it is there, its own name."""
    resource = attributes.asked.resource
    if resource.plural == "namespaces" and not resource.group:
        return "" if attributes.operation == "CREATE" and not attributes.subresource else attributes.name
    return attributes.namespace


def _kind(kind: Kind, subresource: str) -> Obj:
    group, version, name = object_kind(kind, subresource)
    return {"group": group, "version": version, "kind": name}


def _resource(kind: Kind) -> Obj:
    resource = kind.resource
    return {"group": resource.group, "version": resource.version, "resource": resource.plural}


# The answer


def read_answer(data: bytes, version: str, uid: str, *, mutating: bool) -> Answer:
    """Raises AnswerError."""
    response = _response(data, version)
    strict = version == "v1"
    if strict and response.get("uid", "") != uid:
        raise _invalid(f'expected response.uid="{uid}", got "{response.get("uid", "")}"')
    patch = _bytes(response.get("patch"))
    patch_type = response.get("patchType")
    if strict:
        _check_patch(patch, patch_type, mutating=mutating)
    if patch and mutating and strict and patch_type != "JSONPatch":
        raise AnswerError(f'unsupported patch type "{patch_type}"')
    status = response.get("status")
    if status is not None and not isinstance(status, dict):
        raise _undecodable(_unfit(status, "status", "v1.Status"))
    return Answer(
        bool(response.get("allowed")),
        status,
        _operations(patch) if patch and mutating else None,
        tuple(map(str, response.get("warnings") or ())),
        {str(name): str(value) for name, value in (response.get("auditAnnotations") or {}).items()},
    )


def _response(data: bytes, version: str) -> Obj:
    try:
        answer = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise _undecodable(f"couldn't get version/kind; json parse error: {why_no_json(data)}") from None
    if not isinstance(answer, dict):
        raise _undecodable("couldn't get version/kind; json parse error: the answer is no object")
    api_version, kind = answer.get("apiVersion", ""), answer.get("kind", "")
    expected = f"{GROUP}/{version}"
    if (api_version, kind) != (expected, "AdmissionReview") and version == "v1":
        got = f"{api_version or '/'}, Kind={kind}"
        raise _invalid(f"expected webhook response of {expected}, Kind=AdmissionReview, got {got}")
    response = answer.get("response")
    if response is None:
        raise _invalid("webhook response was absent")
    if not isinstance(response, dict):
        raise _undecodable(_unfit(response, "", f"{version}.AdmissionResponse"))
    for name, kind_of, go_type in _FIELDS:
        value = response.get(name)
        if value is not None and not isinstance(value, kind_of):
            raise _undecodable(_unfit(value, name, go_type))
    return response


_FIELDS: Final[tuple[tuple[str, type, str], ...]] = (
    ("uid", str, "types.UID"),
    ("allowed", bool, "bool"),
    ("patchType", str, "v1.PatchType"),
    ("warnings", list, "[]string"),
    ("auditAnnotations", dict, "map[string]string"),
)
_GO_KINDS: Final = {bool: "bool", str: "string", int: "number", float: "number", list: "array", dict: "object"}


def _unfit(value: object, name: str, go_type: str) -> str:
    path = "AdmissionReview.response" + (f".{name}" if name else "")
    return f"json: cannot unmarshal {_GO_KINDS.get(type(value), 'null')} into Go struct field {path} of type {go_type}"


def _bytes(text: object) -> bytes:
    if text is None:
        return b""
    if not isinstance(text, str):
        raise _undecodable(_unfit(text, "patch", "[]uint8"))
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise _undecodable("illegal base64 data at input byte 0") from None


def _check_patch(patch: bytes, patch_type: object, *, mutating: bool) -> None:
    if not mutating:
        if patch:
            raise _invalid("validating webhook may not return response.patch")
        if patch_type is not None:
            raise _invalid("validating webhook may not return response.patchType")
    elif patch and patch_type is None:
        raise _invalid("webhook returned response.patch but not response.patchType")
    elif not patch and patch_type is not None:
        raise _invalid("webhook returned response.patchType but not response.patch")
    elif patch and not patch_type:
        raise _invalid('webhook returned invalid response.patchType of ""')


def _operations(patch: bytes) -> list[Any]:
    try:
        operations = orjson.loads(patch)
    except orjson.JSONDecodeError:
        raise _no_patch(why_no_json(patch)) from None
    if not isinstance(operations, list):
        what = f"json: cannot unmarshal {_GO_KINDS.get(type(operations), 'null')} into Go value of type jsonpatch.Patch"
        raise _no_patch(what)
    return operations


def refusal(webhook: str, status: Obj | None) -> StatusError:
    """What the client reads: the webhook's own status, with the webhook's name in front of its message."""
    said = status or {}
    code, message, reason = said.get("code"), said.get("message"), said.get("reason")
    number = code if isinstance(code, int) and not isinstance(code, bool) else 0
    if number < 400:
        number = 400
    elif number > _HIGHEST_STATUS:
        # No such answer can be sent.
        number = 500
    denied = f'admission webhook "{webhook}" denied the request'
    text = f"{denied}: {message or reason}" if message or reason else f"{denied} without explanation"
    details = said.get("details")
    shown = details if isinstance(details, dict) else None
    error = StatusError(number, str(reason or ""), text, details=shown)
    seconds = str((shown or {}).get("retryAfterSeconds") or "")
    if is_digits(seconds) and int(seconds) > 0:
        error.headers["Retry-After"] = seconds
    return error
