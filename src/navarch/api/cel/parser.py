"""From text to tree. A precedence climber for what is right; what is wrong is worded by `syntax`, which reads the
tokens again as ANTLR's parser would.

In: the text.  Out: the tree, macros expanded (`macros`).  Raises CompileError.
"""

from __future__ import annotations

from typing import Final

from navarch.api.cel import literals
from navarch.api.cel.ast import Call, Const, Entry, Ident, ListNode, MapNode, Node, Select, Struct
from navarch.api.cel.errors import CompileError, Issue
from navarch.api.cel.lexer import Token, tokens
from navarch.api.cel.macros import expanded, global_expanded
from navarch.api.cel.syntax import syntax_issues
from navarch.api.cel.types import BOOL, BYTES, DOUBLE, INT, NULL, STRING, UINT

_LONGEST: Final = 100_000
_DEEPEST: Final = 250
_RESERVED: Final = frozenset((
    "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package",
    "namespace", "return", "var", "void", "while",
))  # fmt: skip
_BINARY: Final = {
    "||": (1, "_||_"),
    "&&": (2, "_&&_"),
    "<": (3, "_<_"),
    "<=": (3, "_<=_"),
    ">=": (3, "_>=_"),
    ">": (3, "_>_"),
    "==": (3, "_==_"),
    "!=": (3, "_!=_"),
    "in": (3, "@in"),
    "+": (4, "_+_"),
    "-": (4, "_-_"),
    "*": (5, "_*_"),
    "/": (5, "_/_"),
    "%": (5, "_%_"),
}
_LITERALS: Final = {
    "NUM_INT": (literals.number, INT),
    "NUM_UINT": (literals.unsigned, UINT),
    "NUM_FLOAT": (literals.double, DOUBLE),
    "STRING": (literals.string, STRING),
    "BYTES": (literals.octets, BYTES),
}
_WORDS: Final = {"true": (True, BOOL), "false": (False, BOOL), "null": (None, NULL)}


class _Unexpected(Exception):
    """The tokens are no expression."""


class _Deep(Exception):
    """The expression is nested deeper than Kubernetes reads."""


def parse(source: str) -> Node:
    """Raises CompileError."""
    if len(source) > _LONGEST:
        text = f"expression code point size exceeds limit: size: {len(source)}, limit {_LONGEST}"
        raise CompileError(source, [Issue(0, text)])
    read, issues = tokens(source)
    if issues:
        raise CompileError(source, syntax_issues(source, read, issues))
    parser = _Parser(read)
    try:
        node = parser.whole()
    except _Unexpected:
        raise CompileError(source, syntax_issues(source, read, [])) from None
    except (_Deep, RecursionError):
        raise CompileError(source, [Issue(0, f"expression recursion limit exceeded: {_DEEPEST}")]) from None
    if parser.issues:
        raise CompileError(source, parser.issues)
    return node


