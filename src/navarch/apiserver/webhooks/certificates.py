"""Why a server's certificate is not believed, in the words of Go's library, which say what its owner has to mend.

In: the error of a handshake that has failed, and where it was.  Out: a line. What OpenSSL says does not tell for whom
the certificate is; it is fetched once more, without believing it, only to say so.
"""

from __future__ import annotations

import asyncio
import ssl
from datetime import datetime
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

_UNKNOWN: Final = "x509: certificate signed by unknown authority"
_EXPIRED: Final = 10
_NOT_YET: Final = 9
_OTHER_NAME: Final = (62, 64)
_FETCH_S: Final = 2.0


async def who_is_there(error: ssl.SSLCertVerificationError, name: str, address: str, port: int, now: datetime) -> str:
    """What is wrong with the certificate of the server that was taken for `name`."""
    if error.verify_code not in (_EXPIRED, _NOT_YET, *_OTHER_NAME):
        return _UNKNOWN
    certificate = await _fetched(address, port)
    if certificate is None:
        return f"x509: {error.verify_message}"
    if error.verify_code in _OTHER_NAME:
        return _wrong_name(certificate, name)
    if now > certificate.not_valid_after_utc:
        how = f"{_time(now)} is after {_time(certificate.not_valid_after_utc)}"
    else:
        how = f"{_time(now)} is before {_time(certificate.not_valid_before_utc)}"
    return f"x509: certificate has expired or is not yet valid: current time {how}"


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _wrong_name(certificate: x509.Certificate, name: str) -> str:
    try:
        found = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except x509.ExtensionNotFound:
        return "x509: certificate relies on legacy Common Name field, use SANs instead"
    assert isinstance(found, x509.SubjectAlternativeName)
    try:
        ip_address(name)
    except ValueError:
        names = found.get_values_for_type(x509.DNSName)
        if not names:
            return f"x509: certificate is not valid for any names, but wanted to match {name}"
    else:
        names = [str(each) for each in found.get_values_for_type(x509.IPAddress)]
        if not names:
            return f"x509: cannot validate certificate for {name} because it doesn't contain any IP SANs"
    return f"x509: certificate is valid for {', '.join(names)}, not {name}"


async def _fetched(address: str, port: int) -> x509.Certificate | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(_FETCH_S):
            _, writer = await asyncio.open_connection(address, port, ssl=context)
    except (OSError, TimeoutError):
        return None
    try:
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        data = tls.getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(data) if data else None
    except ValueError:
        return None
    finally:
        writer.transport.abort()
