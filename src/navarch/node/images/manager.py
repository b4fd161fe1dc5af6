"""Images on the node: pull policy, one pull at a time per image, back-off for failing ones, pull secrets.

`ImageManager.ensure` never waits for a pull: it answers what is known now and calls back when a pull ends, so that a
pod's other containers are looked after meanwhile.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.client.supervision import unless_cancelled
from navarch.node.backoff import Backoff
from navarch.node.config import ImagesConfig
from navarch.node.images.providers import CredentialProviders
from navarch.node.images.records import PullRecords, PullSecret
from navarch.node.references import ObjectSource
from navarch.node.runtime.base import Image, Login, Runtime, RuntimeFailure
from navarch.world import Clock

log = logging.getLogger(__name__)

_DEFAULT_REGISTRY: Final = "docker.io"
_UNLIMITED: Final = 10_000
_REFERENCE: Final = re.compile(
    r"^(?:(?P<host>(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*"
    r"(?::[0-9]+)?|\[[0-9a-fA-F:]+\](?::[0-9]+)?)/)?"
    r"(?P<path>[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>[A-Za-z][\w+.-]*:[0-9a-fA-F]{32,}))?$",
    re.ASCII,
)

Notify = Callable[[str, str, str], None]
"""An event about the container that needs the image: type, reason, message."""


@dataclass(frozen=True, slots=True)
class ImageState:
    """Either the image (with its runtime object), or why the container has to wait."""

    image: Image | None = None
    reason: str = ""
    message: str = ""
    retry_at: datetime | None = None


PULLING: Final = ImageState()
# How long a failure is shown as ErrImagePull before it reads ImagePullBackOff.
_ANNOUNCE: Final = timedelta(seconds=2)


@dataclass(slots=True)
class _Failure:
    reason: str
    message: str
    at: datetime


def with_default_tag(image: str) -> str:
    """The reference with `:latest` where it names neither tag nor digest.  Raises ValueError for a malformed one."""
    match = _REFERENCE.match(image)
    if match is None:
        raise ValueError(f"couldn't parse image name {json.dumps(image)}: invalid reference format")
    return image if match["tag"] or match["digest"] else f"{image}:latest"


def registry_of(image: str) -> str:
    """The registry's host, with port, that a reference names (`docker.io` where it names none)."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first
    return _DEFAULT_REGISTRY


def pull_policy(container: Obj) -> str:
    stated = container.get("imagePullPolicy")
    if stated:
        return str(stated)
    image = container.get("image", "")
    return "Always" if with_default_tag(image).endswith(":latest") else "IfNotPresent"


class _Credential(NamedTuple):
    """A login, and the secret that it is of; of a provider of the node's there is none."""

    login: Login | None
    secret: PullSecret | None


_USUAL: Final = ImagesConfig()


