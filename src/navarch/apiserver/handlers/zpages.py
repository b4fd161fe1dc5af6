"""`/statusz` and `/flagz`: what the server is and how it was set up, for people who look for what is wrong.

In: versions, the time of the start, the settings by the names of kube-apiserver's flags.  Out: text, or for who asks
for them the `Statusz` and `Flagz` of `config.k8s.io`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import orjson

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.api.time import format_time
from navarch.client.transport import Request, Response

_COMPONENT: Final = "kube-apiserver"
_WARNING: Final = (
    "Warning: This endpoint is for debugging only. No program should read it: its format may change at any time."
)
_STRUCTURED: Final = ("v1beta1", "v1alpha1")


def statusz(
    request: Request, *, started: datetime, now: datetime, runtime: str, version: str, paths: Sequence[str]
) -> Response:
    """Raises StatusError 406."""
    up_s = max(int((now - started).total_seconds()), 0)
    lines = [
        f"Started: {started.astimezone(UTC):%a %b %e %H:%M:%S UTC %Y}",
        f"Up: {up_s // 3600} hr {up_s // 60 % 60:02} min {up_s % 60:02} sec",
        f"Go version: {runtime}",
        f"Binary version: {version}",
        f"Emulation version: {version}",
        f"Paths: {' '.join(paths)}",
    ]
    structured = {
        "startTime": format_time(started),
        "uptimeSeconds": up_s,
        "goVersion": runtime,
        "binaryVersion": version,
        "emulationVersion": version,
        "paths": list(paths),
    }
    return _page(request, "Statusz", "statusz", lines, structured)


def flagz(request: Request, flags: Mapping[str, str]) -> Response:
    """Raises StatusError 406."""
    lines = [f"{name}={value}" for name, value in sorted(flags.items())]
    return _page(request, "Flagz", "flagz", lines, {"flags": dict(sorted(flags.items()))})


def _page(request: Request, kind: str, title: str, lines: Sequence[str], structured: Obj) -> Response:
    accept = request.headers.get("accept", "")
    version = _structured_version(accept, kind)
    if version:
        document = {
            "kind": kind,
            "apiVersion": f"config.k8s.io/{version}",
            "metadata": {"name": _COMPONENT},
            **structured,
        }
        media_type = f"application/json;v={version};g=config.k8s.io;as={kind}"
        return Response(200, orjson.dumps(document), {}, media_type)
    if accept and not any(clause.split(";")[0].strip() in _TEXTS for clause in accept.split(",")):
        offered = f"text/plain, application/json;v={_STRUCTURED[0]};g=config.k8s.io;as={kind}"
        raise StatusError(406, "NotAcceptable", f"only the following media types are accepted: {offered}")
    text = "\n".join(["", f"{_COMPONENT} {title}", _WARNING, "", *lines, ""])
    return Response(200, text.encode(), {}, "text/plain; charset=utf-8")


_TEXTS: Final = ("text/plain", "text/*", "*/*")


def _structured_version(accept: str, kind: str) -> str:
    for clause in accept.replace(" ", "").split(","):
        words = clause.split(";")
        if words[0] == "application/json" and f"as={kind}" in words and "g=config.k8s.io" in words:
            for version in _STRUCTURED:
                if f"v={version}" in words:
                    return version
    return ""
