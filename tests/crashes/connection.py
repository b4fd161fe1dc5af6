"""HTTP/1.1 by hand, so that the test knows of each request whether a server can have seen it: nothing is repeated
behind its back, and what is lost with a connection is told apart from what was never sent."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any


class NotSent(Exception):
    """Nobody can have seen the request."""


class Lost(Exception):
    """The connection ended before the answer did."""


class Connection:
    """Requests one after the other over one connection, which is made anew when it has ended."""

    def __init__(self, port: int, tls: ssl.SSLContext) -> None:
        self.port = port
        self._tls = tls
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def ask(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json", timeout_s: float = 20
    ) -> tuple[int, Any]:
        """Status and object.  Raises NotSent, Lost."""
        try:
            async with asyncio.timeout(timeout_s):
                reader = await self._send(method, path, body, content_type)
                status, headers = await self._head(reader)
                data = b"".join([chunk async for chunk in _body(reader, headers)])
        except (TimeoutError, OSError, EOFError, ValueError) as error:
            self.close()
            raise Lost(f"{method} {path}: {error!r}") from error
        except BaseException:
            self.close()
            raise
        if headers.get("connection") == "close":
            self.close()
        return status, json.loads(data) if data else None

    async def stream(self, path: str, silent_s: float = 20) -> AsyncIterator[dict[str, Any]]:
        """The events of a watch until it ends.  Raises NotSent, Lost (also after so long a silence)."""
        try:
            async with asyncio.timeout(silent_s):
                reader = await self._send("GET", path, None, "application/json")
                status, headers = await self._head(reader)
            if status != 200:
                raise Lost(f"{path}: {status}")
            gathered = b""
            chunks = _body(reader, headers)
            while True:
                async with asyncio.timeout(silent_s):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                *lines, gathered = (gathered + chunk).split(b"\n")
                for line in lines:
                    yield json.loads(line)
        except (TimeoutError, OSError, EOFError) as error:
            raise Lost(f"{path}: {error!r}") from error
        finally:
            self.close()

    async def _send(self, method: str, path: str, body: Any, content_type: str) -> asyncio.StreamReader:
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n"
        head += f"Content-Length: {len(data)}\r\nAccept: application/json\r\nUser-Agent: crashes\r\n\r\n"
        if self._streams is None or self._streams[0].at_eof() or self._streams[1].is_closing():
            self.close()
            try:
                self._streams = await asyncio.open_connection("127.0.0.1", self.port, ssl=self._tls)
            except (OSError, EOFError) as error:
                raise NotSent(str(error)) from error
        reader, writer = self._streams
        writer.write(head.encode() + data)
        await writer.drain()
        return reader

    async def _head(self, reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        return int(lines[0].split(" ")[1]), headers


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    if headers.get("transfer-encoding") != "chunked":
        yield await reader.readexactly(int(headers.get("content-length", "0")))
        return
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)
