"""Pod validation, environment: `env`, `envFrom`, and references to the pod's own fields and resources.

In: a container's lists and their paths.  Out: field errors in Kubernetes' words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from navarch.api.errors import FieldError, field_not_found, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.metadata_validation import name_problems
from navarch.api.validation import (
    config_map_key_problems,
    env_var_name_problems,
    validate_dns_label,
    validate_dns_subdomain,
    validate_qualified_name,
)
from navarch.kinds.core.resource_lists import amount_of

_ENV_FIELDS: Final = frozenset(
    {
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    }
)
VOLUME_FIELDS: Final = frozenset(
    {"metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid"}
)
_KNOWN_FIELDS: Final = _ENV_FIELDS | VOLUME_FIELDS | {"spec.restartPolicy", "spec.schedulerName", "status.phase"}
_CONTAINER_RESOURCES: Final = (
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
)
_HUGE_PAGES: Final = ("requests.hugepages-", "limits.hugepages-")
_RESOURCE_WORDS: Final = {"memory": "memory", "ephemeral-storage": "local ephemeral storage"}
_MEMORY_DIVISORS: Final = ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")
_SUBSCRIPT: Final = re.compile(r"(.+?)\['(.*)'\]", re.DOTALL)
# What the earliest clients called a field.
_OLD_NAMES: Final = {"spec.host": "spec.nodeName"}
_SOURCES: Final = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")


def validate_env(variables: Iterable[Obj], path: str) -> Iterator[FieldError]:
    for index, variable in enumerate(variables):
        at = f"{path}[{index}]"
        name = variable.get("name") or ""
        if not name:
            yield required(f"{at}.name")
        else:
            for problem in env_var_name_problems(name):
                yield invalid_value(f"{at}.name", name, problem)
        source = variable.get("valueFrom")
        if source is not None:
            yield from _validate_value_from(source, variable.get("value") or "", f"{at}.valueFrom")


def _validate_value_from(source: Obj, value: str, path: str) -> Iterator[FieldError]:
    given = [name for name in _SOURCES if source.get(name) is not None]
    for name in given:
        at, reference = f"{path}.{name}", source[name]
        if name == "fieldRef":
            yield from validate_field_reference(reference, at, _ENV_FIELDS)
        elif name == "resourceFieldRef":
            yield from validate_resource_reference(reference, at, in_volume=False)
        elif name == "fileKeyRef":
            yield from _validate_file_key(reference, at)
        else:
            yield from _validate_key(reference, at)
    if not given:
        detail = (
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        )
        yield invalid_value(path, "", detail)
    elif value:
        yield invalid_value(path, "", "may not be specified when `value` is not empty")
    elif len(given) > 1:
        yield invalid_value(path, "", "may not have more than one field specified at a time")


def _validate_key(reference: Obj, path: str) -> Iterator[FieldError]:
    key = reference.get("key") or ""
    yield from validate_dns_subdomain(reference.get("name") or "", f"{path}.name")
    if not key:
        yield required(f"{path}.key")
    else:
        for problem in config_map_key_problems(key):
            yield invalid_value(f"{path}.key", key, problem)


def _validate_file_key(reference: Obj, path: str) -> Iterator[FieldError]:
    key, volume, file = (reference.get(name) or "" for name in ("key", "volumeName", "path"))
    if not key:
        yield required(f"{path}.key")
    else:
        for problem in env_var_name_problems(key):
            yield invalid_value(f"{path}.key", key, problem)
    if not volume:
        yield required(f"{path}.volumeName")
    else:
        yield from validate_dns_label(volume, f"{path}.volumeName")
    if not file:
        yield required(f"{path}.path")
    elif ".." in file.split("/"):
        yield invalid_value(f"{path}.path", file, "must not contain '..'")


def validate_file_key_volumes(spec: Obj, path: str) -> Iterator[FieldError]:
    """Variables read from a file: the file is in a volume of the pod, and the volume is an `emptyDir`."""
    volumes = {volume.get("name") or "": volume for volume in spec.get("volumes") or ()}
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(field) or ()):
            for number, variable in enumerate(container.get("env") or ()):
                reference = (variable.get("valueFrom") or {}).get("fileKeyRef")
                if reference is None:
                    continue
                name = reference.get("volumeName") or ""
                at = f"{path}.{field}[{index}].env[{number}].valueFrom.fileKeyRef.volumeName"
                if name not in volumes:
                    yield field_not_found(at, name)
                elif volumes[name].get("emptyDir") is None:
                    yield invalid_value(at, name, "referenced volume must be of type emptyDir")


def validate_field_reference(reference: Obj, path: str, supported: frozenset[str]) -> Iterator[FieldError]:
    """A `fieldRef`: the pod's own field by its path."""
    if not reference.get("apiVersion"):
        yield required(f"{path}.apiVersion")
        return
    field = reference.get("fieldPath") or ""
    at = f"{path}.fieldPath"
    if not field:
        yield required(at)
        return
    subscript = _SUBSCRIPT.fullmatch(field)
    if reference["apiVersion"] != "v1":
        detail = f"unsupported pod version: {reference['apiVersion']}"
        yield invalid_value(at, field, f"error converting fieldPath: {detail}")
    elif subscript and subscript[1] in ("metadata.annotations", "metadata.labels"):
        # Of what is between the brackets the reference as a whole is wrong.
        name, key = subscript.groups()
        checked = key.lower() if name == "metadata.annotations" else key
        yield from validate_qualified_name(checked, path)
    elif subscript:
        detail = f"field label does not support subscript: {field}"
        yield invalid_value(at, field, f"error converting fieldPath: {detail}")
    elif (field := _OLD_NAMES.get(field, field)) not in _KNOWN_FIELDS:
        yield invalid_value(at, field, f"error converting fieldPath: field label not supported: {field}")
    elif field not in supported:
        yield not_supported(at, field, sorted(supported))


