"""configMap, secret, downwardAPI and projected volumes: files made of the API's objects, kept up to date.

Each source gives a payload (files by path); a projected volume is the union of several, among them tokens of the pod's
service account and certificates of its own.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, labels_of
from navarch.api.selectors import label_selector_of
from navarch.client.resources import CLUSTER_TRUST_BUNDLES
from navarch.node import podspec
from navarch.node.fieldref import field_value, resource_value
from navarch.node.podspec import ConfigError
from navarch.node.volumes.atomic import write_payload
from navarch.node.volumes.base import Payload, VolumeContext, VolumeError, mode_of
from navarch.node.volumes.mounts import mount
from navarch.node.volumes.pod_certificate import Credential, PodCertificates
from navarch.world import Clock

# Of the volumes themselves, which containers cannot write to all the same: they are mounted read-only.
_MODES: Final = {"configMap": 0o777, "downwardAPI": 0o777, "secret": 0o1777, "projected": 0o1777}
_CERTIFICATE: Final = r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----"


def _pick(
    data: Mapping[str, bytes], items: Iterable[Obj] | None, default_mode: int, *, optional: bool, what: str
) -> dict[str, Payload]:
    """All keys as files, or the stated items at their paths."""
    if not items:
        return {key: Payload(value, default_mode) for key, value in data.items()}
    result = {}
    for item in items:
        value = data.get(item["key"])
        if value is None:
            if optional:
                continue
            raise VolumeError(f"references non-existent {what} key: {item['key']}")
        result[item["path"]] = Payload(value, mode_of(item, default_mode))
    return result


async def config_map_payload(context: VolumeContext, stated: Obj, default_mode: int) -> dict[str, Payload]:
    """The files of a ConfigMap."""
    name, optional = stated.get("name", ""), bool(stated.get("optional"))
    found = await context.source.config_map(context.namespace, name)
    if found is None:
        if optional:
            return {}
        raise VolumeError(f'configmap "{name}" not found')
    data = {key: value.encode() for key, value in (found.get("data") or {}).items()}
    data.update({key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()})
    return _pick(data, stated.get("items"), default_mode, optional=optional, what="config")


async def secret_payload(context: VolumeContext, stated: Obj, default_mode: int) -> dict[str, Payload]:
    """The files of a Secret (`secretName` in a volume, `name` in a projection)."""
    name, optional = stated.get("secretName") or stated.get("name", ""), bool(stated.get("optional"))
    found = await context.source.secret(context.namespace, name)
    if found is None:
        if optional:
            return {}
        raise VolumeError(f'secret "{name}" not found')
    data = {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
    return _pick(data, stated.get("items"), default_mode, optional=optional, what="secret")


def downward_payload(context: VolumeContext, stated: Obj, default_mode: int) -> dict[str, Payload]:
    """The files of a downward API volume."""
    result = {}
    for item in stated.get("items") or []:
        try:
            if item.get("fieldRef"):
                text = field_value(context.pod, item["fieldRef"]["fieldPath"], context.facts)
            else:
                first = podspec.containers(context.pod)[0]
                text = resource_value(context.pod, first, item["resourceFieldRef"], context.facts)
        except ConfigError as error:
            raise VolumeError(str(error)) from error
        result[item["path"]] = Payload(text.encode(), mode_of(item, default_mode))
    return result


async def token_payload(context: VolumeContext, stated: Obj, default_mode: int) -> dict[str, Payload]:
    """A service-account token."""
    try:
        token = await context.source.token(
            context.pod, stated.get("audience") or "", int(stated.get("expirationSeconds") or 3600)
        )
    except (StatusError, OSError) as error:
        raise VolumeError(f"failed to fetch token: {error}") from error
    return {stated["path"]: _secretive(context, token, default_mode)}


def _secretive(context: VolumeContext, text: str, default_mode: int) -> Payload:
    """For the pod's user alone where all containers run as one user, or for its group."""
    if context.fs_group is not None:
        return Payload(text.encode(), 0o600)
    users = {
        podspec.merged_security(context.pod, container, "runAsUser")
        for container in podspec.all_containers(context.pod)
    }
    if len(users) == 1 and None not in users:
        return Payload(text.encode(), 0o600, uid=users.pop())
    return Payload(text.encode(), default_mode)


