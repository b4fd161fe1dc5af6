"""Whether a certificate and a private key belong together, as a TLS server would find out too late.

In: both as PEM texts.  Out: what is wrong with them, in the words of Go's TLS package, which Kubernetes passes on as a
warning about the Secret that holds them; empty if nothing is.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

_BLOCK: Final = re.compile(
    rb"^-----BEGIN ([^\n]*?)-----[ \t\r]*\n(.*?)^-----END \1-----[ \t\r]*$", re.MULTILINE | re.DOTALL
)
_HEADER: Final = re.compile(rb"^[^\n:]+:[^\n]*\n", re.MULTILINE)
_CERTIFICATE: Final = "CERTIFICATE"
_KEY: Final = "PRIVATE KEY"


def pair_problem(certificate: bytes, key: bytes) -> str:
    skipped: list[str] = []
    certificates = _of_type(certificate, skipped, lambda kind: kind == _CERTIFICATE)
    if certificates is None:
        what = "tls: failed to find {} in certificate input"
        if not skipped:
            return what.format("any PEM data")
        if len(skipped) == 1 and skipped[0].endswith(_KEY):
            switched = ", but did find a private key; PEM inputs may have been switched"
            return what.format("certificate PEM data") + switched
        return what.format('"CERTIFICATE" PEM block') + _after(skipped)
    skipped.clear()
    found = _of_type(key, skipped, lambda kind: kind == _KEY or kind.endswith(f" {_KEY}"))
    if found is None:
        if not skipped:
            return "tls: failed to find any PEM data in key input"
        if skipped == [_CERTIFICATE]:
            return "tls: found a certificate rather than a key in the PEM for the private key"
        return 'tls: failed to find PEM block with type ending in "PRIVATE KEY" in key input' + _after(skipped)
    return _mismatch(certificates, found)


def _after(skipped: list[str]) -> str:
    return f" after skipping PEM blocks of the following types: [{' '.join(skipped)}]"


def _of_type(text: bytes, skipped: list[str], wanted: Callable[[str], bool]) -> bytes | None:
    """The first block of a wanted type; into `skipped` go the types of those before it."""
    for kind, data in _blocks(text):
        if wanted(kind):
            return data
        skipped.append(kind)
    return None


def _blocks(text: bytes) -> Iterator[tuple[str, bytes]]:
    for kind, body in _BLOCK.findall(text.replace(b"\r\n", b"\n")):
        try:
            data = base64.b64decode(b"".join(_HEADER.sub(b"", body).split()), validate=True)
        except (binascii.Error, ValueError):
            continue  # what is no block is passed over
        yield kind.decode(errors="replace"), data


def _mismatch(certificate: bytes, key: bytes) -> str:
    # What reads certificates is not needed to start a server.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key
    from cryptography.x509 import load_der_x509_certificate

    try:
        public: Any = load_der_x509_certificate(certificate).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "x509: malformed certificate"
    try:
        # Whether the numbers of an RSA key are primes is not asked: it would cost a tenth of a second.
        own: Any = load_der_private_key(key, None, unsafe_skip_rsa_key_validation=True).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "tls: failed to parse private key"
    if type(public) is not type(own):
        return "tls: private key type does not match public key type"
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    same = public.public_bytes(*form) == own.public_bytes(*form)
    return "" if same else "tls: private key does not match public key"
