"""YAML's values, put together from the parser's events, one after the other: the works of `yaml_reader`, loaded with
the parser when there is something to read.

PyYAML's own composer recurses in C, where a page of `[` ends the process, and keeps aliases as shared objects, which a
few lines can make to stand for gigabytes. Here depth, size and what aliases expand to are counted before anything is
made of them, and nothing in the result is shared.
"""

from __future__ import annotations

import codecs
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml import events as e

from navarch.api.yaml_scalars import plain, tagged

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG: Final = "tag:yaml.org,2002:"
_MAX_DEPTH: Final = 200
_MAX_EVENTS: Final = 300_000
# What all aliases of a document together may stand for: values, and bytes of JSON, which are those of the longest body.
_MAX_ALIASED_VALUES: Final = 100_000
_MAX_ALIASED_BYTES: Final = 3 << 20
# go-yaml: the part of all values that may come from aliases, unless there are few of either.
_FEW_ALIASED: Final = 100
_FEW_VALUES: Final = 1000
_MAX_ALIASED_PART: Final = 0.99
# The parser compares each %TAG with all before it.
_MAX_DIRECTIVES: Final = 100
_LINE_ENDS: Final = ("\n", "\r", "\x85", "\u2028", "\u2029")
_UTF_16: Final = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_STEP: Final = 250
_UNKNOWN: Final = "unknown problem parsing YAML content"
_MERGE: Final = object()


@dataclass(slots=True)
class _Size:
    """How many values there are in something, and about how many bytes they are as JSON."""

    values: int
    length: int

    def add(self, other: _Size) -> None:
        self.values += other.values
        self.length += other.length


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come yet; `key` is the one that waits for its value."""

    value: dict[str, Any] | list[Any]
    anchor: str | None
    size: _Size
    key: Any = None
    has_key: bool = False
    merges: list[Any] = field(default_factory=list)


class _Builder:
    def __init__(self) -> None:
        self.value: Any = None
        self.duplicates: list[str] = []
        self._open: list[_Open] = []
        # None while the anchor's own value is still being read.
        self._anchors: dict[str, tuple[Any, _Size] | None] = {}
        self._values = 0
        self._aliased = _Size(0, 0)

    def take(self, event: Any) -> None:
        """One event of the document's.  Raises ValueError."""
        if isinstance(event, e.ScalarEvent):
            self._values += 1
            value = _scalar(event, self._wants_key())
            size = _Size(1, len(event.value) + 3)
            if event.anchor:
                self._anchors[event.anchor] = (value, size)
            self._add(value, size, event)
        elif isinstance(event, e.CollectionStartEvent):
            self._values += 1
            if len(self._open) >= _MAX_DEPTH:
                raise too_deep()
            if self._wants_key():
                raise ValueError(f"yaml: invalid map key at line {_line(event)}")
            if event.anchor:
                self._anchors[event.anchor] = None
            value = {} if isinstance(event, e.MappingStartEvent) else []
            self._open.append(_Open(value, event.anchor, _Size(1, 3)))
        elif isinstance(event, e.CollectionEndEvent):
            self._close(event)

    def take_alias(self, event: Any) -> Iterator[None]:
        """The same for an alias, in steps.  Raises ValueError."""
        found = self._anchors.get(event.anchor, _MERGE)
        if found is _MERGE:
            raise ValueError(f"yaml: unknown anchor '{event.anchor}' referenced")
        if found is None:
            raise ValueError(f"yaml: anchor '{event.anchor}' value contains itself")
        assert isinstance(found, tuple)
        value, size = found
        self._count_aliased(size)
        self._add((yield from _copied(value)), size, event)

    def _count_aliased(self, size: _Size) -> None:
        """Before the copy is made.  Raises ValueError."""
        aliased = self._aliased
        aliased.add(size)
        self._values += size.values
        if (
            aliased.values > _MAX_ALIASED_VALUES
            or aliased.length > _MAX_ALIASED_BYTES
            or (
                aliased.values > _FEW_ALIASED
                and self._values > _FEW_VALUES
                and aliased.values > _MAX_ALIASED_PART * self._values
            )
        ):
            raise ValueError("yaml: document contains excessive aliasing")

    def _wants_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].value, dict) and not self._open[-1].has_key

    def _close(self, event: Any) -> None:
        done = self._open.pop()
        value = done.value
        if isinstance(value, dict):
            for merged in done.merges:
                for source in merged if isinstance(merged, list) else [merged]:
                    if not isinstance(source, dict):
                        raise ValueError("yaml: map merge requires map or sequence of maps as the value")
                    for key, item in source.items():
                        value.setdefault(key, item)
        if done.anchor:
            self._anchors[done.anchor] = (value, done.size)
        self._add(value, done.size, event)

    def _add(self, value: Any, size: _Size, event: Any) -> None:
        if not self._open:
            self.value = None if value is _MERGE else value
            return
        top = self._open[-1]
        top.size.add(size)
        if isinstance(top.value, list):
            top.value.append("<<" if value is _MERGE else value)
        elif not top.has_key:
            top.key, top.has_key = value, True
        else:
            self._put(top, value, event)

    def _put(self, top: _Open, value: Any, event: Any) -> None:
        assert isinstance(top.value, dict)
        top.has_key = False
        if top.key is _MERGE:
            top.merges.append(value)
            return
        if isinstance(top.key, (dict, list)):
            raise ValueError(f"yaml: invalid map key at line {_line(event)}")
        key = _key(top.key)
        if key in top.value:
            self.duplicates.append(f'line {_line(event)}: key "{key}" already set in map')
        top.value[key] = value


