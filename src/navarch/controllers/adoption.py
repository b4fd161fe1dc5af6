"""Who manages what: claim the objects that a selector matches, release those that it no longer does.

An object belongs to the controller that its controller reference names. Orphans that match are adopted; owned objects
whose labels changed are let go. Invariant: nothing is adopted by an owner that is being deleted, which is checked
against the API server itself and not only the informer, as the owner could have been deleted and created anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from navarch.api.errors import StatusError, conflict
from navarch.api.meta import (
    Obj,
    Resource,
    controller_of,
    controller_reference,
    is_deleting,
    labels_of,
    name_of,
    namespace_of,
    uid_of,
)
from navarch.api.selectors import LabelSelector
from navarch.client.base import Client, PatchKind
from navarch.client.informer import Informer


def manager_of(owners: Informer, resource: Resource, obj: Obj) -> Obj | None:
    """The object of `resource` that the controller reference names, if `owners` shows that very one."""
    reference = controller_of(obj)
    if reference is None or reference["kind"] != resource.kind:
        return None
    owner = owners.get(namespace_of(obj), reference["name"])
    return owner if owner is not None and uid_of(owner) == reference["uid"] else None


def candidates_for(owners: Informer, obj: Obj, selector: Callable[[Obj], LabelSelector]) -> list[Obj]:
    """Who might adopt an orphan: the owners of its namespace whose `selector` matches it."""
    labels = labels_of(obj)
    if controller_of(obj) is not None or not labels:
        return []
    return [owner for owner in owners.list(namespace_of(obj)) if selector(owner).matches(labels)]


class Claimer:
    """Claims objects of `resource` for one owner during one reconciliation."""

    def __init__(
        self,
        client: Client,
        owner_resource: Resource,
        owner: Obj,
        resource: Resource,
        selector: LabelSelector,
        *,
        finalizers: Sequence[str] = (),
    ) -> None:
        self._client = client
        self._owner_resource = owner_resource
        self._owner = owner
        self._resource = resource
        self._selector = selector
        self._finalizers = list(finalizers)
        self._checking = asyncio.Lock()
        self._may_adopt: bool | None = None

    async def claim(
        self,
        owned: Iterable[Obj],
        orphans: Iterable[Obj],
        wanted: Callable[[Obj], bool] | None = None,
    ) -> list[Obj]:
        """The objects that are the owner's after adopting and releasing; `wanted` narrows what may be adopted."""
        kept: list[Obj] = []
        changes: list[Awaitable[Obj | None]] = []
        for obj in owned:
            if self._selector.matches(labels_of(obj)) and (wanted is None or wanted(obj)):
                kept.append(obj)
            elif not is_deleting(self._owner):
                changes.append(self._release(obj))
        if not is_deleting(self._owner):
            changes += [
                self._adopt(obj)
                for obj in orphans
                if not is_deleting(obj) and self._selector.matches(labels_of(obj)) and (wanted is None or wanted(obj))
            ]
        if not changes:
            return kept
        results = await asyncio.gather(*changes, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
            if result is not None:
                kept.append(result)
        return kept

    async def _adopt(self, obj: Obj) -> Obj | None:
        await self._check_owner()
        patch: Obj = {"metadata": {"uid": uid_of(obj), "ownerReferences": [controller_reference(self._owner)]}}
        if self._finalizers:
            patch["metadata"]["finalizers"] = self._finalizers
        try:
            adopted = await self._patch(obj, patch)
        except StatusError as error:
            if error.code == 404:
                return None
            raise
        owner = controller_of(adopted)
        return adopted if owner and owner["uid"] == uid_of(self._owner) else None

    async def _release(self, obj: Obj) -> None:
        metadata: Obj = {
            "uid": uid_of(obj),
            "ownerReferences": [{"$patch": "delete", "uid": uid_of(self._owner)}],
        }
        if self._finalizers:
            metadata["$deleteFromPrimitiveList/finalizers"] = self._finalizers
        try:
            await self._patch(obj, {"metadata": metadata})
        except StatusError as error:
            # Gone, or replaced by another of the same name, or no longer with us: all of it is released.
            if error.code not in (404, 409, 422):
                raise

    async def _patch(self, obj: Obj, patch: Obj) -> Obj:
        return await self._client.patch(
            self._resource, name_of(obj), namespace_of(obj), patch, kind=PatchKind.STRATEGIC
        )

    async def _check_owner(self) -> None:
        async with self._checking:
            # Asked once for all that are claimed side by side.
            if self._may_adopt is None:
                self._may_adopt = await self._owner_lives()
        if not self._may_adopt:
            raise conflict(
                self._owner_resource.plural, self._owner_resource.group, name_of(self._owner),
                "it is being deleted and adopts nothing",
            )  # fmt: skip

    async def _owner_lives(self) -> bool:
        live = await self._client.find(self._owner_resource, name_of(self._owner), namespace_of(self._owner))
        return live is not None and uid_of(live) == uid_of(self._owner) and not is_deleting(live)
