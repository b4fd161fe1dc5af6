"""What the API servers behind this one serve, as discovery and OpenAPI show it beside what this server serves itself.

In: documents as the other servers gave them.  Out: `Foreign`, one immutable snapshot for all of them, and the merging
of it into this server's own documents. A version whose server does not answer stays in the lists, as what was last
known of it, marked as stale: clients must not take what they cannot see for gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import Any, Final

import orjson

from navarch.api.meta import Obj
from navarch.apiserver.aggregation.directory import Remote
from navarch.kinds.apiregistration.priorities import group_priority
from navarch.kinds.versions import age
from navarch.records import frozen

AGGREGATED: Final = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
)


@frozen
class ForeignVersion:
    """A version, with its resources in the form of aggregated discovery. `openapi` is the address of its own document
    in version 3 at its server, `swagger` what its server says of it in version 2, as JSON."""

    remote: Remote
    resources: tuple[Obj, ...] = ()
    fresh: bool = False
    openapi: str = ""
    swagger: bytes = b""


@frozen(eq=False)
class Foreign:
    """All of them, by group and version."""

    versions: Mapping[tuple[str, str], ForeignVersion] = field(default_factory=dict)

    def with_version(self, version: ForeignVersion) -> Foreign:
        remote = version.remote
        return Foreign({**self.versions, (remote.group, remote.version): version})

    def without(self, group: str, version: str) -> Foreign:
        return Foreign({key: value for key, value in self.versions.items() if key != (group, version)})

    def of_group(self, group: str) -> list[ForeignVersion]:
        return [version for version in self.versions.values() if version.remote.group == group]

    @property
    def has_openapi(self) -> bool:
        """Whether there is anything to say of them in version 3."""
        return any(version.openapi for version in self.versions.values())

    @property
    def has_swagger(self) -> bool:
        """Likewise in version 2."""
        return any(version.swagger for version in self.versions.values())

    def groups(self) -> list[str]:
        return list(dict.fromkeys(version.remote.group for version in self.versions.values()))


NOTHING: Final = Foreign()


# Discovery


def resources_of(document: Obj, group: str, version: str) -> tuple[Obj, ...] | None:
    """A version's resources, of an aggregated document or of a list of resources; None where it is not in it."""
    if document.get("kind") == "APIGroupDiscoveryList":
        for entry in _dicts(document.get("items")):
            if (entry.get("metadata") or {}).get("name", "") != group:
                continue
            for found in _dicts(entry.get("versions")):
                if found.get("version") == version:
                    return tuple(_sound(found.get("resources"), group, version))
        return None
    if document.get("kind") == "APIResourceList":
        return tuple(_sound(list(_from_list(document, group, version)), group, version))
    return None


def _sound(entries: Any, group: str, version: str) -> Iterator[Obj]:
    """Entries as clients may rely on them, whatever their server says: what names nothing is left out."""
    for entry in _dicts(entries):
        name, kind = entry.get("resource"), entry.get("responseKind")
        if not isinstance(name, str) or not name or "/" in name or not isinstance(kind, dict):
            continue
        sound: Obj = {
            "resource": name,
            "responseKind": _response_kind(kind, group, version),
            "scope": "Namespaced" if entry.get("scope") == "Namespaced" else "Cluster",
            "singularResource": _text(entry.get("singularResource")),
            "verbs": _texts(entry.get("verbs")),
        }
        sound |= {part: found for part in ("shortNames", "categories") if (found := _texts(entry.get(part)))}
        subresources = [
            {
                "subresource": each["subresource"],
                "responseKind": _response_kind(each.get("responseKind"), group, version),
                "verbs": _texts(each.get("verbs")),
            }
            for each in _dicts(entry.get("subresources"))
            if isinstance(each.get("subresource"), str)
        ]
        yield {**sound, **({"subresources": subresources} if subresources else {})}