class ImageManager:
    """Shared by all pods of the node."""

    def __init__(
        self,
        runtime: Runtime,
        source: ObjectSource,
        clock: Clock,
        *,
        config: ImagesConfig = _USUAL,
        records: PullRecords | None = None,
        providers: CredentialProviders | None = None,
    ) -> None:
        self._runtime = runtime
        self._source = source
        self._clock = clock
        self._backoff = Backoff()
        self._pulls: dict[str, asyncio.Task[None]] = {}
        # Without a limit, as many as anybody has containers.
        self._slots = asyncio.Semaphore(config.parallel_pulls or _UNLIMITED)
        self._records = records
        self._providers = providers
        self._rate = _Rate(config.pulls_per_s, config.pull_burst)
        self._failures: dict[tuple[str, str], _Failure] = {}
        # Pulls that ended well and that a container with policy Always has not used yet.
        self._fresh: set[tuple[str, str, str]] = set()
        self._waiting: dict[str, list[Callable[[], None]]] = {}
        self.last_used: dict[str, datetime] = {}

    async def ensure(
        self, pod: Obj, container: Obj, attempt: int, notify: Notify, wake: Callable[[], None]
    ) -> ImageState:
        """The image of the container's `attempt`, or what it waits for; `wake` is called when that may have changed."""
        try:
            image = with_default_tag(container.get("image", ""))
        except ValueError as error:
            message = f"Failed to apply default image tag {json.dumps(container.get('image', ''))}: {error}"
            notify("Warning", "InspectFailed", message)
            return ImageState(reason="InvalidImageName", message=message)
        uid = pod["metadata"]["uid"]
        policy = pull_policy(container)
        use = (uid, container["name"], f"{image}#{attempt}")
        if image in self._pulls:
            self._waiting.setdefault(image, []).append(wake)
            return PULLING
        present = await self._runtime.image_status(image)
        if policy == "Never" and present is None:
            message = f'Container image "{container["image"]}" is not present with pull policy of Never'
            notify("Warning", "ErrImageNeverPull", message)
            return ImageState(reason="ErrImageNeverPull", message=message)
        usable = present is not None and await self._may_use(pod, image, present.id)
        if policy == "Never" and not usable:
            words = "is present with pull policy of Never but does not have the proper credentials to access it"
            message = f'Container image "{container["image"]}" {words}'
            notify("Warning", "ErrImageNeverPull", message)
            return ImageState(reason="ErrImageNeverPull", message=message)
        if present is not None and (use in self._fresh or (usable and policy != "Always")):
            if use in self._fresh:
                self._fresh.discard(use)
            else:
                words = "already present on machine and can be accessed by the pod"
                notify("Normal", "Pulled", f'Container image "{container["image"]}" {words}')
            self.last_used[present.id] = self._clock.now()
            return ImageState(image=present)
        failure = self._failures.get((uid, image))
        if failure is not None:
            waiting = self._still_waiting(pod, container, image, failure, notify)
            if waiting is not None:
                return waiting
        self._start(pod, container, image, use, notify, wake)
        return PULLING

    def _still_waiting(
        self, pod: Obj, container: Obj, image: str, failure: _Failure, notify: Notify
    ) -> ImageState | None:
        """What a container whose last pull failed shows: the failure once, then the back-off, then None: try again."""
        key = f"{pod['metadata']['uid']}/{image}"
        now = self._clock.now()
        remaining = self._backoff.remaining(key, failure.at, now)
        if remaining.total_seconds() <= 0:
            return None
        retry_at = now + remaining
        if now - failure.at < _ANNOUNCE:
            retry = min(retry_at, failure.at + _ANNOUNCE)
            return ImageState(reason=failure.reason, message=failure.message, retry_at=retry)
        text = f'Back-off pulling image "{container["image"]}"'
        notify("Normal", "BackOff", text)
        return ImageState(
            reason="ImagePullBackOff", message=f"{text}: {failure.reason}: {failure.message}", retry_at=retry_at
        )

    def _start(
        self,
        pod: Obj,
        container: Obj,
        image: str,
        use: tuple[str, str, str],
        notify: Notify,
        wake: Callable[[], None],
    ) -> None:
        notify("Normal", "Pulling", f'Pulling image "{container["image"]}"')
        task = asyncio.create_task(self._pull(pod, container, image, use, notify), name=f"pull {image}")
        self._pulls[image] = task
        self._waiting.setdefault(image, []).append(wake)

        def done(_: asyncio.Task[None]) -> None:
            self._pulls.pop(image, None)
            for one in self._waiting.pop(image, []):
                one()

        task.add_done_callback(done)

    async def _pull(self, pod: Obj, container: Obj, image: str, use: tuple[str, str, str], notify: Notify) -> None:
        uid = pod["metadata"]["uid"]
        key = f"{uid}/{image}"
        queued = self._clock.now()
        async with self._slots:
            began = self._clock.now()
            try:
                if not self._rate.allows(began):
                    raise RuntimeFailure("pull QPS exceeded")
                secret = await unless_cancelled(self._pull_with(image, await self._credentials(pod, image)))
            except Exception as error:
                # What it is does not matter to the pod: it waits, and the next attempt may fare better.
                if not isinstance(error, RuntimeFailure | OSError | StatusError):
                    log.error("pulling %s: %s: %s", image, type(error).__name__, error, exc_info=error)
                now = self._clock.now()
                previous = self._failures.get((uid, image))
                self._backoff.attempted(key, previous.at if previous else now, now)
                message = str(error)
                self._failures[uid, image] = _Failure("ErrImagePull", message, now)
                notify("Warning", "Failed", f'Failed to pull image "{container["image"]}": {message}')
                notify("Warning", "Failed", "Error: ErrImagePull")
                return
        now = self._clock.now()
        self._failures.pop((uid, image), None)
        self._fresh.add(use)
        present = await self._runtime.image_status(image)
        if present is not None and self._records is not None:
            await self._records.pulled(image, present.id, secret)
        took, waited = _seconds(began, now), _seconds(queued, now)
        size = present.size_bytes if present is not None else 0
        notify(
            "Normal",
            "Pulled",
            f'Successfully pulled image "{container["image"]}" in {took} ({waited} including waiting). '
            f"Image size: {size} bytes.",
        )

    async def _pull_with(self, image: str, known: Iterable[_Credential]) -> PullSecret | None:
        """Try each credential, and none at all where there is none; the last failure counts. Returns the secret that
        served."""
        failure: RuntimeFailure | None = None
        attempts: Sequence[_Credential] = [*known] or [_Credential(None, None)]
        for login, secret in attempts:
            try:
                await self._runtime.pull_image(image, login)
            except RuntimeFailure as error:
                failure = error
            else:
                return secret
        assert failure is not None
        raise failure

    async def _credentials(self, pod: Obj, image: str) -> list[_Credential]:
        found = [
            _Credential(login, _pull_secret(secret, login))
            for secret in await self._secrets(pod)
            for login in credentials(secret, image)
        ]
        if self._providers is not None:
            found += [_Credential(login, None) for login in await self._providers.logins(image)]
        return found

    async def _secrets(self, pod: Obj) -> list[Obj]:
        namespace = pod["metadata"]["namespace"]
        names = [reference.get("name", "") for reference in pod["spec"].get("imagePullSecrets") or []]
        found = [await self._source.secret(namespace, name) for name in names]
        return [secret for secret in found if secret is not None]

    async def _may_use(self, pod: Obj, image: str, image_id: str) -> bool:
        """Whether the pod may use an image that is here, without pulling it."""
        if self._records is None:
            return True

        async def mine() -> list[PullSecret]:
            try:
                secrets = await self._secrets(pod)
            except (StatusError, OSError):
                return []
            return [_pull_secret(secret, login) for secret in secrets for login in credentials(secret, image)]

        return await self._records.may_use(image, image_id, mine)

    async def keep_records_of(self, image_ids: Iterable[str]) -> None:
        """These are the images that are on the node."""
        if self._records is not None:
            await self._records.keep_only(image_ids)

    def forget_pod(self, uid: str) -> None:
        """The pod is gone: drop what is remembered for it."""
        self._backoff.forget(f"{uid}/")
        for key in [key for key in self._failures if key[0] == uid]:
            del self._failures[key]
        self._fresh = {use for use in self._fresh if use[0] != uid}

    async def close(self) -> None:
        """Cancel pulls that run."""
        for task in list(self._pulls.values()):
            task.cancel()
        await asyncio.gather(*self._pulls.values(), return_exceptions=True)


