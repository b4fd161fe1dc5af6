"""Revisions of a DaemonSet that are not as it makes them: several of one template, or without a hash.

In: its revisions and pods. Out: of several with the same data the latest, with the pods of the others labelled as its
own, so that none is restarted for a template that it already has; and a hash on each revision, which is its name where
another has made it.
"""

from __future__ import annotations

from collections.abc import Iterable

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, labels_of, name_of, namespace_of, uid_of
from navarch.client.base import Client
from navarch.client.resources import CONTROLLER_REVISIONS, PODS
from navarch.controllers.daemonset.update import HASH_LABEL
from navarch.controllers.history import Revisions
from navarch.controllers.pods import same_semantics


async def tidied(client: Client, revisions: Revisions, pods: Iterable[Obj]) -> tuple[Revisions, list[Obj]]:
    """The revisions and the pods as they are afterwards.  Raises StatusError."""
    current = await _hashed(client, revisions.current)
    digest = labels_of(current)[HASH_LABEL]
    listed, kept = list(pods), []
    for revision in revisions.old:
        if not same_semantics(revision.get("data"), current.get("data")):
            kept.append(await _hashed(client, revision))
            continue
        its = labels_of(revision).get(HASH_LABEL) or name_of(revision)
        listed = [
            await _relabelled(client, pod, digest) if labels_of(pod).get(HASH_LABEL) == its != digest else pod
            for pod in listed
        ]
        await _delete(client, revision)
    return Revisions(current, kept), listed


async def _hashed(client: Client, revision: Obj) -> Obj:
    if labels_of(revision).get(HASH_LABEL):
        return revision
    patch = {"metadata": {"uid": uid_of(revision), "labels": {HASH_LABEL: name_of(revision)}}}
    return await client.patch(CONTROLLER_REVISIONS, name_of(revision), namespace_of(revision), patch)


async def _relabelled(client: Client, pod: Obj, digest: str) -> Obj:
    patch = {"metadata": {"uid": uid_of(pod), "labels": {HASH_LABEL: digest}}}
    try:
        return await client.patch(PODS, name_of(pod), namespace_of(pod), patch)
    except StatusError as error:
        if error.code not in (404, 409):
            raise
        # Gone, which its event will tell.
        return pod


async def _delete(client: Client, revision: Obj) -> None:
    try:
        await client.delete(CONTROLLER_REVISIONS, name_of(revision), namespace_of(revision), uid=uid_of(revision))
    except StatusError as error:
        if error.code != 404:
            raise
