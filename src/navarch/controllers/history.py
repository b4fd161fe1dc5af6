"""ControllerRevisions: the template history of DaemonSets and StatefulSets, which `kubectl rollout undo` reads.

In: the owner and its revisions. Out: the revision of the current template, made or moved to the top where needed, and
old ones removed. The data of a revision is a strategic merge patch that replaces the owner's template.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from navarch.api.errors import StatusError
from navarch.api.meta import (
    Obj,
    Resource,
    controller_of,
    controller_reference,
    labels_of,
    name_of,
    namespace_of,
    uid_of,
)
from navarch.api.selectors import LabelSelector
from navarch.client.base import Client
from navarch.client.informer import Informer
from navarch.client.resources import CONTROLLER_REVISIONS
from navarch.controllers.adoption import Claimer
from navarch.controllers.hash import data_hash, template_hash
from navarch.controllers.pods import created_at, same_semantics


class Collision(Exception):
    """The name of the new revision is taken by something else; the owner's collision count has to go up."""


class Revisions(NamedTuple):
    """The revision of the owner's template as it is now, and all others, oldest first."""

    current: Obj
    old: list[Obj]


def template_patch(owner: Obj) -> Obj:
    return {"spec": {"template": {**owner["spec"]["template"], "$patch": "replace"}}}


def number_of(revision: Obj) -> int:
    return int(revision.get("revision") or 0)


class History:
    """`hash_label` is where a revision carries its hash, which is one of the template or of the revision's data."""

    def __init__(
        self, client: Client, informer: Informer, resource: Resource, hash_label: str, *, by_template: bool
    ) -> None:
        self._client = client
        self._informer = informer
        self._resource = resource
        self._hash_label = hash_label
        self._by_template = by_template

    async def sync(self, owner: Obj, selector: LabelSelector, collisions: int | None) -> Revisions:
        """Raises Collision, StatusError."""
        claimer = Claimer(self._client, self._resource, owner, CONTROLLER_REVISIONS, selector)
        claimed = await claimer.claim(
            self._informer.by_index("controller", uid_of(owner)),
            self._informer.by_index("orphan", namespace_of(owner)),
        )
        data = template_patch(owner)
        ordered = sorted(claimed, key=lambda revision: (number_of(revision), created_at(revision), name_of(revision)))
        same = [revision for revision in ordered if same_semantics(revision.get("data"), data)]
        highest = number_of(ordered[-1]) if ordered else 0
        if not same:
            current = await self._create(owner, data, highest + 1, collisions)
        else:
            current = same[-1]
            if number_of(current) < highest:
                current = await self._client.update(CONTROLLER_REVISIONS, {**current, "revision": highest + 1})
        return Revisions(current, [revision for revision in ordered if uid_of(revision) != uid_of(current)])

    async def _create(self, owner: Obj, data: Obj, number: int, collisions: int | None) -> Obj:
        template = owner["spec"]["template"]
        digest = self._digest(data, template, collisions)
        labels = {**((template.get("metadata") or {}).get("labels") or {}), self._hash_label: digest}
        revision: Obj = {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {
                "name": f"{name_of(owner)}-{digest}",
                "namespace": namespace_of(owner),
                "labels": labels,
                "annotations": dict(owner["metadata"].get("annotations") or {}),
                "ownerReferences": [controller_reference({**owner, "apiVersion": "apps/v1",
                                                          "kind": self._resource.kind})],
            },
            "data": data,
            "revision": number,
        }  # fmt: skip
        revision["metadata"]["annotations"].pop("kubectl.kubernetes.io/last-applied-configuration", None)
        try:
            return await self._client.create(CONTROLLER_REVISIONS, revision)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise
        existing = await self._client.get(CONTROLLER_REVISIONS, name_of(revision), namespace_of(owner))
        holder = controller_of(existing)
        if holder and holder["uid"] == uid_of(owner) and same_semantics(existing.get("data"), data):
            return existing
        raise Collision

    def _digest(self, data: Obj, template: Obj, collisions: int | None) -> str:
        return template_hash(template, collisions) if self._by_template else data_hash(data, collisions)

    async def clean_up(self, old: Sequence[Obj], limit: int, live: Collection[str]) -> None:
        """Remove revisions beyond `limit`, oldest first, but for those whose name or hash is in `live`."""
        unused = [
            revision
            for revision in old
            if name_of(revision) not in live and labels_of(revision).get(self._hash_label, "") not in live
        ]
        for revision in unused[: max(len(unused) - limit, 0)]:
            try:
                await self._client.delete(
                    CONTROLLER_REVISIONS, name_of(revision), namespace_of(revision), uid=uid_of(revision)
                )
            except StatusError as error:
                if error.code != 404:
                    raise