def _response_kind(kind: Any, group: str, version: str) -> Obj:
    stated = kind if isinstance(kind, dict) else {}
    return {
        "group": _text(stated.get("group")) if "group" in stated else group,
        "version": _text(stated.get("version")) if "version" in stated else version,
        "kind": _text(stated.get("kind")),
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(values: Any) -> list[str]:
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []


def _dicts(values: Any) -> Iterator[Obj]:
    for value in values if isinstance(values, list) else ():
        if isinstance(value, dict):
            yield value


def _from_list(document: Obj, group: str, version: str) -> Iterator[Obj]:
    found: dict[str, Obj] = {}
    subresources: dict[str, list[Obj]] = {}
    for entry in _dicts(document.get("resources")):
        name, slash, subresource = _text(entry.get("name")).partition("/")
        kind = {
            "group": entry.get("group") or group,
            "version": entry.get("version") or version,
            "kind": entry.get("kind") or "",
        }
        shared: Obj = {"responseKind": kind, "verbs": entry.get("verbs") or []}
        if slash:
            subresources.setdefault(name, []).append({"subresource": subresource, **shared})
            continue
        found[name] = {
            "resource": name,
            "scope": "Namespaced" if entry.get("namespaced") else "Cluster",
            "singularResource": entry.get("singularName") or "",
            **shared,
            **{part: entry[part] for part in ("shortNames", "categories") if entry.get(part)},
        }
    for name, entry in found.items():
        if name in subresources:
            entry["subresources"] = subresources[name]
        yield entry


def merged_groups(own: Iterable[Obj], foreign: Foreign) -> list[Obj]:
    """The groups of `/apis`, old form, with the others' in their places by priority."""
    groups = {group["name"]: group for group in own}
    for name in foreign.groups():
        groups[name] = merged_group(groups.get(name), foreign, name)
    return sorted(groups.values(), key=lambda group: (-_priority(foreign, group["name"]), group["name"]))


def merged_group(own: Obj | None, foreign: Foreign, name: str) -> Obj:
    """One group, of whose versions some are another server's."""
    versions = [entry["version"] for entry in (own or {}).get("versions") or ()]
    listed = [
        {"groupVersion": f"{name}/{version}", "version": version} for version in _ordered(versions, foreign, name)
    ]
    return {**(own or {}), "name": name, "versions": listed, "preferredVersion": listed[0]}


def merged_aggregated(own: Iterable[Obj], foreign: Foreign) -> list[Obj]:
    """The groups of aggregated discovery, likewise."""
    groups = {(group.get("metadata") or {}).get("name", ""): group for group in own}
    for name in foreign.groups():
        if not name:
            continue
        before = groups.get(name) or {"metadata": {"name": name}, "versions": []}
        versions = {entry["version"]: entry for entry in before["versions"]}
        for version in foreign.of_group(name):
            versions[version.remote.version] = {
                "version": version.remote.version,
                "resources": list(version.resources),
                "freshness": "Current" if version.fresh else "Stale",
            }
        groups[name] = {**before, "versions": [versions[each] for each in _ordered(versions, foreign, name)]}
    return sorted(groups.values(), key=lambda group: _aggregated_order(foreign, group))


def _aggregated_order(foreign: Foreign, group: Obj) -> tuple[int, str]:
    name = (group.get("metadata") or {}).get("name", "")
    return -_priority(foreign, name), name


def _priority(foreign: Foreign, group: str) -> int:
    """A group is where the highest of its versions wants it."""
    stated = [version.remote.group_priority for version in foreign.of_group(group)]
    return max(stated) if stated else group_priority(group)


def _ordered(own: Iterable[str], foreign: Foreign, group: str) -> list[str]:
    """The versions of a group: this server's keep their order, the others are put in by their priority."""
    others = {version.remote.version: version.remote.version_priority for version in foreign.of_group(group)}
    mine = [version for version in own if version not in others]
    # Those of one priority as they count: v2 before v1 before v1beta1.
    ranked = sorted(others, key=lambda version: (-others[version], *age(version)))
    return [*mine, *ranked]


# OpenAPI


def openapi_address(index: Any, remote: Remote) -> str:
    """Where a server's index says that a version's document is; empty where it has none."""
    paths = index.get("paths") if isinstance(index, dict) else None
    entry = paths.get(remote.root.strip("/")) if isinstance(paths, dict) else None
    found = entry.get("serverRelativeURL") if isinstance(entry, dict) else None
    return found if isinstance(found, str) and found.startswith("/openapi/v3/") else ""


def merged_index(own: bytes, foreign: Foreign) -> bytes:
    """The index of version 3."""
    index = orjson.loads(own)
    for version in foreign.versions.values():
        if version.openapi:
            index["paths"][version.remote.root.strip("/")] = {"serverRelativeURL": version.openapi}
    return orjson.dumps(index)


def swagger_of(document: Any, remote: Remote) -> bytes:
    """What a server's document of version 2 says of one version: its paths, and the definitions; empty for nothing."""
    if not isinstance(document, dict) or not isinstance(document.get("paths"), dict):
        return b""
    root = remote.root + "/"
    paths = {path: said for path, said in document["paths"].items() if path.startswith(root) or path == remote.root}
    definitions = document.get("definitions")
    return orjson.dumps({"paths": paths, "definitions": definitions if isinstance(definitions, dict) else {}})


def merged_swagger(own: Obj, foreign: Foreign) -> Obj:
    """The document of version 2. A definition whose name is taken by another one gets a name of its own."""
    paths, definitions = dict(own["paths"]), dict(own["definitions"])
    for version in foreign.versions.values():
        if not version.swagger:
            continue
        swagger = orjson.loads(version.swagger)
        names: dict[str, str] = {}
        for name, said in swagger["definitions"].items():
            known = definitions.get(name)
            names[name] = name if known is None or known == said else _free(name, definitions)
        for name, said in swagger["definitions"].items():
            if names[name] != name or name not in definitions:
                definitions[names[name]] = _renamed(said, names)
        for path, said in swagger["paths"].items():
            paths.setdefault(path, _renamed(said, names))
    return {**own, "paths": paths, "definitions": definitions}


def _free(name: str, taken: Mapping[str, Any]) -> str:
    number = 2
    while f"{name}_v{number}" in taken:
        number += 1
    return f"{name}_v{number}"


_REF: Final = "#/definitions/"


def _renamed(said: Any, names: Mapping[str, str]) -> Any:
    if isinstance(said, dict):
        return {
            key: _REF + names.get(value.removeprefix(_REF), value.removeprefix(_REF))
            if key == "$ref" and isinstance(value, str) and value.startswith(_REF)
            else _renamed(value, names)
            for key, value in said.items()
        }
    return [_renamed(value, names) for value in said] if isinstance(said, list) else said
