"""YAML that a client sent, as the JSON value that it stands for.

In: bytes.  Out: dicts, lists and scalars as JSON has them, and which keys came twice. The document is put together
from the parser's events, one after the other: PyYAML's own composer recurses in C, where a page of `[` ends the
process, and keeps aliases as shared objects, which a few lines can make to stand for gigabytes. Here nesting, size and
what aliases expand to are bounded, and nothing in the result is shared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml import events as e

from navarch.api.memo import memo

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG: Final = "tag:yaml.org,2002:"
_MAX_DEPTH: Final = 200
_MAX_EVENTS: Final = 300_000
_MAX_ALIASED: Final = 100_000
_MERGE: Final = object()
_RESOLVER: Final[Any] = yaml.resolver.Resolver()
_CONSTRUCTOR: Final = yaml.constructor.SafeConstructor()


@dataclass(slots=True)
class Document:
    """`duplicates` says in the words of Kubernetes' parser which keys were given again."""

    value: Any = None
    duplicates: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come yet; `key` is the one that waits for its value."""

    value: dict[str, Any] | list[Any]
    anchor: str | None
    key: Any = None
    has_key: bool = False
    merges: list[Any] = field(default_factory=list)


class _Builder:
    def __init__(self) -> None:
        self.document = Document()
        self._open: list[_Open] = []
        self._anchors: dict[str, Any] = {}
        self._aliased = 0

    def take(self, event: Any) -> None:
        """One event of the document's.  Raises ValueError."""
        if isinstance(event, e.ScalarEvent):
            value = _scalar(event, self._wants_key())
            if event.anchor:
                self._anchors[event.anchor] = value
            self._add(value, event)
        elif isinstance(event, e.CollectionStartEvent):
            if len(self._open) >= _MAX_DEPTH:
                raise ValueError(f"yaml: exceeded max depth of {_MAX_DEPTH}")
            if self._wants_key():
                raise ValueError(f"yaml: invalid map key at line {_line(event)}")
            self._open.append(_Open({} if isinstance(event, e.MappingStartEvent) else [], event.anchor))
        elif isinstance(event, e.CollectionEndEvent):
            self._close(event)
        elif isinstance(event, e.AliasEvent):
            if event.anchor not in self._anchors:
                raise ValueError(f"yaml: unknown anchor '{event.anchor}' referenced")
            self._add(self._copy(self._anchors[event.anchor]), event)

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
            self._anchors[done.anchor] = value
        self._add(value, event)

    def _add(self, value: Any, event: Any) -> None:
        if not self._open:
            self.document.value = None if value is _MERGE else value
            return
        top = self._open[-1]
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
            self.document.duplicates.append(f'line {_line(event)}: key "{key}" already set in map')
        top.value[key] = value

    def _copy(self, value: Any) -> Any:
        """The value that an alias stands for, not shared with its anchor's."""
        self._aliased += 1
        if self._aliased > _MAX_ALIASED:
            raise ValueError("yaml: document contains excessive aliasing")
        if isinstance(value, dict):
            return {key: self._copy(item) for key, item in value.items()}
        return [self._copy(item) for item in value] if isinstance(value, list) else value


def load(data: bytes) -> Document:
    """The first document in `data`.  Raises ValueError."""
    builder = _Builder()
    try:
        for count, event in enumerate(yaml.parse(data.decode("utf-8"), Loader=_LOADER)):
            if isinstance(event, e.DocumentEndEvent):
                break
            if count > _MAX_EVENTS:
                raise ValueError(f"yaml: the document has more than {_MAX_EVENTS} keys and values")
            builder.take(event)
    except yaml.YAMLError as error:
        raise ValueError(f"yaml: {_one_line(error)}") from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"yaml: {error}") from None
    return builder.document


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}: {problem}" if mark is not None else str(problem)


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
        return _plain(event.value) if len(event.value) < 64 else event.value
    if tag in ("!", f"{_TAG}str"):
        return event.value
    return _tagged(tag, event.value)


@memo(4096)
def _plain(text: str) -> Any:
    """A scalar without quotes: null, boolean, number or string; dates stay strings, JSON has none."""
    tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))
    return _tagged(tag, text) if tag in _CONVERSIONS else text


def _tagged(tag: str, text: str) -> Any:
    convert = _CONVERSIONS.get(tag)
    if convert is None:
        raise ValueError(f"yaml: cannot decode !!{tag.removeprefix(_TAG)}")
    try:
        value = convert(yaml.ScalarNode(tag, text))
    except (ValueError, KeyError, IndexError, yaml.YAMLError):
        raise ValueError(f"yaml: cannot decode `{text[:64]}` as !!{tag.removeprefix(_TAG)}") from None
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        raise ValueError(f"json: unsupported value: {text}")
    return value


_CONVERSIONS: Final[dict[str, Any]] = {
    f"{_TAG}null": lambda node: None,
    f"{_TAG}bool": _CONSTRUCTOR.construct_yaml_bool,
    f"{_TAG}int": _CONSTRUCTOR.construct_yaml_int,
    f"{_TAG}float": _CONSTRUCTOR.construct_yaml_float,
}
