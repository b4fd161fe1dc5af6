"""What every object has: names of resources, and read access to `metadata`. Pure; objects are plain JSON dicts."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, NamedTuple

Obj = dict[str, Any]


class Resource(NamedTuple):
    """A served resource: what a URL names and what a client asks for. `plural` is the URL's word (`pods`)."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        """`v1`, `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_resource(self) -> str:
        """`pods`, `deployments.apps`: the form used in messages and in RBAC listings."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path; a namespaced resource without namespace gives the path across all namespaces."""
        parts = [f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"]
        if self.namespaced and namespace:
            parts.append(f"namespaces/{namespace}")
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


class Key(NamedTuple):
    """Identifies an object of one resource; `namespace` is empty for cluster-scoped ones."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


_EMPTY: Mapping[str, Any] = {}


def key_of(obj: Obj) -> Key:
    metadata = obj["metadata"]
    return Key(metadata.get("namespace", ""), metadata["name"])


def name_of(obj: Obj) -> str:
    return str(obj["metadata"]["name"])


def namespace_of(obj: Obj) -> str:
    return str(obj["metadata"].get("namespace") or "")


def uid_of(obj: Obj) -> str:
    return str(obj["metadata"].get("uid") or "")


def revision_of(obj: Obj) -> int:
    """The object's resourceVersion as an integer; 0 where it has none."""
    return int(obj["metadata"].get("resourceVersion") or 0)


def labels_of(obj: Obj) -> Mapping[str, str]:
    return obj["metadata"].get("labels") or _EMPTY


def annotations_of(obj: Obj) -> Mapping[str, str]:
    return obj["metadata"].get("annotations") or _EMPTY


def is_deleting(obj: Obj) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def owner_references_of(obj: Obj) -> list[Obj]:
    return obj["metadata"].get("ownerReferences") or []


def controller_of(obj: Obj) -> Obj | None:
    """The owner reference whose `controller` is true, if any."""
    return next((ref for ref in owner_references_of(obj) if ref.get("controller")), None)


def controller_reference(owner: Obj) -> Obj:
    """An owner reference that makes `owner` the managing controller and blocks its foreground deletion."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def object_reference(obj: Obj) -> Obj:
    """A `v1.ObjectReference` to the object, as events carry it."""
    metadata = obj["metadata"]
    reference = {
        "apiVersion": obj.get("apiVersion", ""),
        "kind": obj.get("kind", ""),
        "namespace": metadata.get("namespace", ""),
        "name": metadata.get("name", ""),
        "uid": metadata.get("uid", ""),
        "resourceVersion": metadata.get("resourceVersion", ""),
    }
    return {key: value for key, value in reference.items() if value}


_UUID_RANDOM = ~((0xF000 << 64) | (0xC000 << 48))
_UUID_VERSION_4 = (4 << 76) | (0x8000 << 48)
_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def new_uid(source: random.Random) -> str:
    """A version-4 UUID drawn from `source`, so that a seeded run repeats exactly."""
    # As `uuid.UUID(int=…, version=4)` makes it, at a third of its cost.
    digits = f"{source.getrandbits(128) & _UUID_RANDOM | _UUID_VERSION_4:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def generated_name(base: str, source: random.Random) -> str:
    """`generateName` plus five characters without vowels, at most 63 characters in all."""
    return base[: 63 - 5] + "".join(source.choices(_SUFFIX_ALPHABET, k=5))


def is_new_generation(obj: Obj, old: Obj) -> bool:
    return bool(obj["metadata"].get("generation") != old["metadata"].get("generation"))


def get_path(obj: Any, path: str, default: Any = None) -> Any:
    """The value at a dotted path of fields (`spec.nodeName`), or `default` where any step is missing."""
    for step in path.split("."):
        if not isinstance(obj, dict):
            return default
        obj = obj.get(step)
    return default if obj is None else obj