def certificate_payload(
    context: VolumeContext, stated: Obj, credential: Credential, default_mode: int
) -> dict[str, Payload]:
    """A key and its certificates, in one file or in two, which may be read while they are exchanged."""
    texts = {
        "credentialBundlePath": credential.key + credential.chain,
        "keyPath": credential.key,
        "certificateChainPath": credential.chain,
    }
    return {
        stated[field]: _secretive(context, text, default_mode) for field, text in texts.items() if stated.get(field)
    }


async def trust_payload(context: VolumeContext, stated: Obj, default_mode: int) -> dict[str, Payload]:
    """The certificates of one ClusterTrustBundle, or of all that a signer has, each once."""
    optional = bool(stated.get("optional"))
    if stated.get("name"):
        found = await context.source.get(CLUSTER_TRUST_BUNDLES, "", stated["name"])
        bundles = [found] if found is not None else []
        missing = f'clustertrustbundle.certificates.k8s.io "{stated["name"]}" not found'
    else:
        signer = stated.get("signerName") or ""
        of_signer = await context.source.listed(CLUSTER_TRUST_BUNDLES, f"spec.signerName={signer}")
        wanted = stated.get("labelSelector")
        selector = label_selector_of(wanted) if wanted is not None else None
        bundles = [one for one in of_signer if selector is not None and selector.matches(labels_of(one))]
        missing = "combination of signerName and labelSelector matched zero ClusterTrustBundles"
    if not bundles and not optional:
        raise VolumeError(missing)
    text = trust_anchors(str(one["spec"].get("trustBundle") or "") for one in bundles)
    return {stated["path"]: Payload(text.encode(), default_mode)}


def trust_anchors(bundles: Iterable[str]) -> str:
    """Every certificate of the bundles once, without what is written around them. In an order that does not change."""
    found = {
        "".join(block.split()) for bundle in bundles for block in re.findall(_CERTIFICATE, bundle, flags=re.DOTALL)
    }
    return "".join(
        f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"
        for one in sorted(found)
        if (lines := "\n".join(one[at : at + 64] for at in range(0, len(one), 64)))
    )


class ObjectVolume:
    """Files from one object or a projection of several. Secrets and tokens are kept in memory, never on disk."""

    refreshes = True

    def __init__(self, kind: str, clock: Clock, certificates: PodCertificates | None = None) -> None:
        self._kind = kind
        self._clock = clock
        self._certificates = certificates

    async def publish(self, context: VolumeContext, volume: Obj, place: Path) -> Path:
        stated = volume[self._kind] or {}
        mode = stated.get("defaultMode")
        default_mode = 0o644 if mode is None else int(mode)
        payload = await self._payload(context, volume["name"], stated, default_mode)
        await context.in_thread(_write, place, payload, _MODES[self._kind], context.fs_group, self._clock.now())
        return place

    async def _payload(self, context: VolumeContext, name: str, stated: Obj, default_mode: int) -> dict[str, Payload]:
        if self._kind == "configMap":
            return await config_map_payload(context, stated, default_mode)
        if self._kind == "secret":
            return await secret_payload(context, stated, default_mode)
        if self._kind == "downwardAPI":
            return downward_payload(context, stated, default_mode)
        result: dict[str, Payload] = {}
        for index, projection in enumerate(stated.get("sources") or []):
            if asked := projection.get("podCertificate"):
                if self._certificates is None:
                    raise VolumeError("certificates of pods are not issued on this node")
                credential = await self._certificates.credential(context.pod, name, index, asked)
                result.update(certificate_payload(context, asked, credential, default_mode))
            else:
                result.update(await self._projection(context, projection, default_mode))
        return result

    async def _projection(self, context: VolumeContext, projection: Obj, default_mode: int) -> dict[str, Payload]:
        source: Any
        for kind, source in projection.items():
            if kind == "configMap":
                return await config_map_payload(context, source, default_mode)
            if kind == "secret":
                return await secret_payload(context, source, default_mode)
            if kind == "downwardAPI":
                return downward_payload(context, source, default_mode)
            if kind == "serviceAccountToken":
                return await token_payload(context, source, default_mode)
            if kind == "clusterTrustBundle":
                return await trust_payload(context, source, default_mode)
            raise VolumeError(f"projected source {kind} is not supported on this node")
        return {}


def _write(place: Path, payload: Mapping[str, Payload], mode: int, group: int | None, now: datetime) -> None:
    place.mkdir(parents=True, exist_ok=True)
    if not os.path.ismount(place):
        mount("tmpfs", place, "mode=0755")
    write_payload(place, payload, mode=mode, group=group, now=now)
