"""Hashes that name what a template makes: pod-template-hash of ReplicaSets, names of ControllerRevisions.

As in Kubernetes, whose tools compare them: a template's hash is FNV-1a over what Go prints of it; that of a revision's
data is FNV-1 over the JSON that is stored. Both are written in an alphabet without vowels so that no word comes out.
`collisions` is mixed in so that a controller can step aside when the name is taken by something else.
"""

from __future__ import annotations

from typing import Any

import orjson

from navarch.api.fnv import fnv1, fnv1a
from navarch.api.go_dump import dump
from navarch.api.go_text import escaped_json

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def safe_encode(text: str) -> str:
    """Each character mapped into the alphabet that generated names use."""
    return "".join(_ALPHABET[ord(char) % len(_ALPHABET)] for char in text)


def template_hash(template: Any, collisions: int | None = None) -> str:
    """Equal templates give equal hashes, whatever the order of their keys."""
    data = dump(template, "core/v1.PodTemplateSpec").encode()
    if collisions is not None:
        data += collisions.to_bytes(8, "little")
    return safe_encode(str(fnv1a(data)))


def data_hash(data: Any, collisions: int | None = None) -> str:
    """The hash of what a ControllerRevision holds."""
    written = escaped_json(orjson.dumps(data, option=orjson.OPT_SORT_KEYS)) + str(collisions or 0).encode()
    return safe_encode(str(fnv1(written)))
