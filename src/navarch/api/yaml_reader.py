"""YAML that a client sent, as the JSON value that it stands for.

In: bytes.  Out: dicts, lists and scalars as JSON has them, and which keys came twice. `yaml_builder` does it; it and
the parser, a thirtieth of a server's start, are loaded when there is YAML to read.

What is wrong with a document is said in the words of go-yaml, which Kubernetes' users know, whatever the version of the
parser below.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import Any

from navarch.records import mutable


@mutable
class Document:
    """`duplicates` says in the words of Kubernetes' parser which keys were given again."""

    value: Any = None
    duplicates: list[str] = field(default_factory=list)


def load(data: bytes) -> Document:
    """The first document in `data`.  Raises ValueError."""
    document = Document()
    for _ in steps(data, document):
        pass
    return document


def steps(data: bytes, into: Document) -> Iterator[None]:
    """`load` in steps of less than a millisecond or so, for those who have other things to do in between."""
    from navarch.api import yaml_builder

    into.value, into.duplicates = yield from yaml_builder.steps(data)
