"""What webhooks answer, read as Kubernetes' client reads it: which review it is, before what it says.

In: an answer's bytes, the group and version of the review that was sent, and its kind.  Out: the review; what cannot be
taken for one is an `UndecodableError` in the words of Kubernetes' decoder. JSON begins with a brace, all else is YAML.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from navarch.api.go_text import check_type_meta, go_kind
from navarch.api.json_errors import why_no_json
from navarch.api.meta import Obj
from navarch.api.schema_scalars import ScalarError, check_base64
from navarch.api.yaml_reader import load as load_yaml

_SCHEME: Final = "k8s.io/apiserver/pkg/util/webhook/client.go:70"
_VERSIONS: Final = ("v1", "v1beta1")
# Reading it takes some milliseconds at most; what is longer is a page that somebody else has sent.
_LONGEST_YAML: Final = 4 << 10


class UndecodableError(Exception):
    """An answer is no review; the text says why."""


def review_in(data: bytes, group: str, version: str, kind: str) -> Obj:
    """The review that an answer is.  It may leave out what it is, but not be something else.  Raises
    UndecodableError."""
    try:
        review: Obj = _parsed(data)
        check_type_meta(review)
    except ValueError as error:
        raise UndecodableError(f"couldn't get version/kind; json parse error: {error}") from None
    expected = f"{group}/{version}"
    stated, named = review.get("apiVersion") or expected, review.get("kind") or kind
    if (stated, named) == (expected, kind):
        return review
    of, _, short = stated.rpartition("/")
    if ((of, named) == (group, kind) and short in _VERSIONS) or (stated, named) == ("v1", "Status"):
        why = f"converting ({short}.{named}) to ({version}.{kind}): unknown conversion"
    else:
        why = f'no kind "{named}" is registered for version "{stated}" in scheme "{_SCHEME}"'
    raise UndecodableError(why)


def _parsed(data: bytes) -> Any:
    """Raises ValueError."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        if data.lstrip()[:1] == b"{":
            raise ValueError(why_no_json(data)) from None
    return load_yaml(data).value if len(data) <= _LONGEST_YAML else data.decode("utf-8", "replace")


def gvk(review: Obj) -> str:
    """The version and kind that a review says it is, as Kubernetes shows them."""
    return f"{review.get('apiVersion') or '/'}, Kind={review.get('kind') or ''}"


def unfit(value: object, path: str, struct: str, go_type: str) -> UndecodableError:
    """A field of a Go struct cannot be what an answer says."""
    return UndecodableError(
        f"json: cannot unmarshal {go_kind(value)} into Go struct field {struct}.{path} of type {go_type}"
    )


def decoded_base64(text: object, path: str, struct: str) -> str:
    """Checked, without line breaks; nothing is empty.  Raises UndecodableError."""
    if text is None:
        return ""
    if not isinstance(text, str):
        raise unfit(text, path, struct, "[]uint8")
    try:
        return check_base64(text)
    except ScalarError as error:
        raise UndecodableError(str(error)) from None
