"""`'%s is %d'.format([…])` and `strings.quote`."""

from __future__ import annotations

import re
from typing import Any, Final

from navarch.api.cel.errors import CelError
from navarch.api.cel.values import Duration, Timestamp, TypeValue, go_float, type_name

_CLAUSE: Final = re.compile(r"%(?:\.([0-9]*))?(.?)", re.DOTALL)
_MOST_DIGITS: Final = 1000
_LONGEST: Final = 2_000_000


def formatted(text: str, args: list[Any]) -> str:
    """Raises CelError."""
    parts: list[str] = []
    at, used, length = 0, 0, 0
    while at < len(text):
        clause = text.find("%", at)
        if clause < 0:
            parts.append(text[at:])
            break
        parts.append(text[at:clause])
        if text[clause : clause + 2] == "%%":
            parts.append("%")
            at = clause + 2
            continue
        match = _CLAUSE.match(text, clause)
        precision, verb = match.groups() if match else (None, "")
        if not verb:
            raise CelError("unexpected end of string")
        if used >= len(args):
            raise CelError(f"index {used} out of range")
        parts.append(_clause(verb, _precision(precision), args[used]))
        length += len(parts[-1])
        if length > _LONGEST:
            raise CelError("formatted string is too long")
        used += 1
        at = match.end() if match else len(text)
    return "".join(parts)


def _precision(digits: str | None) -> int | None:
    if digits is None:
        return None
    if not digits:
        raise CelError('error while converting precision to integer: strconv.Atoi: parsing "": invalid syntax')
    if int(digits) > _MOST_DIGITS:
        raise CelError(f"precision {digits} exceeds maximum {_MOST_DIGITS}")
    return int(digits)


def _clause(verb: str, precision: int | None, value: Any) -> str:
    if verb == "s":
        return _string(value)
    if verb == "d":
        return _decimal(value)
    if verb == "f":
        return _fixed(value, precision)
    if verb == "e":
        return _scientific(value, precision)
    if verb == "b":
        return _binary(value)
    if verb in ("x", "X"):
        return _hexadecimal(value, upper=verb == "X")
    if verb == "o":
        return _octal(value)
    raise CelError(f'could not parse formatting clause: unrecognized formatting clause "{verb}"')


def _string(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, float):
        return _special(value) or go_float(value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list):
        return "[" + ", ".join(_string(each) for each in value) + "]"
    if isinstance(value, dict):
        pairs = sorted((_string(key), _string(each)) for key, each in value.items())
        return "{" + ", ".join(f"{key}: {each}" for key, each in pairs) + "}"
    if isinstance(value, TypeValue):
        return value.name
    if isinstance(value, (int, Duration, Timestamp)):
        return str(value)
    raise CelError(
        "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, "
        f"types, durations, and timestamps, was given {type_name(value)}"
    )


def _special(value: float) -> str:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return ""


def _wrong(clause: str, allowed: str, value: Any) -> CelError:
    return CelError(
        f"error during formatting: {clause} clause can only be used on {allowed}, was given {type_name(value)}"
    )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _decimal(value: Any) -> str:
    if _whole(value):
        return str(int(value))
    if isinstance(value, float) and _special(value):
        return _special(value)
    raise _wrong("decimal", "integers", value)


def _number(value: Any, clause: str) -> float:
    if isinstance(value, float) or _whole(value):
        return float(value)
    if isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity"):
        return float(value.replace("Infinity", "inf"))
    raise _wrong(clause, "doubles", value)


def _fixed(value: Any, precision: int | None) -> str:
    number = _number(value, "fixed-point")
    return _special(number) or f"{number:.{6 if precision is None else precision}f}"


def _scientific(value: Any, precision: int | None) -> str:
    number = _number(value, "scientific")
    return _special(number) or f"{number:.{6 if precision is None else precision}e}"


def _binary(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if _whole(value):
        return f"{int(value):b}"
    raise _wrong("binary", "integers and bools", value)


def _hexadecimal(value: Any, *, upper: bool) -> str:
    if _whole(value):
        text = f"{int(value):x}"
    elif isinstance(value, str):
        text = value.encode().hex()
    elif isinstance(value, bytes):
        text = value.hex()
    else:
        raise _wrong("hex", "integers, byte buffers, and strings", value)
    return text.upper() if upper else text


def _octal(value: Any) -> str:
    if _whole(value):
        return f"{int(value):o}"
    raise _wrong("octal", "integers", value)


_QUOTES: Final = str.maketrans(
    {
        "\a": "\\a",
        "\b": "\\b",
        "\f": "\\f",
        "\n": "\\n",
        "\r": "\\r",
        "\t": "\\t",
        "\v": "\\v",
        "\\": "\\\\",
        '"': '\\"',
    }
)


def quoted_string(text: str) -> str:
    return f'"{text.translate(_QUOTES)}"'
