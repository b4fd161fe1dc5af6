"""The objects that parametrize a policy: found by the binding's reference, in the caches.

In: a policy's `paramKind`, a binding's `paramRef`, the namespace of the write.  Out: what to evaluate with, once each;
None in the list stands for an evaluation without parameters.  Raises ParamsError with Kubernetes' words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.api.selectors import label_selector_of
from navarch.apiserver.changes import Cached
from navarch.apiserver.encodings import Encodings
from navarch.apiserver.served import Served, ServedKind

_KEPT: Final = 1024


class ParamsError(Exception):
    """The parameters cannot be had; the text says why."""


class Params:
    def __init__(self, served: Callable[[], Served], encodings: Encodings) -> None:
        self._served = served
        self._encodings = encodings
        # With the object as it was cached, so that nothing else can have its number.
        self._kept: dict[tuple[int, int], tuple[Cached, Obj]] = {}

    def kind(self, param_kind: Obj) -> ServedKind:
        """Raises ParamsError for one that is not served."""
        group, _, version = str(param_kind.get("apiVersion") or "").rpartition("/")
        name = str(param_kind.get("kind") or "")
        found = self._served().by_kind(group, version, name)
        if found is None:
            shown = f"{group}/{version}, Kind={name}"
            raise ParamsError(f"failed to find resource referenced by paramKind: '{shown}'")
        return found

    async def of(self, kind: ServedKind | None, ref: Obj | None, namespace: str) -> list[Obj | None]:
        """Raises ParamsError."""
        if kind is None or ref is None:
            return [None]
        if not kind.resource.namespaced:
            if ref.get("namespace"):
                raise ParamsError("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
            namespace = ""
        else:
            namespace = str(ref.get("namespace") or namespace)
            if not namespace:
                raise ParamsError(
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                )
        found = await self._decoded(kind, self._cached(kind, ref, namespace))
        if not found and ref.get("parameterNotFoundAction") == "Deny":
            raise ParamsError("no params found for policy binding with `Deny` parameterNotFoundAction")
        return list(found)

    def _cached(self, kind: ServedKind, ref: Obj, namespace: str) -> list[Cached]:
        if ref.get("name"):
            cached = kind.cache.get(namespace, str(ref["name"]))
            return [cached] if cached is not None else []
        try:
            selector = label_selector_of(ref.get("selector") or {})
        except StatusError as error:
            raise ParamsError(error.message) from error
        return [each for each in kind.cache.items(namespace) if selector.matches(each.labels)]

    async def _decoded(self, kind: ServedKind, cached: list[Cached]) -> list[Obj]:
        """In the version of `paramKind`; read once as long as they stay the same."""
        found = []
        for each in cached:
            key = id(kind), id(each)
            kept = self._kept.get(key)
            if kept is None:
                if len(self._kept) >= _KEPT:
                    self._kept.clear()
                kept = self._kept[key] = each, await self._encodings.obj(kind, each)
            found.append(kept[1])
        return found
