"""The API's errors: every failure that a client reads is a `StatusError`, raised at the place that knows the reason.

Reasons, codes and message forms are those of Kubernetes' `metav1.Status`
(https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from navarch.api.go_text import escaped_json, quoted
from navarch.records import frozen

Obj = dict[str, Any]

_UNSET: Final = object()


@frozen
class FieldError:
    """One thing wrong with one field: `type` is the machine's word (`FieldValueInvalid` …), `field` its dotted path."""

    type: str
    field: str
    detail: str = ""
    value: Any = _UNSET

    def message(self) -> str:
        """The cause's message without its field path, as Kubernetes words it: `Invalid value: "x": must be …`."""
        title = _TITLES[self.type]
        if self.value is _UNSET:
            text = title
        else:
            is_map = self.field.rpartition(".")[2].partition("[")[0] in _MAPS
            text = f"{title}: {_show(_with_sorted_maps(self.value, is_map=is_map))}"
        return f"{text}: {self.detail}" if self.detail else text

    def __str__(self) -> str:
        return f"{self.field}: {self.message()}"


_TITLES: Final = {
    "FieldValueRequired": "Required value",
    "FieldValueInvalid": "Invalid value",
    "FieldValueDuplicate": "Duplicate value",
    "FieldValueNotSupported": "Unsupported value",
    "FieldValueForbidden": "Forbidden",
    "FieldValueTooLong": "Too long",
    "FieldValueTooMany": "Too many",
    "FieldValueNotFound": "Not found",
    "FieldValueTypeInvalid": "Invalid value",
    "InternalError": "Internal error",
}


# Maps of whatever keys: Go writes them in the keys' order, unlike a structure's fields.
_MAPS: Final = frozenset(
    ("labels", "annotations", "matchLabels", "nodeSelector", "limits", "requests", "capacity", "overhead", "extra"),
)


# Label selectors, which show as the API has them: their fields and their requirements' in the order of the types, and
# none that is empty.
_SELECTOR: Final = ("matchLabels", "matchExpressions")
_REQUIREMENT: Final = ("key", "operator", "values")
_SELECTOR_FIELDS: Final = frozenset(_SELECTOR)
_REQUIREMENT_FIELDS: Final = frozenset(_REQUIREMENT)


def _with_sorted_maps(value: Any, *, is_map: bool) -> Any:
    if isinstance(value, dict):
        keys: Iterable[str] = sorted(value) if is_map else value
        if value.keys() <= _SELECTOR_FIELDS:
            keys = [key for key in _SELECTOR if value.get(key)]
            if requirements := value.get("matchExpressions"):
                # What Go writes though nobody said it.
                value = {**value, "matchExpressions": [{"key": "", "operator": "", **each} for each in requirements]}
        elif value.keys() <= _REQUIREMENT_FIELDS and "operator" in value:
            keys = [key for key in _REQUIREMENT if value.get(key) or (key in value and key != "values")]
        return {key: _with_sorted_maps(value[key], is_map=key in _MAPS) for key in keys}
    return [_with_sorted_maps(item, is_map=False) for item in value] if isinstance(value, list) else value


def _show(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool) or value is None or isinstance(value, (list, dict)):
        shown = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return escaped_json(shown.encode("utf-8", "replace")).decode()
    return str(value)


def required(field: str, detail: str = "") -> FieldError:
    return FieldError("FieldValueRequired", field, detail)


def invalid_value(field: str, value: Any, detail: str) -> FieldError:
    return FieldError("FieldValueInvalid", field, detail, value)


def invalid_whole(field: str, detail: str) -> FieldError:
    """Something is wrong with a structure as a whole, whose value would say nothing."""
    return FieldError("FieldValueInvalid", field, detail)


def immutable(field: str, value: Any) -> FieldError:
    return FieldError("FieldValueInvalid", field, "field is immutable", value)


def duplicate(field: str, value: Any) -> FieldError:
    return FieldError("FieldValueDuplicate", field, "", value)


def not_supported(field: str, value: Any, supported: Iterable[str]) -> FieldError:
    """`supported` in the order in which Kubernetes tells them: some by name, some as the API's authors wrote them."""
    choices = ", ".join(f'"{choice}"' for choice in supported)
    return FieldError("FieldValueNotSupported", field, f"supported values: {choices}", value)


def not_one_of(field: str, value: Any, supported: Iterable[str]) -> FieldError:
    """`not_supported` with the choices in the order given, where Kubernetes does not sort them."""
    choices = ", ".join(f'"{choice}"' for choice in supported)
    return FieldError("FieldValueNotSupported", field, f"supported values: {choices}", value)


def forbidden_field(field: str, detail: str) -> FieldError:
    return FieldError("FieldValueForbidden", field, detail)


def too_long(field: str, maximum: int) -> FieldError:
    return FieldError("FieldValueTooLong", field, f"may not be more than {maximum} bytes")


def too_many(field: str, actual: int, maximum: int) -> FieldError:
    return FieldError("FieldValueTooMany", field, f"must have at most {maximum} items", actual)


def field_not_found(field: str, value: Any) -> FieldError:
    return FieldError("FieldValueNotFound", field, "", value)


