"""A key management service that keeps the keys: Kubernetes' KMS v2, a plugin at a Unix socket that speaks gRPC.

In: a value.  Out: it, encrypted by a key of its own that is derived from a seed; the seed, encrypted by the service,
goes with it. So the service is asked once for a seed when the server starts, once more whenever its own key changes,
and once for each older seed that is met; never for a value. What is stored is the message that Kubernetes stores.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from typing import Any, Final

from navarch.api.protobuf_wire import VARINT, delimited, tag, varint
from navarch.records import frozen
from navarch.store.base import StoreUnavailable
from navarch.store.encryption.providers import GCM, DecryptError, NeedsKey

log = logging.getLogger(__name__)

_SERVICE: Final = "/v2.KeyManagementService/"
_SEED: Final = 32
_INFO: Final = 32
# How a seed is used: as the key itself in what older servers have stored, else to derive a key for each value.
_AS_KEY, _AS_SEED = 0, 1
# How often a service that is well is asked how it is, and one that is not.
_POLL_S: Final = 60.0
_RETRY_S: Final = 10.0
# How long its key may be encrypted with after it was last heard of: what was taken back is not to be used on.
_GOOD_FOR_S: Final = 180.0
_HEALTHY: Final = "ok"
_VERSIONS: Final = ("v2", "v2beta1")


@frozen
class _Seed:
    """A seed, in the form in which it is stored; `key_id` is of the service's key that has encrypted it."""

    secret: bytes
    encrypted: bytes
    key_id: str
    annotations: Mapping[str, bytes] = field(default_factory=dict)


