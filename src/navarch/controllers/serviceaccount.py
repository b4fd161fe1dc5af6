"""What every namespace is given: the `default` service account, the ConfigMap with the cluster's CA; and the tokens of
Secrets that ask for one (type kubernetes.io/service-account-token).

In: Namespaces, ServiceAccounts, ConfigMaps, Secrets. Out: the missing or wrong ones put right.
"""

from __future__ import annotations

import base64
from typing import ClassVar

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, annotations_of, is_deleting, key_of, name_of, namespace_of, uid_of
from navarch.client.resources import CONFIG_MAPS, NAMESPACES, SECRETS, SERVICE_ACCOUNTS
from navarch.controllers.base import Context, Controller, Requeue, is_namespace_terminating

_TOKEN_TYPE = "kubernetes.io/service-account-token"
_ACCOUNT_NAME = "kubernetes.io/service-account.name"
_ACCOUNT_UID = "kubernetes.io/service-account.uid"
_ROOT_CA = "kube-root-ca.crt"


class ServiceAccountController(Controller):
    """Sees to the `default` service account of every namespace that is not going away."""

    name: ClassVar[str] = "serviceaccount"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._namespaces = self.watch_primary(NAMESPACES)
        self._accounts = self.informer(SERVICE_ACCOUNTS)
        self._accounts.add_handler(deleted=self._account_deleted)

    def _account_deleted(self, account: Obj) -> None:
        if name_of(account) == "default":
            self.enqueue(Key("", namespace_of(account)))

    async def reconcile(self, key: Key) -> Requeue | None:
        namespace = self._namespaces.get("", key.name)
        if namespace is None or is_deleting(namespace) or self._accounts.get(key.name, "default") is not None:
            return None
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": key.name},
        }
        try:
            await self.client.create(SERVICE_ACCOUNTS, account)
        except StatusError as error:
            if error.code != 409 and not is_namespace_terminating(error):
                raise
        return None


class RootCAPublisher(Controller):
    """Keeps the ConfigMap `kube-root-ca.crt` in every namespace, from which pods learn whom to trust."""

    name: ClassVar[str] = "root-ca-publisher"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._data = {"ca.crt": context.config.root_ca}
        self._namespaces = self.watch_primary(NAMESPACES)
        self._maps = self.informer(CONFIG_MAPS)
        self._maps.add_handler(updated=lambda _old, new: self._map_changed(new), deleted=self._map_changed)

    def _map_changed(self, config_map: Obj) -> None:
        if name_of(config_map) == _ROOT_CA:
            self.enqueue(Key("", namespace_of(config_map)))

    async def reconcile(self, key: Key) -> Requeue | None:
        namespace = self._namespaces.get("", key.name)
        if namespace is None or is_deleting(namespace) or not self._data["ca.crt"]:
            return None
        existing = self._maps.get(key.name, _ROOT_CA)
        if existing is None:
            note = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints "
            note += "such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across "
            note += "distributions of Kubernetes clusters."
            metadata = {
                "name": _ROOT_CA,
                "namespace": key.name,
                "annotations": {"kubernetes.io/description": note},
            }
            wanted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": self._data}
            try:
                await self.client.create(CONFIG_MAPS, wanted)
            except StatusError as error:
                if error.code != 409 and not is_namespace_terminating(error):
                    raise
        elif existing.get("data") != self._data:
            await self.client.update(CONFIG_MAPS, {**existing, "data": self._data})
        return None


class TokenController(Controller):
    """Fills Secrets of type kubernetes.io/service-account-token and deletes those whose account is gone."""

    name: ClassVar[str] = "serviceaccount-token"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._secrets = self.watch_primary(SECRETS, lambda secret: secret.get("type") == _TOKEN_TYPE)
        self._secrets.add_indexer("service-account", _account_of)
        self._accounts = self.informer(SERVICE_ACCOUNTS)
        self._accounts.add_handler(added=self._account_changed, deleted=self._account_changed)

    def _account_changed(self, account: Obj) -> None:
        for secret in self._secrets.by_index("service-account", str(key_of(account))):
            self.enqueue(key_of(secret))

    async def reconcile(self, key: Key) -> Requeue | None:
        issuer = self.context.config.token_issuer
        secret = self._secrets.get(*key)
        if issuer is None or secret is None or is_deleting(secret):
            return None
        name = annotations_of(secret).get(_ACCOUNT_NAME, "")
        account = self._accounts.get(key.namespace, name)
        if account is None:
            account = await self.client.find(SERVICE_ACCOUNTS, name, key.namespace) if name else None
        wanted_uid = annotations_of(secret).get(_ACCOUNT_UID, "")
        if account is None or (wanted_uid and wanted_uid != uid_of(account)):
            await self._delete(secret)
            return None
        data = dict(secret.get("data") or {})
        data["ca.crt"] = _encoded(self.context.config.root_ca)
        data["namespace"] = _encoded(key.namespace)
        if not data.get("token"):
            data["token"] = _encoded(issuer(account, secret))
        annotations = {**annotations_of(secret), _ACCOUNT_UID: uid_of(account)}
        if data != secret.get("data") or annotations != annotations_of(secret):
            metadata = {**secret["metadata"], "annotations": annotations}
            await self.client.update(SECRETS, {**secret, "metadata": metadata, "data": data})
        return None

    async def _delete(self, secret: Obj) -> None:
        try:
            await self.client.delete(SECRETS, name_of(secret), namespace_of(secret), uid=uid_of(secret))
        except StatusError as error:
            if error.code != 404:
                raise


def _account_of(secret: Obj) -> tuple[str, ...]:
    if secret.get("type") != _TOKEN_TYPE:
        return ()
    return (f"{namespace_of(secret)}/{annotations_of(secret).get(_ACCOUNT_NAME, '')}",)


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
