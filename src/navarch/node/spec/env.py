"""A container's environment: service variables, `envFrom`, `env` with references and `$(NAME)` expansion.

In: the pod, one container, the services of its namespace, a source of ConfigMaps and Secrets. Out: names and values in
order. Later definitions win over earlier ones; the container's own win over the services'.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from navarch.api.meta import Obj
from navarch.node.contained import read_inside
from navarch.node.fieldref import PodFacts, expand, field_value, resource_value
from navarch.node.podspec import ConfigError
from navarch.node.references import ObjectSource
from navarch.node.volumes.base import InThread

# What a variable may be called: Kubernetes takes any printable ASCII but "=" since 1.30.
_ENV_NAME: Final = re.compile(r"^[ -<>-~]+$")
# Of a file of variables, which a container may have written.
_FILE_LIMIT: Final = 64 << 10


def service_variables(services: Iterable[Obj]) -> dict[str, str]:
    """`NAME_SERVICE_HOST`, `NAME_SERVICE_PORT` and the `NAME_PORT…` links of every service that has an address."""
    result: dict[str, str] = {}
    for service in services:
        spec = service["spec"]
        address = spec.get("clusterIP") or ""
        ports = spec.get("ports") or []
        if address in ("", "None") or not ports:
            continue
        name = service["metadata"]["name"].upper().replace("-", "_")
        result[f"{name}_SERVICE_HOST"] = address
        result[f"{name}_SERVICE_PORT"] = str(ports[0]["port"])
        for port in ports:
            if port.get("name"):
                result[f"{name}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(port["port"])
        host = f"[{address}]" if ":" in address else address
        for index, port in enumerate(ports):
            protocol = port.get("protocol") or "TCP"
            url = f"{protocol.lower()}://{host}:{port['port']}"
            if index == 0:
                result[f"{name}_PORT"] = url
            prefix = f"{name}_PORT_{port['port']}_{protocol.upper()}"
            result[prefix] = url
            result[f"{prefix}_PROTO"] = protocol.lower()
            result[f"{prefix}_PORT"] = str(port["port"])
            result[f"{prefix}_ADDR"] = address
    return result


def visible_services(pod: Obj, services: Iterable[Obj]) -> list[Obj]:
    """The services whose variables a pod sees: those of its namespace, and the API server's own."""
    namespace = pod["metadata"]["namespace"]
    links = pod["spec"].get("enableServiceLinks", True)
    master = [s for s in services if s["metadata"]["namespace"] == "default" and s["metadata"]["name"] == "kubernetes"]
    own = [s for s in services if s["metadata"]["namespace"] == namespace] if links is not False else []
    return [*master, *own]


async def environment(
    pod: Obj,
    container: Obj,
    services: Iterable[Obj],
    source: ObjectSource,
    facts: PodFacts,
    volumes: Mapping[str, Path],
    in_thread: InThread,
) -> dict[str, str]:
    """Every variable of the container.  Raises ConfigError for a reference that leads nowhere."""
    from_services = service_variables(visible_services(pod, list(services)))
    result: dict[str, str] = {}
    namespace = pod["metadata"]["namespace"]
    for entry in container.get("envFrom") or []:
        result.update(await _from_object(entry, namespace, source))
    for variable in container.get("env") or []:
        name = variable["name"]
        value_from = variable.get("valueFrom")
        if value_from:
            value = await _referenced(pod, container, value_from, source, facts, volumes, in_thread)
            if value is None:
                continue
        else:
            value = expand(variable.get("value") or "", {**from_services, **result})
        result[name] = value
    return {**{name: value for name, value in from_services.items() if name not in result}, **result}


async def _from_object(entry: Obj, namespace: str, source: ObjectSource) -> dict[str, str]:
    prefix = entry.get("prefix") or ""
    if entry.get("configMapRef"):
        reference = entry["configMapRef"]
        found = await source.config_map(namespace, reference["name"])
        if found is None:
            if reference.get("optional"):
                return {}
            raise ConfigError(f'configmap "{reference["name"]}" not found')
        values = dict(found.get("data") or {})
    else:
        reference = entry["secretRef"]
        found = await source.secret(namespace, reference["name"])
        if found is None:
            if reference.get("optional"):
                return {}
            raise ConfigError(f'secret "{reference["name"]}" not found')
        values = {key: _text(value) for key, value in (found.get("data") or {}).items()}
    return {prefix + key: value for key, value in sorted(values.items()) if _ENV_NAME.match(prefix + key)}


async def _referenced(
    pod: Obj,
    container: Obj,
    value_from: Obj,
    source: ObjectSource,
    facts: PodFacts,
    volumes: Mapping[str, Path],
    in_thread: InThread,
) -> str | None:
    """The value behind a `valueFrom`; None where it is optional and missing."""
    namespace = pod["metadata"]["namespace"]
    if value_from.get("fieldRef"):
        return field_value(pod, value_from["fieldRef"]["fieldPath"], facts)
    if value_from.get("resourceFieldRef"):
        return resource_value(pod, container, value_from["resourceFieldRef"], facts)
    if value_from.get("configMapKeyRef"):
        reference = value_from["configMapKeyRef"]
        found = await source.config_map(namespace, reference["name"])
        if found is None:
            if reference.get("optional"):
                return None
            raise ConfigError(f'configmap "{reference["name"]}" not found')
        text: str | None = (found.get("data") or {}).get(reference["key"])
        if text is None and not reference.get("optional"):
            raise ConfigError(f"couldn't find key {reference['key']} in ConfigMap {namespace}/{reference['name']}")
        return text
    if value_from.get("secretKeyRef"):
        reference = value_from["secretKeyRef"]
        found = await source.secret(namespace, reference["name"])
        if found is None:
            if reference.get("optional"):
                return None
            raise ConfigError(f'secret "{reference["name"]}" not found')
        data = (found.get("data") or {}).get(reference["key"])
        if data is None and not reference.get("optional"):
            raise ConfigError(f"couldn't find key {reference['key']} in Secret {namespace}/{reference['name']}")
        return None if data is None else _text(data)
    if value_from.get("fileKeyRef"):
        return await in_thread(_file_key, value_from["fileKeyRef"], volumes)
    raise ConfigError("valueFrom names no source")


def _file_key(reference: Obj, volumes: Mapping[str, Path]) -> str | None:
    """A `NAME=value` line of a file in a volume, as an init container may have written it."""
    path = reference["path"]
    volume = volumes.get(reference["volumeName"])
    if volume is None:
        raise ConfigError(f"volume {reference['volumeName']} not found")
    try:
        content = read_inside(volume, path, _FILE_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        if reference.get("optional"):
            return None
        raise ConfigError(f"couldn't read {path}: {error.strerror}") from error
    except OSError as error:
        raise ConfigError(f"couldn't read {path}: {error.strerror}") from error
    if len(content) > _FILE_LIMIT:
        raise ConfigError(f"couldn't read {path}: it is larger than {_FILE_LIMIT} bytes")
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"couldn't read {path}: it is not UTF-8") from error
    for line in lines:
        name, equals, value = line.strip().partition("=")
        if equals and name == reference["key"]:
            return _without_nul(value.strip("'\""), path)
    if reference.get("optional"):
        return None
    raise ConfigError(f"environment variable key {reference['key']} not found in file {path}")


def _without_nul(value: str, path: str) -> str:
    if "\0" in value:
        raise ConfigError(f"couldn't read {path}: a variable may not contain a NUL byte")
    return value


def _text(data: str) -> str:
    return base64.b64decode(data).decode(errors="replace")
