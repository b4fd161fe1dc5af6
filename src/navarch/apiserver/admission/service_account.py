"""ServiceAccount: every pod runs as an account of its namespace and finds that account's token in a volume.

In: a pod on its way in.  Out: the same with `serviceAccountName`, pull secrets and the projected volume
`kube-api-access-…` (token, cluster CA, namespace), mounted into each container that has nothing of its own there.
"""

from __future__ import annotations

import asyncio
from typing import Final

from navarch.api.meta import Obj, annotations_of
from navarch.apiserver.admission.base import Attributes, Plugin, Reader
from navarch.kinds.resources import SERVICE_ACCOUNTS
from navarch.world import World

_MOUNT_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
_VOLUME: Final = "kube-api-access-"
_MIRROR: Final = "kubernetes.io/config.mirror"
# A little over an hour, so that tokens made for pods can be told from those asked for by hand.
_EXPIRATION_S: Final = 3607
_SUFFIX: Final = "bcdfghjklmnpqrstvwxz2456789"
_FILE_MODE: Final = 0o644
# The account `default` is made by a controller right after its namespace; a pod may be quicker.
_ATTEMPTS: Final = 10
_RETRY_S: Final = 0.1


def _token_volume(name: str) -> Obj:
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return {
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": _EXPIRATION_S, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [namespace]}},
            ],
            "defaultMode": _FILE_MODE,
        },
    }


class ServiceAccount(Plugin):
    name = "ServiceAccount"
    leaves_whole = True
    resources = frozenset({("", "pods")})
    operations = frozenset({"CREATE"})

    def __init__(self, reader: Reader, world: World) -> None:
        self._reader = reader
        self._world = world

    async def mutate(self, attributes: Attributes) -> None:
        pod = attributes.obj
        if pod is None:
            return
        spec = pod["spec"]
        if _MIRROR in annotations_of(pod):
            self._check_mirror(attributes, spec)
            return
        name = spec.get("serviceAccountName") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        account = await self._account(attributes, name)
        if _automounts(account, spec):
            await attributes.apart(self._mount_token, spec)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = [dict(secret) for secret in account["imagePullSecrets"]]

    async def _account(self, attributes: Attributes, name: str) -> Obj:
        for attempt in range(_ATTEMPTS if name == "default" else 1):
            if attempt:
                await asyncio.sleep(_RETRY_S)
            account = self._reader.get(SERVICE_ACCOUNTS, attributes.namespace, name)
            if account is not None:
                return account
        raise attributes.refused(
            f'error looking up service account {attributes.namespace}/{name}: serviceaccount "{name}" not found'
        )

    def _check_mirror(self, attributes: Attributes, spec: Obj) -> None:
        """A mirror pod shows what a kubelet runs already: it can be given nothing."""
        if spec.get("serviceAccountName"):
            raise attributes.refused("a mirror pod may not reference service accounts")
        for volume in spec.get("volumes") or ():
            if volume.get("secret") is not None:
                raise attributes.refused("a mirror pod may not reference secrets")
            for part in (volume.get("projected") or {}).get("sources") or ():
                if part.get("serviceAccountToken") is not None:
                    raise attributes.refused("a mirror pod may not use ServiceAccountToken volume projections")

    def _mount_token(self, spec: Obj) -> None:
        volumes = spec.get("volumes") or []
        name = next((volume["name"] for volume in volumes if volume.get("name", "").startswith(_VOLUME)), "")
        known = bool(name)
        if not known:
            name = _VOLUME + "".join(self._world.identities("token volumes").choices(_SUFFIX, k=5))
        mounted = False
        for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
            mounts = container.get("volumeMounts") or []
            if any(mount.get("mountPath") == _MOUNT_PATH for mount in mounts):
                continue
            container["volumeMounts"] = [*mounts, {"name": name, "readOnly": True, "mountPath": _MOUNT_PATH}]
            mounted = True
        if mounted and not known:
            spec["volumes"] = [*volumes, _token_volume(name)]


def _automounts(account: Obj, spec: Obj) -> bool:
    own = spec.get("automountServiceAccountToken")
    if own is None:
        own = account.get("automountServiceAccountToken")
    return own is not False
