"""Tokens with which a list that was cut at `limit` goes on: Kubernetes' own form, checked with Kubernetes' words.

In: a revision and the key of the last object shown, below its resource's prefix.  Out: a token; and back. A revision of
-1 goes on with what there is now: what a client is offered when the list that it was reading is gone. A token has no
slash at its beginning, whatever the key: that of an object without namespace begins with one.
"""

from __future__ import annotations

import base64
import binascii
import posixpath
import re
from typing import Any, Final

import orjson

from navarch.api.errors import Obj, StatusError, bad_request
from navarch.api.go_text import go_kind
from navarch.api.json_errors import why_no_json

NOW: Final = -1
_TOO_OLD: Final = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)
_VERSION: Final = "meta.k8s.io/v1"
_INVALID: Final = "continue key is not valid"
_FIELDS: Final = (("v", str, "string"), ("rv", int, "int64"), ("start", str, "string"))
_IN_ALPHABET: Final = re.compile("[A-Za-z0-9_-]*")


class ContinueExpired(StatusError):
    """410 that carries a token to go on with, inconsistently."""

    def __init__(self, start: str) -> None:
        super().__init__(410, "Expired", _TOO_OLD)
        self._token = encode_token(NOW, start)

    def status(self) -> Obj:
        status = super().status()
        status["metadata"] = {"continue": self._token}
        return status


def encode_token(revision: int, start: str) -> str:
    """`start` is the key of the last object that was shown."""
    token = orjson.dumps({"v": _VERSION, "rv": revision, "start": start.removeprefix("/") + "\u0000"})
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


def decode_token(token: str, *, namespaced: bool) -> tuple[int, str]:
    """Revision, and the key behind which the list goes on.  Raises StatusError 400."""
    value = _parsed(_bytes_of(token))
    version, revision, start = value.get("v") or "", value.get("rv") or 0, value.get("start") or ""
    if version != _VERSION:
        raise _invalid(f"{_INVALID}: server does not recognize this encoded version {version}")
    if revision == 0:
        raise _invalid(f"{_INVALID}: incorrect encoded start resourceVersion (version {_VERSION})")
    if not start:
        raise _invalid(f"{_INVALID}: encoded start key empty (version {_VERSION})")
    # Nobody leaves a resource's keys by a path that goes up.
    key = start if start.startswith("/") else "/" + start
    if posixpath.normpath(key) != key:
        raise _invalid(f"{_INVALID}: {start}")
    return revision, (key[1:] if namespaced else key).rstrip("\0")


def _bytes_of(token: str) -> bytes:
    """Base64 for URLs without padding, as strict as Go's.  Raises StatusError 400."""
    token = token.replace("\r", "").replace("\n", "")
    matched = _IN_ALPHABET.match(token)
    good = matched.end() if matched is not None else 0
    if good < len(token) or good % 4 == 1:
        position = len(token[:good].encode()) if good < len(token) else good - 1
        raise _invalid(f"{_INVALID}: illegal base64 data at input byte {position}")
    try:
        return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except binascii.Error as error:
        raise _invalid(f"{_INVALID}: {error}") from None


def _parsed(data: bytes) -> dict[str, Any]:
    """Whose fields have their types."""
    try:
        value = orjson.loads(data.decode("utf-8", "replace"))
    except orjson.JSONDecodeError:
        raise _invalid(f"{_INVALID}: {why_no_json(data)}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _invalid(
            f"{_INVALID}: json: cannot unmarshal {go_kind(value)} into Go value of type storage.continueToken"
        )
    for name, kind, go_type in _FIELDS:
        if value.get(name) is not None and type(value[name]) is not kind:
            shown = go_kind(value[name])
            field = f"continueToken.{name}"
            raise _invalid(f"{_INVALID}: json: cannot unmarshal {shown} into Go struct field {field} of type {go_type}")
    return value


def _invalid(why: str) -> StatusError:
    return bad_request(f"invalid continue token: {why}")
