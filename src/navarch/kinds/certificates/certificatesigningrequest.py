"""CertificateSigningRequest, with its approval and status subresources.

Who asks is the request's user, whatever the object says; from then on the spec never changes. Approvers write only
conditions through `/approval`; signers write certificate and the Failed condition through `/status`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

from navarch.api.errors import FieldError, duplicate, forbidden_field, invalid_value, not_supported, required
from navarch.api.meta import Obj, get_path
from navarch.api.time import human_duration
from navarch.kinds.base import AGE, NAME, Column, Requester, Strategy, Subresource
from navarch.kinds.signer_names import validate_signer_name
from navarch.kinds.strategies import strategy

_MIN_DURATION_S: Final = 600
# What version 1beta1 said where nobody did.
_LEGACY_SIGNER: Final = "kubernetes.io/legacy-unknown"
_DECISIONS: Final = ("Approved", "Denied")
_USAGES: Final = frozenset(
    (
        *("signing", "digital signature", "content commitment", "key encipherment", "key agreement"),
        *("data encipherment", "cert sign", "crl sign", "encipher only", "decipher only", "any", "server auth"),
        *("client auth", "code signing", "email protection", "s/mime", "ipsec end system", "ipsec tunnel"),
        *("ipsec user", "timestamping", "ocsp signing", "microsoft sgc", "netscape sgc"),
    )
)


def _conditions(obj: Obj) -> dict[str, Obj]:
    return {str(c.get("type")): c for c in (obj.get("status") or {}).get("conditions") or ()}


def _condition_cell(obj: Obj, now: datetime) -> str:
    found = _conditions(obj)
    text = "Denied" if "Denied" in found else "Approved" if "Approved" in found else "Pending"
    if "Failed" in found:
        text += ",Failed"
    if (obj.get("status") or {}).get("certificate"):
        text += ",Issued"
    return text


def _duration_cell(obj: Obj, now: datetime) -> str:
    seconds = get_path(obj, "spec.expirationSeconds")
    return "<none>" if seconds is None else human_duration(timedelta(seconds=seconds))


class Approval(Subresource):
    """`/approval`: an approver writes conditions and nothing else."""

    def prepare(self, strategy: Strategy, obj: Obj, old: Obj) -> None:
        stated = (obj.get("status") or {}).get("conditions") or []
        Strategy.prepare_status(strategy, obj, old)
        obj["status"] = dict(old.get("status") or {})
        _set_conditions(obj["status"], stated)

    def validate(self, strategy: Strategy, obj: Obj, old: Obj) -> Iterator[FieldError]:
        yield from _validate_conditions(obj)
        yield from _validate_kept(obj, old)


@strategy("certificates.k8s.io", "CertificateSigningRequest")
class CertificateSigningRequestStrategy(Strategy):
    name_rule = "path"
    selectable = ("spec.signerName",)
    resets_on_write = ("spec",)
    stamps = True
    subresources: ClassVar[Mapping[str, Subresource]] = {"approval": Approval()}
    columns = (
        NAME,
        AGE,
        Column("SignerName", ".spec.signerName"),
        Column("Requestor", ".spec.username"),
        Column("RequestedDuration", _duration_cell),
        Column("Condition", _condition_cell),
    )

    def defaults(self, obj: Obj) -> None:
        obj.setdefault("spec", {})

    def stamp(self, obj: Obj, now: str, old: Obj | None) -> None:
        before = _conditions(old or {})
        for condition in (obj.get("status") or {}).get("conditions") or ():
            if not condition.get("lastUpdateTime"):
                condition["lastUpdateTime"] = now
            if not condition.get("lastTransitionTime"):
                was = before.get(str(condition.get("type"))) or {}
                since = was.get("lastTransitionTime") if was.get("status") == condition.get("status") else None
                condition["lastTransitionTime"] = since or now

    def prepare_create(self, obj: Obj) -> None:
        obj["status"] = {}
        for name in ("username", "uid", "groups", "extra"):
            # Only the server says who asks.
            obj["spec"].pop(name, None)

    def name_requester(self, obj: Obj, requester: Callable[[], Requester]) -> None:
        """Signers and approvers go by it."""
        spec, who = obj["spec"], requester()
        spec["username"] = who.name
        if who.uid:
            spec["uid"] = who.uid
        if who.groups:
            spec["groups"] = list(who.groups)
        if who.extra:
            spec["extra"] = {name: list(values) for name, values in who.extra.items()}

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        super().prepare_update(obj, old)
        obj["spec"] = old["spec"]

    def prepare_status(self, obj: Obj, old: Obj) -> None:
        super().prepare_status(obj, old)
        # A signer decides nothing: approvals stay what they were, at the place where they are now.
        status = obj.setdefault("status", {})
        decided = {kind: condition for kind, condition in _conditions(old).items() if kind in _DECISIONS}
        _set_conditions(status, [decided.get(str(c.get("type")), c) for c in status.get("conditions") or ()])

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj["spec"]
        yield from _validate_request(spec.get("request") or "")
        if not (usages := spec.get("usages") or []):
            yield required("spec.usages")
        for index, usage in enumerate(usages):
            if usage not in _USAGES:
                yield not_supported(f"spec.usages[{index}]", usage, sorted(_USAGES))
        for index, usage in enumerate(usages):
            if usage in usages[:index]:
                yield duplicate(f"spec.usages[{index}]", usage)
        signer = spec.get("signerName") or ""
        if signer == _LEGACY_SIGNER and (old is None or old["spec"].get("signerName") != signer):
            yield invalid_value("spec.signerName", signer, "the legacy signerName is not allowed via this API version")
        else:
            yield from validate_signer_name(signer, "spec.signerName")
        duration = spec.get("expirationSeconds")
        if duration is not None and duration < _MIN_DURATION_S:
            yield invalid_value(
                "spec.expirationSeconds", duration, "may not specify a duration less than 600 seconds (10 minutes)"
            )
        yield from _validate_conditions(obj)

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        yield from _validate_conditions(obj)
        yield from _validate_kept(obj, old)
        before, after = _conditions(old), _conditions(obj)
        for name in _DECISIONS:
            if name in after and name not in before:
                yield forbidden_field("status.conditions", f'updates may not add a condition of type "{name}"')
        yield from _validate_issued(obj, old)


def _validate_issued(obj: Obj, old: Obj) -> Iterator[FieldError]:
    was, is_now = get_path(old, "status.certificate"), get_path(obj, "status.certificate")
    if was and was != is_now:
        yield forbidden_field("status.certificate", "updates may not modify existing certificate content")
    elif is_now and was != is_now:
        yield from _validate_certificate(is_now)


def _validate_kept(obj: Obj, old: Obj) -> Iterator[FieldError]:
    """What was decided, or failed, stays so; other conditions come and go."""
    before, after = _conditions(old), _conditions(obj)
    for name in (*_DECISIONS, "Failed"):
        if name in before and name not in after:
            yield forbidden_field("status.conditions", f'updates may not remove a condition of type "{name}"')


def _set_conditions(status: Obj, conditions: list[Obj]) -> None:
    if conditions:
        status["conditions"] = conditions
    else:
        status.pop("conditions", None)


def _validate_conditions(obj: Obj) -> Iterator[FieldError]:
    found: list[Any] = []
    for index, condition in enumerate((obj.get("status") or {}).get("conditions") or ()):
        path, kind, value = f"status.conditions[{index}]", condition.get("type"), condition.get("status", "")
        if not kind:
            yield required(f"{path}.type")
        if not value:
            yield required(f"{path}.status")
        elif kind in (*_DECISIONS, "Failed") and value != "True":
            yield not_supported(f"{path}.status", value, ["True"])
        elif value not in ("True", "False", "Unknown"):
            yield not_supported(f"{path}.status", value, ["False", "True", "Unknown"])
        if kind in _DECISIONS and any(other in _DECISIONS and other != kind for other in found):
            yield invalid_value(f"{path}.type", kind, "Approved and Denied conditions are mutually exclusive")
        if kind in found:
            yield duplicate(f"{path}.type", kind)
        found.append(kind)


def _validate_request(text: str) -> Iterator[FieldError]:
    """The PEM block, which must be a certificate request signed by its own key."""
    try:
        pem = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pem = b""
    if b"-----BEGIN" not in pem:
        yield invalid_value("spec.request", text or None, "PEM block type must be CERTIFICATE REQUEST")
        return
    # Imported here: requests are rare, and the library is among the slowest to load.
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        request = x509.load_pem_x509_csr(pem)
        if not request.is_signature_valid:
            yield invalid_value("spec.request", text, "x509: invalid signature")
    except (ValueError, InvalidSignature):
        yield invalid_value("spec.request", text or None, "PEM block type must be CERTIFICATE REQUEST")


def _validate_certificate(text: str) -> Iterator[FieldError]:
    """What was issued: one certificate or more, as PEM blocks."""
    from cryptography import x509

    path, shown = "status.certificate", "<certificate data>"
    try:
        pem = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pem = b""
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        yield invalid_value(path, shown, "must contain at least one CERTIFICATE PEM block")
        return
    try:
        x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        yield invalid_value(path, shown, str(error))