class StatusError(Exception):
    """A failure with its `metav1.Status`.

    `code` is the HTTP status code; `reason` Kubernetes' machine-readable word; `details` the Status' details object;
    `headers` go into the HTTP response (for example `Retry-After`).
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Obj | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = dict(headers or {})

    def status(self) -> Obj:
        """The `metav1.Status` object that the client reads."""
        status: Obj = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        status["code"] = self.code
        if self.details is not None:
            status["details"] = self.details
        return status

    @classmethod
    def from_status(cls, status: Obj) -> StatusError:
        """The error behind a received `Status` object."""
        return cls(
            int(status.get("code") or 500),
            status.get("reason") or "",
            status.get("message") or "",
            details=status.get("details"),
        )


def _qualified(resource: str, group: str) -> str:
    return f"{resource}.{group}" if group else resource


def _details(resource: str, group: str, name: str) -> Obj:
    details: Obj = {"name": name, "group": group, "kind": resource}
    return {key: value for key, value in details.items() if value}


def not_found(resource: str, group: str, name: str) -> StatusError:
    """`resource` is the plural resource name, e.g. `pods`."""
    message = f'{_qualified(resource, group)} "{name}" not found'
    return StatusError(404, "NotFound", message, details=_details(resource, group, name))


def already_exists(resource: str, group: str, name: str) -> StatusError:
    message = f'{_qualified(resource, group)} "{name}" already exists'
    return StatusError(409, "AlreadyExists", message, details=_details(resource, group, name))


def conflict(resource: str, group: str, name: str, why: str = "") -> StatusError:
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {_qualified(resource, group)} "{name}": {why}'
    return StatusError(409, "Conflict", message, details=_details(resource, group, name))


def invalid(kind: str, group: str, name: str, errors: Iterable[FieldError]) -> StatusError:
    """422 with one cause per field error; `kind` is the Kind, e.g. `Pod`."""
    listed = list(errors)
    shown = list(dict.fromkeys(str(error) for error in listed))
    text = shown[0] if len(shown) == 1 else "[" + ", ".join(shown) + "]"
    details = _details(kind, group, name)
    details["causes"] = [{"reason": e.type, "message": e.message(), "field": e.field} for e in listed]
    return StatusError(422, "Invalid", f'{_qualified(kind, group)} "{name}" is invalid: {text}', details=details)


def bad_request(message: str) -> StatusError:
    return StatusError(400, "BadRequest", message)


def unauthorized() -> StatusError:
    return StatusError(401, "Unauthorized", "Unauthorized")


def forbidden(resource: str, group: str, name: str, why: str) -> StatusError:
    subject = f'{_qualified(resource, group)} "{name}"' if name else _qualified(resource, group)
    return StatusError(403, "Forbidden", f"{subject} is forbidden: {why}", details=_details(resource, group, name))


def unknown_path() -> StatusError:
    return StatusError(404, "NotFound", "the server could not find the requested resource", details={})


class TextError(StatusError):
    """One whose message is all that is answered, as a text: Kubernetes' filters and router do so."""


class PathNotFound(TextError):
    """404 for a path below which nobody serves anything."""

    def __init__(self) -> None:
        super().__init__(404, "NotFound", "404 page not found")


def method_not_allowed() -> StatusError:
    message = "the server does not allow this method on the requested resource"
    return StatusError(405, "MethodNotAllowed", message, details={})


def ending(group: str, plural: str) -> StatusError:
    """405: the definition of a custom resource is being deleted with its objects."""
    message = "create not allowed while custom resource definition is terminating"
    return StatusError(405, "MethodNotAllowed", message, details={"group": group, "kind": plural})


def expired(message: str) -> StatusError:
    """410: the resource version is too old to be served; the client lists again."""
    return StatusError(410, "Expired", message)


def not_acceptable(offered: Iterable[str]) -> StatusError:
    message = "only the following media types are accepted: " + ", ".join(offered)
    return StatusError(406, "NotAcceptable", message)


def unsupported_media_type(accepted: Iterable[str]) -> StatusError:
    message = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
    return StatusError(415, "UnsupportedMediaType", message)


def unroutable_media_type() -> StatusError:
    """What Kubernetes' router says of a body that no path takes, before any handler hears of it."""
    return StatusError(415, "UnsupportedMediaType", "415: Unsupported Media Type", details={})


def too_large(limit_bytes: int) -> StatusError:
    message = f"Request entity too large: limit is {limit_bytes}"
    return StatusError(413, "RequestEntityTooLarge", message)


def too_many_requests(message: str, retry_after_s: int = 1, causes: list[Obj] | None = None) -> StatusError:
    details: Obj = {"retryAfterSeconds": retry_after_s} if retry_after_s else {}
    if causes:
        details["causes"] = causes
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s else {}
    return StatusError(429, "TooManyRequests", message, details=details, headers=headers)


def timeout(message: str) -> StatusError:
    return StatusError(504, "Timeout", message)


def too_large_resource_version(wanted: int, current: int) -> StatusError:
    details: Obj = {
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    }
    message = f"Timeout: Too large resource version: {wanted}, current: {current}"
    return StatusError(504, "Timeout", message, details=details, headers={"Retry-After": "1"})


def unavailable(message: str) -> StatusError:
    return StatusError(503, "ServiceUnavailable", message)


def internal(message: str) -> StatusError:
    details = {"causes": [{"message": message}]}
    return StatusError(500, "InternalError", f"Internal error occurred: {message}", details=details)


def unexplained(message: str) -> StatusError:
    """What Kubernetes' handlers pass on of an error that is no answer of the API's: 500, and no reason."""
    return StatusError(500, "", message)


def rejected() -> StatusError:
    """What Kubernetes answers to a well-formed patch that does not fit the object; it does not tell which part."""
    return StatusError(422, "Invalid", "the server rejected our request due to an error in our request", details={})
