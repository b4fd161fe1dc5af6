"""Checks of `metadata`: names by their kind's rule, labels, annotations, owner references, finalizers, managed fields.

In: objects.  Out: `FieldError`s, worded as Kubernetes words them.  Pure; a value of the wrong JSON type has been
refused by the schema before any of this runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from navarch.api.errors import FieldError, forbidden_field, immutable, invalid_value, required, too_long
from navarch.api.meta import Obj
from navarch.api.validation import (
    Problems,
    config_map_key_problems,
    dns_label_problems,
    dns_subdomain_bytes_problems,
    dns_subdomain_problems,
    path_segment_problems,
    qualified_name_problems,
    validate_annotations,
    validate_labels,
)

NAME_RULES: Final[Mapping[str, Callable[[str], Problems]]] = {
    "subdomain": dns_subdomain_problems,
    "subdomain in bytes": dns_subdomain_bytes_problems,
    "label": dns_label_problems,
    "path": path_segment_problems,
    "key": config_map_key_problems,
}


def validate_owner_references(references: Iterable[Obj], path: str) -> Iterator[FieldError]:
    controllers: list[str] = []
    for reference in references:
        api_version, kind = reference.get("apiVersion") or "", reference.get("kind") or ""
        if not api_version.rpartition("/")[2]:
            yield invalid_value(f"{path}.apiVersion", api_version, "version must not be empty")
        if not kind:
            yield invalid_value(f"{path}.kind", kind, "must not be empty")
        if not reference.get("name"):
            yield invalid_value(f"{path}.name", "", "must not be empty")
        if not reference.get("uid"):
            yield invalid_value(f"{path}.uid", "", "must not be empty")
        if kind == "Event" and api_version in ("v1", "events.k8s.io/v1"):
            yield invalid_value(path, reference, f"{api_version}, Kind=Event is disallowed from being an owner")
        if reference.get("controller"):
            controllers.append(kind + "/" + (reference.get("name") or ""))
            if len(controllers) == 2:
                detail = (
                    "Only one reference can have Controller set to true. "
                    f'Found "true" in references for {controllers[0]} and {controllers[1]}'
                )
                yield invalid_value(path, list(references), detail)


STANDARD_FINALIZERS: Final = ("kubernetes", "orphan", "foregroundDeletion")


def validate_finalizers(finalizers: Iterable[str], path: str) -> Iterator[FieldError]:
    listed = list(finalizers)
    for name in listed:
        for problem in qualified_name_problems(name):
            yield invalid_value(path, name, problem)
    if "orphan" in listed and "foregroundDeletion" in listed:
        yield invalid_value(path, listed, "finalizer orphan and foregroundDeletion cannot be both set")


def validate_new_finalizers(obj: Obj, path: str = "metadata.finalizers") -> Iterator[FieldError]:
    """What most built-in kinds ask of finalizers when an object is made: a domain, but for Kubernetes' own."""
    for index, name in enumerate((obj.get("metadata") or {}).get("finalizers") or ()):
        if "/" not in name and name not in STANDARD_FINALIZERS:
            detail = "name is neither a standard finalizer name nor is it fully qualified"
            yield invalid_value(f"{path}[{index}]", name, detail)


def name_problems(name: str, name_rule: str, *, prefix: bool = False) -> Problems:
    """What the rule (see `Strategy.name_rule`) says against a name, or against a `generateName` prefix."""
    if prefix and len(name) > 1 and name.endswith("-"):
        # A prefix may end in what a name may not: the generated suffix follows.
        name = name[:-2] + "a"
    return NAME_RULES[name_rule](name)


def validate_object_meta(obj: Obj, *, namespaced: bool, name_rule: str, path: str = "metadata") -> Iterator[FieldError]:
    """`metadata` of an object on create (and again on update)."""
    metadata = obj.get("metadata") or {}
    get = metadata.get
    generate_name = get("generateName")
    if generate_name:
        for problem in name_problems(generate_name, name_rule, prefix=True):
            yield invalid_value(f"{path}.generateName", generate_name, problem)
    name = get("name")
    if not name:
        yield required(f"{path}.name", "name or generateName is required")
    else:
        for problem in NAME_RULES[name_rule](name):
            yield invalid_value(f"{path}.name", name, problem)
    namespace = get("namespace")
    if namespaced:
        if not namespace:
            yield required(f"{path}.namespace")
        else:
            for problem in dns_label_problems(namespace):
                yield invalid_value(f"{path}.namespace", namespace, problem)
    elif namespace:
        yield forbidden_field(f"{path}.namespace", "not allowed on this type")
    if (generation := get("generation")) is not None and generation < 0:
        yield invalid_value(f"{path}.generation", generation, "must be greater than or equal to 0")
    if labels := get("labels"):
        yield from validate_labels(labels, f"{path}.labels")
    if annotations := get("annotations"):
        yield from validate_annotations(annotations, f"{path}.annotations")
    if references := get("ownerReferences"):
        yield from validate_owner_references(references, f"{path}.ownerReferences")
    if finalizers := get("finalizers"):
        yield from validate_finalizers(finalizers, f"{path}.finalizers")
    if managed := get("managedFields"):
        yield from validate_managed_fields(managed, f"{path}.managedFields")


def validate_managed_fields(entries: Iterable[Obj], path: str) -> Iterator[FieldError]:
    for index, entry in enumerate(entries):
        at = f"{path}[{index}]"
        if (operation := entry.get("operation", "")) not in ("Apply", "Update"):
            yield invalid_value(f"{at}.operation", operation, "must be `Apply` or `Update`")
        if (fields_type := entry.get("fieldsType") or "FieldsV1") != "FieldsV1":
            yield invalid_value(f"{at}.fieldsType", fields_type, "must be `FieldsV1`")
        manager = entry.get("manager") or ""
        if len(manager) > 128:
            yield too_long(f"{at}.manager", 128)
        if not manager.isprintable():
            yield invalid_value(f"{at}.manager", manager, "should only contain printable characters")
        if len(entry.get("subresource") or "") > 256:
            yield too_long(f"{at}.subresource", 256)


def validate_object_meta_update(obj: Obj, old: Obj, path: str = "metadata") -> Iterator[FieldError]:
    """What an update may not change in `metadata`."""
    new_meta, old_meta = obj["metadata"], old["metadata"]
    if old_meta.get("deletionTimestamp"):
        had = set(old_meta.get("finalizers") or ())
        added = sorted(set(new_meta.get("finalizers") or ()) - had)
        if added:
            shown = "[]string{" + ", ".join(map(json.dumps, added)) + "}"
            detail = f"no new finalizers can be added if the object is being deleted, found new finalizers {shown}"
            yield forbidden_field(f"{path}.finalizers", detail)
    if not new_meta.get("resourceVersion"):
        yield invalid_value(f"{path}.resourceVersion", "", "must be specified for an update")
    new_generation, old_generation = new_meta.get("generation") or 0, old_meta.get("generation") or 0
    if new_generation < old_generation:
        yield invalid_value(f"{path}.generation", new_generation, "must not be decremented")
    stated, stored = new_meta.get, old_meta.get
    for field in ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if (new := stated(field)) != (was := stored(field)) and (new or was):
            yield immutable(f"{path}.{field}", new)
