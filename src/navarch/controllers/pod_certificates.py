"""Requests for pods' certificates that are old: who asked has its answer by then, or asks again.

In: PodCertificateRequests. Out: those deleted that are a quarter of an hour old.
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Final

from navarch.api.meta import Key, Resource, name_of, namespace_of, uid_of
from navarch.client.informer import Informer
from navarch.client.resources import POD_CERTIFICATE_REQUESTS
from navarch.controllers.base import Requeue
from navarch.controllers.optional import OptionalController
from navarch.controllers.pods import created_at

_KEPT: Final = timedelta(minutes=15)


class PodCertificateRequestCleaner(OptionalController):
    name: ClassVar[str] = "pod-certificate-request-cleaner"
    needs = POD_CERTIFICATE_REQUESTS
    workers = 1

    _served: Resource
    _requests: Informer

    def follow(self, served: Resource) -> None:
        self._served = served
        self._requests = self.watch_primary(served)

    async def reconcile(self, key: Key) -> Requeue | None:
        request = self._requests.get(*key)
        if request is None:
            return None
        left = created_at(request) + _KEPT - self.clock.now()
        if left > timedelta():
            return Requeue(left.total_seconds())
        await self.client.delete(self._served, name_of(request), namespace_of(request), uid=uid_of(request))
        return None