def validate_resource_reference(reference: Obj, path: str, *, in_volume: bool) -> Iterator[FieldError]:
    """A `resourceFieldRef`: a container's own request or limit."""
    resource = reference.get("resource") or ""
    if in_volume and not reference.get("containerName"):
        yield required(f"{path}.containerName")
    elif not resource:
        yield required(f"{path}.resource")
    elif resource not in _CONTAINER_RESOURCES and not resource.startswith(_HUGE_PAGES):
        yield not_supported(f"{path}.resource", resource, _CONTAINER_RESOURCES)
    yield from _validate_divisor(resource, reference.get("divisor", "0"), f"{path}.divisor")


def _validate_divisor(resource: str, divisor: str, path: str) -> Iterator[FieldError]:
    try:
        amount = amount_of(divisor)
    except (ValueError, TypeError, ArithmeticError):
        yield invalid_value(path, divisor, "must be a quantity")
        return
    if not amount:
        return
    kind = resource.removeprefix("limits.").removeprefix("requests.")
    if resource in ("limits.cpu", "requests.cpu"):
        if amount not in (amount_of("1m"), 1):
            yield invalid_value(path, resource, "only divisor's values 1m and 1 are supported with the cpu resource")
        return
    word = "hugepages" if resource.startswith(_HUGE_PAGES) else _RESOURCE_WORDS.get(kind)
    if word is not None and amount not in {amount_of(choice) for choice in _MEMORY_DIVISORS}:
        detail = f"only divisor's values {', '.join(_MEMORY_DIVISORS)} are supported with the {word} resource"
        yield invalid_value(path, resource, detail)


def validate_env_from(sources: Iterable[Obj], path: str) -> Iterator[FieldError]:
    for index, source in enumerate(sources):
        at = f"{path}[{index}]"
        prefix = source.get("prefix")
        if prefix:
            for problem in env_var_name_problems(prefix):
                yield invalid_value(f"{at}.prefix", prefix, problem)
        given = [name for name in ("configMapRef", "secretRef") if source.get(name) is not None]
        for name in given:
            referred = source[name].get("name")
            if not referred:
                yield required(f"{at}.{name}.name")
            else:
                for problem in name_problems(referred, "subdomain", prefix=True):
                    yield invalid_value(f"{at}.{name}.name", referred, problem)
        if not given:
            yield invalid_value(path, "", "must specify one of: `configMapRef` or `secretRef`")
        elif len(given) > 1:
            yield invalid_value(path, "", "may not have more than one field specified at a time")
