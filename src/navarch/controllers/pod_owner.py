"""`PodOwner`: what all controllers share that make pods, counted by expectations.

In: events of pods. Out: the key of the owner, or of those that might adopt the pod; pods made and deleted in batches.
Invariant: every pod that is asked for or given up is expected until its event comes or the request fails, so that a
pass over an informer that is behind makes nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from navarch.api.meta import Key, Obj, Resource, key_of, name_of, uid_of
from navarch.client.resources import PODS
from navarch.controllers.base import Context
from navarch.controllers.expectations import Expectations
from navarch.controllers.owner import Owner
from navarch.controllers.pod_control import PLAIN, BatchError, PodControl, Words, slow_start


class PodOwner(Owner):
    """An `Owner` of pods; `words` are those of its events."""

    owned: ClassVar[Resource] = PODS
    words: ClassVar[Words] = PLAIN

    def __init__(self, context: Context) -> None:
        # Before the pods that are there already are reported.
        self.expectations = Expectations(context.world)
        super().__init__(context)
        self.pods = self.dependents
        self.control = PodControl(context.client, self.recorder, self.words)

    def came(self, owner: Obj, obj: Obj) -> bool:
        return self.expectations.creation_observed(key_of(owner))

    def went(self, owner: Obj, obj: Obj) -> None:
        self.expectations.deletion_observed(key_of(owner), uid_of(obj))

    # Writing.

    async def create_pods(self, key: Key, count: int, create: Callable[[int], Awaitable[Any]]) -> None:
        """Call `create(0) … create(count - 1)`, each of which makes one pod; raises BatchError."""
        if not count:
            return
        self.expectations.expect_creations(key, count)

        async def create_one(number: int) -> None:
            try:
                await create(number)
            except BaseException:
                self.expectations.creation_observed(key)
                raise

        try:
            await slow_start(count, create_one)
        except BatchError as error:
            self.expectations.creation_observed(key, error.skipped)
            raise

    async def delete_pods(self, key: Key, owner: Obj, pods: Sequence[Obj]) -> None:
        """Delete pods; raises BatchError. All are tried at once: one that may not be deleted holds up no other."""
        if not pods:
            return
        self.expectations.expect_deletions(key, [uid_of(pod) for pod in pods])

        async def delete_one(pod: Obj) -> None:
            try:
                await self.control.delete(owner, pod)
            except BaseException:
                self.expectations.deletion_observed(key, uid_of(pod))
                raise
            live = self.pods.get(key.namespace, name_of(pod))
            if live is None or uid_of(live) != uid_of(pod):
                # It went before the request came; no event will tell.
                self.expectations.deletion_observed(key, uid_of(pod))

        results = await asyncio.gather(*map(delete_one, pods), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        for failure in failures:
            if not isinstance(failure, Exception):
                raise failure
            raise BatchError(len(pods) - len(failures), 0, failure) from failure
