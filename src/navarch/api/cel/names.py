"""Names of properties as CEL can write them: what is no identifier is escaped as Kubernetes escapes it."""

from __future__ import annotations

import re
from typing import Final

# Words that CEL itself needs; other reserved words can be fields.
_WORDS: Final = frozenset((
    "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if",
    "import", "let", "loop", "package", "namespace", "return", "var", "void", "while",
))  # fmt: skip
_IDENTIFIER: Final = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_ESCAPED: Final = re.compile("[A-Za-z0-9_./-]+")
_PARTS: Final = re.compile(r"__|[./-]")
_NAMES: Final = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}


def escaped(name: str) -> str | None:
    """The identifier for a property, None where there is none."""
    if name in _WORDS:
        return f"__{name}__"
    if not _ESCAPED.fullmatch(name) or name[0] in "0123456789":
        return None
    return _PARTS.sub(lambda match: _NAMES[match.group()], name)


def is_identifier(name: str) -> bool:
    return _IDENTIFIER.fullmatch(name) is not None and name not in _WORDS
