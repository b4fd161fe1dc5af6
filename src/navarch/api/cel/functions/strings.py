"""cel-go's extended string functions, and Kubernetes' `jsonpatch.escapeKey`."""

from __future__ import annotations

from typing import Any, Final

from navarch.api.cel.declarations import declared
from navarch.api.cel.errors import CelError
from navarch.api.cel.functions.formatting import formatted, quoted_string

_LINES: Final = """
charAt string_char_at_int string.(int) string
format string_format string.(list<dyn>) string
indexOf string_index_of_string string.(string) int
indexOf string_index_of_string_int string.(string, int) int
join list_join list<string>.() string
join list_join_string list<string>.(string) string
lastIndexOf string_last_index_of_string string.(string) int
lastIndexOf string_last_index_of_string_int string.(string, int) int
lowerAscii string_lower_ascii string.() string
replace string_replace_string_string string.(string, string) string
replace string_replace_string_string_int string.(string, string, int) string
split string_split_string string.(string) list<string>
split string_split_string_int string.(string, int) list<string>
strings.quote strings_quote (string) string
substring string_substring_int string.(int) string
substring string_substring_int_int string.(int, int) string
trim string_trim string.() string
upperAscii string_upper_ascii string.() string
"""
# Unicode's white space, as Go's strings.TrimSpace knows it.
_SPACE: Final = (
    " \t\n\v\f\r\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_LOWER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_UPPER: Final = {code: code - 32 for code in range(ord("a"), ord("z") + 1)}


def _out_of_range(index: int) -> CelError:
    return CelError(f"index out of range: {index}")


def _char_at(text: str, index: int) -> str:
    if not 0 <= index <= len(text):
        raise _out_of_range(index)
    return text[index : index + 1]


def _index_of(text: str, part: str, offset: int = 0) -> int:
    if not part:
        if offset < 0 or offset > len(text):
            raise _out_of_range(offset)
        return offset
    if offset < 0:
        raise _out_of_range(offset)
    return text.find(part, offset) if offset <= len(text) else -1


def _last_index_of(text: str, part: str, offset: int | None = None) -> int:
    if offset is not None and offset < 0:
        raise _out_of_range(offset)
    if not part:
        return len(text) if offset is None else min(offset, len(text))
    if offset is None:
        return text.rfind(part)
    return text.rfind(part, 0, offset + len(part))


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    return text.replace(old, new, count)


def _split(text: str, separator: str, count: int = -1) -> list[str]:
    if count == 0:
        return []
    if count == 1:
        return [text]
    if not separator:
        chars = list(text)
        return chars if count < 0 or len(chars) <= count else [*chars[: count - 1], "".join(chars[count - 1 :])]
    return text.split(separator, count - 1 if count > 0 else -1)


def _substring(text: str, start: int, end: int | None = None) -> str:
    if end is None:
        if not 0 <= start <= len(text):
            raise _out_of_range(start)
        return text[start:]
    if start > end:
        raise CelError(f"invalid substring range. start: {start}, end: {end}")
    if not 0 <= start <= len(text):
        raise _out_of_range(start)
    if not 0 <= end <= len(text):
        raise _out_of_range(end)
    return text[start:end]


def _join(items: list[Any], separator: str = "") -> str:
    if not all(isinstance(each, str) for each in items):
        raise CelError("no such overload")
    return separator.join(items)


FUNCTIONS: Final = declared(
    _LINES,
    {
        "string_char_at_int": _char_at,
        "string_format": formatted,
        "string_index_of_string": _index_of,
        "string_index_of_string_int": _index_of,
        "list_join": _join,
        "list_join_string": _join,
        "string_last_index_of_string": _last_index_of,
        "string_last_index_of_string_int": _last_index_of,
        "string_lower_ascii": lambda text: text.translate(_LOWER),
        "string_replace_string_string": _replace,
        "string_replace_string_string_int": _replace,
        "string_split_string": _split,
        "string_split_string_int": _split,
        "strings_quote": quoted_string,
        "string_substring_int": _substring,
        "string_substring_int_int": _substring,
        "string_trim": lambda text: text.strip(_SPACE),
        "string_upper_ascii": lambda text: text.translate(_UPPER),
    },
)
# Of expressions that make patches.
PATCHING: Final = declared(
    "jsonpatch.escapeKey string_jsonpatch_escapeKey_string (string) string",
    {"string_jsonpatch_escapeKey_string": lambda key: key.replace("~", "~0").replace("/", "~1")},
)