def _pull_secret(secret: Obj, login: Login) -> PullSecret:
    metadata = secret["metadata"]
    digest = hashlib.sha256(json.dumps(list(login)).encode()).hexdigest()
    return PullSecret(metadata.get("uid", ""), metadata.get("namespace", ""), metadata["name"], digest)


class _Rate:
    """So many pulls a second, and so many at once; 0 is no limit."""

    def __init__(self, per_s: int, burst: int) -> None:
        self._per_s = per_s
        self._burst = burst
        self._left = float(burst)
        self._at: datetime | None = None

    def allows(self, now: datetime) -> bool:
        if not self._per_s:
            return True
        if self._at is not None:
            self._left = min(self._left + (now - self._at).total_seconds() * self._per_s, float(self._burst))
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def credentials(secret: Obj, image: str) -> list[Login]:
    """The logins of a pull secret that fit the image's registry, the most specific first."""
    data = secret.get("data") or {}
    try:
        if ".dockerconfigjson" in data:
            entries = json.loads(base64.b64decode(data[".dockerconfigjson"])).get("auths") or {}
        elif ".dockercfg" in data:
            entries = json.loads(base64.b64decode(data[".dockercfg"]))
        else:
            return []
    except ValueError:
        return []
    fitting = sorted((server for server in entries if fits(server, image)), key=len, reverse=True)
    return [_login(entries[server]) for server in fitting]


def fits(server: str, image: str) -> bool:
    split = urlsplit(server if "//" in server else f"//{server}")
    host, path = split.netloc, split.path.strip("/")
    if host in ("index.docker.io", "registry-1.docker.io"):
        host, path = _DEFAULT_REGISTRY, ""
    if host != registry_of(image):
        wildcard = host.replace(".", r"\.").replace("*", r"[^.]+")
        if "*" not in host or not re.fullmatch(wildcard, registry_of(image)):
            return False
    if path in ("", "v1", "v2"):
        return True
    repository = image.partition("/")[2]
    return repository == path or repository.startswith(path + "/")


def _login(entry: Mapping[str, str]) -> Login:
    user, password = entry.get("username", ""), entry.get("password", "")
    if entry.get("auth") and not user:
        user, _, password = base64.b64decode(entry["auth"]).decode(errors="replace").partition(":")
    return Login(
        username=user,
        password=password.rstrip("\0"),
        identity_token=entry.get("identitytoken", ""),
        registry_token=entry.get("registrytoken", ""),
    )


def _seconds(start: datetime, end: datetime) -> str:
    """A duration as Go prints it, to the millisecond: `1.25s`, `350ms`."""
    milliseconds = round((end - start).total_seconds() * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    return f"{milliseconds / 1000:g}s"
