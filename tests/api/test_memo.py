"""What is remembered of texts that clients send is bounded in number and in length."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import navarch
from navarch.api.memo import memo

SOURCE: Final = Path(navarch.__file__).parent
PARTS: Final = ("api", "kinds", "apiserver", "http2", "store")

# Functions that remember texts and are no `memo`, and why their texts are few, or short.
OF_OURS: Final = "names of versions, definitions and fields, of which there are as many as Kubernetes has"
SHORT: Final = {
    **dict.fromkeys(
        (
            "api/features.py gates_of",
            "api/go_dump.py _fields",
            "api/go_structs.py _members",
            "api/go_structs.py present",
            "api/go_structs.py struct",
            "api/go_structs.py unset",
            "api/protobuf.py _reader",
            "api/protobuf.py head",
            "api/protobuf_fields.py fields_of",
            "api/protobuf_messages.py _add",
            "api/protobuf_messages.py message_class",
            "api/protobuf_writer.py _empty",
            "api/protobuf_writer.py _stated",
            "api/schema.py load",
            "api/zeroes.py unsaid_when_zero",
            "apiserver/protobuf_forms.py _stated",
            "kinds/internal.py _dump",
        ),
        OF_OURS,
    ),
    "apiserver/answer_heads.py _first_lines": "media types of answers, those of other servers as long as a head's line",
    "apiserver/plain_requests.py _read_headers": "asked for short blocks with few lines only",
    "apiserver/flowcontrol/queues.py hand_of": "what distinguishes flows is cut to 256 characters",
    "apiserver/http2/heads.py _begun": "media types of answers, as over HTTP/1.1",
    "apiserver/http2/heads.py _date": "two dates",
    "apiserver/writes.py How": "as many as there are subresources",
    "http2/hpack.py _decoded": "asked for short texts only",
    "http2/huffman.py _beginning": "beginnings of texts, all equally short",
    "store/encryption/config.py self._of_resource": "names of resources that are served",
}


def remembering() -> Iterator[str]:
    """Functions that `functools` remembers texts for."""
    for path in (path for part in PARTS for path in (SOURCE / part).rglob("*.py")):
        text = path.read_text()
        if "lru_cache" not in text and "@cache" not in text:
            continue
        name = path.relative_to(SOURCE).as_posix()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                found = {ast.unparse(each).partition("(")[0] for each in node.decorator_list}
                of = {ast.unparse(each.annotation) for each in node.args.args if each.annotation is not None}
                if found & {"cache", "lru_cache"} and of & {"str", "bytes"}:
                    yield f"{name} {node.name}"
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Call):
                if ast.unparse(node.func.func) in ("cache", "lru_cache"):
                    yield f"{name} {ast.unparse(node.args[0])}"


def test_who_remembers_texts_of_clients_bounds_their_length() -> None:
    assert set(remembering()) == set(SHORT)


def test_a_long_text_is_made_anew_each_time() -> None:
    made: list[str] = []

    @memo(4, 10)
    def length(text: str) -> int:
        made.append(text)
        return len(text)

    assert [length("short"), length("short"), length("x" * 11), length("x" * 11)] == [5, 5, 11, 11]
    assert made == ["short", "x" * 11, "x" * 11]


def test_the_oldest_texts_are_forgotten() -> None:
    made: list[str] = []

    @memo(16)
    def same(text: str) -> str:
        made.append(text)
        return text

    for number in range(17):
        same(str(number))
    assert [same("16"), same("0")] == ["16", "0"]
    assert made[17:] == ["0"]
