"""What is used of aiohttp's server. Importing `aiohttp.web` for it brings its command line, its router and its files
too, a tenth of the time in which this server starts.
"""

from __future__ import annotations

import sys

import yarl
from aiohttp.web_protocol import RequestHandler as RequestHandler
from aiohttp.web_request import BaseRequest as BaseRequest
from aiohttp.web_response import Response as Response
from aiohttp.web_response import StreamResponse as StreamResponse
from aiohttp.web_server import Server as Server

# yarl remembers the last URLs of all connections, a hundred and more in each of its ways to make one. It bounds how
# many there are, not how long they are.
_REMEMBERING = {
    each
    for name, module in list(sys.modules.items())
    if name.partition(".")[0] == yarl.__name__
    for each in vars(module).values()
    if callable(each) and hasattr(each, "cache_clear")
}


def forget_urls() -> None:
    """What was remembered of the URLs that clients sent, a megabyte each if they liked."""
    for each in _REMEMBERING:
        each.cache_clear()
