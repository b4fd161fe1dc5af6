"""`/logs/`: the machine's own logs, as Kubernetes' kubelet serves them: files as they are, folders as lists of links,
and where it is switched on (`enableSystemLogQuery`) what `log_query` finds of a service.

Whoever may read `nodes/log` may read what is below the folder; a path leads out of it only over a link that the machine
has there, as with Kubernetes.
"""

from __future__ import annotations

import html
import os
import posixpath
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from aiohttp import web

from navarch.api.errors import FieldError
from navarch.node.server import log_query
from navarch.world import World

PLACE: Final = Path("/var/log")


def system_logs(
    world: World, place: Path = PLACE, *, queries: bool = False
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """What answers requests for logs below `place`, and with `queries` for what services wrote."""

    async def answer(request: web.Request) -> web.StreamResponse:
        path = request.match_info.get("path", "")
        if not queries:
            return await _shown(world, place, path, request.path)
        query, errors = log_query.read(list(request.query.items()))
        if errors:
            return _refused(400, errors)
        if query == log_query.LogQuery():
            return await _shown(world, place, path, request.path)
        if path:
            return web.Response(status=406, text="path not allowed in query mode\n")
        if errors := await world.in_thread(log_query.problems, query, place):
            return _refused(406, errors)
        if query.services:
            return await _told(world, place, query, request)
        name = query.files[0].replace("\\", "/")
        return await _shown(world, place, name, name)

    return answer


async def _shown(world: World, place: Path, path: str, asked: str) -> web.StreamResponse:
    """The file or folder at `path`, which was asked for as `asked`."""
    found = place / posixpath.normpath(f"/{path}").lstrip("/")
    is_folder = await world.in_thread(found.is_dir)
    if is_folder != asked.endswith("/"):
        # Relative links of a list are relative to a folder.
        here = posixpath.basename(asked.rstrip("/"))
        raise web.HTTPMovedPermanently(f"{here}/" if is_folder else f"../{here}")
    if is_folder:
        return web.Response(text=await world.in_thread(_listed, found), content_type="text/html", charset="utf-8")
    if not await world.in_thread(found.is_file):
        raise web.HTTPNotFound(text="404 page not found\n")
    return web.FileResponse(found)


async def _told(world: World, place: Path, query: log_query.LogQuery, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain;charset=UTF-8"})
    if request.headers.get("Accept-Encoding") == "gzip":
        response.enable_compression(web.ContentCoding.gzip)
    await response.prepare(request)
    if request.method != "HEAD":
        async with aclosing(log_query.answer(query, place, world)) as pieces:
            async for piece in pieces:
                await response.write(piece)
    await response.write_eof()
    return response


def _refused(status: int, errors: Sequence[FieldError]) -> web.Response:
    shown = list(dict.fromkeys(map(str, errors)))
    text = shown[0] if len(shown) == 1 else f"[{', '.join(shown)}]"
    return web.Response(status=status, text=f"{text}\n")


def _listed(folder: Path) -> str:
    with os.scandir(folder) as entries:
        names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries)
    # A colon would make a scheme of what is before it.
    links = (f'<a href="./{quote(name)}">{html.escape(name)}</a>\n' for name in names)
    return f"<!doctype html>\n<pre>\n{''.join(links)}</pre>\n"


async def disabled(request: web.Request) -> web.StreamResponse:
    """For a kubelet that is told not to show them."""
    return web.Response(status=405, text="logs endpoint is disabled.\n")
