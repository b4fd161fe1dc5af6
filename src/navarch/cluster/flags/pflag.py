"""Command lines as Kubernetes' programs take them: which flags there are, and what is said of what they cannot be.

In: a program's table of flags and its arguments.  Out: each flag's values, in order.  The rules are Go's pflag's:
`--name=value` and `--name value`; a switch stands alone or has `=false`; `_` counts as `-`; what is repeated adds up
for lists and else replaces; `--` ends the flags.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Final

from navarch.api.duration import seconds_of
from navarch.records import frozen, mutable

# What a flag takes: a switch, one value, a number, a duration, or a list that commas and repetitions make.
SWITCH: Final = "bool"
TEXT: Final = "string"
NUMBER: Final = "int"
DURATION: Final = "duration"
LIST: Final = "strings"

_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})


class FlagError(Exception):
    """The command line cannot be used; the message is the one that Kubernetes' programs give."""


@frozen
class Flag:
    """`effective` says whether it changes anything here; the others are accepted, and said to do nothing."""

    name: str
    type: str
    effective: bool = False
    short: str = ""


@mutable
class Flags:
    """What a command line says."""

    values: dict[str, list[str]] = field(default_factory=dict)
    arguments: list[str] = field(default_factory=list)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def text(self, name: str, default: str = "") -> str:
        """The last value, which is the one that counts."""
        return self.values.get(name, [default])[-1]

    def texts(self, name: str) -> tuple[str, ...]:
        """All values of a list, whether repeated or separated by commas."""
        return tuple(part for value in self.values.get(name, ()) for part in value.split(",") if part)

    def switch(self, name: str, *, default: bool = False) -> bool:
        return self.text(name) in _TRUE if name in self.values else default

    def number(self, name: str, default: int = 0) -> int:
        return int(self.text(name), 0) if name in self.values else default

    def seconds(self, name: str, default: float = 0.0) -> float:
        return seconds_of(self.text(name)) if name in self.values else default


def parse(table: Mapping[str, Flag], argv: Sequence[str]) -> Flags:
    """Raises FlagError."""
    found = Flags()
    short = {flag.short: flag for flag in table.values() if flag.short}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            found.arguments += rest
            break
        if not word.startswith("-") or word == "-":
            found.arguments.append(word)
        elif word.startswith("--"):
            name, has_value, value = word[2:].partition("=")
            if not name or name.startswith("-"):
                raise FlagError(f"bad flag syntax: {word}")
            flag = table.get(name.replace("_", "-"))
            if flag is None:
                raise FlagError(f"unknown flag: --{name}")
            _add(found, flag, f"--{flag.name}", value if has_value else None, rest)
        else:
            flag = short.get(word[1])
            if flag is None:
                raise FlagError(f"unknown shorthand flag: '{word[1]}' in {word}")
            _add(found, flag, f"-{word[1]}, --{flag.name}", word[2:].removeprefix("=") or None, rest)
    return found


def _add(found: Flags, flag: Flag, shown: str, value: str | None, rest: list[str]) -> None:
    if value is None:
        if flag.type == SWITCH:
            value = "true"
        elif rest:
            value = rest.pop(0)
        else:
            raise FlagError(f"flag needs an argument: {shown.split(', ')[-1]}")
    if (why := _refused(flag.type, value)) is not None:
        raise FlagError(f'invalid argument "{value}" for "{shown}" flag: {why}')
    found.values.setdefault(flag.name, []).append(value)


def _refused(type_: str, value: str) -> str | None:
    """What Go says of a value that is not of the type."""
    if type_ == SWITCH and value not in _TRUE and value not in _FALSE:
        return f'strconv.ParseBool: parsing "{value}": invalid syntax'
    if type_ == NUMBER:
        try:
            int(value, 0)
        except ValueError:
            return f'strconv.ParseInt: parsing "{value}": invalid syntax'
    if type_ == DURATION:
        try:
            seconds_of(value)
        except ValueError:
            return f'time: invalid duration "{value}"'
    return None


def help_text(about: str, program: str, flags: Iterable[Flag]) -> str:
    """What `--help` prints: each flag at the beginning of a line, where harnesses look for it."""
    lines = [about, "", "Usage:", f"  {program} [flags]", "", "Flags:"]
    for flag in sorted(flags, key=lambda flag: flag.name):
        type_ = "" if flag.type == SWITCH else f" {flag.type}"
        effect = "" if flag.effective else "   (accepted, has no effect)"
        head = f"  -{flag.short}, " if flag.short else "      "
        lines.append(f"{head}--{flag.name}{type_}{effect}")
    return "\n".join(lines) + "\n"