class KMS:
    """Use it between `open` and `close`."""

    def __init__(self, name: str, endpoint: str, timeout_s: float) -> None:
        self.name = name
        self.prefix = b"k8s:enc:kms:v2:" + name.encode() + b":"
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._channel: Any = None
        self._seed: _Seed | None = None
        self._secrets: dict[bytes, bytes] = {}
        # Seeds that it would not or could not decrypt, until when nobody asks again, and what it said: it may be slow
        # to say so, and a store holds many values of one seed.
        self._refused: dict[bytes, tuple[float, str]] = {}
        self._polling: asyncio.Task[None] | None = None
        self._heard_s = 0.0
        # What is wrong with it now; empty when it is well.
        self.problem = ""
        # Called when it has another key, or is well again.
        self.changed: Callable[[], Awaitable[None]] | None = None

    async def open(self) -> None:
        """Raises StoreUnavailable where the service does not answer, or is not well."""
        import grpc

        self._channel = grpc.aio.insecure_channel(self._endpoint)
        try:
            await self._renew()
        except Exception as error:
            await self._channel.close()
            raise StoreUnavailable(f"kms {self.name} at {self._endpoint}: {error}") from error
        self._polling = asyncio.create_task(self._poll(), name=f"kms {self.name}")

    async def close(self) -> None:
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(_RETRY_S if self.problem else _POLL_S)
            await self.look()

    async def look(self) -> None:
        """Ask it how it is. What is known already serves on while it is not well: reads always, writes for a while."""
        seed, was_well = self._seed, not self.problem
        try:
            await self._renew()
            self._refused.clear()
            if self.changed is not None and not (was_well and self._seed is seed):
                await self.changed()
        except Exception as error:
            self.problem = str(error) or type(error).__name__
            log.warning("kms %s: %s", self.name, error)

    async def _renew(self) -> None:
        """Another seed, if there is none yet that the service's key of today has encrypted."""
        status = await self._call("Status", "StatusRequest", "StatusResponse")
        if status.healthz != _HEALTHY or status.version not in _VERSIONS:
            raise ValueError(f"unhealthy: healthz is {status.healthz!r}, version is {status.version!r}")
        if self._seed is not None and self._seed.key_id == status.keyID:
            self._is_well()
            return
        secret = os.urandom(_SEED)
        asked = {"plaintext": secret, "uid": os.urandom(16).hex()}
        answer = await self._call("Encrypt", "EncryptRequest", "EncryptResponse", **asked)
        if answer.keyID != status.keyID:
            raise ValueError(f"the key is {status.keyID!r} by its status and {answer.keyID!r} when it encrypts")
        self._secrets[answer.ciphertext] = secret
        self._seed = _Seed(secret, answer.ciphertext, answer.keyID, dict(answer.annotations))
        self._is_well()

    def _is_well(self) -> None:
        self._heard_s = asyncio.get_running_loop().time()
        self.problem = ""

    async def _call(self, method: str, request: str, response: str, **fields: Any) -> Any:
        from navarch.api.protobuf_messages import message_class

        call = self._channel.unary_unary(
            _SERVICE + method,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_class(f"kms/v2.{response}").FromString,
        )
        return await call(message_class(f"kms/v2.{request}")(**fields), timeout=self._timeout_s)

    # Values

    def encrypt(self, value: bytes, key: str) -> bytes:
        """Raises StoreUnavailable where nobody knows any more whether the key is still good."""
        seed, info = self._seed, os.urandom(_INFO)
        assert seed is not None
        silent_s = asyncio.get_running_loop().time() - self._heard_s
        if silent_s > _GOOD_FOR_S:
            raise StoreUnavailable(f"kms {self.name} was last well {silent_s:.0f} s ago: {self.problem}")
        data = info + GCM(_derived(seed.secret, info)).encrypt(value, key)
        annotations = b"".join(
            delimited(4, delimited(1, name.encode()) + delimited(2, said))
            for name, said in sorted(seed.annotations.items())
        )
        stored = delimited(1, data) + delimited(2, seed.key_id.encode()) + delimited(3, seed.encrypted) + annotations
        return stored + tag(5, VARINT) + varint(_AS_SEED)

    def decrypt(self, data: bytes, key: str) -> bytes:
        stored = _stored(data)
        secret = self._secrets.get(stored.encryptedDEKSource)
        if secret is None:
            raise NeedsKey(lambda: self._learn(stored))
        inner: bytes = stored.encryptedData
        if stored.encryptedDEKSourceType == _AS_KEY:
            return GCM(secret).decrypt(inner, key)
        if len(inner) < _INFO:
            raise DecryptError("the stored data was shorter than the required size")
        return GCM(_derived(secret, inner[:_INFO])).decrypt(inner[_INFO:], key)

    def is_current(self, data: bytes) -> bool:
        return self._seed is not None and _stored(data).keyID == self._seed.key_id

    async def _learn(self, stored: Any) -> None:
        """Raises DecryptError."""
        import grpc

        source, now = stored.encryptedDEKSource, asyncio.get_running_loop().time()
        until, why = self._refused.get(source, (now, ""))
        if until > now:
            raise DecryptError(why)
        try:
            answer = await self._call(
                "Decrypt",
                "DecryptRequest",
                "DecryptResponse",
                ciphertext=stored.encryptedDEKSource,
                uid=os.urandom(16).hex(),
                keyID=stored.keyID,
                annotations=dict(stored.annotations),
            )
        except grpc.RpcError as error:
            why = f"kms {self.name}: failed to decrypt DEK: {error}"
            self._refused[source] = (asyncio.get_running_loop().time() + _RETRY_S, why)
            raise DecryptError(why) from None
        self._refused.pop(source, None)
        self._secrets[source] = answer.plaintext


def _stored(data: bytes) -> Any:
    """Raises DecryptError."""
    from google.protobuf.message import DecodeError

    from navarch.api.protobuf_messages import message_class

    try:
        return message_class("kms/v2.EncryptedObject").FromString(data)
    except DecodeError:
        raise DecryptError("failed to decode the stored EncryptedObject") from None


def _derived(seed: bytes, info: bytes) -> bytes:
    """HKDF's second half with SHA-256, for a key of its size."""
    return hmac.digest(seed, info + b"\x01", hashlib.sha256)
