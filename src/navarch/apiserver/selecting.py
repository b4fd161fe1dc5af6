"""Which objects a list or watch is about: its selectors, and which index covers them.

In: `ListOptions`, the kind, and what the path names.  Out: a `Selection`, which tells whether it wants an object. Which
fields can be selected, and what is said of others, is the kind's to say (`Strategy.selector_fields`).

Objects are looked at as they are stored. Where the kind's version is made of that by a converter, which may have moved
what a field selector names, these terms are left for `converted`, which asks the objects as they are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from navarch.api.errors import bad_request
from navarch.api.selectors import (
    IN,
    FieldSelector,
    FieldTerm,
    LabelSelector,
    parse_field_selector,
    parse_label_selector,
)
from navarch.apiserver.changes import Cached
from navarch.apiserver.list_options import ListOptions
from navarch.apiserver.longwork import LongWork
from navarch.apiserver.served import ServedKind
from navarch.kinds.base import Kind
from navarch.records import frozen

_NAME = "metadata.name"
_NAMESPACE = "metadata.namespace"
# Objects that are compared with selectors in one go: some tenths of a millisecond.
_AT_ONCE = 500
# More are not worth an entry each.
_VALUES_MAX = 16


@frozen
class Selection:
    """What a list or watch asks for. `wanted` None is everything in the scope; `scope` is the narrowest index that
    covers it, see WatchCache; `single` says that it can be no other object than `name`."""

    namespace: str
    wanted: Callable[[Cached], bool] | None
    scope: tuple[str, str]
    name: str = ""
    single: bool = False
    # Labels that nothing wanted is without, each with the values that it may have.
    labels: tuple[tuple[str, frozenset[str]], ...] = ()
    # What else must hold, of the object in the version that was asked for.
    shown: FieldSelector | None = None

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

    async def first(self, items: list[Cached], limit: int, work: LongWork) -> tuple[list[Cached], int]:
        """Up to `limit` of those that are wanted, and how many objects had to be looked at for them."""
        wanted = self.wanted
        if wanted is None:
            return items[:limit], min(limit, len(items))
        found: list[Cached] = []
        seen = len(items)

        def steps() -> Iterator[None]:
            nonlocal seen
            for index, cached in enumerate(items):
                if wanted(cached):
                    found.append(cached)
                    if len(found) == limit:
                        seen = index + 1
                        return
                if index % _AT_ONCE == _AT_ONCE - 1:
                    yield

        await work.do(steps())
        return found, seen

    @property
    def has_selectors(self) -> bool:
        return self.wanted is not None


def selection_of(options: ListOptions, kind: ServedKind, namespace: str, name: str = "") -> Selection:
    """`name` is that of the path, if it has one.  Raises StatusError 400 for a malformed selector, and for a field that
    cannot be selected."""
    if not kind.resource.namespaced:
        namespace = ""
    scope = (_NAMESPACE, namespace) if namespace else ("", "")
    if not options.labels and not options.fields and not name:
        return Selection(namespace, None, scope)
    labels = parse_label_selector(options.labels) if options.labels else None
    fields = _fields_of(options.fields, kind)
    if name:
        if fields is not None and fields.terms and fields.required(_NAME) != name:
            raise bad_request("fieldSelector metadata.name doesn't match requested name")
        if fields is None or not fields.terms:
            fields = FieldSelector((FieldTerm(_NAME, name),))
    if fields is not None and not fields.terms:
        fields = None
    if labels is not None and labels.matches_everything:
        labels = None
    if labels is None and fields is None:
        return Selection(namespace, None, scope)
    fields, shown = _parted(fields, kind)
    exact = {term.field: term.value for term in fields.terms if term.equal} if fields is not None else {}
    name = exact.get(_NAME, "")
    narrowest = next((path for path in (_NAME, *kind.strategy.selectable) if exact.get(path)), "")
    if narrowest:
        scope = (narrowest, exact[narrowest])

    def wanted(cached: Cached) -> bool:
        if namespace and cached.namespace != namespace:
            return False
        if labels is not None and not labels.matches(cached.labels):
            return False
        return fields is None or bool(fields.matches(cached.field))

    single = bool(name) and (bool(namespace) or not kind.resource.namespaced)
    return Selection(namespace, wanted, scope, name, single, _demanded(labels), shown)


def _parted(fields: FieldSelector | None, kind: ServedKind) -> tuple[FieldSelector | None, FieldSelector | None]:
    """What can be asked of an object as it is stored, and what of the kind's version of it alone."""
    if fields is None or kind.converter is None or (kind.is_storage and not kind.cache.mixed):
        return fields, None
    shown = tuple(term for term in fields.terms if term.field not in (_NAME, _NAMESPACE))
    stored = tuple(term for term in fields.terms if term.field in (_NAME, _NAMESPACE))
    return (FieldSelector(stored) if stored else None), (FieldSelector(shown) if shown else None)


def _demanded(labels: LabelSelector | None) -> tuple[tuple[str, frozenset[str]], ...]:
    """By which an index can find what is wanted."""
    requirements = () if labels is None else labels.requirements
    return tuple((r.key, r.values) for r in requirements if r.operator == IN and len(r.values) <= _VALUES_MAX)


def _fields_of(text: str, kind: Kind) -> FieldSelector | None:
    """The selector, by the fields under which objects are indexed."""
    if not text:
        return None
    selector = parse_field_selector(text)
    indexed = kind.strategy.selector_fields(kind.resource)
    if all(indexed.get(term.field) == term.field for term in selector.terms):
        return selector
    terms = []
    for term in selector.terms:
        if term.field not in indexed:
            raise bad_request(kind.strategy.unknown_field(kind.resource, term.field))
        terms.append(FieldTerm(indexed[term.field], term.value, term.equal))
    return FieldSelector(tuple(terms))
