"""ConversionReview: custom objects converted between their versions by a webhook.

In: what a CustomResourceDefinition says of its conversion webhook, and objects.  Out: the objects in the version asked
for, in order. Those of one request are asked about together, in as few reviews as their sizes allow. A converter may
change what an object says in labels, annotations and outside of its metadata; that it is another object is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import orjson

from navarch.api.errors import StatusError
from navarch.api.go_text import go_kind, go_type, quoted
from navarch.api.meta import Obj, new_uid
from navarch.api.validation import validate_annotations, validate_labels
from navarch.apiserver.webhooks.answers import UndecodableError, gvk, review_in, unfit
from navarch.apiserver.webhooks.client import CallError, ClientConfig, WebhookClient, client_config
from navarch.world import World

GROUP: Final = "apiextensions.k8s.io"
VERSIONS: Final = ("v1", "v1beta1")
KIND: Final = "ConversionReview"
_TIMEOUT_S: Final = 30
# Bytes of the objects in one review; one that is bigger has a review to itself.
_TOGETHER: Final = 4 << 20
# Objects grow by conversion, but not without bound.
_LONGEST_ANSWER: Final = 32 << 20
_SAME: Final = ("name", "namespace", "uid")


class _WrongError(Exception):
    """What is wrong with an answer."""


class WebhookConverter:
    """`navarch.kinds.base.Converter`; `webhook` is `spec.conversion.webhook`."""

    def __init__(self, client: WebhookClient, webhook: Obj, world: World) -> None:
        self._client = client
        self._world = world
        stated = webhook.get("conversionReviewVersions") or ()
        self._version = next((version for version in stated if version in VERSIONS), "")
        self._config: ClientConfig | None = None
        self._wrong = "" if self._version else "no supported conversion review versions"
        try:
            self._config = client_config(webhook.get("clientConfig") or {})
        except CallError as error:
            self._wrong = str(error)

    async def convert(self, objects: Sequence[Obj], api_version: str) -> Sequence[Obj]:
        """Those that are in the version already are not asked about.  Raises StatusError 500."""
        converted: list[Obj] = []
        others = [obj for obj in objects if obj.get("apiVersion") != api_version]
        for batch in _batches(others):
            converted += await self._ask(batch, api_version)
        made = iter(converted)
        return [obj if obj.get("apiVersion") == api_version else next(made) for obj in objects]

    async def _ask(self, batch: list[tuple[Obj, bytes]], api_version: str) -> list[Obj]:
        first = batch[0][0]
        subject = _subject(first)
        if self._config is None or self._wrong:
            raise StatusError(500, "", self._wrong)
        uid = new_uid(self._world.identities("reviews"))
        question = orjson.dumps(
            {
                "kind": KIND,
                "apiVersion": f"{GROUP}/{self._version}",
                "request": {
                    "uid": uid,
                    "desiredAPIVersion": api_version,
                    "objects": [orjson.Fragment(data) for _, data in batch],
                },
            }
        )
        try:
            data = await self._client.ask(self._config, question, _TIMEOUT_S, longest=_LONGEST_ANSWER)
            found = self._converted(data, uid)
        except (CallError, UndecodableError, _WrongError) as error:
            raise StatusError(500, "", f"{subject} failed: {error}") from error
        if len(found) != len(batch):
            raise StatusError(500, "", f"{subject} returned {len(found)} objects, expected {len(batch)}")
        for (old, _), new in zip(batch, found, strict=True):
            if wrong := _wrong(old, new, api_version) or _wrong_metadata(old, new):
                raise StatusError(500, "", f"{_subject(old)} returned {wrong}")
        return found

    def _converted(self, data: bytes, uid: str) -> list[Any]:
        """Raises _WrongError; UndecodableError."""
        review = review_in(data, GROUP, self._version, KIND)
        strict = self._version == "v1"
        if strict and (review.get("apiVersion"), review.get("kind")) != (f"{GROUP}/v1", KIND):
            raise _WrongError(f"expected webhook response of {GROUP}/v1, Kind={KIND}, got {gvk(review)}")
        response = review.get("response")
        if response is None:
            raise _WrongError("no response provided")
        if not isinstance(response, dict):
            raise unfit(response, "response", KIND, f"{self._version}.{_STRUCT}")
        for name, kind_of, declared in _FIELDS:
            if not isinstance(value := response.get(name), (kind_of, type(None))):
                raise unfit(value, f"response.{name}", _STRUCT, declared)
        if strict and (response.get("uid") or "") != uid:
            raise _WrongError(f"expected response.uid={quoted(uid)}, got {quoted(response.get('uid') or '')}")
        status = response.get("result") or {}
        if status.get("status") != "Success":
            message = status.get("message") or f"response.result.status was '{status.get('status', '')}', not 'Success'"
            raise _WrongError(str(message))
        return response.get("convertedObjects") or []


_STRUCT: Final = "ConversionResponse"
_FIELDS: Final[tuple[tuple[str, type, str], ...]] = (
    ("uid", str, "types.UID"),
    ("convertedObjects", list, "[]runtime.RawExtension"),
    ("result", dict, "v1.Status"),
)


def converters(client: WebhookClient, world: World) -> Callable[[Obj], WebhookConverter | None]:
    """What converts the objects of a CustomResourceDefinition; None where its versions differ in name only."""

    def converter_of(definition: Obj) -> WebhookConverter | None:
        conversion = definition["spec"].get("conversion") or {}
        if conversion.get("strategy") != "Webhook":
            return None
        return WebhookConverter(client, conversion.get("webhook") or {}, world)

    return converter_of


def _batches(objects: Sequence[Obj]) -> Iterator[list[tuple[Obj, bytes]]]:
    batch: list[tuple[Obj, bytes]] = []
    size = 0
    for obj in objects:
        data = orjson.dumps(obj)
        if batch and size + len(data) > _TOGETHER:
            yield batch
            batch, size = [], 0
        batch.append((obj, data))
        size += len(data)
    if batch:
        yield batch


def _subject(obj: Obj) -> str:
    return f"conversion webhook for {obj.get('apiVersion')}, Kind={obj.get('kind')}"


def _wrong(old: Obj, new: Any, api_version: str) -> str:
    """What makes another object of it; empty for the same one."""
    if not isinstance(new, dict):
        items = 'struct { Items json.RawMessage "json:\\"items\\"" }'
        return f"invalid object: json: cannot unmarshal {go_kind(new)} into Go value of type {items}"
    if not new.get("kind"):
        return f"invalid object: Object 'Kind' is missing in '{orjson.dumps(new).decode()}'"
    if (got := new.get("apiVersion") or "") != api_version:
        return f"invalid object at index 0: invalid groupVersion (expected {api_version}, received {got})"
    if (kind := new["kind"]) != old.get("kind"):
        return f"invalid object at index 0: invalid kind (expected {old.get('kind')}, received {kind})"
    was, said = old.get("metadata") or {}, new.get("metadata")
    now = said if isinstance(said, dict) else {}
    for field in _SAME:
        if (was.get(field) or "") != (now.get(field) or ""):
            shown = "UID" if field == "uid" else field
            return f"invalid object: must have the same {shown}: {was.get(field) or ''} != {now.get(field) or ''}"
    return ""


def _wrong_metadata(old: Obj, new: Obj) -> str:
    """What is wrong with what a converter may change: labels and annotations."""
    if "metadata" not in new:
        return "invalid metadata: missing metadata in converted object"
    was, now = old.get("metadata") or {}, new["metadata"]
    if not isinstance(now, dict):
        return f"invalid metadata: invalid metadata of type {go_type(now)} in converted object"
    for field, path, validate in _CHANGEABLE:
        said = now.get(field)
        if said is None or said == was.get(field):
            continue
        if not isinstance(said, dict):
            return f"invalid metadata: invalid metadata.{field} of type {go_type(said)} in converted object"
        for name, value in said.items():
            if not isinstance(value, str):
                wrong = f"must be a string, but is {go_type(value)} in converted object"
                return f"invalid metadata: metadata.{field}[{name}] {wrong}"
        errors = list(dict.fromkeys(map(str, validate(said, path))))
        if errors:
            text = ", ".join(errors)
            return f"invalid metadata: {text if len(errors) == 1 else f'[{text}]'}"
    return ""


_CHANGEABLE: Final = (
    ("labels", "metadata.labels", validate_labels),
    # As Kubernetes spells it.
    ("annotations", "metadata.annotation", validate_annotations),
)
