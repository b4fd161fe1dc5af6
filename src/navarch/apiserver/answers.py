"""Answers that are more than stored bytes put together, made in steps: indented, as YAML, or in protobuf.

In: what a handler answers in JSON, a list part by part, and the form that the client asked for.  Out: the Response.
Nothing here holds more than one part as an object; who asks for less meanwhile is answered (`longwork`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import orjson

from navarch.api import yaml_writer
from navarch.api.meta import Obj
from navarch.apiserver import protobuf_forms
from navarch.apiserver.codec import decode
from navarch.apiserver.longwork import LongWork
from navarch.apiserver.negotiation import JSON, PROTOBUF, Form
from navarch.apiserver.pieces import Parts, Pieces, in_slices
from navarch.client.transport import Response


async def in_parts(
    work: LongWork, form: Form, head: Obj, name: str, parts: Parts, headers: Mapping[str, str]
) -> Response:
    """The object `head` with the list `name` of parts at its end, indented or as YAML."""
    texts: list[str] = []
    start = end = ""
    if form.media_type != JSON:
        steps = _yaml_list(head, name, parts, texts)
    else:
        steps = _indented(parts.all, texts)
        start = orjson.dumps(head, option=orjson.OPT_INDENT_2)[:-2].decode() + f',\n  "{name}": ['
        end = "\n  ]\n}\n" if parts.count else "]\n}\n"
    written = Pieces(in_slices(work, steps, texts, start, end))
    return Response(200, written if parts.long else await written.joined(), headers, form.media_type)


async def in_form(work: LongWork, form: Form, response: Response) -> Response:
    """An answer as a handler gives it, in JSON, as the client wants it."""
    body = response.body
    if form.media_type == JSON or response.content_type != JSON or not isinstance(body, bytes):
        return response
    if form.protobuf:
        data = await work.apart(len(body), protobuf_forms.of_json, body)
        return Response(response.status, data, response.headers, PROTOBUF)
    texts: list[str] = []
    await work.do(yaml_writer.steps(await work.apart(len(body), decode, body), texts))
    return Response(response.status, "".join(texts).encode(), response.headers, form.media_type)


def _indented(parts: Iterable[bytes], texts: list[str]) -> Iterator[None]:
    before = "\n    "
    for part in parts:
        # In JSON a line break is never part of a text.
        texts.append(before + orjson.dumps(decode(part), option=orjson.OPT_INDENT_2).decode().replace("\n", "\n    "))
        before = ",\n    "
        yield


def _yaml_list(head: Obj, name: str, parts: Parts, texts: list[str]) -> Iterator[None]:
    for key in sorted([*head, name]):
        if key != name:
            yield from yaml_writer.steps({key: head[key]}, texts)
            continue
        texts.append(f"{name}:\n" if parts.count else f"{name}: []\n")
        for part in parts.all:
            yield from yaml_writer.steps(decode(part), texts, "  ", "- ")
            yield
