"""StorageVersion: in which version each API server writes the objects of a resource. Columns, validation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from navarch.api.errors import FieldError, duplicate, invalid_value, required
from navarch.api.meta import Obj
from navarch.api.validation import (
    dns_label_1035_problems,
    dns_subdomain_problems,
    regex_problem,
    validate_dns_subdomain,
    validate_qualified_name,
)
from navarch.kinds.base import AGE, NAME, SETTABLE_METADATA, Column, Strategy
from navarch.kinds.strategies import strategy

_EMPTY: Final = "must be non-empty"
_VERSION: Final = (
    "an apiVersion is "
    + regex_problem(
        "a DNS-1035 label, which must consist of lower case alphanumeric characters or '-', start with an alphabetic "
        "character, and end with an alphanumeric character",
        "[a-z]([-a-z0-9]*[a-z0-9])?",
        "my-name",
        "abc-123",
    )
    + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyVersion')"
)


def _common_cell(obj: Obj, now: datetime) -> str:
    return str((obj.get("status") or {}).get("commonEncodingVersion") or "<unset>")


def _versions_cell(obj: Obj, now: datetime) -> str:
    """Server by server, at most three of them."""
    servers = (obj.get("status") or {}).get("storageVersions") or []
    if not servers:
        return "<unset>"
    shown = [f"{each.get('apiServerID', '')}={each.get('encodingVersion', '')}" for each in servers[:3]]
    rest = f" + {len(servers) - 3} more..." if len(servers) > 3 else ""
    return ",".join(shown) + rest


@strategy("internal.apiserver.k8s.io", "StorageVersion")
class StorageVersionStrategy(Strategy):
    status_keeps = SETTABLE_METADATA
    columns = (NAME, Column("CommonEncodingVersion", _common_cell), Column("StorageVersions", _versions_cell), AGE)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        if old is not None:
            return
        name = obj["metadata"].get("name") or ""
        group, dot, resource = name.rpartition(".")
        if not dot:
            yield invalid_value("metadata.name", name, "name must be in the form of <group>.<resource>")
            return
        for problem in dns_subdomain_problems(group):
            yield invalid_value("metadata.name", name, f"the group segment {problem}")
        for problem in dns_label_1035_problems(resource):
            yield invalid_value("metadata.name", name, f"the resource segment {problem}")

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        status = obj.get("status") or {}
        servers = status.get("storageVersions") or ()
        seen: set[str] = set()
        for index, server in enumerate(servers):
            path, identity = f"status.storageVersions[{index}]", server.get("apiServerID") or ""
            if identity in seen:
                yield duplicate(f"{path}.apiServerID", identity)
            seen.add(identity)
            yield from _server_problems(server, path)
        yield from _common_problems(servers, status.get("commonEncodingVersion"))
        yield from _condition_problems(status.get("conditions") or ())


def _server_problems(server: Mapping[str, object], path: str) -> Iterator[FieldError]:
    yield from validate_dns_subdomain(str(server.get("apiServerID") or ""), f"{path}.apiServerID")
    written = str(server.get("encodingVersion") or "")
    decodable = [str(version) for version in _list(server.get("decodableVersions"))]
    yield from _version_problems(written, f"{path}.encodingVersion")
    for index, version in enumerate(decodable):
        yield from _version_problems(version, f"{path}.decodableVersions[{index}]")
    if written not in decodable:
        detail = f"decodableVersions must include encodingVersion {written}"
        yield invalid_value(f"{path}.decodableVersions", decodable, detail)
    for index, version in enumerate(map(str, _list(server.get("servedVersions")))):
        at = f"{path}.servedVersions[{index}]"
        yield from _version_problems(version, at)
        if version not in decodable:
            known = " ".join(decodable)
            detail = f"individual served version : {version} must be included in decodableVersions : [{known}]"
            yield invalid_value(at, version, detail)


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


def _version_problems(text: str, path: str) -> Iterator[FieldError]:
    parts = text.split("/")
    if len(parts) > 2:
        yield invalid_value(path, text, _VERSION)
        return
    problems: list[str] = []
    if len(parts) == 2:
        found = list(dns_subdomain_problems(parts[0])) if parts[0] else [_EMPTY]
        problems += [f"group part: {problem}" for problem in found]
    found = list(dns_label_1035_problems(parts[-1])) if parts[-1] else [_EMPTY]
    problems += [f"version part: {problem}" for problem in found]
    if problems:
        yield invalid_value(path, text, ",".join(problems))


def _common_problems(servers: Sequence[Obj], said: str | None) -> Iterator[FieldError]:
    versions = {server.get("encodingVersion") for server in servers}
    actual = versions.pop() if len(versions) == 1 else None
    if actual == said:
        return
    if actual is None:
        detail = (
            "should be nil if servers do not agree on the same encoding version, or if there is no server reporting "
            "the supported versions yet"
        )
    else:
        detail = f"the {'actual ' if said is not None else ''}common encoding version is {actual}"
    yield invalid_value("status.commonEncodingVersion", said, detail)


def _condition_problems(conditions: Sequence[Obj]) -> Iterator[FieldError]:
    seen: dict[str, int] = {}
    for index, condition in enumerate(conditions):
        path, kind = f"status[{index}]", condition.get("type") or ""
        if kind in seen:
            detail = f"the type of the condition is not unique, it also appears in conditions[{seen[kind]}]"
            yield invalid_value(f"{path}.type", kind, detail)
        seen[kind] = index
        yield from validate_qualified_name(kind, f"{path}.type")
        yield from validate_qualified_name(condition.get("status") or "", f"{path}.status")
        for name in ("reason", "message"):
            if not condition.get(name):
                yield required(f"{path}.{name}", f"{name} cannot be empty")
