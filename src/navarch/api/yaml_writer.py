"""A JSON value as YAML, as Kubernetes writes it: block style, keys in order, long texts as blocks.

In: dicts, lists and scalars.  Out: text that every parser of YAML 1.1 or 1.2 reads as the same value; what one of them
would take for a boolean, a number or a date is quoted. Written in steps, so that whoever writes megabytes can do other
things in between; PyYAML takes six times as long, and cannot stop.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import orjson

from navarch.api.memo import memo
from navarch.api.yaml_scalars import plain

_STEP: Final = 200
# No parser takes these for anything but text.
_SAFE: Final = re.compile(r"[A-Za-z_/](?:[A-Za-z0-9_./@-]|[: ](?=[A-Za-z0-9_./@-]))*", re.ASCII)
# Lines that can stand as they are: nothing to escape, and no space that would be taken for indentation.
_BLOCK: Final = re.compile(r"[^\s\x00-\x1f\x7f-\xa0\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]"
                           r"[^\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]*",
                           re.UNICODE)  # fmt: skip
_ESCAPED: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
# A longer key must say that it is one.
_LONGEST_KEY: Final = 1000


def write(value: Any) -> str:
    out: list[str] = []
    for _ in steps(value, out):
        pass
    return "".join(out)


def steps(value: Any, out: list[str], indent: str = "", first: str | None = None) -> Iterator[None]:
    """Append the text to `out`; each line begins with `indent`, the first with `first` if that is given."""
    if not isinstance(value, (dict, list)) or not value:
        out.append(f"{indent if first is None else first}{_scalar(value, indent)}\n")
        return
    stack = [_collection(value, indent, indent if first is None else first)]
    count = 0
    while stack:
        for start, inner, deeper in stack[-1]:
            count += 1
            if isinstance(inner, (dict, list)) and inner:
                if start.endswith("- "):
                    stack.append(_collection(inner, deeper, start))
                else:
                    out.append(f"{start}\n")
                    # The items of a list stand below its key, not to the right of it.
                    below = deeper if isinstance(inner, dict) else deeper[2:]
                    stack.append(_collection(inner, below, below))
                break
            out.append(f"{start}{'' if start.endswith('- ') else ' '}{_scalar(inner, deeper[2:])}\n")
            if count % _STEP == 0:
                yield
        else:
            stack.pop()


def _collection(value: Any, indent: str, first: str) -> Iterator[tuple[str, Any, str]]:
    """Of each entry: what its line begins with, its value, and the indentation of what is in it."""
    deeper = indent + "  "
    if isinstance(value, list):
        for item in value:
            yield f"{first}- ", item, deeper
            first = indent
        return
    for key in sorted(value):
        text = _text(key)
        if len(text) > _LONGEST_KEY:
            text = f"? {text}\n{indent}"
        yield f"{first}{text}:", value[key], deeper
        first = indent


def _scalar(value: Any, indent: str) -> str:
    if type(value) is str:
        return _block(value, indent + "  ") if "\n" in value and _BLOCK.fullmatch(value) else _text(value)
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return "{}" if isinstance(value, dict) else "[]"
    return repr(value)


def _block(text: str, indent: str) -> str:
    body = text.rstrip("\n")
    trailing = len(text) - len(body)
    chomping = "-" if trailing == 0 else "" if trailing == 1 else "+"
    lines = "\n".join([indent + line if line else "" for line in body.split("\n")])
    return f"|{chomping}\n{lines}" + "\n" * max(trailing - 1, 0)


@memo(4096, 64)
def _text(text: str) -> str:
    if _SAFE.fullmatch(text) and isinstance(plain(text), str):
        return text
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", orjson.dumps(text).decode())
