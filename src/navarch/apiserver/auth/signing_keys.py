"""The keys that service-account tokens are signed and checked with, RSA or elliptic, as Kubernetes takes them.

In: PEM files. One holds the private key that signs; any number hold those that are believed, each as public key,
private key or certificate, several to a file.  Out: `Signer` and `Verifier`s, with the algorithm and the key id that
tokens state, and the form in which `/openid/v1/jwks` publishes them.
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from navarch.api.meta import Obj
from navarch.records import frozen

_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)
# By the size of the curve's field.
_CURVES: Final = {256: ("ES256", "P-256"), 384: ("ES384", "P-384"), 521: ("ES512", "P-521")}


@frozen
class Verifier:
    key: Any
    algorithm: str
    key_id: str
    jwk: Obj


@frozen
class Signer:
    key: Any
    verifier: Verifier


def load_signer(path: Path) -> Signer:
    """Raises ValueError for a file without a private key of a kind that tokens are signed with, OSError."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    for kind, block in _blocks(path):
        if kind.endswith("PRIVATE KEY"):
            key = load_pem_private_key(block, None)
            return Signer(key, _verifier(key.public_key(), path))
    raise ValueError(f"{path} holds no private key")


def load_verifiers(paths: Iterable[Path]) -> list[Verifier]:
    """Raises ValueError for a file without any key, OSError."""
    found = []
    for path in paths:
        keys = [_verifier(_public_key(kind, block), path) for kind, block in _blocks(path)]
        if not keys:
            raise ValueError(f"{path} holds no public key")
        found += keys
    return found


def _blocks(path: Path) -> Iterator[tuple[str, bytes]]:
    for match in _BLOCK.finditer(path.read_bytes()):
        kind = match[1].decode()
        if kind.endswith(("PRIVATE KEY", "PUBLIC KEY")) or kind == "CERTIFICATE":
            yield kind, match[0] + b"\n"


def _public_key(kind: str, block: bytes) -> Any:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

    if kind == "CERTIFICATE":
        return x509.load_pem_x509_certificate(block).public_key()
    return load_pem_private_key(block, None).public_key() if "PRIVATE" in kind else load_pem_public_key(block)


def _verifier(key: Any, path: Path) -> Verifier:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    key_id = _b64(hashlib.sha256(der).digest())
    jwk: Obj = {"use": "sig"}
    if isinstance(key, rsa.RSAPublicKey):
        algorithm, public = "RS256", key.public_numbers()
        jwk |= {"kty": "RSA", "kid": key_id, "alg": algorithm, "n": _number(public.n), "e": _number(public.e)}
    elif isinstance(key, ec.EllipticCurvePublicKey) and key.key_size in _CURVES:
        algorithm, curve = _CURVES[key.key_size]
        point, size = key.public_numbers(), (key.key_size + 7) // 8
        jwk |= {"kty": "EC", "kid": key_id, "crv": curve, "alg": algorithm}
        jwk |= {"x": _number(point.x, size), "y": _number(point.y, size)}
    else:
        raise ValueError(f"{path} holds a key that tokens cannot be signed with")
    return Verifier(key, algorithm, key_id, jwk)


def _number(value: int, size: int = 0) -> str:
    return _b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def _b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