def _copied(value: Any) -> Generator[None, None, Any]:
    """What an alias stands for, not shared with its anchor's; in steps."""
    if not isinstance(value, (dict, list)):
        return value
    whole: dict[str, Any] | list[Any] = {} if isinstance(value, dict) else []
    waiting: list[tuple[Any, Any]] = [(value, whole)]
    count = 0
    while waiting:
        source, copy = waiting.pop()
        for key, item in source.items() if isinstance(source, dict) else enumerate(source):
            if isinstance(item, (dict, list)):
                inner: Any = {} if isinstance(item, dict) else []
                waiting.append((item, inner))
                item = inner
            if isinstance(copy, dict):
                copy[key] = item
            else:
                copy.append(item)
            count += 1
            if count % _STEP == 0:
                yield
    return whole


def steps(data: bytes) -> Generator[None, None, tuple[Any, list[str]]]:
    """Read the first document in `data`, in steps: its value, and which keys came twice.  Raises ValueError."""
    data = _in_utf_8(data)
    if sum(data.count(f"{end}%".encode()) for end in _LINE_ENDS) >= _MAX_DIRECTIVES:
        raise ValueError(f"yaml: the document has more than {_MAX_DIRECTIVES} directives")
    builder = _Builder()
    try:
        for count, event in enumerate(yaml.parse(data, Loader=_LOADER)):
            if isinstance(event, e.DocumentEndEvent):
                break
            if count > _MAX_EVENTS:
                raise ValueError(f"yaml: the document has more than {_MAX_EVENTS} keys and values")
            if isinstance(event, e.AliasEvent):
                yield from builder.take_alias(event)
            else:
                builder.take(event)
            if count % _STEP == 0:
                yield
    except yaml.YAMLError as error:
        raise _as_go_says(error) from None
    except UnicodeDecodeError:
        raise ValueError("yaml: invalid Unicode character") from None
    except RecursionError:
        raise too_deep() from None
    return builder.value, builder.duplicates


def _in_utf_8(data: bytes) -> bytes:
    """What is counted is what the parser reads: as go-yaml, UTF-16 where a byte order mark says so, else UTF-8.  Raises
    ValueError."""
    encoding = _UTF_16.get(data[:2])
    if encoding is None:
        return data
    if len(data) % 2:
        raise ValueError("yaml: incomplete UTF-16 character")
    try:
        return data[2:].decode(encoding).encode()
    except UnicodeDecodeError:
        raise ValueError("yaml: invalid Unicode character") from None


def too_deep() -> ValueError:
    return ValueError(f"yaml: exceeded max depth of {_MAX_DEPTH}")


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _as_go_says(error: yaml.YAMLError) -> ValueError:
    """The parser's complaint. Go's parser is a copy of libyaml and says the same; it counts lines from 0 but for what
    the scanner finds."""
    context = str(getattr(error, "context", None) or "")
    if context.startswith("while increasing"):
        # libyaml has a limit of its own, which differs from version to version.
        return too_deep()
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or _UNKNOWN
    line = 0
    for mark in (getattr(error, "context_mark", None), getattr(error, "problem_mark", None)):
        if mark is not None and mark.line:
            line = mark.line + isinstance(error, yaml.scanner.ScannerError)
            break
    return ValueError(f"yaml: line {line}: {problem}" if line else f"yaml: {problem}")


def _key(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)


def _scalar(event: Any, as_key: bool) -> Any:
    tag = event.tag
    if tag is None:
        if not event.implicit[0]:
            return event.value
        if as_key and event.value == "<<":
            return _MERGE
        value = plain(event.value)
    elif tag in ("!", f"{_TAG}str"):
        return event.value
    else:
        short = tag.removeprefix(_TAG)
        if short not in ("null", "bool", "int", "float"):
            raise ValueError(f"yaml: cannot decode !!{short[:64]}")
        try:
            value = tagged(short, event.value)
        except ValueError as error:
            raise ValueError(f"yaml: {error}") from None
    if isinstance(value, float) and value - value != 0:
        raise ValueError(f"json: unsupported value: {'NaN' if value != value else '+Inf' if value > 0 else '-Inf'}")
    return value
