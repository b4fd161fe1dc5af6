"""How syntax errors are worded: as ANTLR's parser words them for cel-go's grammar.

In: the tokens of what is no expression, and what the lexer could not read.  Out: all issues.

Only what is wrong comes here. The rules of the grammar are methods; like the parser that ANTLR generates they check
what comes next where they have a choice (`_sync`), delete or imagine one token where that helps, and otherwise give a
rule up and go on behind it. What may follow the rules that are under way is kept in `_follows`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from navarch.api.cel.errors import Issue
from navarch.api.cel.lexer import Token, Unread

_ORDER: Final = (
    "EOF", "==", "!=", "in", "<", "<=", ">=", ">", "&&", "||", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!",
    "?", ":", "+", "*", "/", "%", "true", "false", "null", "NUM_FLOAT", "NUM_INT", "NUM_UINT", "STRING",
    "BYTES", "IDENTIFIER", "ESC_IDENTIFIER",
)  # fmt: skip
_PLACE: Final = {kind: index for index, kind in enumerate(_ORDER)}
_NAMED: Final = frozenset(kind for kind in _ORDER if kind.isupper() and kind != "EOF")
# The rule may end here.
_END: Final = "END"
_NUMBERS: Final = frozenset({"NUM_INT", "NUM_FLOAT"})
_LITERALS: Final = frozenset({"-", "true", "false", "null", "NUM_UINT", "STRING", "BYTES", *_NUMBERS})
_PRIMARY: Final = frozenset({"[", "{", "(", ".", "IDENTIFIER", *_LITERALS})
_EXPRESSION: Final = frozenset({"!", *_PRIMARY})
_OPTIONAL: Final = frozenset({"?", *_EXPRESSION})
_FIELD: Final = frozenset({"?", "IDENTIFIER", "ESC_IDENTIFIER"})
_RELATIONS: Final = frozenset({"==", "!=", "in", "<", "<=", ">=", ">"})
_LEVELS: Final = {"*": 2, "/": 2, "%": 2, "+": 1, "-": 1}
_MOST: Final = 100


class _Mismatch(Exception):
    """A rule cannot go on. `text` is what is reported, `state` where in the grammar it happened."""

    def __init__(self, state: str, at: int, text: str) -> None:
        super().__init__(text)
        self.state = state
        self.at = at
        self.text = text


def syntax_issues(source: str, read: list[Token], issues: list[Unread]) -> list[Issue]:
    reader = _Reader(source, read, [(issue.offset, issue.end) for issue in issues])
    try:
        reader.start()
    except RecursionError:
        reader.issues.append(Issue(0, "expression recursion limit exceeded: 250"))
    return [*(Issue(issue.offset, issue.text) for issue in issues), *reader.issues]


class _Reader:
    def __init__(self, source: str, read: list[Token], unread: list[tuple[int, int]]) -> None:
        self._source = source
        self._unread = unread
        self._tokens = read
        self._next = 0
        self._recovering = False
        self._failed_at = -1
        self._failed_states: set[str] = set()
        self._follows: list[frozenset[str]] = []
        self.issues: list[Issue] = []

    # Tokens

    def _token(self, ahead: int = 0) -> Token:
        return self._tokens[min(self._next + ahead, len(self._tokens) - 1)]

    def _kind(self, ahead: int = 0) -> str:
        return self._token(ahead).kind

    def _consume(self) -> None:
        if self._kind() != "EOF":
            self._next += 1

    def _report(self, at: int, text: str) -> None:
        if not self._recovering:
            self._recovering = True
            self.issues.append(Issue(at, f"Syntax error: {text}"))

    def _matched(self) -> None:
        self._recovering = False
        self._failed_at = -1
        self._failed_states.clear()

    def _expected(self, here: Iterable[str]) -> frozenset[str]:
        """What may come, where these may and the rules under way may end."""
        found = set(here)
        for follow in reversed(self._follows):
            if _END not in found:
                break
            found.discard(_END)
            found |= follow
        if _END in found:
            found.discard(_END)
            found.add("EOF")
        return frozenset(found)

    def _behind(self) -> frozenset[str]:
        """What may follow any rule under way: where reading goes on after a failure."""
        return frozenset(kind for follow in self._follows for kind in follow if kind != _END)

    def _skip_until(self, wanted: frozenset[str]) -> None:
        while self._kind() != "EOF" and self._kind() not in wanted:
            self._consume()

    # What ANTLR's error strategy does

    def _sync(self, state: str, here: Iterable[str], *, again: bool = False) -> None:
        """Before a choice. `again`: at the end of a loop's round."""
        here = frozenset(here)
        if self._recovering or _END in here or self._kind() in here:
            return
        if again:
            self._report(self._token().at, f"extraneous input {_shown(self._token())} expecting {_set(here)}")
            self._skip_until(here | self._behind())
            return
        if not self._deleted(here):
            raise _Mismatch(state, self._token().at, f"mismatched input {_shown(self._token())} expecting {_set(here)}")

    def _deleted(self, here: Iterable[str]) -> bool:
        """Whether all is well without the next token, which is then passed over."""
        expected = self._expected(here)
        if self._kind(1) not in expected or self._kind() == "EOF":
            return False
        self._report(self._token().at, f"extraneous input {_shown(self._token())} expecting {_set(expected)}")
        self._consume()
        self._matched()
        return True

    def _match(self, kind: str, after: Iterable[str]) -> None:
        """The token; `after` is what may come behind it."""
        if self._kind() == kind:
            self._matched()
            self._consume()
            return
        if self._deleted({kind}):
            self._consume()
            return
        token = self._token()
        if self._kind() in self._expected(after):
            self._report(token.at, f"missing {_set({kind})} at {_shown(token)}")
            return
        raise _Mismatch(f"match {kind}", token.at, f"mismatched input {_shown(token)} expecting {_set({kind})}")

    def _stuck(self, state: str, ahead: int) -> _Mismatch:
        """No alternative goes on with the token so far ahead."""
        last = self._token(ahead)
        end = len(self._source) if last.kind == "EOF" else last.at + len(last.text)
        text = _escaped(self._read(self._token().at, end)) if self._kind() != "EOF" else "<EOF>"
        return _Mismatch(state, last.at, f"no viable alternative at input '{text}'")

    def _read(self, start: int, end: int) -> str:
        """The text, without what the lexer could not read."""
        parts = []
        for at, stop in self._unread:
            if start <= at < end:
                parts.append(self._source[start:at])
                start = stop
        return "".join([*parts, self._source[start:end]])

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """A rule: what goes wrong in it is reported, and reading goes on behind it."""
        try:
            yield
        except _Mismatch as failure:
            self._report(failure.at, failure.text)
            if self._failed_at == self._next and failure.state in self._failed_states:
                self._consume()
            self._failed_at = self._next
            self._failed_states.add(failure.state)
            if len(self.issues) < _MOST:
                self._skip_until(self._behind())
            else:
                self._next = len(self._tokens) - 1

    def _in(self, rule: Callable[[], None], *follow: str) -> None:
        self._follows.append(frozenset(follow))
        with self._guarded():
            rule()
        self._follows.pop()

    # The grammar

    def start(self) -> None:
        with self._guarded():
            self._in(self._expr, "EOF")
            self._match("EOF", {_END})

    def _expr(self) -> None:
        self._in(self._or, "?", _END)
        if self._kind() == "?":
            self._match("?", _EXPRESSION)
            self._in(self._or, ":")
            self._match(":", _EXPRESSION)
            self._in(self._expr, _END)

    def _or(self) -> None:
        self._in(self._and, "||", _END)
        while self._kind() == "||":
            self._match("||", _EXPRESSION)
            self._in(self._and, "||", _END)

    def _and(self) -> None:
        self._in(self._relation, "&&", _END)
        while self._kind() == "&&":
            self._match("&&", _EXPRESSION)
            self._in(self._relation, "&&", _END)

    def _relation(self) -> None:
        self._in(self._calc, *_RELATIONS, _END)
        while self._kind() in _RELATIONS:
            self._match(self._kind(), _EXPRESSION)
            self._in(self._operand_of_relation, *_RELATIONS, _END)

    def _operand_of_relation(self) -> None:
        self._in(self._calc, *_RELATIONS, _END)

    def _calc(self, lowest: int = 1) -> None:
        self._in(self._unary, *_LEVELS, _END)
        while _LEVELS.get(self._kind(), 0) >= lowest:
            level = _LEVELS[self._kind()]
            self._match(self._kind(), _EXPRESSION)
            self._in(lambda level=level: self._calc(level + 1), *_LEVELS, _END)  # type: ignore[misc]

    def _unary(self) -> None:
        self._sync("unary", _EXPRESSION)
        sign = self._kind()
        if sign == "!":
            self._signs("!")
        elif sign == "-":
            if self._kind(1) in _NUMBERS:
                self._in(self._member, _END)
                return
            if self._kind(1) not in _PRIMARY:
                raise self._stuck("unary", 1)
            self._signs("-")
        elif sign not in _PRIMARY:
            raise self._stuck("unary", 0)
        self._in(self._member, _END)

    def _signs(self, sign: str) -> None:
        after = {sign, *_PRIMARY}
        while self._kind() == sign and not (sign == "-" and self._kind(1) in _NUMBERS):
            self._match(sign, after)
            self._sync("signs", after, again=True)
            if self._kind() == "-" and self._kind(1) not in {"-", *_PRIMARY} and sign == "-":
                raise self._stuck("signs", 1)

    def _member(self) -> None:
        self._in(self._primary, ".", "[", _END)
        while self._kind() in (".", "["):
            if self._kind() == "[":
                self._match("[", _OPTIONAL)
                self._sync("index", _OPTIONAL)
                self._optional_mark()
                self._in(self._expr, "]")
                self._match("]", {".", "[", _END})
            elif self._kind(1) == "IDENTIFIER" and self._kind(2) == "(":
                self._next += 1
                self._matched()
                self._match("IDENTIFIER", {"("})
                self._arguments({".", "[", _END})
            elif self._kind(1) in _FIELD:
                self._match(".", _FIELD)
                self._optional_mark()
                self._in(self._identifier, ".", "[", _END)
            else:
                raise self._stuck("member", 1)

    def _optional_mark(self) -> None:
        if self._kind() == "?":
            self._match("?", _EXPRESSION)

    def _identifier(self) -> None:
        self._sync("identifier", {"IDENTIFIER", "ESC_IDENTIFIER"})
        if self._kind() not in ("IDENTIFIER", "ESC_IDENTIFIER"):
            raise self._stuck("identifier", 0)
        self._match(self._kind(), {_END})

    def _arguments(self, after: set[str]) -> None:
        self._match("(", {")", *_EXPRESSION})
        self._sync("arguments", {")", *_EXPRESSION})
        if self._kind() in _EXPRESSION:
            self._in(self._expr_list, ")")
        self._match(")", after)

    def _expr_list(self) -> None:
        self._in(self._expr, ",", _END)
        while self._kind() == ",":
            self._match(",", _EXPRESSION)
            self._in(self._expr, ",", _END)

    def _primary(self) -> None:
        self._sync("primary", _PRIMARY)
        kind = self._kind()
        if kind in ("IDENTIFIER", "."):
            self._named()
        elif kind == "(":
            self._match("(", _EXPRESSION)
            self._in(self._expr, ")")
            self._match(")", {_END})
        elif kind == "[":
            self._match("[", {",", "]", *_OPTIONAL})
            self._container("]", _OPTIONAL, self._items)
        elif kind == "{":
            self._match("{", {",", "}", *_OPTIONAL})
            self._container("}", _OPTIONAL, self._entries)
        elif kind in _LITERALS:
            self._in(self._literal, _END)
        else:
            raise self._stuck("primary", 0)

    def _named(self) -> None:
        dotted = 1 if self._kind() == "." else 0
        if dotted and self._kind(1) != "IDENTIFIER":
            raise self._stuck("primary", 1)
        self._next += 1 + dotted
        self._matched()
        ahead = 0
        while self._kind(ahead) == "." and self._kind(ahead + 1) == "IDENTIFIER":
            ahead += 2
        if self._kind(ahead) == "{":
            self._next += ahead
            self._match("{", {",", "}", *_FIELD})
            self._container("}", _FIELD, self._fields)
        elif self._kind() == "(":
            self._arguments({_END})

    def _container(self, close: str, first: frozenset[str], rule: Callable[[], None]) -> None:
        """What is between brackets: a list of something, and perhaps one comma more."""
        self._sync("container", {",", close, *first})
        if self._kind() in first:
            self._in(rule, ",", close)
        self._sync("container end", {",", close})
        if self._kind() == ",":
            self._match(",", {close})
        self._match(close, {_END})

    def _items(self) -> None:
        self._in(self._optional_expr, ",", _END)
        while self._kind() == "," and self._kind(1) in _OPTIONAL:
            self._match(",", _OPTIONAL)
            self._in(self._optional_expr, ",", _END)

    def _optional_expr(self) -> None:
        self._sync("optional", _OPTIONAL)
        self._optional_mark()
        self._in(self._expr, _END)

    def _entries(self) -> None:
        while True:
            self._in(self._optional_expr, ":")
            self._match(":", _EXPRESSION)
            self._in(self._expr, ",", _END)
            if self._kind() != "," or self._kind(1) not in _OPTIONAL:
                return
            self._match(",", _OPTIONAL)

    def _fields(self) -> None:
        while True:
            self._in(self._optional_field, ":")
            self._match(":", _EXPRESSION)
            self._in(self._expr, ",", _END)
            if self._kind() != "," or self._kind(1) not in _FIELD:
                return
            self._match(",", _FIELD)

    def _optional_field(self) -> None:
        self._sync("field", _FIELD)
        if self._kind() == "?":
            self._match("?", {"IDENTIFIER", "ESC_IDENTIFIER"})
        self._in(self._identifier, _END)

    def _literal(self) -> None:
        if self._kind() == "-":
            if self._kind(1) not in _NUMBERS:
                raise self._stuck("literal", 1)
            self._match("-", _NUMBERS)
        self._match(self._kind(), {_END})


def _shown(token: Token) -> str:
    return f"'{_escaped(token.text)}'"


def _escaped(text: str) -> str:
    return text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def _set(kinds: Iterable[str]) -> str:
    names = [
        "<EOF>" if kind == "EOF" else kind if kind in _NAMED else f"'{kind}'"
        for kind in sorted(set(kinds) - {_END}, key=_PLACE.__getitem__)
    ]
    return names[0] if len(names) == 1 else "{" + ", ".join(names) + "}"
