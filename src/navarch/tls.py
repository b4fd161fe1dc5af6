"""TLS for servers: a client's certificate that is no good is answered with 401, not with a closed connection.

`ssl` ends the handshake where a certificate does not verify, before there is anybody to tell. So two things are moved:

- Whether it is valid today is asked of the certificate at each request, as Kubernetes does, not in the handshake.
- One that nobody here has signed is let through the handshake by a context of its own, in which that certificate alone
  is trusted, and which marks the connection: its certificate counts as `UNTRUSTED` and names nobody. To learn of it in
  time, the strict context looks at the messages of the handshake (`_msg_callback`, which CPython has for debugging; a
  test pins it). Where a Python has it not, such a client's connection is closed; so is that of a client that shows a
  forgery together with the certificate of the CA that it says has signed it.

The same look tells apart whose CA has signed it: that of clients, or that of front proxies, who speak for others
(`ProxyCertificate`). Each has a context that trusts its CA alone.

Invariant: a certificate names somebody only where OpenSSL itself has verified it against that CA on this very
connection: what is looked at in the messages only chooses what OpenSSL is to trust. After the handshake nothing is
looked at any more, so that a request costs what it did.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from cryptography import x509

# X509_V_FLAG_NO_CHECK_TIME, which `ssl` has no name for.
_NO_CHECK_TIME: Final = 0x200000
_TLS_1_3: Final = 0x0304
_HANDSHAKE: Final = 22
_CERTIFICATE: Final = 11
_FINISHED: Final = 20
_CHAIN_MAX: Final = 5


# HTTP/2 where clients offer it.
PROTOCOLS: Final = ("h2", "http/1.1")
HTTP1_ONLY: Final = ("http/1.1",)

UNTRUSTED: Final = b"untrusted"
"""Stands for a client certificate that nobody here has signed."""


class ProxyCertificate(bytes):
    """In DER form, one that the CA of front proxies has signed; `of_client` where the CA of clients has, too."""

    of_client: bool = False


class _StrangersContext(ssl.SSLContext):
    """Marks the connections of those whose certificate nobody here has signed."""


class _KnownContext(ssl.SSLContext):
    """Trusts its authorities and nobody else. Who is verified by it is one of `clients`, of front `proxies` or both;
    `proxy_authorities` are those that front proxies are to be verified by."""

    authorities: tuple[x509.Certificate, ...] = ()
    proxy_authorities: tuple[x509.Certificate, ...] = ()
    protocols: Sequence[str]
    clients: bool = True
    proxies: bool = False


_Context = TypeVar("_Context", bound=_KnownContext)


class _StrictContext(_KnownContext):
    """Looks at the messages of handshakes; `quiet` is the same without. `others` are for front proxies: those who are
    nothing else, and those who are clients as well."""

    quiet: _KnownContext
    others: tuple[_KnownContext, _KnownContext] | tuple[()] = ()


def tls_context(
    certificate: Path,
    key: Path,
    client_ca: Path | None,
    protocols: Sequence[str] = PROTOCOLS,
    *,
    front_proxy_ca: Path | None = None,
) -> ssl.SSLContext:
    """A server context that takes client certificates of `client_ca` and `front_proxy_ca`, bundles of one or more
    certificates in PEM form, where they are given, and does without them.  Raises OSError, ValueError."""
    if client_ca is None and front_proxy_ca is None:
        alone = _filled(_KnownContext, certificate, key, protocols, ())
        alone.verify_mode = ssl.CERT_NONE
        return alone
    # 11 MB, which who serves in process can do without.
    from cryptography import x509

    authorities, proxies = (
        tuple(x509.load_pem_x509_certificates(bundle.read_bytes())) if bundle is not None else ()
        for bundle in (client_ca, front_proxy_ca)
    )
    context = _filled(_StrictContext, certificate, key, protocols, authorities)
    context.quiet = _filled(_KnownContext, certificate, key, protocols, authorities)
    if proxies:
        context.proxy_authorities = context.quiet.proxy_authorities = proxies
        speakers = [_filled(_KnownContext, certificate, key, protocols, proxies) for _ in range(2)]
        for clients, each in zip((False, True), speakers, strict=True):
            each.clients, each.proxies = clients, True
        context.others = (speakers[0], speakers[1])
    _look_at_messages(context)
    return context


def show(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Show new connections the pair that is in the files now, on either side. Connections that there are go on. Raises
    OSError and changes nothing where they are no pair."""
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    context.load_cert_chain(certificate, key)


