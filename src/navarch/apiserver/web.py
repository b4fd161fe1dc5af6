"""What is used of aiohttp's server. Importing `aiohttp.web` for it brings its command line, its router and its files
too, a tenth of the time in which this server starts.
"""

from __future__ import annotations

from aiohttp.web_protocol import RequestHandler as RequestHandler
from aiohttp.web_request import BaseRequest as BaseRequest
from aiohttp.web_response import Response as Response
from aiohttp.web_response import StreamResponse as StreamResponse
from aiohttp.web_server import Server as Server
