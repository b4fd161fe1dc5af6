"""Kubernetes' URL, IP and CIDR libraries, with Go's words for what cannot be read."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from string import hexdigits
from typing import ClassVar, Final
from urllib.parse import parse_qs, quote, unquote

from navarch.api.cel.declarations import declared
from navarch.api.cel.errors import CelError
from navarch.api.cel.values import Opaque
from navarch.api.go_text import quoted
from navarch.numbers import is_digits


class Ip(Opaque):
    __slots__ = ("address",)
    type_name: ClassVar[str] = "net.IP"

    def __init__(self, address: IPv4Address | IPv6Address) -> None:
        self.address = address

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ip) and self.address == other.address

    def __hash__(self) -> int:
        return hash(self.address)


class Cidr(Opaque):
    """An address and the length of its prefix; bits below the mask stay as they were written."""

    __slots__ = ("address", "bits")
    type_name: ClassVar[str] = "net.CIDR"

    def __init__(self, address: IPv4Address | IPv6Address, bits: int) -> None:
        self.address = address
        self.bits = bits

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cidr) and (self.address, self.bits) == (other.address, other.bits)

    def __hash__(self) -> int:
        return hash((self.address, self.bits))

    def __len__(self) -> int:
        return (self.bits + 7) // 8

    def network(self) -> IPv4Network | IPv6Network:
        return ip_network((self.address, self.bits), strict=False)


def _parse_address(text: str) -> IPv4Address | IPv6Address:
    """As Go's netip.ParseAddr.  Raises ValueError with its words."""
    start = f"ParseAddr({quoted(text)}): "
    kind = next((char for char in text if char in ".:%"), "")
    if kind == "%":
        raise ValueError(start + "missing IPv6 address")
    if not kind:
        raise ValueError(start + "unable to parse IP")
    if kind == ".":
        _check_v4(text, start)
    try:
        return ip_address(text)
    except ValueError as error:
        raise ValueError(start + _v6_problem(text)) from error


def _check_v4(text: str, start: str) -> None:
    value, digits, fields = 0, 0, 0
    for at, char in enumerate(text):
        if is_digits(char):
            if digits == 1 and value == 0:
                raise ValueError(start + "IPv4 field has octet with leading zero")
            value, digits = value * 10 + int(char), digits + 1
            if value > 255:
                raise ValueError(start + "IPv4 field has value >255")
        elif char == ".":
            if at == 0 or at == len(text) - 1 or text[at - 1] == ".":
                raise ValueError(f"{start}IPv4 field must have at least one digit (at {quoted(text[at:])})")
            if fields == 3:
                raise ValueError(start + "IPv4 address too long")
            value, digits, fields = 0, 0, fields + 1
        else:
            raise ValueError(f"{start}unexpected character (at {quoted(text[at:])})")
    if fields < 3:
        raise ValueError(start + "IPv4 address too short")


_GROUPS: Final = 8


def _v6_problem(text: str) -> str:
    """What is the first thing wrong, from left to right, with what is no address of version 6."""
    rest, percent, zone = text.partition("%")
    if percent and not zone:
        return "zone must be a non-empty string"
    ellipsis = rest.startswith("::")
    rest = rest[2:] if ellipsis else rest
    groups = 0
    while groups < _GROUPS and rest:
        digits = len(rest) - len(rest.lstrip(hexdigits))
        after = rest[digits:]
        problem = _group_problem(digits, after, groups, ellipsis=ellipsis)
        if problem:
            return f"{problem} (at {quoted(after if problem in _OF_WHAT_FOLLOWS else rest)})"
        if after[:1] == ".":
            _check_v4(rest, f"ParseAddr({quoted(text)}): ")
            groups, rest = groups + 2, ""
            break
        groups, rest = groups + 1, after[1:]
        if rest[:1] == ":":
            if ellipsis:
                return f"multiple :: in address (at {quoted(rest)})"
            ellipsis, rest = True, rest[1:]
    if rest:
        return f"trailing garbage after address (at {quoted(rest)})"
    return "the :: must expand to at least one field of zeros" if ellipsis else "address string too short"


_NO_COLON: Final = "unexpected character, want colon"
_ENDS: Final = "colon must be followed by more characters"
_OF_WHAT_FOLLOWS: Final = (_NO_COLON, _ENDS)


def _group_problem(digits: int, after: str, groups: int, *, ellipsis: bool) -> str:
    if digits > 4:
        return "each group must have 4 or less digits"
    if not digits:
        return "each colon-separated field must have at least one digit"
    if after[:1] == ".":
        if not ellipsis and groups != _GROUPS - 2:
            return "embedded IPv4 address must replace the final 2 fields of the address"
        return "too many hex fields to fit an embedded IPv4 at the end of the address" if groups > _GROUPS - 2 else ""
    if after and after[0] != ":":
        return _NO_COLON
    return _ENDS if after == ":" else ""


