"""Which heads of requests are plain, and what they ask for.

In: a request's head, in bytes, as it came over HTTP/1.1.  Out: the request without its body, and how long that is; None
for everything out of the ordinary, which aiohttp's parser reads.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl

from navarch.api.errors import bad_request
from navarch.api.memo import memo
from navarch.apiserver.decoding import MAX_BODY
from navarch.apiserver.impersonation import BETWEEN, NAMING, PREFIX
from navarch.apiserver.routes import parse
from navarch.client.transport import Request
from navarch.numbers import is_digits

# Header lines that are worth remembering: of others strangers could have us keep a hundred kilobytes each.
_REMEMBERED_MAX, _REMEMBERED_LINES = 4096, 48
# As many parameters as Go reads of a query.
_PARAMETERS_MAX = 10_000
_FIRST_LINE = re.compile(
    rb"(GET|POST|PUT|PATCH|DELETE) (/[A-Za-z0-9._~/:@-]*)(?:\?([A-Za-z0-9._~/:@%+&=,!*()-]*))? HTTP/1\.1"
)
# What is no method of HTTP is one to us, as to Kubernetes: the parser would not let it come so far as to be refused.
_OTHER_LINE = re.compile(
    rb"(?!(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) )"
    rb"([A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}) (/[!\"$->@-~]*)(?:\?([!\"$-~]*))? HTTP/1\.1"
)
_HEADER = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+:[\t\x20-\x7e]*")
_STREAMED = frozenset({"proxy", "log", "exec", "attach", "portforward"})
_NOT_PLAIN = frozenset({"transfer-encoding", "expect", "upgrade", "content-encoding"})
_REPEATED = frozenset({"content-length", "host", "authorization", "content-type"})


class _Headers(NamedTuple):
    values: dict[str, str]
    length: int
    impersonates: bool
    closes: bool


def _values_of(block: bytes) -> dict[str, str] | None:
    """The header lines; None where they are none, or say twice what is said once."""
    values: dict[str, str] = {}
    for line in block.split(b"\r\n") if block else ():
        if _HEADER.fullmatch(line) is None:
            return None
        name, _, value = line.decode("ascii").partition(":")
        name, value = name.lower(), value.strip(" \t")
        if name in values:
            if name in _REPEATED:
                return None
            value = together(name, values[name], value)
        values[name] = value
    return values if "host" in values else None


def _read_headers(block: bytes) -> _Headers | None:
    """The same, which clients repeat; None where they ask for more than a plain request does."""
    values = _values_of(block)
    if values is None or not _NOT_PLAIN.isdisjoint(values):
        return None
    kept = values.get("connection", "keep-alive").lower()
    if kept not in ("keep-alive", "close"):
        return None
    length = values.get("content-length", "0")
    if not is_digits(length) or len(length) >= 10:
        return None
    impersonates = any(name.startswith(PREFIX) for name in values)
    return _Headers(values, int(length), impersonates, kept == "close")


_remembered_headers = lru_cache(maxsize=1024)(_read_headers)


def together(name: str, *values: str) -> str:
    """One value for a header that was sent more than once. Who is impersonated, or named by a front proxy, may have
    commas in his groups' names: those are kept apart by what no header contains."""
    return (BETWEEN if name.startswith(NAMING) else ", ").join(values)


@memo(1024, 1024)
def query_of(text: str) -> tuple[tuple[str, str], ...]:
    """Raises StatusError 400."""
    if text.count("&") >= _PARAMETERS_MAX:
        raise bad_request("number of query parameters exceeded limit")
    return tuple(parse_qsl(text, keep_blank_values=True))


def plain_request(head: bytes) -> tuple[Request, int] | None:
    """The request that a head stands for and the length of its body; None if it is not a plain one."""
    line, _, block = head.partition(b"\r\n")
    matched = _FIRST_LINE.fullmatch(line)
    usual = matched is not None
    matched = matched or _OTHER_LINE.fullmatch(line)
    if matched is None:
        return None
    method, path, query = matched.groups()
    if usual and (b"/." in path or b"//" in path):
        return None
    short = len(block) <= _REMEMBERED_MAX and block.count(b"\n") < _REMEMBERED_LINES
    headers = (_remembered_headers if short else _read_headers)(block)
    if headers is None or headers.length > MAX_BODY or (usual and headers.closes):
        return None
    pairs = query_of(query.decode()) if query else ()
    last, impersonates = headers.closes, headers.impersonates
    request = Request(method.decode(), path.decode(), pairs, headers.values, b"", "", last, impersonates)
    if not usual:
        return request, headers.length
    # The methods of the first pattern all stand for verbs.
    route = parse(request.path)
    if not route.plural or route.subresource in _STREAMED:
        return None
    return request, headers.length


def refusable_request(head: bytes) -> Request | None:
    """A request by what is no method, whose body comes in a way that is not plain: it is answered without its body, and
    is the connection's last."""
    line, _, block = head.partition(b"\r\n")
    matched = _OTHER_LINE.fullmatch(line)
    values = _values_of(block) if matched is not None else None
    if matched is None or values is None or "content-length" in values:
        return None
    method, path, query = matched.groups()
    pairs = query_of(query.decode()) if query else ()
    impersonates = any(name.startswith(PREFIX) for name in values)
    return Request(method.decode(), path.decode(), pairs, values, b"", "", True, impersonates)
