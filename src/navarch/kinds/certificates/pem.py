"""PEM texts as Go reads them, and the certificates and keys in them.

In: a text or DER bytes. Out: blocks, certificates, what is wrong. Text around blocks is skipped. The library that
parses is imported where it is used: such objects are rare, and it is among the slowest to load.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

CERTIFICATE: Final = "CERTIFICATE"
_BLOCK: Final = re.compile(r"-----BEGIN ([^\n-]+)-----[ \t]*\r?\n(.*?)-----END \1-----", re.DOTALL)


class Block(NamedTuple):
    kind: str
    has_headers: bool
    der: bytes


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a text; what only looks like one is skipped."""
    for match in _BLOCK.finditer(text):
        head, separator, body = match[2].replace("\r", "").partition("\n\n")
        has_headers = bool(separator) and ":" in head
        try:
            der = base64.b64decode("".join((body if has_headers else match[2]).split()), validate=True)
        except (binascii.Error, ValueError):
            continue
        yield Block(match[1], has_headers, der)


def certificate_of(der: bytes) -> x509.Certificate | None:
    from cryptography import x509

    try:
        return x509.load_der_x509_certificate(der)
    except ValueError:
        return None


def is_authority(certificate: x509.Certificate) -> bool:
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def encoded(key: PublicKeyTypes) -> bytes:
    """A public key's one form, by which keys are the same."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
