"""Tokens of an expression, as ANTLR's lexer gives them to cel-go.

In: the text.  Out: the tokens, the last of which is `EOF`, and what could not be read. What is no token is passed over
with an issue that shows it up to the character that could not follow, which is also passed over.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final, NamedTuple


class Token(NamedTuple):
    """`kind` is IDENTIFIER, ESC_IDENTIFIER, NUM_INT, NUM_UINT, NUM_FLOAT, STRING, BYTES, EOF, or the text itself of
    operators and keywords."""

    kind: str
    text: str
    at: int


class Unread(NamedTuple):
    """What is no token: from where to where, and what is said of it."""

    offset: int
    end: int
    text: str


_ESCAPE: Final = r"""\\(?:[abfnrtv"'`?\\]|[xX][0-9a-fA-F]{2}|[0-3][0-7]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})"""


def _quoted(quote: str) -> str:
    """Strings within such quotes: of three, which may span lines, and of one; raw ones know no escapes."""
    three = quote * 3
    return (
        f"(?:[rR]{three}(?s:.)*?{three}|{three}(?:{_ESCAPE}|[^\\\\])*?{three}"
        f"|[rR]{quote}[^{quote}\\n\\r]*{quote}|{quote}(?:{_ESCAPE}|[^\\\\{quote}\\n\\r])*{quote})"
    )


_STRING: Final = f"(?:{_quoted(chr(34))}|{_quoted(chr(39))})"
_OPERATORS: Final = ("==", "!=", "<=", ">=", "&&", "||", *"<>[]{}().,-!?:+*/%")
_KEYWORDS: Final = frozenset({"in", "true", "false", "null"})
_SKIPPED: Final = re.compile(r"(?:[\t \r\n\f]+|//[^\n]*)+")
_TOKEN: Final = (
    rf"(?P<BYTES>[bB]{_STRING})|(?P<STRING>{_STRING})"
    r"|(?P<NUM_FLOAT>[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|\.[0-9]+(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<NUM_UINT>(?:0x[0-9a-fA-F]+|[0-9]+)[uU])|(?P<NUM_INT>0x[0-9a-fA-F]+|[0-9]+)"
    r"|(?P<IDENTIFIER>[A-Za-z_][A-Za-z0-9_]*)|(?P<ESC_IDENTIFIER>`[A-Za-z0-9_.\-/ ]+`)"
    rf"|(?P<OPERATOR>{'|'.join(map(re.escape, _OPERATORS))})"
)
# How far the lexer gets into something that it cannot end.
_STARTED: Final = (
    rf"""\"(?:{_ESCAPE}|[^\\\"\n\r])*(?:\\(?:[xX][0-9a-fA-F]?|[0-3][0-7]?|u[0-9a-fA-F]{{0,3}}|U[0-9a-fA-F]{{0,7}})?)?"""
    rf"""|'(?:{_ESCAPE}|[^\\'\n\r])*(?:\\(?:[xX][0-9a-fA-F]?|[0-3][0-7]?|u[0-9a-fA-F]{{0,3}}|U[0-9a-fA-F]{{0,7}})?)?"""
    r"|`[A-Za-z0-9_.\-/ ]*|[=&|]"
)
_SHOWN: Final = str.maketrans({"\n": "\\n", "\r": "\\r", "\t": "\\t"})


@cache
def _token() -> re.Pattern[str]:
    """Compiled when there is an expression: that takes milliseconds, and a server may never have one."""
    return re.compile(_TOKEN)


def tokens(source: str) -> tuple[list[Token], list[Unread]]:
    token = _token()
    found: list[Token] = []
    issues: list[Unread] = []
    at, end = 0, len(source)
    while at < end:
        skipped = _SKIPPED.match(source, at)
        if skipped is not None:
            at = skipped.end()
            continue
        match = token.match(source, at)
        if match is None:
            started = re.compile(_STARTED).match(source, at)
            stuck = started.end() if started is not None else at
            text = source[at : stuck + 1].translate(_SHOWN)
            issues.append(Unread(at, stuck + 1, f"Syntax error: token recognition error at: '{text}'"))
            at = stuck + 1
            continue
        kind = match.lastgroup or ""
        text = match.group()
        if kind == "OPERATOR" or text in _KEYWORDS:
            kind = text
        found.append(Token(kind, text, at))
        at = match.end()
    found.append(Token("EOF", "<EOF>", end))
    return found, issues
