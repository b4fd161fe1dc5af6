"""`/logs/`: the machine's own logs, as Kubernetes' kubelet serves them: files as they are, folders as lists of links.

Whoever may read `nodes/log` may read what is below the folder; a path leads out of it only over a link that the machine
has there, as with Kubernetes.
"""

from __future__ import annotations

import html
import os
import posixpath
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote

from aiohttp import web

from navarch.world import World

PLACE: Final = Path("/var/log")


def system_logs(world: World, place: Path = PLACE) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """What answers requests for logs below `place`."""

    async def answer(request: web.Request) -> web.StreamResponse:
        asked = posixpath.normpath(f"/{request.match_info.get('path', '')}")
        found = place / asked.lstrip("/")
        is_folder = await world.in_thread(found.is_dir)
        if is_folder != request.path.endswith("/"):
            # Relative links of a list are relative to a folder.
            here = posixpath.basename(request.path.rstrip("/"))
            raise web.HTTPMovedPermanently(f"{here}/" if is_folder else f"../{here}")
        if is_folder:
            return web.Response(text=await world.in_thread(_listed, found), content_type="text/html", charset="utf-8")
        if not await world.in_thread(found.is_file):
            raise web.HTTPNotFound(text="404 page not found\n")
        return web.FileResponse(found)

    return answer


def _listed(folder: Path) -> str:
    with os.scandir(folder) as entries:
        names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries)
    # A colon would make a scheme of what is before it.
    links = (f'<a href="./{quote(name)}">{html.escape(name)}</a>\n' for name in names)
    return f"<!doctype html>\n<pre>\n{''.join(links)}</pre>\n"


async def disabled(request: web.Request) -> web.StreamResponse:
    """For a kubelet that is told not to show them."""
    return web.Response(status=405, text="logs endpoint is disabled.\n")
