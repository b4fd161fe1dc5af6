"""exec, attach and port-forward: a client's WebSocket bridged to the runtime's streaming server.

Channels of the WebSocket (the first byte of each message) are streams of the runtime's SPDY connection: 0 standard
input, 1 output, 2 errors, 3 the outcome as a Status, 4 the terminal's size; 255 closes the channel that its second
byte names. Port-forwarding in today's kubectl carries SPDY itself inside the WebSocket: its bytes pass through as
they are.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import struct
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from aiohttp import WSCloseCode, WSMsgType, web

from navarch.client.upgrade import pump
from navarch.node.runtime.base import Streams
from navarch.node.server import spdy

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
EXEC_PROTOCOLS: Final = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
)
TUNNEL_PROTOCOLS: Final = ("SPDY/3.1+portforward.k8s.io", "v2.portforward.k8s.io")
FORWARD_PROTOCOLS: Final = (*TUNNEL_PROTOCOLS, "v4.channel.k8s.io", "v4.base64.channel.k8s.io")
SUCCESS: Final = b'{"metadata":{},"status":"Success"}'
# What a log is read in.
READER_PROTOCOLS: Final = ("binary.k8s.io", "base64.binary.k8s.io")
_REMOTE: Final = ("v4.channel.k8s.io",)
_PORT_FORWARD: Final = ("portforward.k8s.io",)
_HEARTBEAT_S: Final = 30.0
# What `isdigit` takes beside them is no channel.
_DIGITS: Final = "0123456789"


async def web_socket(request: web.Request, protocols: Sequence[str]) -> web.WebSocketResponse:
    """A WebSocket that keeps itself alive and takes messages of any size, in the first protocol of those that the
    client offers that is ours, or in none where it offers none.  Raises HTTPForbidden where none of them is ours."""
    offers = request.headers.getall("Sec-WebSocket-Protocol", [])
    offered = [name for offer in offers for name in map(str.strip, offer.split(",")) if name]
    if offered and not set(offered).intersection(protocols):
        raise web.HTTPForbidden(
            text=f"requested protocol(s) are not supported: {', '.join(offered)}; supports {', '.join(protocols)}"
        )
    socket = web.WebSocketResponse(
        protocols=protocols, heartbeat=_HEARTBEAT_S, max_msg_size=0, compress=False, autoping=True
    )
    await socket.prepare(request)
    return socket


class BadMessage(Exception):
    """A client's message that its protocol does not know."""


