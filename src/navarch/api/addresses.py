"""IP addresses and ranges in text: reading them as Kubernetes does, and what is wrong with one.

Most fields of old take what Go's elder parser took: octets with leading zeros, read as decimal numbers. Newer ones, and
names of IPAddress objects, are strict.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from navarch.api.memo import memo

NOT_AN_IP: Final = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
NOT_A_CIDR: Final = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
_LEADING_ZEROS: Final = re.compile(r"(?<![0-9a-fA-F:.])0+(?=[0-9])|(?<=\.)0+(?=[0-9])")
_PREFIX: Final = re.compile(r"[0-9]+").fullmatch
# What is right in every way, as nearly all are: pods come each with an address that nobody has asked about before.
_OCTET: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_PLAIN_IPV4: Final = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}", re.ASCII).fullmatch

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def _without_leading_zeros(text: str) -> str:
    return _LEADING_ZEROS.sub("", text) if "." in text and ":" not in text else text


@memo(4096)
def read_ip(text: str) -> Address | None:
    """An address, octets with leading zeros included; None where it is none."""
    if "%" in text:
        return None
    try:
        return ip_address(_without_leading_zeros(text))
    except ValueError:
        return None


def read_cidr(text: str) -> tuple[Address, Network] | None:
    """A range as it is written, and the network that it lies in."""
    host, slash, length = text.partition("/")
    address = read_ip(host)
    if address is None or not slash or not _PREFIX(length):
        return None
    try:
        return address, ip_network(f"{address}/{int(length)}", strict=False)
    except ValueError:
        return None


def _mapped(address: Address) -> bool:
    return isinstance(address, IPv6Address) and address.ipv4_mapped is not None


def ip_problems(text: str, *, strict: bool = False) -> tuple[str, ...]:
    if _PLAIN_IPV4(text):
        return ()
    address = read_ip(text)
    if address is None:
        return (NOT_AN_IP,)
    if strict and _without_leading_zeros(text) != text:
        return ("must not have leading 0s",)
    if strict and _mapped(address):
        return ("must not be an IPv4-mapped IPv6 address",)
    return ()


def cidr_problems(text: str, *, strict: bool = False) -> tuple[str, ...]:
    found = read_cidr(text)
    if found is None:
        return (NOT_A_CIDR,)
    if not strict:
        return ()
    address, network = found
    host, _, length = text.partition("/")
    if _without_leading_zeros(host) != host or str(int(length)) != length:
        return ("must not have leading 0s in IP or prefix length",)
    if _mapped(address):
        return ("must not have an IPv4-mapped IPv6 address",)
    if address != network.network_address:
        return ("must not have bits set beyond the prefix length",)
    return ()


def is_one_of_each_family(texts: list[str]) -> bool:
    """Whether there are addresses (or ranges) of both families."""
    read = [read_ip(text.partition("/")[0]) for text in texts]
    return {address.version for address in read if address is not None} == {4, 6}


def special_ip_problems(text: str) -> tuple[str, ...]:
    """What keeps an address from being where a service is: that it is nobody's, the machine's own, or its link's."""
    address = read_ip(text)
    if address is None:
        return ("must be a valid IP address",)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    found = []
    if address.is_unspecified:
        found.append(f"may not be unspecified ({text})")
    if address.is_loopback:
        found.append("may not be in the loopback range (127.0.0.0/8, ::1/128)")
    if address.is_link_local:
        found.append("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    if address.is_multicast and _link_local_multicast(address):
        found.append("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
    return tuple(found)


def _link_local_multicast(address: Address) -> bool:
    number = int(address)
    return number >> 8 == 0xE00000 if address.version == 4 else (number >> 112) & 0xFF0F == 0xFF02
