"""Who may use an image that is on the node: with which credentials the kubelet pulled it.

An image that was pulled with a secret serves pods that have that secret (or one that says the same), one that was
pulled without credentials every pod. Written down per image below the kubelet's folder, so that a restart forgets
nothing; an image that the kubelet did not pull is none of its business, unless configured otherwise.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from navarch.api.meta import Obj
from navarch.api.time import format_time
from navarch.world import World

log = logging.getLogger(__name__)

_API: Final = {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "ImagePulledRecord"}
_SECRETS_KEPT: Final = 100


class PullSecret(NamedTuple):
    """A secret that held credentials; `credential_hash` says which."""

    uid: str
    namespace: str
    name: str
    credential_hash: str

    def as_json(self) -> Obj:
        return {
            "uid": self.uid,
            "namespace": self.namespace,
            "name": self.name,
            "credentialHash": self.credential_hash,
        }


def bare_name(image: str) -> str:
    """A reference without tag and digest."""
    name = image.partition("@")[0]
    head, slash, tail = name.rpartition("/")
    return f"{head}{slash}{tail.partition(':')[0]}"


class PullRecords:
    """`policy` is an `imagePullCredentialsVerificationPolicy`; `allowlist` are the images (`registry.example/team/*`)
    that need not have been pulled by the kubelet."""

    def __init__(self, folder: Path, policy: str, allowlist: Sequence[str], world: World) -> None:
        self._folder = folder
        self._policy = policy
        self._allowlist = allowlist
        self._world = world
        self._records: dict[str, Obj] | None = None

    async def may_use(
        self, image: str, image_id: str, secrets: Callable[[], Awaitable[Collection[PullSecret]]]
    ) -> bool:
        """Whether a pod may use an image that is here, without pulling it. `secrets` answers those that it has; they
        are asked for where they matter."""
        if self._policy == "NeverVerify":
            return True
        record = (await self._load()).get(image_id)
        if record is None:
            return self._may_use_preloaded(image)
        known = (record.get("credentialMapping") or {}).get(bare_name(image))
        if not known:
            return False
        if known.get("nodePodsAccessible"):
            return True
        kept = [PullSecret(*(one[key] for key in _KEYS)) for one in known.get("kubernetesSecrets") or ()]
        for mine in await secrets():
            for one in kept:
                if mine.credential_hash == one.credential_hash or mine[:3] == one[:3]:
                    if mine not in kept:
                        await self.pulled(image, image_id, mine)
                    return True
        return False

    def _may_use_preloaded(self, image: str) -> bool:
        if self._policy == "NeverVerifyPreloadedImages":
            return True
        name = bare_name(image)
        listed = any(name == one or (one.endswith("/*") and name.startswith(one[:-1])) for one in self._allowlist)
        return self._policy == "NeverVerifyAllowlistedImages" and listed

    async def pulled(self, image: str, image_id: str, secret: PullSecret | None) -> None:
        """The kubelet pulled an image, with a secret's credentials, or in a way that every pod could."""
        records = await self._load()
        record = records.get(image_id) or {**_API, "imageRef": image_id, "credentialMapping": {}}
        mapping = dict(record["credentialMapping"])
        known = mapping.get(bare_name(image)) or {}
        if known.get("nodePodsAccessible"):
            return
        if secret is None:
            mapping[bare_name(image)] = {"nodePodsAccessible": True}
        else:
            others = [one for one in known.get("kubernetesSecrets") or () if _coordinates(one) != secret[:3]]
            mapping[bare_name(image)] = {"kubernetesSecrets": [*others[-_SECRETS_KEPT:], secret.as_json()]}
        stamp = format_time(self._world.now())
        records[image_id] = {**record, "lastUpdatedTime": stamp, "credentialMapping": mapping}
        try:
            await self._world.in_thread(self._write, image_id, records[image_id])
        except OSError as error:
            log.error("who may use image %s could not be written down: %s", image, error)

    async def keep_only(self, image_ids: Iterable[str]) -> None:
        """Forget images that are here no longer."""
        records, known = await self._load(), set(image_ids)
        for gone in [one for one in records if one not in known]:
            del records[gone]
            await self._world.in_thread(self._place(gone).unlink, missing_ok=True)

    async def _load(self) -> dict[str, Obj]:
        if self._records is None:
            self._records = await self._world.in_thread(_read, self._folder)
        return self._records

    def _place(self, image_id: str) -> Path:
        return self._folder / f"sha256-{hashlib.sha256(image_id.encode()).hexdigest()}"

    def _write(self, image_id: str, record: Obj) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = self._place(image_id)
        partial = place.with_suffix(".partial")
        partial.write_text(json.dumps(record))
        partial.replace(place)


_KEYS: Final = ("uid", "namespace", "name", "credentialHash")


def _coordinates(stored: Obj) -> tuple[str, ...]:
    return tuple(stored[key] for key in _KEYS[:3])


def _read(folder: Path) -> dict[str, Obj]:
    found: dict[str, Obj] = {}
    for place in sorted(folder.glob("sha256-*")):
        try:
            record: Any = json.loads(place.read_text())
            found[record["imageRef"]] = record
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found