def _ip(text: str) -> Ip:
    try:
        address = _parse_address(text)
    except ValueError as error:
        raise CelError(f"IP Address {quoted(text)} parse error during conversion from string: {error}") from None
    if isinstance(address, IPv6Address):
        if address.scope_id:
            raise CelError(f"IP address {quoted(text)} with zone value is not allowed")
        if address.ipv4_mapped is not None:
            raise CelError(f"IPv4-mapped IPv6 address {quoted(text)} is not allowed")
    return Ip(address)


def _is_ip(text: str) -> bool:
    try:
        _ip(text)
    except CelError:
        return False
    return True


def _global_unicast(ip: Ip) -> bool:
    at = ip.address
    limited = at == IPv4Address("255.255.255.255")
    return not (at.is_unspecified or at.is_loopback or at.is_multicast or at.is_link_local or limited)


def _parse_cidr(text: str) -> Cidr:
    """Raises ValueError with Go's words."""
    start = f"netip.ParsePrefix({quoted(text)}): "
    address_text, slash, bits_text = text.rpartition("/")
    if not slash:
        raise ValueError(start + "no '/'")
    address = _parse_address(address_text)
    if isinstance(address, IPv6Address) and address.scope_id:
        raise ValueError(start + "IPv6 zones cannot be present in a prefix")
    if not is_digits(bits_text) or (len(bits_text) > 1 and bits_text[0] == "0"):
        raise ValueError(f"{start}bad bits after slash: {quoted(bits_text)}")
    if len(bits_text) > 3 or int(bits_text) > address.max_prefixlen:
        raise ValueError(start + "prefix length out of range")
    return Cidr(address, int(bits_text))


_NETWORK: Final = "network address parse error during conversion from string: "


def _cidr(text: str) -> Cidr:
    try:
        cidr = _parse_cidr(text)
    except ValueError as error:
        raise CelError(f"{_NETWORK}{_NETWORK}{error}") from None
    if isinstance(cidr.address, IPv6Address) and cidr.address.ipv4_mapped is not None:
        raise CelError(f"{_NETWORK}IPv4-mapped IPv6 address {quoted(text)} is not allowed")
    return cidr


def _is_cidr(text: str) -> bool:
    try:
        _cidr(text)
    except CelError:
        return False
    return True


def _contains_ip(cidr: Cidr, ip: Ip) -> bool:
    return ip.address.version == cidr.address.version and ip.address in cidr.network()


def _contains_cidr(cidr: Cidr, other: Cidr) -> bool:
    if cidr.address.version != other.address.version or cidr.bits > other.bits:
        return False
    return Cidr(other.address, cidr.bits).network() == cidr.network()


def _masked(cidr: Cidr) -> Cidr:
    return Cidr(cidr.network().network_address, cidr.bits)


class Url(Opaque):
    __slots__ = ("fragment", "host", "path", "query", "scheme", "text")
    type_name: ClassVar[str] = "kubernetes.URL"

    def __init__(self, text: str) -> None:
        """Raises ValueError with Go's words."""
        self.text = text
        _check_request_uri(text)
        rest, _, self.fragment = text.partition("#")
        scheme, colon, after = rest.partition(":")
        self.scheme = scheme.lower() if colon and _SCHEME.fullmatch(scheme) else ""
        rest = after if self.scheme else rest
        rest, _, self.query = rest.partition("?")
        self.host = ""
        if rest.startswith("//"):
            authority, slash, path = rest[2:].partition("/")
            self.host, rest = unquote(authority.rpartition("@")[2]), slash + path
        self.path = rest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Url) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def hostname(self) -> str:
        if self.host.startswith("["):
            return self.host[1:].partition("]")[0]
        return self.host.partition(":")[0]

    def port(self) -> str:
        after = self.host.rpartition("]")[2] if self.host.startswith("[") else self.host
        return after.partition(":")[2]

    def escaped_path(self) -> str:
        # What is escaped already stays so.
        return quote(self.path, safe="/%:@&=+$,;~!*'()[]")


_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")


def _check_request_uri(text: str) -> None:
    start = f"parse {quoted(text)}: "
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        raise ValueError(start + "net/url: invalid control character in URL")
    if not text:
        raise ValueError(start + "empty url")
    scheme, colon, after = text.partition(":")
    if text.startswith(":"):
        raise ValueError(start + "missing protocol scheme")
    has_scheme = bool(colon) and _SCHEME.fullmatch(scheme) is not None
    rest = after if has_scheme else text
    if not rest.startswith("/"):
        if has_scheme and rest:
            return
        if text == "*":
            return
        raise ValueError(start + "invalid URI for request")
    rest = rest.partition("?")[0]
    if rest.startswith("//") and (has_scheme or not rest.startswith("///")):
        authority, slash, path = rest[2:].partition("/")
        _check_host(authority.rpartition("@")[2], start)
        rest = slash + path
    bad = re.search(r"%(?![0-9a-fA-F]{2})(.{0,2})", rest)
    if bad is not None:
        raise ValueError(f"{start}invalid URL escape {quoted(bad.group())}")


