"""JSON values as Go's `fmt` prints them: what Kubernetes' messages show of a patch or a configuration.

In: a decoded JSON value.  Out: the text of `%v` (`go_text`), of `%#v` (`go_syntax`), the name of its Go type
(`go_type`), what encoding/json calls it (`go_kind`), and its complaint about what cannot say what it is
(`check_type_meta`).  Numbers are what Kubernetes' decoder makes of them: int64 where they are whole, else float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

_TYPES: Final = {
    bool: "bool",
    int: "int64",
    float: "float64",
    str: "string",
    list: "[]interface {}",
    dict: "map[string]interface {}",
}
_KINDS: Final = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}


_ESCAPED: Final = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
)
_QUOTES: Final = {
    '"': '\\"',
    "\\": "\\\\",
    "\n": "\\n",
    "\t": "\\t",
    "\r": "\\r",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\v": "\\v",
}
_PACKAGES: Final = {"": "core", "rbac.authorization.k8s.io": "rbac", "events.k8s.io": "core"}


def go_package(group: str) -> str:
    """Where Kubernetes keeps the types of a group of its own."""
    return _PACKAGES.get(group) or group.split(".", 1)[0]


def escaped_json(data: bytes) -> bytes:
    """JSON as Go's encoder writes it, which HTML and JavaScript can hold."""
    for plain, escaped in _ESCAPED:
        data = data.replace(plain, escaped)
    return data


def go_text(value: Any) -> str:
    """`%v`."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{name}:{go_text(value[name])}" for name in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(go_text, value)) + "]"
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    return go_float(value) if isinstance(value, float) else str(value)


def go_syntax(value: Any) -> str:
    """`%#v`."""
    if isinstance(value, dict):
        members = ", ".join(f"{quoted(name)}:{go_syntax(value[name])}" for name in sorted(value))
        return f"map[string]interface {{}}{{{members}}}"
    if isinstance(value, list):
        return f"[]interface {{}}{{{', '.join(map(go_syntax, value))}}}"
    if isinstance(value, str):
        return quoted(value)
    return "interface {}(nil)" if value is None else go_text(value)


def go_type(value: Any) -> str:
    """`%T`; of nothing what `%s` makes of it."""
    return _TYPES.get(type(value), "%!s(<nil>)")


def go_kind(value: Any) -> str:
    return _KINDS.get(type(value), "null")


def go_float(value: float) -> str:
    """A float64 as `%v` prints it: the shortest digits, with an exponent from a million on and below 0.0001."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    sign, digits, power = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(power, int)
    text = "".join(map(str, digits))
    exponent = len(text) - 1 + power
    if text != "0" and not -5 < exponent < 6:
        shown = text[0] + (f".{text[1:]}" if len(text) > 1 else "") + f"e{exponent:+03d}"
    else:
        shown = f"{Decimal((0, digits, power)):f}"
    return f"-{shown}" if sign else shown


def quoted(text: str) -> str:
    """`%q`."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    parts = []
    for char in text:
        if char in _QUOTES:
            parts.append(_QUOTES[char])
        elif char.isprintable():
            parts.append(char)
        elif ord(char) < 0x80:
            parts.append(f"\\x{ord(char):02x}")
        else:
            parts.append(f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}")
    return f'"{"".join(parts)}"'


def go_label_selector(selector: Mapping[str, Any] | None) -> str:
    """`%+v` of a label selector, which has a form of its own."""
    if selector is None:
        return "nil"
    labels = selector.get("matchLabels") or {}
    pairs = "".join(f"{key}: {labels[key]}," for key in sorted(labels))
    expressions = "".join(
        f"LabelSelectorRequirement{{Key:{each.get('key')},Operator:{each.get('operator')},"
        f"Values:[{' '.join(each.get('values') or ())}],}},"
        for each in selector.get("matchExpressions") or ()
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{pairs}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )


TYPE_META = 'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
"""The struct that is read first of an object, as its type is shown."""


def check_type_meta(value: Any) -> None:
    """Whether a value can say what it is: an object whose apiVersion and kind are texts.  Raises ValueError, as Go's
    decoder words it."""
    if not isinstance(value, dict):
        raise ValueError(f"json: cannot unmarshal {go_kind(value)} into Go value of type {TYPE_META}")
    for name in ("apiVersion", "kind"):
        if not isinstance(value.get(name), (str, type(None))):
            wrong = f"{go_kind(value[name])} into Go struct field .{name} of type string"
            raise ValueError(f"json: cannot unmarshal {wrong}")
