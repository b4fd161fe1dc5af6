"""ClusterTrustBundle: the certificates of authorities that workloads are to trust, by signer or for anybody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from navarch.api.errors import FieldError, invalid_value, too_long
from navarch.api.meta import Obj
from navarch.kinds import columns
from navarch.kinds.base import NAME, Column, Strategy
from navarch.kinds.certificates import pem
from navarch.kinds.signer_names import validate_signer_name
from navarch.kinds.strategies import strategy

_LONGEST: Final = 1024 * 1024
_PATH: Final = "spec.trustBundle"
_SHOWN: Final = "<value omitted>"


@strategy("certificates.k8s.io", "ClusterTrustBundle")
class ClusterTrustBundleStrategy(Strategy):
    selectable = ("spec.signerName",)
    columns = (NAME, Column("SignerName", columns.text("spec.signerName")))

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        signer, name = spec.get("signerName") or "", obj["metadata"].get("name") or ""
        if signer:
            prefix = signer.replace("/", ":") + ":"
            if not name.startswith(prefix):
                detail = f'ClusterTrustBundle for signerName {signer} must be named with prefix "{prefix}"'
                yield invalid_value("metadata.name", name, detail)
            yield from validate_signer_name(signer, "spec.signerName")
        elif ":" in name:
            detail = 'ClusterTrustBundle without signer name must not have ":" in its name'
            yield invalid_value("metadata.name", name, detail)
        before = None if old is None else old.get("spec") or {}
        bundle = spec.get("trustBundle") or ""
        if before is None or bundle != (before.get("trustBundle") or ""):
            yield from _bundle_problems(bundle)
        if before is not None and signer != (before.get("signerName") or ""):
            yield invalid_value("spec.signerName", signer, "field is immutable")


def _bundle_problems(bundle: str) -> Iterator[FieldError]:
    if len(bundle) > _LONGEST:
        yield too_long(_PATH, _LONGEST)
        return
    seen: dict[bytes, list[int]] = {}
    is_wrong = False
    for index, block in enumerate(pem.blocks(bundle)):
        problem = _problem_of(block)
        if problem:
            is_wrong = True
            yield invalid_value(_PATH, _SHOWN, f"entry {index} {problem}")
        else:
            seen.setdefault(block.der, []).append(index)
    if is_wrong:
        return
    if not seen:
        yield invalid_value(_PATH, _SHOWN, "at least one trust anchor must be provided")
    for indices in seen.values():
        if len(indices) > 1:
            shown = " ".join(map(str, indices))
            yield invalid_value(_PATH, _SHOWN, f"duplicate trust anchor (indices [{shown}])")


def _problem_of(block: pem.Block) -> str:
    if block.kind != pem.CERTIFICATE:
        return f"has bad block type: {block.kind}"
    if block.has_headers:
        return "has PEM block headers"
    certificate = pem.certificate_of(block.der)
    if certificate is None:
        return "does not parse as X.509"
    return "" if pem.is_authority(certificate) else "does not have the CA bit set"
