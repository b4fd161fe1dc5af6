"""PodCertificateRequest: a kubelet's request for a certificate that a pod's volume asks for, and its signer's answer.

In: a request, or a status with a condition Issued, Denied or Failed. Out: what is wrong. The request proves that who
asks has the key; what is issued must be for that key, in the times that the status tells, no longer than asked for.
Not checked: that a certificate begins now, since a kind has no clock.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from navarch.api.errors import FieldError, invalid_value, not_supported, required, too_long
from navarch.api.meta import Obj, Resource
from navarch.api.time import parse_time
from navarch.api.validation import dns_subdomain_problems, validate_annotations, validate_immutable
from navarch.kinds.base import AGE, NAME, SETTABLE_METADATA, Column, Strategy
from navarch.kinds.certificates import pem
from navarch.kinds.conditions import validate_conditions
from navarch.kinds.signer_names import validate_signer_name
from navarch.kinds.strategies import strategy

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

_NAMES: Final = (("podName", "podUID"), ("serviceAccountName", "serviceAccountUID"), ("nodeName", "nodeUID"))
_LONGEST_UID: Final = 128
_LONGEST_KEY: Final = 10 * 1024
_LONGEST_CHAIN: Final = 100 * 1024
_SHORTEST_S: Final = 3600
_LONGEST_S: Final = 91 * 24 * 3600
_LONGEST_OF_KUBERNETES_S: Final = 24 * 3600
_ENDS: Final = ("Issued", "Denied", "Failed")
_BIT_LENGTHS: Final = (3072, 4096)
_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
_CHAIN: Final = "status.certificateChain"
_KEY: Final = "spec.pkixPublicKey"
_PROOF: Final = "spec.proofOfPossession"
_STUB: Final = "spec.stubPKCS10Request"


def _end_of(obj: Obj) -> str:
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition.get("type") in _ENDS and condition.get("status") == "True":
            return str(condition["type"])
    return ""


def _state_cell(obj: Obj, now: datetime) -> str:
    return _end_of(obj) or "Pending"


@strategy("certificates.k8s.io", "PodCertificateRequest")
class PodCertificateRequestStrategy(Strategy):
    status_keeps = SETTABLE_METADATA
    selectable = ("spec.signerName", "spec.podName", "spec.nodeName")
    columns = (
        NAME,
        Column("PodName", ".spec.podName"),
        Column("ServiceAccountName", ".spec.serviceAccountName"),
        Column("NodeName", ".spec.nodeName"),
        Column("SignerName", ".spec.signerName"),
        Column("State", _state_cell),
        AGE,
    )

    def selector_fields(self, resource: Resource) -> Mapping[str, str]:
        return {name: name for name in ("metadata.name", *self.selectable)}

    def defaults(self, obj: Obj) -> None:
        spec = obj.get("spec")
        if spec:
            spec.setdefault("maxExpirationSeconds", _LONGEST_OF_KUBERNETES_S)

    def prepare_create(self, obj: Obj) -> None:
        obj["status"] = {}

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        if old is not None:
            yield from validate_immutable(spec, old.get("spec"), "spec")
            return
        yield from validate_signer_name(spec.get("signerName") or "", "spec.signerName")
        yield from validate_annotations(spec.get("unverifiedUserAnnotations") or {}, "spec.unverifiedUserAnnotations")
        for name, uid in _NAMES:
            for problem in dns_subdomain_problems(spec.get(name) or ""):
                yield invalid_value(f"spec.{name}", spec.get(name) or "", problem)
            if not spec.get(uid):
                yield invalid_value(f"spec.{uid}", "", "must not be empty")
            elif len(spec[uid]) > _LONGEST_UID:
                yield too_long(f"spec.{uid}", _LONGEST_UID)
        yield from _lifetime_problems(spec)
        yield from _key_problems(spec)

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        status, before = obj.get("status") or {}, old.get("status") or {}
        wrong = list(_condition_problems(status.get("conditions") or []))
        if wrong:
            yield from wrong
        elif _end_of(old):
            if status != before:
                yield FieldError(
                    "FieldValueInvalid",
                    "status",
                    "immutable after PodCertificateRequest is issued, denied, or failed",
                )
        elif _end_of(obj) in ("Denied", "Failed"):
            if any(value for name, value in status.items() if name != "conditions"):
                detail = "non-condition status fields must be empty when denying or failing the PodCertificateRequest"
                yield FieldError("FieldValueInvalid", "status", detail)
        elif _end_of(obj) == "Issued":
            yield from _issued_problems(status, old.get("spec") or {})
        elif status != before:
            detail = 'status is immutable unless transitioning to "Issued", "Denied", or "Failed"'
            yield FieldError("FieldValueInvalid", "status", detail)


def _lifetime_problems(spec: Obj) -> Iterator[FieldError]:
    asked_s = spec.get("maxExpirationSeconds")
    if asked_s is None:
        yield required("spec.maxExpirationSeconds", "must be set")
        return
    domain = (spec.get("signerName") or "").partition("/")[0]
    is_kubernetes = domain == "kubernetes.io" or domain.endswith(".kubernetes.io")
    longest_s = _LONGEST_OF_KUBERNETES_S if is_kubernetes else _LONGEST_S
    if not _SHORTEST_S <= asked_s <= longest_s:
        yield invalid_value("spec.maxExpirationSeconds", asked_s, f"must be in the range [{_SHORTEST_S}, {longest_s}]")


def _key_problems(spec: Obj) -> Iterator[FieldError]:
    """The key comes with a proof, or in a request that is signed with it."""
    texts = [spec.get(path.removeprefix("spec.")) or "" for path in (_STUB, _KEY, _PROOF)]
    stub, key, proof = map(_decoded, texts)
    for path, value in ((_STUB, stub), (_KEY, key), (_PROOF, proof)):
        if len(value) > _LONGEST_KEY:
            yield too_long(path, _LONGEST_KEY)
            return
    if stub and not key and not proof:
        yield from _stub_problems(stub, texts[0])
    elif key and not stub:
        yield from _proof_problems(key, proof, spec.get("podUID") or "", texts[1])
    else:
        detail = "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set"
        yield FieldError("FieldValueInvalid", "spec", detail)


def _stub_problems(stub: bytes, text: str) -> Iterator[FieldError]:
    from cryptography import x509

    try:
        request = x509.load_der_x509_csr(stub)
        key = request.public_key()
    except ValueError:
        yield invalid_value(_STUB, text, "must be a valid PKCS#10 CSR")
        return
    wrong = list(_kind_problems(key, _STUB, text))
    if wrong:
        yield from wrong
    elif not request.is_signature_valid:
        yield FieldError("FieldValueInvalid", _STUB, "could not verify the signature of the request")


def _proof_problems(data: bytes, proof: bytes, uid: str, text: str) -> Iterator[FieldError]:
    key = _key_of(data)
    if key is None:
        yield invalid_value(_KEY, text, "must be a valid PKIX-serialized public key")
        return
    wrong = list(_kind_problems(key, _KEY, text))
    if wrong:
        yield from wrong
    elif not _is_proven(key, proof, uid.encode()):
        yield FieldError("FieldValueInvalid", _PROOF, "could not verify proof-of-possession signature")


def _kind_problems(key: PublicKeyTypes, path: str, text: str) -> Iterator[FieldError]:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in _CURVES:
            yield invalid_value(path, f"curve {key.curve.name}", "elliptic public keys must use curve P256 or P384")
    elif isinstance(key, rsa.RSAPublicKey):
        if key.key_size not in _BIT_LENGTHS:
            shown = f"{key.key_size}-bit modulus"
            yield invalid_value(path, shown, "RSA keys must have modulus size 3072 or 4096")
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        yield invalid_value(path, text, "unknown public key type; supported types are Ed25519, ECDSA, and RSA")


def _is_proven(key: PublicKeyTypes, proof: bytes, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

    digest = hashes.SHA256()
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(proof, signed)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(proof, signed, ec.ECDSA(digest))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(proof, signed, padding.PSS(padding.MGF1(digest), padding.PSS.AUTO), digest)
    except InvalidSignature:
        return False
    return True


def _key_of(data: bytes) -> PublicKeyTypes | None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        return load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        return None


def _condition_problems(conditions: list[Obj]) -> Iterator[FieldError]:
    ends = 0
    for index, condition in enumerate(conditions):
        at, kind = f"status.conditions[{index}]", condition.get("type") or ""
        if kind not in _ENDS:
            yield not_supported(f"{at}.type", kind, sorted(_ENDS))
            continue
        ends += 1
        if ends > 1:
            detail = 'There may be at most one condition with type "Issued", "Denied", or "Failed"'
            yield invalid_value(f"{at}.type", kind, detail)
        if condition.get("status") != "True":
            yield not_supported(f"{at}.status", condition.get("status") or "", ["True"])
    yield from validate_conditions(conditions, "status.conditions")


def _issued_problems(status: Obj, spec: Obj) -> Iterator[FieldError]:
    chain = status.get("certificateChain") or ""
    if len(chain) > _LONGEST_CHAIN:
        yield too_long(_CHAIN, _LONGEST_CHAIN)
        return
    certificates, problem = _certificates(chain)
    if problem:
        yield invalid_value(_CHAIN, chain, problem)
        return
    leaf = certificates[0]
    if not _is_for(leaf, spec):
        yield invalid_value(_CHAIN, chain, "leaf certificate was not issued to the requested public key")
        return
    missing = [name for name in ("notBefore", "notAfter", "beginRefreshAt") if not status.get(name)]
    for name in missing:
        when = "in the range [notbefore+10min, notafter-10min]" if name == "beginRefreshAt" else (
            "consistent with the issued certificate"
        )  # fmt: skip
        yield required(f"status.{name}", f"must be present and {when}")
    if not missing:
        yield from _time_problems(status, leaf, int(spec.get("maxExpirationSeconds") or 0))


def _certificates(chain: str) -> tuple[list[x509.Certificate], str]:
    """The certificates of a chain, or what is wrong with it."""
    found: list[x509.Certificate] = []
    for block in pem.blocks(chain):
        if block.kind != pem.CERTIFICATE:
            return [], "issued certificate chain must consist entirely of CERTIFICATE PEM blocks"
        certificate = pem.certificate_of(block.der)
        if certificate is None:
            which = "intermediate" if found else "leaf"
            return [], f"{which} certificate does not parse as valid X.509"
        found.append(certificate)
    return found, "" if found else "issued certificate chain must contain at least one certificate"


def _is_for(leaf: x509.Certificate, spec: Obj) -> bool:
    from cryptography import x509

    stub = _decoded(spec.get("stubPKCS10Request") or "")
    key = x509.load_der_x509_csr(stub).public_key() if stub else _key_of(_decoded(spec.get("pkixPublicKey") or ""))
    return key is not None and pem.encoded(leaf.public_key()) == pem.encoded(key)


def _time_problems(status: Obj, leaf: x509.Certificate, longest_s: int) -> Iterator[FieldError]:
    begins, ends, refresh = (parse_time(status[name]) for name in ("notBefore", "notAfter", "beginRefreshAt"))
    issued_s = (leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds()
    margin = timedelta(minutes=10)
    checks: tuple[tuple[bool, str, Any, str], ...] = (
        (
            begins != leaf.not_valid_before_utc,
            "status.notBefore",
            status["notBefore"],
            "must be set to the NotBefore time encoded in the leaf certificate",
        ),
        (
            ends != leaf.not_valid_after_utc,
            "status.notAfter",
            status["notAfter"],
            "must be set to the NotAfter time encoded in the leaf certificate",
        ),
        (issued_s < _SHORTEST_S, _CHAIN, int(issued_s * 1e9), "leaf certificate lifetime must be >= 1 hour"),
        (
            issued_s > longest_s,
            _CHAIN,
            int(issued_s * 1e9),
            f"leaf certificate lifetime must be <= spec.maxExpirationSeconds ({longest_s})",
        ),
        (
            refresh < begins + margin,
            "status.beginRefreshAt",
            status["beginRefreshAt"],
            "must be at least 10 minutes after status.notBefore",
        ),
        (
            refresh > ends - margin,
            "status.beginRefreshAt",
            status["beginRefreshAt"],
            "must be at least 10 minutes before status.notAfter",
        ),
    )
    for is_wrong, path, value, detail in checks:
        if is_wrong:
            # The first thing that is wrong says it: what comes after it is measured by it.
            yield invalid_value(path, value, detail)
            return


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
