"""Warnings about addresses that are not written as they should be, though they are taken."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address

from navarch.api.addresses import cidr_problems, ip_problems, read_cidr, read_ip


def ip_warnings(text: str, path: str) -> Iterator[str]:
    address = read_ip(text)
    if address is None:
        return
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if ip_problems(text, strict=True):
        yield (
            f'{path}: non-standard IP address "{text}" will be considered invalid in a future Kubernetes release: '
            f'use "{mapped or address}"'
        )
    elif str(address) != text:
        yield f'{path}: IPv6 address "{text}" should be in RFC 5952 canonical format ("{address}")'


def cidr_warnings(text: str, path: str) -> Iterator[str]:
    found = read_cidr(text)
    if found is None:
        return
    address, network = found
    problems = cidr_problems(text, strict=True)
    if address != network.network_address:
        yield (
            f'{path}: CIDR value "{text}" is ambiguous in this context '
            f'(should be "{network}" or "{address}/{network.max_prefixlen}"?)'
        )
    elif problems:
        yield (
            f'{path}: non-standard CIDR value "{text}" will be considered invalid in a future Kubernetes release: '
            f'use "{network}"'
        )
    elif str(network) != text:
        yield f'{path}: IPv6 CIDR value "{text}" should be in RFC 5952 canonical format ("{network}")'
