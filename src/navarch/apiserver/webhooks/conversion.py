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
from navarch.api.json_errors import why_no_json
from navarch.api.meta import Obj, new_uid
from navarch.apiserver.webhooks.client import CallError, ClientConfig, WebhookClient, client_config
from navarch.world import World

GROUP: Final = "apiextensions.k8s.io"
VERSIONS: Final = ("v1", "v1beta1")
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
        subject = f"conversion webhook for {first.get('apiVersion')}, Kind={first.get('kind')}"
        if self._config is None or self._wrong:
            raise StatusError(500, "", self._wrong)
        uid = new_uid(self._world.identities("reviews"))
        question = orjson.dumps(
            {
                "kind": "ConversionReview",
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
        except (CallError, _WrongError) as error:
            raise StatusError(500, "", f"{subject} failed: {error}") from error
        if len(found) != len(batch):
            raise StatusError(500, "", f"{subject} returned {len(found)} objects, expected {len(batch)}")
        for index, ((old, _), new) in enumerate(zip(batch, found, strict=True)):
            if wrong := _wrong(old, new, api_version):
                raise StatusError(500, "", f"{subject} returned invalid converted object at index {index}: {wrong}")
        return found

    def _converted(self, data: bytes, uid: str) -> list[Any]:
        """Raises _WrongError."""
        try:
            review = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise _WrongError(f"couldn't get version/kind; json parse error: {why_no_json(data)}") from None
        if not isinstance(review, dict):
            raise _WrongError("couldn't get version/kind; json parse error: the answer is no object")
        strict = self._version == "v1"
        expected, kind = f"{GROUP}/{self._version}", "ConversionReview"
        got = (review.get("apiVersion") or "", review.get("kind") or "")
        if strict and got != (expected, kind):
            shown = f"{got[0] or '/'}, Kind={got[1]}"
            raise _WrongError(f"expected webhook response of {expected}, Kind={kind}, got {shown}")
        response = review.get("response")
        if not isinstance(response, dict):
            raise _WrongError("no response provided")
        if strict and response.get("uid", "") != uid:
            raise _WrongError(f'expected response.uid="{uid}", got "{response.get("uid", "")}"')
        result = response.get("result")
        status = result if isinstance(result, dict) else {}
        if status.get("status") != "Success":
            message = status.get("message") or f"response.result.status was '{status.get('status', '')}', not 'Success'"
            raise _WrongError(str(message))
        objects = response.get("convertedObjects") or []
        if not isinstance(objects, list):
            raise _WrongError("response.convertedObjects is no list")
        return objects


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


def _wrong(old: Obj, new: Any, api_version: str) -> str:
    """What makes another object of it; empty for the same one."""
    if not isinstance(new, dict) or not isinstance(new.get("metadata"), dict):
        return "it is no object"
    if (got := new.get("apiVersion")) != api_version:
        return f"invalid groupVersion (expected {api_version}, received {got})"
    if (kind := new.get("kind")) != old.get("kind"):
        return f"invalid kind (expected {old.get('kind')}, received {kind})"
    was, now = old.get("metadata") or {}, new["metadata"]
    for field in _SAME:
        if (was.get(field) or "") != (now.get(field) or ""):
            shown = "UID" if field == "uid" else field
            return f"must have the same {shown}: {was.get(field) or ''} != {now.get(field) or ''}"
    return ""
