"""How an answer over HTTP/1.1 begins: its status line and headers, in bytes.

In: a response and the length of its body, if that is known.  Out: the head; a value that somebody else chose makes no
header of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus

from aiohttp.helpers import rfc822_formatted_time

from navarch.apiserver.headers import Completed, Headers
from navarch.client.transport import Response


@lru_cache(maxsize=256)
def _first_lines(status: int, content_type: str) -> str:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\nContent-Type: {content_type}\r\n"


def head_of(response: Response, length: int | None) -> bytes:
    """Without a length the body comes in chunks."""
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    headers = response.headers
    # What may be kept says so itself, and the usual headers do not.
    kept = "" if type(headers) is dict and "Cache-Control" in headers else "Cache-Control: no-cache, private\r\n"
    head = (
        f"{_first_lines(response.status, response.content_type)}{framing}\r\n{kept}Date: {rfc822_formatted_time()}\r\n"
    )
    if response.status == 401:
        head += 'WWW-Authenticate: Basic realm="kubernetes-master"\r\n'
    if type(headers) is Completed or type(headers) is Headers:
        head += headers.lines
    elif headers:
        head += _lines_of(headers)
    return head.encode("utf-8", "surrogateescape") + b"\r\n"


def _lines_of(headers: Mapping[str, str]) -> str:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        # Somebody's text has lines of its own, which would be headers of their own.
        clean = {name: value.replace("\r", " ").replace("\n", " ") for name, value in headers.items()}
        lines = "".join([f"{name}: {value}\r\n" for name, value in clean.items()])
    return lines
