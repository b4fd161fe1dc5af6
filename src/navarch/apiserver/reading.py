"""Get, list and watch, answered from the watch cache under Kubernetes' resourceVersion rules.

Without a resourceVersion a read is consistent: it shows everything acknowledged before it began. `0` takes what the
cache has; any other is the least that the answer must contain, or with `resourceVersionMatch=Exact` (and on the later
chunks of a list) exactly what it shows. Plain lists are joined from stored bytes; only Tables, metadata-only answers
and versions that are not the stored one are made from decoded objects.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from navarch.api.errors import Obj, StatusError, bad_request, expired, internal, invalid, invalid_value, not_found
from navarch.api.selectors import parse_field_selector, parse_label_selector, unsupported_field
from navarch.apiserver.caches import Caches
from navarch.apiserver.changes import Cached
from navarch.apiserver.longwork import LongWork
from navarch.apiserver.served import ServedKind
from navarch.apiserver.watchcache import WatchCache
from navarch.client.transport import Request
from navarch.kinds.base import Kind
from navarch.numbers import is_digits
from navarch.store.base import Compacted

_CONTINUE_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)
_LIST_TOO_OLD = "The resourceVersion for the provided list is too old."


class ContinueExpired(StatusError):
    """410 that carries a token to go on with, inconsistently."""

    def __init__(self, token: str) -> None:
        super().__init__(410, "Expired", _CONTINUE_TOO_OLD)
        self._token = token

    def status(self) -> Obj:
        status = super().status()
        status["metadata"] = {"continue": self._token}
        return status


# Objects that are compared with selectors in one go: some tenths of a millisecond.
_AT_ONCE = 500
_NUMBER = re.compile("[+-]?[0-9]+")


@dataclass(frozen=True, slots=True)
class Selection:
    """What a list or watch asks for. `wanted` None is everything in the scope; `scope` is the narrowest index that
    covers it, see WatchCache."""

    namespace: str
    wanted: Callable[[Cached], bool] | None
    scope: tuple[str, str]
    name: str = ""

    async def of(self, items: list[Cached], work: LongWork) -> list[Cached]:
        """Those that are wanted; of a long list in steps."""
        wanted = self.wanted
        if wanted is None:
            return items
        if len(items) <= _AT_ONCE:
            return [cached for cached in items if wanted(cached)]
        found: list[Cached] = []

        def steps() -> Iterator[None]:
            for start in range(0, len(items), _AT_ONCE):
                found.extend(filter(wanted, items[start : start + _AT_ONCE]))
                yield

        await work.do(steps())
        return found

    @property
    def has_selectors(self) -> bool:
        return self.wanted is not None


def selection_of(request: Request, kind: Kind, namespace: str, name: str = "") -> Selection:
    """Parse the selectors.  Raises StatusError 400 for a malformed one or a field that cannot be selected."""
    labels_text = request.arg("labelSelector") if request.query else ""
    fields_text = request.arg("fieldSelector") if request.query else ""
    if not kind.resource.namespaced:
        namespace = ""
    terms = [f"metadata.name={name}"] if name else []
    if fields_text:
        terms.append(fields_text)
    scope = ("metadata.namespace", namespace) if namespace else ("", "")
    if not labels_text and not terms:
        return Selection(namespace, None, scope)
    labels = parse_label_selector(labels_text) if labels_text else None
    fields = parse_field_selector(",".join(terms)) if terms else None
    exact: dict[str, str] = {}
    if fields is not None:
        allowed = {"metadata.name", "metadata.namespace", *kind.strategy.selectable}
        for term in fields.terms:
            if term.field not in allowed or (term.field == "metadata.namespace" and not kind.resource.namespaced):
                if kind.own_schemas is not None:
                    raise bad_request(f"field label not supported: {term.field}")
                raise unsupported_field(term.field, tuple(kind.strategy.selectable))
            if term.equal:
                exact[term.field] = term.value
    name = exact.get("metadata.name", "")
    narrowest = next((path for path in ("metadata.name", *kind.strategy.selectable) if exact.get(path)), "")
    if narrowest:
        scope = (narrowest, exact[narrowest])

    def wanted(cached: Cached) -> bool:
        if namespace and cached.namespace != namespace:
            return False
        if labels is not None and not labels.matches(cached.labels):
            return False
        return fields is None or bool(fields.matches(cached.field))

    return Selection(namespace, wanted, scope, name)


@dataclass(slots=True)
class Listed:
    """A list or a chunk of one; `remaining` None where it is not known (selectors)."""

    items: list[Cached]
    revision: int
    token: str = ""
    remaining: int | None = None


class Reading:
    """Reads of any stored resource."""

    def __init__(self, caches: Caches, work: LongWork) -> None:
        self._caches = caches
        self._work = work

    async def get(self, kind: ServedKind, namespace: str, name: str, version: str = "") -> Cached:
        """Raises StatusError 404, 504."""
        caches, resource = self._caches, kind.resource
        if not version:
            await caches.sync()
        elif version != "0":
            await caches.wait(_revision(version))
        cache = kind.cache
        cached = cache.get(namespace if resource.namespaced else "", name)
        if cached is None:
            key = cache.codec.key(namespace if resource.namespaced else "", name)
            if why := cache.undecodable.get(key):
                raise internal(f"the stored value of {key} cannot be decoded: {why}")
            raise not_found(resource.plural, resource.group, name)
        return cached

    async def items(self, request: Request, kind: ServedKind, namespace: str) -> Listed:
        """Raises StatusError 400, 410, 504."""
        selection = selection_of(request, kind, namespace)
        if not request.query:
            revision = await self._caches.sync()
            return Listed(await self._select(kind.cache, selection, ""), revision)
        version, match = request.arg("resourceVersion"), request.arg("resourceVersionMatch")
        limit = max(0, whole_number(request.arg("limit")))
        token = request.arg("continue")
        _check_match(version, match, token, kind)
        if token:
            return await self._continue(kind, selection, token, limit, version)
        if match == "Exact":
            revision = _revision(version)
            await self._caches.wait(revision)
            items = await self._items_at(kind, selection, revision, "", expired(_LIST_TOO_OLD))
        else:
            if not version:
                revision = await self._caches.sync()
            else:
                await self._caches.wait(_revision(version))
                revision = self._caches.revision
                if version == "0":
                    # Any version will do; chunks are for reads that must be consistent.
                    limit = 0
            items = await self._select(kind.cache, selection, "")
        return _chunk(items, selection, revision, limit)

    async def _continue(self, kind: ServedKind, selection: Selection, token: str, limit: int, version: str) -> Listed:
        if version and version != "0":
            raise bad_request("specifying resource version is not allowed when using continue")
        revision, start = _decode_token(token)
        after = kind.cache.codec.prefix + start
        if revision < 0:
            revision = await self._caches.sync()
            items = await self._select(kind.cache, selection, after)
        else:
            await self._caches.wait(revision)
            too_old = ContinueExpired(_encode_token(-1, start))
            items = await self._items_at(kind, selection, revision, after, too_old)
        return _chunk(items, selection, revision, limit)

    async def _select(self, cache: WatchCache, selection: Selection, after: str) -> list[Cached]:
        if selection.name and selection.namespace:
            found = cache.get(selection.namespace, selection.name)
            items = [found] if found is not None and found.key > after else []
        else:
            items = cache.items(selection.namespace, after=after)
        return await selection.of(items, self._work)

    async def _items_at(
        self, kind: ServedKind, selection: Selection, revision: int, after: str, too_old: StatusError
    ) -> list[Cached]:
        cache = kind.cache
        items = cache.items_at(revision, selection.namespace, after=after)
        if items is None:
            prefix = cache.codec.prefix + (f"{selection.namespace}/" if selection.namespace else "")
            try:
                page = await self._caches.store.range(prefix, revision=revision, after=after)
            except Compacted:
                raise too_old from None
            items = cache.from_store(page.entries)
        return await selection.of(items, self._work)


def _chunk(items: list[Cached], selection: Selection, revision: int, limit: int) -> Listed:
    if not limit or len(items) <= limit:
        return Listed(items, revision)
    shown = items[:limit]
    last = shown[-1]
    token = _encode_token(revision, f"{last.namespace}/{last.name}")
    return Listed(shown, revision, token, None if selection.has_selectors else len(items) - limit)


def _encode_token(revision: int, start: str) -> str:
    token = orjson.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": start + "\u0000"})
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


def _decode_token(token: str) -> tuple[int, str]:
    try:
        value: Any = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        revision, start = value["rv"], value["start"]
        if value["v"] != "meta.k8s.io/v1" or not isinstance(revision, int) or not isinstance(start, str):
            raise ValueError("unknown form")
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise bad_request(f"continue key is not valid: {error}") from None
    return revision, start.rstrip("\0")


def _check_match(version: str, match: str, token: str, kind: Kind) -> None:
    if not match:
        return
    field = "resourceVersionMatch"
    if match not in ("Exact", "NotOlderThan"):
        why = 'supported values: "", "Exact", "NotOlderThan"'
    elif token:
        why = "resourceVersionMatch is forbidden when continue is provided"
    elif not version:
        why = "resourceVersionMatch is forbidden unless resourceVersion is provided"
    elif match == "Exact" and version == "0":
        why = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
    else:
        return
    raise invalid("ListOptions", "meta.k8s.io", "", [invalid_value(field, match, why)])


def whole_number(text: str) -> int:
    """A number of a query; 0 where there is none.  Raises StatusError 400."""
    if not text:
        return 0
    if not _NUMBER.fullmatch(text):
        raise bad_request(f'strconv.ParseInt: parsing "{text[:64]}": invalid syntax')
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise bad_request(f'strconv.ParseInt: parsing "{text[:64]}": value out of range')
    return int(text)


def _revision(text: str) -> int:
    if not is_digits(text) or len(text) > 19:
        raise invalid("ListOptions", "meta.k8s.io", "", [invalid_value("resourceVersion", text, "must be a number")])
    return int(text)


def revision_argument(request: Request) -> int:
    """The `resourceVersion` of a watch; 0 where there is none."""
    text = request.arg("resourceVersion")
    return _revision(text) if text else 0


def list_header(kind: Kind, listed: Listed) -> bytes:
    """Everything of a list's JSON before its items."""
    head = orjson.dumps(
        {"kind": kind.list_kind or kind.resource.kind + "List", "apiVersion": kind.resource.api_version}
    )
    metadata = list_metadata(listed)
    if kind.own_schemas is not None:
        metadata.setdefault("continue", "")
    return head[:-1] + b',"metadata":' + orjson.dumps(metadata) + b',"items":['


def list_metadata(listed: Listed) -> dict[str, Any]:
    metadata: dict[str, Any] = {"resourceVersion": str(listed.revision)}
    if listed.token:
        metadata["continue"] = listed.token
    if listed.remaining is not None:
        metadata["remainingItemCount"] = listed.remaining
    return metadata
