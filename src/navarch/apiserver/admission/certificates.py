"""Certificate admission: who may approve and sign for a signer, and what no request may ask for.

`CertificateApproval` and `CertificateSigning` ask the cluster's authorizer for the verbs `approve` and `sign` on the
signer's name (or on its domain's `*`); `CertificateSubjectRestriction` keeps everyone from asking for `system:masters`.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from navarch.apiserver.admission.base import Attributes, Plugin
from navarch.apiserver.auth.base import Decide, RequestAttributes

_GROUP: Final = "certificates.k8s.io"
_CLIENT_SIGNER: Final = "kubernetes.io/kube-apiserver-client"
_RESOURCES: Final = frozenset({(_GROUP, "certificatesigningrequests")})


class _SignerCheck(Plugin):
    """Only who has `verb` on the signer may do it; without an authorizer everybody may."""

    verb = ""
    resources = _RESOURCES
    operations = frozenset({"UPDATE"})

    def __init__(self, authorize: Decide | None) -> None:
        self._authorize = authorize

    async def _check(self, attributes: Attributes) -> None:
        if self._authorize is None or attributes.old is None:
            return
        signer = attributes.old["spec"].get("signerName") or ""
        for name in (signer, signer.partition("/")[0] + "/*"):
            asked = RequestAttributes(self.verb, _GROUP, "*", "signers", name=name)
            if (await self._authorize(attributes.user, asked)).allowed:
                return
        raise attributes.refused(f'user not permitted to {self.verb} requests with signerName "{signer}"')


class CertificateApproval(_SignerCheck):
    name = "CertificateApproval"
    verb = "approve"
    subresources = frozenset({"approval"})

    async def validate(self, attributes: Attributes) -> None:
        await self._check(attributes)


class CertificateSigning(_SignerCheck):
    name = "CertificateSigning"
    verb = "sign"
    subresources = frozenset({"status"})

    async def validate(self, attributes: Attributes) -> None:
        if attributes.obj is None or attributes.old is None:
            return
        new, old = attributes.obj.get("status") or {}, attributes.old.get("status") or {}
        if new.get("certificate") == old.get("certificate") and _failed(new) == _failed(old):
            return
        await self._check(attributes)


def _failed(status: dict[str, object]) -> bool:
    conditions = status.get("conditions")
    return isinstance(conditions, list) and any(condition.get("type") == "Failed" for condition in conditions)


class CertificateSubjectRestriction(Plugin):
    name = "CertificateSubjectRestriction"
    resources = _RESOURCES
    operations = frozenset({"CREATE"})

    async def validate(self, attributes: Attributes) -> None:
        spec = (attributes.obj or {}).get("spec") or {}
        if spec.get("signerName") != _CLIENT_SIGNER:
            return
        # Imported here: requests are rare, and the library is the slowest part of a start-up.
        from cryptography import x509
        from cryptography.x509.oid import NameOID

        try:
            request = x509.load_pem_x509_csr(base64.b64decode(spec.get("request") or ""))
        except (ValueError, binascii.Error) as error:
            raise attributes.refused(f"failed to parse CSR: {error}") from None
        groups = [each.value for each in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
        if "system:masters" in groups:
            raise attributes.refused(f"use of {_CLIENT_SIGNER} signer with system:masters group is not allowed")
