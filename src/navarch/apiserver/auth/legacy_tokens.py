"""Use of tokens that lie in Secrets and never end: on which day each was last used, and which count no longer.

In: the Secret whose token was shown. Out: its label with the day, written at most once a day; whether somebody, or the
controller that cleans up after a year (`controllers/legacy_tokens.py`), has said that the token is no good any more.
"""

from __future__ import annotations

import logging
from typing import Final

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, Resource, labels_of, name_of, namespace_of
from navarch.apiserver.admission.base import Writer
from navarch.world import Clock

log = logging.getLogger(__name__)

LAST_USED: Final = "kubernetes.io/legacy-token-last-used"
INVALID_SINCE: Final = "kubernetes.io/legacy-token-invalid-since"
# Since when it is noted.
TRACKING: Final = "kube-apiserver-legacy-service-account-token-tracking"
_SECRETS: Final = Resource("", "v1", "secrets", "Secret", True)


def is_invalidated(secret: Obj) -> bool:
    return bool(labels_of(secret).get(INVALID_SINCE))


class LastUse:
    def __init__(self, writer: Writer, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock

    async def note(self, secret: Obj) -> None:
        today = self._clock.now().strftime("%Y-%m-%d")
        if labels_of(secret).get(LAST_USED) == today:
            return
        labels = {**labels_of(secret), LAST_USED: today}
        try:
            await self._writer.update(_SECRETS, {**secret, "metadata": {**secret["metadata"], "labels": labels}})
        except StatusError as error:
            # It changed meanwhile, or is about to go: the next use is noted.
            log.debug("use of the token in %s/%s is not noted: %s", namespace_of(secret), name_of(secret), error)
