"""Who is asked about names that are not the cluster's, as the ConfigMap `kube-system/coredns` has it: a Corefile.

In: the Corefile's text. Out: for each zone the servers that are asked about its names: of its server block's `forward`
directives, in CoreDNS' syntax. Everything else that a Corefile may say (health, cache, kubernetes …) is this server's
own business and is passed over. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from navarch.numbers import integer_or, is_digits

Address = tuple[str, int]

CORE_FILE: Final = "Corefile"
HOST: Final[tuple[Address, ...]] = ()
"""Stands for the servers of the machine's resolv.conf."""

_PORT: Final = 53
_LONGEST: Final = 256 << 10
_MOST_SERVERS: Final = 15
_TOKEN: Final = re.compile(r'"((?:[^"\\]|\\.)*)"|([^\s"]\S*)', re.ASCII)


@dataclass(frozen=True, slots=True)
class Forwarding:
    """`zones`: servers by zone, lower case and without dots at the ends, "" being all names; `unread` says what of it
    could not be followed."""

    zones: Mapping[str, tuple[Address, ...]] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    def servers(self, name: str) -> tuple[Address, ...]:
        """Those of the longest zone that a name is in."""
        if not self.zones:
            return HOST
        name = name.lower().rstrip(".")
        while name:
            found = self.zones.get(name)
            if found is not None:
                return found
            name = name.partition(".")[2]
        return self.zones.get("", HOST)


def parse(text: str) -> Forwarding:
    """Raises ValueError for what is no Corefile."""
    if len(text) > _LONGEST:
        raise ValueError(f"a Corefile of more than {_LONGEST} characters")
    zones: dict[str, tuple[Address, ...]] = {}
    unread: list[str] = []
    for names, directives in _blocks(_lines(text)):
        for words in directives:
            if words[0] != "forward":
                continue
            if len(words) < 3:
                raise ValueError("forward: a zone and servers are missing")
            servers, lost = _servers(words[2:])
            unread += lost
            for name in names:
                zone = _common(name, _zone(words[1]))
                if zone is not None and servers is not None:
                    zones.setdefault(zone, servers)
    return Forwarding(zones, tuple(unread))


def _lines(text: str) -> Iterator[list[str]]:
    """The words of each line that has some; a brace stands alone."""
    for line in text.splitlines():
        words = []
        for quoted, bare in _TOKEN.findall(line):
            if bare.startswith("#"):
                break
            words.append(bare or quoted)
        if words:
            yield words


def _blocks(lines: Iterator[list[str]]) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Server blocks: their zones, and the directives in them without what is in braces below these."""
    names: list[str] = []
    directives: list[list[str]] = []
    depth = 0
    for words in lines:
        opens, closes = words[-1] == "{", words[0] == "}"
        if closes:
            depth -= 1
            if depth < 0:
                raise ValueError("a brace is closed that was not opened")
            if depth == 0:
                yield names, directives
                names, directives = [], []
            continue
        said = words[:-1] if opens else words
        if depth == 0:
            names += [_zone(name) for word in said for name in word.split(",") if name]
        elif depth == 1 and said:
            directives.append(said)
        if opens:
            if depth == 0 and not names:
                raise ValueError("a server block without a zone")
            depth += 1
    if depth:
        raise ValueError("a brace is not closed")


def _zone(word: str) -> str:
    """`dns://Example.org:53` as `example.org`; "" for all names."""
    name = word.lower().rpartition("://")[2]
    head, colon, port = name.rpartition(":")
    return (head if colon and (is_digits(port) or not port) else name).strip(".")


def _common(zone: str, other: str) -> str | None:
    """The one of two zones that is in the other."""
    shorter, longer = sorted((zone, other), key=len)
    return longer if not shorter or longer == shorter or longer.endswith(f".{shorter}") else None


def _servers(words: list[str]) -> tuple[tuple[Address, ...] | None, list[str]]:
    """The servers that a directive names, and the words that name none; no servers where all are of that kind."""
    found: list[Address] = []
    lost: list[str] = []
    for word in words[:_MOST_SERVERS]:
        if word.startswith("/"):
            # Whichever file it is: it is that of a pod of CoreDNS, which has its machine's servers.
            return HOST, lost
        scheme, _, rest = word.rpartition("://")
        address = _address(rest) if scheme in ("", "dns") else None
        if address is None:
            lost.append(word[:64])
        else:
            found.append(address)
    return (tuple(found) if found else None), lost


def _address(text: str) -> Address | None:
    host, port = text, str(_PORT)
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":") or str(_PORT)
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        ip_address(host)
    except ValueError:
        return None
    number = integer_or(port, 0)
    return (host, number) if 0 < number < 65536 else None