def _filled(
    kind: type[_Context],
    certificate: Path,
    key: Path,
    protocols: Sequence[str],
    authorities: tuple[x509.Certificate, ...],
) -> _Context:
    context = kind(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.protocols = protocols
    context.authorities = authorities
    _settle(context, protocols)
    if authorities:
        context.load_verify_locations(cadata=b"".join(map(_der, authorities)))
    return context


def _der(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.DER)


def _settle(context: ssl.SSLContext, protocols: Sequence[str]) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    # The strangers' certificates are not their own issuers'.
    context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME | ssl.VERIFY_X509_PARTIAL_CHAIN)
    # A resumed session has the certificate of the one before, whoever verified it then.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    context.set_alpn_protocols(list(protocols))


def peer_certificate(transport: asyncio.BaseTransport | None) -> bytes | None:
    """The verified client certificate in DER form; None where there is none, UNTRUSTED for one that is no good."""
    tls = transport.get_extra_info("ssl_object") if transport is not None else None
    if tls is None:
        return None
    found: bytes | None = tls.getpeercert(binary_form=True)
    if found is None:
        return None
    context = tls.context
    if not isinstance(context, _KnownContext):
        return UNTRUSTED
    client, proxy = context.clients, context.proxies
    if tls.session_reused:
        # It was not shown on this connection, and may have been a stranger's on that one.
        client, proxy = (_is_ours(each, (found,)) for each in (context.authorities, context.proxy_authorities))
        if not (client or proxy):
            return UNTRUSTED
    if proxy:
        found = ProxyCertificate(found)
        found.of_client = client
    return found


def _look_at_messages(context: _StrictContext) -> None:
    with contextlib.suppress(AttributeError):
        # Past `ssl.SSLContext`, which would make enumeration members of each of forty messages and records.
        plain: Any = ssl.SSLContext.__bases__[0]
        plain._msg_callback.__set__(context, _look)


def _look(tls: ssl.SSLObject, direction: str, version: int, content: int, kind: int, data: bytes) -> None:
    """Called for each message of a handshake; what it raised would end the connection."""
    if direction != "read" or content != _HANDSHAKE or kind not in (_CERTIFICATE, _FINISHED):
        return
    context = tls.context
    if not isinstance(context, _StrictContext):
        return
    if kind == _FINISHED:
        # Verified by now. From here on nobody looks.
        tls.context = context.quiet
        return
    with contextlib.suppress(ValueError, IndexError):
        chain = _chain(data, version)
        if not chain:
            return
        client = _is_ours(context.authorities, chain)
        if context.others and _is_ours(context.proxy_authorities, chain):
            tls.context = context.others[client]
        elif not client:
            tls.context = _strangers_context(chain[0], tuple(context.protocols))


def _chain(message: bytes, version: int) -> tuple[bytes, ...]:
    """The certificates of a Certificate message, the client's own first."""
    at = 4
    if version == _TLS_1_3:
        at += 1 + message[at]
    end = at + 3 + int.from_bytes(message[at : at + 3], "big")
    at += 3
    found: list[bytes] = []
    while at < min(end, len(message)) and len(found) < _CHAIN_MAX:
        length = int.from_bytes(message[at : at + 3], "big")
        found.append(bytes(message[at + 3 : at + 3 + length]))
        at += 3 + length
        if version == _TLS_1_3:
            at += 2 + int.from_bytes(message[at : at + 2], "big")
    return tuple(found)


@lru_cache(maxsize=256)
def _is_ours(authorities: tuple[x509.Certificate, ...], chain: tuple[bytes, ...]) -> bool:
    """Whether it is worth while to let OpenSSL verify it."""
    from cryptography import x509

    current = x509.load_der_x509_certificate(chain[0])
    for der in (*chain[1:], None):
        if any(_issued(authority, current) for authority in authorities):
            return True
        if der is None:
            return False
        following = x509.load_der_x509_certificate(der)
        if not _issued(following, current):
            return False
        current = following
    return False


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


@lru_cache(maxsize=64)
def _strangers_context(certificate: bytes, protocols: tuple[str, ...]) -> ssl.SSLContext:
    context = _StrangersContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_verify_locations(cadata=certificate)
    _settle(context, protocols)
    return context