def _check_host(host: str, start: str) -> None:
    if host.startswith("["):
        closed = host.rfind("]")
        if closed < 0:
            raise ValueError(start + "missing ']' in host")
        port = host[closed + 1 :]
    else:
        at = host.rfind(":")
        port = host[at:] if at >= 0 else ""
    if port and not re.fullmatch(r":[0-9]*", port):
        raise ValueError(f"{start}invalid port {quoted(port)} after host")
    bad = re.search(r'[ "<>^`{|}\\]', host)
    if bad is not None:
        raise ValueError(f"{start}invalid character {quoted(bad.group())} in host name")


def _url(text: str) -> Url:
    try:
        return Url(text)
    except ValueError as error:
        raise CelError(f"URL parse error during conversion from string: {error}") from None


def uri_problem(text: str) -> str | None:
    try:
        _check_request_uri(text)
    except ValueError as error:
        return str(error)
    return None


FUNCTIONS: Final = declared(
    """
    url string_to_url (string) kubernetes.URL
    isURL is_url_string (string) bool
    getScheme url_get_scheme kubernetes.URL.() string
    getHost url_get_host kubernetes.URL.() string
    getHostname url_get_hostname kubernetes.URL.() string
    getPort url_get_port kubernetes.URL.() string
    getEscapedPath url_get_escaped_path kubernetes.URL.() string
    getQuery url_get_query kubernetes.URL.() map<string, list<string>>
    ip string_to_ip (string) net.IP
    ip cidr_ip net.CIDR.() net.IP
    isIP is_ip (string) bool
    ip.isCanonical ip_is_canonical (string) bool
    family ip_family net.IP.() int
    isUnspecified ip_is_unspecified net.IP.() bool
    isLoopback ip_is_loopback net.IP.() bool
    isLinkLocalMulticast ip_is_link_local_multicast net.IP.() bool
    isLinkLocalUnicast ip_is_link_local_unicast net.IP.() bool
    isGlobalUnicast ip_is_global_unicast net.IP.() bool
    string ip_to_string (net.IP) string
    cidr string_to_cidr (string) net.CIDR
    isCIDR is_cidr (string) bool
    containsIP cidr_contains_ip_string net.CIDR.(string) bool
    containsIP cidr_contains_ip_ip net.CIDR.(net.IP) bool
    containsCIDR cidr_contains_cidr_string net.CIDR.(string) bool
    containsCIDR cidr_contains_cidr net.CIDR.(net.CIDR) bool
    prefixLength cidr_prefix_length net.CIDR.() int
    masked cidr_masked net.CIDR.() net.CIDR
    string cidr_to_string (net.CIDR) string
    """,
    {
        "string_to_url": _url,
        "is_url_string": lambda text: uri_problem(text) is None,
        "url_get_scheme": lambda url: url.scheme,
        "url_get_host": lambda url: url.host,
        "url_get_hostname": Url.hostname,
        "url_get_port": Url.port,
        "url_get_escaped_path": Url.escaped_path,
        "url_get_query": lambda url: parse_qs(url.query, keep_blank_values=True),
        "string_to_ip": _ip,
        "cidr_ip": lambda cidr: Ip(cidr.address),
        "is_ip": _is_ip,
        "ip_is_canonical": lambda text: str(_ip(text).address) == text,
        "ip_family": lambda ip: ip.address.version,
        "ip_is_unspecified": lambda ip: ip.address.is_unspecified,
        "ip_is_loopback": lambda ip: ip.address.is_loopback,
        "ip_is_link_local_multicast": lambda ip: (
            ip.address in (ip_network("224.0.0.0/24") if ip.address.version == 4 else ip_network("ff02::/16"))
        ),
        "ip_is_link_local_unicast": lambda ip: ip.address.is_link_local,
        "ip_is_global_unicast": _global_unicast,
        "ip_to_string": lambda ip: str(ip.address),
        "string_to_cidr": _cidr,
        "is_cidr": _is_cidr,
        "cidr_contains_ip_string": lambda cidr, text: _contains_ip(cidr, _ip(text)),
        "cidr_contains_ip_ip": _contains_ip,
        "cidr_contains_cidr_string": lambda cidr, text: _contains_cidr(cidr, _cidr(text)),
        "cidr_contains_cidr": _contains_cidr,
        "cidr_prefix_length": lambda cidr: cidr.bits,
        "cidr_masked": _masked,
        "cidr_to_string": lambda cidr: f"{cidr.address}/{cidr.bits}",
    },
)
