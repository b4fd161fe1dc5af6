"""Which fields of an object's types say nothing when they are zero.

Where Go has a plain field rather than a pointer, and leaves it out of JSON when it is zero, `false`, `0` and `""` are
the same as no field at all: they are not stored, nobody owns them, and a default takes their place. The table of
protobuf messages knows these fields. In: an OpenAPI definition's name.  Out: its fields' names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

# `name=number:letter`: no star for a pointer, no exclamation mark for a zero that is written.
_find_fields: Final = re.compile(r" ([A-Za-z0-9_]+)=[0-9]+:[sbify](?= |$)").findall


@cache
def _messages() -> Mapping[str, str]:
    text = Path(__file__).with_name("protobuf_fields.txt").read_text(encoding="utf-8")
    lines = (line.partition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: f" {fields}" for name, _, fields in lines}


@cache
def unsaid_when_zero(definition: str) -> frozenset[str]:
    """The fields of `io.k8s.api.core.v1.Container` (or of whatever definition) whose zero is nothing."""
    if definition.count(".") < 2:
        return frozenset()
    *_, group, version, kind = definition.split(".")
    return frozenset(_find_fields(_messages().get(f"{group}/{version}.{kind}", "")))
