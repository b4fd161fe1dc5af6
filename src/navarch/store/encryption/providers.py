"""Ciphers for what is stored, each value with a prefix that says which one and which key, as Kubernetes writes them.

In: a value and the key that it is stored under, which the ciphers that can are bound to: a value that was moved to
another key is refused.  Out: the bytes that are stored, and back.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

PREFIX: Final = b"k8s:enc:"
_AES_BLOCK: Final = 16
_GCM_NONCE: Final = 12


class NeedsKey(Exception):
    """What is stored is encrypted with a key that somebody else has to be asked for; `ask` does that."""

    def __init__(self, ask: Callable[[], Awaitable[None]]) -> None:
        super().__init__("the key is not known yet")
        self.ask = ask


class DecryptError(ValueError):
    """What is stored cannot be read with the keys there are; the message says why."""


class Provider(Protocol):
    """`prefix` is what its values begin with; empty for what is stored as it is."""

    prefix: bytes

    def encrypt(self, value: bytes, key: str) -> bytes:
        """Without the prefix."""
        ...

    def decrypt(self, data: bytes, key: str) -> bytes:
        """Of what follows the prefix.  Raises DecryptError, NeedsKey."""
        ...

    def is_current(self, data: bytes) -> bool:
        """Whether it would encrypt with the same key now."""
        ...


class _OneKey:
    """What has one key has always encrypted with it."""

    def is_current(self, data: bytes) -> bool:
        return True


class Identity(_OneKey):
    """No cipher."""

    prefix = b""

    def encrypt(self, value: bytes, key: str) -> bytes:
        return value

    def decrypt(self, data: bytes, key: str) -> bytes:
        if data.startswith(PREFIX):
            raise DecryptError("identity transformer tried to read encrypted data")
        return data


class AESCBC(_OneKey):
    """AES in CBC mode, padded as PKCS#7 has it; a fresh vector for each value."""

    def __init__(self, name: str, secret: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        self.prefix = b"k8s:enc:aescbc:v1:" + name.encode() + b":"
        self._cipher: Callable[[bytes], Any] = lambda vector: Cipher(algorithms.AES(secret), modes.CBC(vector))

    def encrypt(self, value: bytes, key: str) -> bytes:
        vector, padding = os.urandom(_AES_BLOCK), _AES_BLOCK - len(value) % _AES_BLOCK
        encryptor = self._cipher(vector).encryptor()
        padded: bytes = encryptor.update(value + bytes((padding,)) * padding) + encryptor.finalize()
        return vector + padded

    def decrypt(self, data: bytes, key: str) -> bytes:
        if len(data) < 2 * _AES_BLOCK:
            raise DecryptError("the stored data was shorter than the required size")
        if len(data) % _AES_BLOCK:
            raise DecryptError("the stored data is not a multiple of the block size")
        decryptor = self._cipher(data[:_AES_BLOCK]).decryptor()
        plain: bytes = decryptor.update(data[_AES_BLOCK:]) + decryptor.finalize()
        padding = plain[-1]
        if not 1 <= padding <= _AES_BLOCK or plain[-padding:] != bytes((padding,)) * padding:
            raise DecryptError("invalid padding on input")
        return plain[:-padding]


class AESGCM(_OneKey):
    """AES in GCM mode, bound to the key; a random nonce for each value."""

    def __init__(self, name: str, secret: bytes) -> None:
        self.prefix = b"k8s:enc:aesgcm:v1:" + name.encode() + b":"
        self._cipher = GCM(secret)

    def encrypt(self, value: bytes, key: str) -> bytes:
        return self._cipher.encrypt(value, key)

    def decrypt(self, data: bytes, key: str) -> bytes:
        return self._cipher.decrypt(data, key)


class GCM:
    """The cipher alone, without a prefix."""

    def __init__(self, secret: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers import aead

        self._aead = aead.AESGCM(secret)

    def encrypt(self, value: bytes, key: str) -> bytes:
        nonce = os.urandom(_GCM_NONCE)
        return nonce + self._aead.encrypt(nonce, value, key.encode())

    def decrypt(self, data: bytes, key: str) -> bytes:
        from cryptography.exceptions import InvalidTag

        if len(data) < _GCM_NONCE:
            raise DecryptError("the stored data was shorter than the required size")
        try:
            return self._aead.decrypt(data[:_GCM_NONCE], data[_GCM_NONCE:], key.encode())
        except InvalidTag:
            raise DecryptError("cipher: message authentication failed") from None


class SecretBox(_OneKey):
    """XSalsa20 and Poly1305, NaCl's secretbox; a random nonce for each value."""

    def __init__(self, name: str, secret: bytes) -> None:
        from nacl.secret import SecretBox as Box

        self.prefix = b"k8s:enc:secretbox:v1:" + name.encode() + b":"
        self._box = Box(secret)

    def encrypt(self, value: bytes, key: str) -> bytes:
        return bytes(self._box.encrypt(value))

    def decrypt(self, data: bytes, key: str) -> bytes:
        from nacl.exceptions import CryptoError

        try:
            return bytes(self._box.decrypt(data))
        except (CryptoError, ValueError, TypeError):
            raise DecryptError("the stored data is not authentic") from None


class Providers:
    """Those of one resource, in their order: the first encrypts, all decrypt."""

    def __init__(self, providers: Sequence[Provider]) -> None:
        self._first = providers[0]
        self._all = tuple(providers)

    def encrypt(self, value: bytes, key: str) -> bytes:
        return self._first.prefix + self._first.encrypt(value, key)

    def decrypt(self, data: bytes, key: str) -> tuple[bytes, bool]:
        """The value, and whether it should be written again: not the first provider has encrypted it, or not with
        today's key. Keys may be replaced without a new name, so that several have one prefix: each is tried.  Raises
        DecryptError, NeedsKey."""
        failed: DecryptError | None = None
        for provider in self._all:
            if not data.startswith(provider.prefix) or (not provider.prefix and data.startswith(PREFIX)):
                continue
            inner = data[len(provider.prefix) :]
            try:
                value = provider.decrypt(inner, key)
            except DecryptError as error:
                failed = failed or error
                continue
            return value, provider is not self._first or not provider.is_current(inner)
        if failed is not None:
            raise failed
        if data.startswith(PREFIX):
            raise DecryptError("no matching prefix found")
        raise DecryptError("the data is not encrypted, and no identity provider allows that")