class _Parser:
    def __init__(self, read: list[Token]) -> None:
        self._tokens = read
        self._next = 0
        self._depth = 0
        self.issues: list[Issue] = []

    def _peek(self) -> str:
        return self._tokens[self._next].kind

    def _take(self) -> Token:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _expect(self, kind: str) -> Token:
        token = self._tokens[self._next]
        if token.kind != kind:
            raise _Unexpected
        self._next += 1
        return token

    def whole(self) -> Node:
        node = self._expression()
        self._expect("EOF")
        return node

    def _expression(self) -> Node:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _Deep
        node = self._binary(1)
        if self._peek() == "?":
            at = self._take().at
            then = self._binary(1)
            self._expect(":")
            node = Call(at, "_?_:_", [node, then, self._expression()])
        self._depth -= 1
        return node

    def _binary(self, lowest: int) -> Node:
        left = self._unary()
        long = 0
        while (found := _BINARY.get(self._peek())) is not None and found[0] >= lowest:
            level, function = found
            long += 1
            if self._depth + long > _DEEPEST:
                raise _Deep
            if level <= 2:
                left = self._logical(left, self._peek(), level, function)
            else:
                at = self._take().at
                left = Call(at, function, [left, self._binary(level + 1)])
        return left

    def _logical(self, first: Node, operator: str, level: int, function: str) -> Node:
        """A chain of `&&` or `||` becomes a balanced tree, so that long ones are not deep ones."""
        terms, places = [first], []
        while self._peek() == operator:
            places.append(self._take().at)
            terms.append(self._binary(level + 1))

        def balanced(low: int, high: int) -> Node:
            middle = (low + high + 1) // 2
            left = terms[middle] if middle == low else balanced(low, middle - 1)
            right = terms[middle + 1] if middle == high else balanced(middle + 1, high)
            return Call(places[middle], function, [left, right])

        return balanced(0, len(places) - 1)

    def _unary(self) -> Node:
        kind = self._peek()
        if kind not in ("!", "-"):
            return self._member(self._primary())
        first = self._tokens[self._next]
        if self._signed_number():
            # A literal with its sign, which binds stronger than what is done to it.
            self._next += 1
            token = self._take()
            return self._member(self._literal(token.kind, "-" + token.text, first.at))
        count = 0
        while self._peek() == kind and not (kind == "-" and self._signed_number()):
            self._next += 1
            count += 1
        if self._signed_number():
            operand = self._unary()
        elif self._peek() in ("!", "-"):
            raise _Unexpected
        else:
            operand = self._member(self._primary())
        return operand if count % 2 == 0 else Call(first.at, "!_" if kind == "!" else "-_", [operand])

    def _signed_number(self) -> bool:
        return self._peek() == "-" and self._tokens[self._next + 1].kind in ("NUM_INT", "NUM_FLOAT")

    def _literal(self, kind: str, text: str, at: int) -> Node:
        read, of = _LITERALS[kind]
        try:
            return Const(at, read(text), of)
        except ValueError as error:
            self.issues.append(Issue(at, str(error)))
            return Const(at, None, NULL)

    def _primary(self) -> Node:
        token = self._take()
        kind = token.kind
        if kind in _LITERALS:
            return self._literal(kind, token.text, token.at)
        if kind in _WORDS:
            value, of = _WORDS[kind]
            return Const(token.at, value, of)
        if kind in ("IDENTIFIER", "."):
            return self._named(token)
        if kind == "(":
            node = self._expression()
            self._expect(")")
            return node
        if kind == "[":
            return self._list(token.at)
        if kind == "{":
            return self._map(token.at)
        raise _Unexpected

    def _named(self, token: Token) -> Node:
        """A name, a global function's call, or the making of an object (whose name may have dots)."""
        rooted = token.kind == "."
        name = self._expect("IDENTIFIER") if rooted else token
        text = f".{name.text}" if rooted else name.text
        if self._makes_object():
            return self._struct(text)
        if name.text in _RESERVED:
            self.issues.append(Issue(name.at, f"reserved identifier: {name.text}"))
        if self._peek() == "(":
            at = self._take().at
            args = self._arguments()
            made = global_expanded(at, text, args, self.issues)
            return made if made is not None else Call(at, text, args)
        return Ident(name.at, text)

    def _makes_object(self) -> bool:
        """Whether what follows a name is `.a.b{`."""
        at = self._next
        while self._tokens[at].kind == "." and self._tokens[at + 1].kind == "IDENTIFIER":
            at += 2
        return self._tokens[at].kind == "{"

    def _struct(self, name: str) -> Node:
        while self._peek() == ".":
            self._next += 1
            name += "." + self._expect("IDENTIFIER").text
        place = self._expect("{").at
        entries: list[Entry] = []
        while self._peek() != "}":
            optional = self._optional()
            field = self._field()
            colon = self._expect(":").at
            entries.append(Entry(colon, None, field, self._expression(), optional=optional))
            if self._peek() != ",":
                break
            self._next += 1
            if self._peek() == "," or not entries:
                raise _Unexpected
        self._expect("}")
        return Struct(place, name, entries)

    def _optional(self) -> bool:
        if self._peek() != "?":
            return False
        self._next += 1
        return True

    def _field(self) -> str:
        token = self._take()
        if token.kind == "ESC_IDENTIFIER":
            self.issues.append(Issue(token.at, "unsupported syntax: '`'"))
            return token.text[1:-1]
        if token.kind != "IDENTIFIER":
            raise _Unexpected
        return token.text

    def _list(self, place: int) -> Node:
        elements: list[Node] = []
        optional: set[int] = set()
        while self._peek() != "]":
            if self._peek() == "," and not elements:
                break
            if self._optional():
                optional.add(len(elements))
            elements.append(self._expression())
            if self._peek() != ",":
                break
            self._next += 1
            if self._peek() == ",":
                raise _Unexpected
        if self._peek() == "," and not elements:
            self._next += 1
        self._expect("]")
        return ListNode(place, elements, frozenset(optional))

    def _map(self, place: int) -> Node:
        entries: list[Entry] = []
        while self._peek() != "}":
            if self._peek() == "," and not entries:
                self._next += 1
                break
            optional = self._optional()
            key = self._expression()
            colon = self._expect(":").at
            entries.append(Entry(colon, key, "", self._expression(), optional=optional))
            if self._peek() != ",":
                break
            self._next += 1
        self._expect("}")
        return MapNode(place, entries)

    def _arguments(self) -> list[Node]:
        args: list[Node] = []
        if self._peek() != ")":
            args.append(self._expression())
            while self._peek() == ",":
                self._next += 1
                args.append(self._expression())
        self._expect(")")
        return args

    def _member(self, node: Node) -> Node:
        """What follows a primary: fields, methods, indices."""
        long = 0
        while True:
            kind = self._peek()
            long += 1
            if self._depth + long > _DEEPEST:
                raise _Deep
            if kind == ".":
                at = self._take().at
                optional = self._optional()
                name = self._field()
                if self._peek() == "(" and not optional:
                    opened = self._take().at
                    args = self._arguments()
                    made = expanded(opened, node, name, args, self.issues)
                    node = made if made is not None else Call(opened, name, args, node)
                else:
                    node = Select(at, node, name, optional=optional)
            elif kind == "[":
                at = self._take().at
                function = "_[?_]" if self._optional() else "_[_]"
                node = Call(at, function, [node, self._expression()])
                self._expect("]")
            else:
                return node
