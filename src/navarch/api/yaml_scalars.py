"""What a YAML scalar without quotes stands for, by the rules of go-yaml 2, with which Kubernetes reads YAML.

In: the text.  Out: None, a boolean, a number or the text itself. These are neither PyYAML's rules nor YAML 1.2's: `y`
and `off` are booleans, `0o17` and `017` are 15, `1:20` is text, and a date stays text, as JSON has none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from navarch.api.memo import memo

Scalar = str | int | float | bool | None

# Longer texts are no numbers that any field could take.
_LONGEST: Final = 64
_WORDS: Final[Mapping[str, Scalar]] = {
    word: value
    for value, words in (
        (True, "y Y yes Yes YES true True TRUE on On ON"),
        (False, "n N no No NO false False FALSE off Off OFF"),
        (None, "~ null Null NULL"),
        (float("nan"), ".nan .NaN .NAN"),
        (float("inf"), ".inf .Inf .INF +.inf +.Inf +.INF"),
        (float("-inf"), "-.inf -.Inf -.INF"),
    )
    for word in words.split()
} | {"": None}
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?")
_INTEGER: Final = re.compile(
    r"([-+]?)(?:0[xX](?P<hex>[0-9a-fA-F]+)|0[bB](?P<bin>[01]+)|0[oO]?(?P<oct>[0-7]+)|(?P<dec>0|[1-9][0-9]*))", re.ASCII
)
_BASES: Final = {"hex": 16, "bin": 2, "oct": 8, "dec": 10}
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)


@memo(4096, _LONGEST)
def plain(text: str) -> Scalar:
    """A scalar without quotes or tag."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _LONGEST or text[0] not in "+-.0123456789" or _DATE.fullmatch(text):
        return text
    bare = text.replace("_", "") if text[0] != "." else text
    if (found := _INTEGER.fullmatch(bare)) is not None:
        base = found.lastgroup
        assert base is not None
        number = int(found[1] + found[base], _BASES[base])
        # What 64 bits do not hold becomes a float when JSON is read again.
        return number if -(2**63) <= number < 2**64 else float(number)
    return float(bare) if _FLOAT.fullmatch(bare) else text


def tagged(tag: str, text: str) -> Scalar:
    """A scalar whose tag is stated (`null`, `bool`, `int`, `float`).  Raises ValueError."""
    value = plain(text)
    if tag == "float" and type(value) is int:
        return float(value)
    if _tag_of(value) != tag:
        raise ValueError(f"cannot decode !!{_tag_of(value)} `{text[:_LONGEST]}` as a !!{tag}")
    return value


def _tag_of(value: Scalar) -> str:
    if value is None:
        return "null"
    return {bool: "bool", int: "int", float: "float", str: "str"}[type(value)]