class _Channels:
    """Messages with a channel byte, plain or in base64."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._base64 = "base64" in (socket.ws_protocol or "")

    async def send(self, channel: int, data: bytes) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):
            if self._base64:
                await self._socket.send_str(str(channel) + base64.b64encode(data).decode())
            else:
                await self._socket.send_bytes(bytes((channel,)) + data)

    async def end(self, status: bytes) -> None:
        """Say how it ended: a Status where the protocol has it; else the words of a failure, and of success nothing."""
        if (self._socket.ws_protocol or "").startswith(("v4.", "v5.")):
            await self.send(ERROR, status)
        elif words := _words_of_failure(status):
            await self.send(ERROR, words)

    def parse(self, message: Any) -> tuple[int, bytes] | None:
        """Channel and data of a received message; None for one that is neither.  Raises BadMessage."""
        if message.type == WSMsgType.BINARY and message.data:
            return message.data[0], message.data[1:]
        if message.type == WSMsgType.TEXT and message.data:
            return _from_base64(message.data) if self._base64 else _from_text(message.data)
        return None

    async def refuse(self, why: BadMessage) -> None:
        """Close on a client that does not keep to the protocol."""
        with contextlib.suppress(ConnectionError, RuntimeError):
            await self._socket.close(code=WSCloseCode.INVALID_TEXT, message=str(why).encode())


def _from_text(text: str) -> tuple[int, bytes]:
    data = text.encode()
    return data[0], data[1:]


def _from_base64(text: str) -> tuple[int, bytes]:
    if text[0] not in _DIGITS:
        raise BadMessage("a message begins with its channel's digit")
    try:
        return int(text[0]), base64.b64decode(text[1:].replace("\r", "").replace("\n", ""), validate=True)
    except ValueError as error:
        raise BadMessage("what follows the channel's digit must be base64") from error


async def bridge_remote(socket: web.WebSocketResponse, url: str, streams: Streams) -> None:
    """Carry an exec or attach between the client's WebSocket and the runtime's streaming URL, to its end."""
    channels = _Channels(socket)
    # Tells the client that the connection stands, before the program says anything.
    await channels.send(STDOUT if streams.stdout else STDERR if streams.stderr else ERROR, b"")
    try:
        reader, writer = await spdy.upgrade(url, _REMOTE)
    except spdy.SPDYError as error:
        await channels.end(failure(str(error)))
        await socket.close()
        return
    connection = spdy.Connection(reader, writer)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(connection.run())
        try:
            outcome = await connection.open_stream({"streamType": "error"})
            inputs: dict[int, spdy.Stream] = {}
            if streams.stdin:
                inputs[STDIN] = await connection.open_stream({"streamType": "stdin"})
            outputs = []
            if streams.stdout:
                outputs.append((STDOUT, await connection.open_stream({"streamType": "stdout"})))
            if streams.stderr and not streams.tty:
                outputs.append((STDERR, await connection.open_stream({"streamType": "stderr"})))
            if streams.tty:
                inputs[RESIZE] = await connection.open_stream({"streamType": "resize"})
            receiving = tasks.create_task(_receive(socket, channels, inputs, running))
            await asyncio.gather(*(_copy_out(stream, channels, channel) for channel, stream in outputs))
            await channels.end(await outcome.read_all() or SUCCESS)
            receiving.cancel()
        except spdy.SPDYError as error:
            await channels.end(failure(str(error)))
        finally:
            running.cancel()
            await connection.close()
            await socket.close()


async def send_chunks(request: web.Request, chunks: AsyncIterator[bytes]) -> web.StreamResponse:
    """What is read one way, as a log is: in the answer's body, or in messages where a WebSocket is asked for. Ends
    where the file is not there (yet) or the client has gone."""
    if request.headers.get("Upgrade", "").lower() == "websocket":
        return await _send_messages(request, chunks)
    response = web.StreamResponse(headers={"Content-Type": "text/plain", "Cache-Control": "no-store"})
    await response.prepare(request)
    try:
        async for chunk in chunks:
            await response.write(chunk)
    except FileNotFoundError:
        pass
    except ConnectionError:
        return response
    await response.write_eof()
    return response


async def _send_messages(request: web.Request, chunks: AsyncIterator[bytes]) -> web.StreamResponse:
    socket = await web_socket(request, READER_PROTOCOLS)
    encoded = (socket.ws_protocol or "").startswith("base64.")

    async def send() -> None:
        with contextlib.suppress(FileNotFoundError, ConnectionError):
            async for chunk in chunks:
                if encoded:
                    await socket.send_str(base64.b64encode(chunk).decode())
                else:
                    await socket.send_bytes(chunk)

    # The client says nothing but that it goes, which nobody else would notice while a container says nothing.
    sending = asyncio.create_task(send(), name="log over WebSocket")
    receiving = asyncio.create_task(_until_closed(socket), name="log over WebSocket")
    try:
        await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        sending.cancel()
        receiving.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)
        await socket.close()
    return socket


async def _until_closed(socket: web.WebSocketResponse) -> None:
    async for _ in socket:
        pass


async def _copy_out(stream: spdy.Stream, channels: _Channels, channel: int) -> None:
    while chunk := await stream.read():
        await channels.send(channel, chunk)


async def _receive(
    socket: web.WebSocketResponse, channels: _Channels, inputs: dict[int, spdy.Stream], running: asyncio.Task[None]
) -> None:
    """Pass on what the client sends; a client that goes away ends the connection to the runtime."""
    try:
        async for message in socket:
            parsed = channels.parse(message)
            if parsed is None:
                continue
            channel, data = parsed
            if channel == CLOSE and data:
                stream = inputs.pop(data[0], None)
                if stream is not None:
                    await stream.close_write()
            elif channel in inputs and data:
                await inputs[channel].write(data)
    except spdy.SPDYError:
        return
    except BadMessage as error:
        await channels.refuse(error)
    if STDIN in inputs:
        with contextlib.suppress(spdy.SPDYError):
            await inputs[STDIN].close_write()
    running.cancel()


def _words_of_failure(status: bytes) -> bytes:
    """The message of a Status that says Failure; empty for one that says Success."""
    try:
        stated = json.loads(status)
    except ValueError:
        return status
    if not isinstance(stated, dict) or stated.get("status") == "Success":
        return b""
    return str(stated.get("message") or "the command failed").encode()


async def say(socket: web.WebSocketResponse, said: bytes) -> None:
    """Answer an exec without a process: `said` is its output, and it ends well."""
    channels = _Channels(socket)
    await channels.send(STDOUT, b"")
    if said:
        await channels.send(STDOUT, said)
    await channels.end(SUCCESS)
    await socket.close()


def failure(message: str) -> bytes:
    """A Status on the error channel."""
    status = {"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500}
    return json.dumps(status).encode()


async def bridge_tunnel(socket: web.WebSocketResponse, url: str) -> None:
    """Carry a client's SPDY inside WebSocket messages to the runtime's streaming URL, byte for byte."""
    try:
        reader, writer = await spdy.upgrade(url, _PORT_FORWARD)
    except spdy.SPDYError:
        await socket.close(code=1011, message=b"port forwarding failed")
        return

    async def outwards() -> None:
        try:
            async for message in socket:
                if message.type == WSMsgType.BINARY:
                    writer.write(message.data)
                    await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def inwards() -> None:
        with contextlib.suppress(OSError, RuntimeError):
            while chunk := await reader.read(64 << 10):
                await socket.send_bytes(chunk)
        await socket.close()

    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(outwards())
        await inwards()
        sending.cancel()
    writer.close()


async def bridge_ports(socket: web.WebSocketResponse, url: str, ports: Sequence[int]) -> None:
    """Port-forwarding in plain WebSocket channels: two per port, data and error, each opened by the port's number."""
    channels = _Channels(socket)
    try:
        reader, writer = await spdy.upgrade(url, _PORT_FORWARD)
    except spdy.SPDYError as error:
        await channels.send(1, str(error).encode())
        await socket.close()
        return
    connection = spdy.Connection(reader, writer)
    inputs: dict[int, spdy.Stream] = {}
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(connection.run())
        try:
            copies = []
            for index, port in enumerate(ports):
                headers = {"port": str(port), "requestID": str(index)}
                error_stream = await connection.open_stream({"streamType": "error", **headers})
                await error_stream.close_write()
                inputs[2 * index] = await connection.open_stream({"streamType": "data", **headers})
                for channel, stream in ((2 * index, inputs[2 * index]), (2 * index + 1, error_stream)):
                    await channels.send(channel, struct.pack("<H", port))
                    copies.append(_copy_out(stream, channels, channel))
            receiving = tasks.create_task(_receive(socket, channels, inputs, running))
            await asyncio.gather(*copies)
            receiving.cancel()
        except spdy.SPDYError as error:
            await channels.send(1, str(error).encode())
        finally:
            running.cancel()
            await connection.close()
            await socket.close()


def refusal(error: Exception) -> str:
    """What is said to a client whose upgrade is refused. It looks for a Status in YAML first, and would take `a: b` for
    one that says nothing."""
    return str(error).replace(": ", ", ")


async def bridge_upgrade(request: web.Request, url: str, protocols: Sequence[str]) -> web.StreamResponse:
    """A client that speaks SPDY itself (Kubernetes' API server): its connection and the runtime's, joined byte for
    byte."""
    try:
        reader, writer = await spdy.upgrade(url, protocols)
    except spdy.SPDYError as error:
        return web.Response(status=500, text=refusal(error))
    transport = request.transport
    assert transport is not None
    head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
    head += f"X-Stream-Protocol-Version: {protocols[0]}\r\n\r\n"
    await pump(reader, writer, transport, greeting=head.encode())
    raise asyncio.CancelledError
