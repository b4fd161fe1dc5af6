"""Answers that are more than stored bytes put together, made in steps: indented, as YAML, or in protobuf.

In: what a handler answers in JSON, a list part by part, and the form that the client asked for.  Out: the Response.
Nothing here holds more than one part as an object; who asks for less meanwhile is answered (`longwork`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping

import orjson

from navarch.api import yaml_writer
from navarch.api.meta import Obj
from navarch.apiserver import protobuf_forms
from navarch.apiserver.codec import decode
from navarch.apiserver.longwork import SHORT, LongWork
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
        stages = _yaml_list(work, head, name, parts, texts)
    else:
        stages = _indented_list(work, parts, texts)
        start = orjson.dumps(head, option=orjson.OPT_INDENT_2)[:-2].decode() + f',\n  "{name}": ['
        end = "\n  ]\n}\n" if parts.count else "]\n}\n"
    written = Pieces(in_slices(work, stages, texts, start, end))
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


async def _indented_list(work: LongWork, parts: Parts, texts: list[str]) -> AsyncGenerator[Iterator[None], None]:
    rest, big, before = iter(parts.all), [b""], "\n    "

    def small() -> Iterator[None]:
        nonlocal before
        for part in _until_big(rest, big):
            texts.append(before + _indented(part))
            before = ",\n    "
            yield

    while big:
        big.clear()
        yield small()
        for part in big:
            texts.append(before + await work.apart(len(part), _indented, part))
            before = ",\n    "


def _indented(part: bytes) -> str:
    # In JSON a line break is never part of a text.
    return orjson.dumps(decode(part), option=orjson.OPT_INDENT_2).decode().replace("\n", "\n    ")


async def _yaml_list(
    work: LongWork, head: Obj, name: str, parts: Parts, texts: list[str]
) -> AsyncGenerator[Iterator[None], None]:
    rest, big = iter(parts.all), [b""]

    def small() -> Iterator[None]:
        for part in _until_big(rest, big):
            yield from yaml_writer.steps(decode(part), texts, "  ", "- ")
            yield

    for key in sorted([*head, name]):
        if key != name:
            yield yaml_writer.steps({key: head[key]}, texts)
            continue
        texts.append(f"{name}:\n" if parts.count else f"{name}: []\n")
        while big:
            big.clear()
            yield small()
            for part in big:
                yield yaml_writer.steps(await work.apart(len(part), decode, part), texts, "  ", "- ")


def _until_big(parts: Iterator[bytes], big: list[bytes]) -> Iterator[bytes]:
    """Parts up to the next about which something takes long: that comes into `big`, and nothing where there is none."""
    for part in parts:
        if len(part) > SHORT:
            big.append(part)
            return
        yield part
