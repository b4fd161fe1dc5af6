"""AdmissionReview: what a webhook is asked, and what its answer means.

In: a write's attributes and the kind in whose version its objects are shown.  Out: the review's bytes; and of the
answer's bytes an `Answer`. Both versions of the review are spoken; the older one is read less strictly, as ever.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final

import orjson

from navarch.api.errors import StatusError
from navarch.api.go_text import go_kind, quoted
from navarch.api.json_errors import why_no_json
from navarch.api.meta import Obj
from navarch.apiserver.admission.base import Attributes
from navarch.apiserver.webhooks.answers import UndecodableError, decoded_base64, gvk, review_in, unfit
from navarch.kinds.base import Kind
from navarch.kinds.discovery_docs import subresources_of
from navarch.numbers import is_digits
from navarch.records import frozen

GROUP: Final = "admission.k8s.io"
VERSIONS: Final = ("v1", "v1beta1")
KIND: Final = "AdmissionReview"
_HIGHEST_STATUS: Final = 599


class AnswerError(Exception):
    """What came back is no answer to what was asked; the text says why."""


def _invalid(why: str) -> AnswerError:
    return AnswerError(f"received invalid webhook response: {why}")


def _no_patch(why: str) -> AnswerError:
    return AnswerError(f"received undecodable patch in webhook response: {why}")


@frozen
class Answer:
    """`status` is what a refusal says of itself; `patch` is as it came (`operations_in`)."""

    allowed: bool
    status: Obj | None = None
    patch: bytes = b""
    patch_type: str = ""
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
    return orjson.dumps({"kind": KIND, "apiVersion": f"{GROUP}/{version}", "request": request})


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
    try:
        review = review_in(data, GROUP, version, KIND)
        response = _response(review, version)
        patch = base64.b64decode(decoded_base64(response.get("patch"), "response.patch", _STRUCT))
    except UndecodableError as error:
        raise AnswerError(f"failed to call webhook: {error}") from error
    patch_type = response.get("patchType")
    if version == "v1":
        if response.get("uid", "") != uid:
            raise _invalid(f"expected response.uid={quoted(uid)}, got {quoted(response.get('uid') or '')}")
        if (review.get("apiVersion"), review.get("kind")) != (f"{GROUP}/v1", KIND):
            raise _invalid(f"expected webhook response of {GROUP}/v1, Kind={KIND}, got {gvk(review)}")
        _check_patch(patch, patch_type, mutating=mutating)
    else:
        # The older review never said of what type its patches are.
        patch_type = "JSONPatch"
    return Answer(
        bool(response.get("allowed")),
        response.get("status"),
        patch if mutating else b"",
        str(patch_type or ""),
        tuple(text or "" for text in response.get("warnings") or ()),
        {name: value or "" for name, value in (response.get("auditAnnotations") or {}).items()},
    )


_STRUCT: Final = "AdmissionResponse"
_FIELDS: Final[tuple[tuple[str, type, str], ...]] = (
    ("uid", str, "types.UID"),
    ("allowed", bool, "bool"),
    ("status", dict, "v1.Status"),
    ("patchType", str, "v1.PatchType"),
    ("warnings", list, "[]string"),
    ("auditAnnotations", dict, "map[string]string"),
)


def _response(review: Obj, version: str) -> Obj:
    """Raises AnswerError; UndecodableError."""
    response = review.get("response")
    if response is None:
        raise _invalid("webhook response was absent")
    if not isinstance(response, dict):
        raise unfit(response, "response", KIND, f"{version}.{_STRUCT}")
    for name, kind_of, go_type in _FIELDS:
        value = response.get(name)
        if value is None:
            continue
        if not isinstance(value, kind_of):
            raise unfit(value, f"response.{name}", _STRUCT, go_type.replace("v1.P", f"{version}.P"))
    for name in ("warnings", "auditAnnotations"):
        stated: Any = response.get(name) or ()
        for text in stated.values() if isinstance(stated, dict) else stated:
            if not isinstance(text, (str, type(None))):
                raise unfit(text, f"response.{name}", _STRUCT, "string")
    return response


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


def operations_in(answer: Answer) -> list[Any]:
    """What an answer's patch does; nothing where it has none.  Raises AnswerError."""
    if not answer.patch:
        return []
    try:
        operations = orjson.loads(answer.patch)
    except orjson.JSONDecodeError:
        raise _no_patch(why_no_json(answer.patch)) from None
    if operations is None:
        return []
    if not isinstance(operations, list):
        raise _no_patch(f"json: cannot unmarshal {go_kind(operations)} into Go value of type jsonpatch.Patch")
    for operation in operations:
        if not isinstance(operation, (dict, type(None))):
            raise _no_patch(f"json: cannot unmarshal {go_kind(operation)} into Go value of type jsonpatch.Operation")
    if operations and answer.patch_type != "JSONPatch":
        raise AnswerError(f"unsupported patch type {quoted(answer.patch_type)}")
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
