"""Tokens in Secrets that nobody uses: those that were once made for every service account, and never end.

In: Secrets of type kubernetes.io/service-account-token that their account names among its `secrets`, pods, and since
when the API server notes their use. Out: a label that takes the token's force away once it is unused for a year, and a
year later the Secret deleted. What a pod mounts, and what was made by hand, is left alone.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import ClassVar, Final

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, annotations_of, is_deleting, labels_of, name_of, uid_of
from navarch.client.resources import CONFIG_MAPS, PODS, SECRETS, SERVICE_ACCOUNTS
from navarch.controllers.base import Context, Controller, Requeue
from navarch.controllers.pods import created_at
from navarch.kinds.core.references import SECRETS as SECRET
from navarch.kinds.core.references import of_pod

_TYPE: Final = "kubernetes.io/service-account-token"
_ACCOUNT: Final = "kubernetes.io/service-account.name"
_ACCOUNT_UID: Final = "kubernetes.io/service-account.uid"
LAST_USED: Final = "kubernetes.io/legacy-token-last-used"
INVALID_SINCE: Final = "kubernetes.io/legacy-token-invalid-since"
TRACKING: Final = "kube-apiserver-legacy-service-account-token-tracking"
PERIOD: Final = timedelta(days=365)
_LOOK_EVERY_S: Final = 24 * 3600.0
_DAY: Final = "%Y-%m-%d"


class LegacyTokenCleaner(Controller):
    name: ClassVar[str] = "legacy-serviceaccount-token-cleaner"
    workers: ClassVar[int] = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._secrets = self.watch_primary(SECRETS, lambda secret: secret.get("type") == _TYPE)
        self._accounts = self.informer(SERVICE_ACCOUNTS)
        self._pods = self.informer(PODS)

    async def reconcile(self, key: Key) -> Requeue | None:
        secret = self._secrets.get(*key)
        if secret is None or is_deleting(secret):
            return None
        now = self.clock.now()
        if self._is_left_alone(secret, now) or not await self._is_noted_long_enough(now):
            return Requeue(_LOOK_EVERY_S)
        since = labels_of(secret).get(INVALID_SINCE, "")
        try:
            if _day(since) is None:
                labels = {INVALID_SINCE: now.strftime(_DAY)}
                patch = {"metadata": {"uid": uid_of(secret), "labels": labels}}
                await self.client.patch(SECRETS, key.name, key.namespace, patch)
            elif since < (now - PERIOD).strftime(_DAY):
                version = secret["metadata"]["resourceVersion"]
                await self.client.delete(SECRETS, key.name, key.namespace, resource_version=version)
                return None
        except StatusError as error:
            # Changed or gone since: its event has it looked at again.
            if error.code not in (404, 409):
                raise
        return Requeue(_LOOK_EVERY_S)

    def _is_left_alone(self, secret: Obj, now: datetime) -> bool:
        if created_at(secret) >= now - PERIOD:
            return True
        used = labels_of(secret).get(LAST_USED)
        # What cannot be read as a day says nothing.
        if used is not None and (_day(used) is None or used >= (now - PERIOD).strftime(_DAY)):
            return True
        return not self._was_made_for_its_account(secret) or self._is_mounted(secret)

    def _was_made_for_its_account(self, secret: Obj) -> bool:
        said = annotations_of(secret)
        account = self._accounts.get(secret["metadata"]["namespace"], said.get(_ACCOUNT, ""))
        if account is None or said.get(_ACCOUNT_UID, "") not in ("", uid_of(account)):
            return False
        return any(entry.get("name") == name_of(secret) for entry in account.get("secrets") or ())

    def _is_mounted(self, secret: Obj) -> bool:
        pods = self._pods.list(secret["metadata"]["namespace"])
        return any(named.resource == SECRET and named.name == name_of(secret) for pod in pods for named in of_pod(pod))

    async def _is_noted_long_enough(self, now: datetime) -> bool:
        found = await self.client.find(CONFIG_MAPS, TRACKING, "kube-system")
        since = _day(((found or {}).get("data") or {}).get("since") or "")
        # From the end of that day on.
        return since is not None and now >= since + timedelta(days=1) + PERIOD


def _day(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, _DAY).replace(tzinfo=UTC)
    except ValueError:
        return None
