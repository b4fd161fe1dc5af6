"""Pod validation, volumes: one well-formed source each, and mounts that name a volume and a place of their own.

In: `spec.volumes` and each container's mounts and devices, with their paths.  Out: field errors in Kubernetes' words.
The sources that persistent volumes share are validated here for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from navarch.api.errors import (
    FieldError,
    duplicate,
    field_not_found,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from navarch.api.meta import Obj
from navarch.api.validation import validate_dns_label, validate_dns_subdomain, validate_enum
from navarch.kinds.core.pod_validation_env import (
    VOLUME_FIELDS,
    validate_field_reference,
    validate_resource_reference,
)
from navarch.kinds.core.pod_validation_resources import read_amount

_MODE: Final = "must be a number between 0 and 0777 (octal), both inclusive"
_BACKSTEP: Final = "must not contain '..'"
_HOST_PATH_TYPES: Final = (
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)
_ACCESS_MODES: Final = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")


def validate_volumes(volumes: Iterable[Obj], path: str) -> Iterator[FieldError]:
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        at = f"{path}[{index}]"
        yield from _validate_source(volume, at)
        name = volume.get("name") or ""
        if not name:
            yield required(f"{at}.name")
        else:
            yield from validate_dns_label(name, f"{at}.name")
        if name in seen:
            yield duplicate(f"{at}.name", name)
        seen.add(name)


def _validate_source(volume: Obj, path: str) -> Iterator[FieldError]:
    given = [field for field, source in volume.items() if field != "name" and source is not None]
    if not given:
        yield required(path, "must specify a volume type")
        return
    for surplus in given[1:]:
        yield forbidden_field(f"{path}.{surplus}", "may not specify more than 1 volume type")
    check = _SOURCES.get(given[0])
    if check is not None:
        yield from check(volume[given[0]], f"{path}.{given[0]}")


# ---------------------------------------------------------------------------------------------------------- sources


def _needs(*fields: str) -> Callable[[Obj, str], Iterator[FieldError]]:
    def check(source: Obj, path: str) -> Iterator[FieldError]:
        for field in fields:
            if not source.get(field):
                yield required(f"{path}.{field}")

    return check


def _validate_mode(source: Obj, path: str, field: str = "defaultMode") -> Iterator[FieldError]:
    mode = source.get(field)
    if mode is not None and not 0 <= mode <= 0o777:
        yield invalid_value(f"{path}.{field}", mode, _MODE)


def validate_relative_path(value: str, path: str) -> Iterator[FieldError]:
    """A path within a volume, which may not leave it."""
    if value.startswith("/"):
        yield invalid_value(path, value, "must be a relative path")
    if ".." in value.split("/"):
        yield invalid_value(path, value, _BACKSTEP)


def _validate_file_path(value: str, path: str) -> Iterator[FieldError]:
    if not value:
        yield required(path)
        return
    yield from validate_relative_path(value, path)
    # `..data` and its like are how volumes are updated atomically.
    if value.startswith("..") and ".." not in value.split("/"):
        yield invalid_value(path, value, "must not start with '..'")


def _validate_items(items: Iterable[Obj], path: str) -> Iterator[FieldError]:
    for index, item in enumerate(items):
        at = f"{path}[{index}]"
        if not item.get("key"):
            yield required(f"{at}.key")
        yield from _validate_file_path(item.get("path") or "", f"{at}.path")
        yield from _validate_mode(item, at, "mode")


def _secret(source: Obj, path: str) -> Iterator[FieldError]:
    if not source.get("secretName"):
        yield required(f"{path}.secretName")
    yield from _validate_mode(source, path)
    yield from _validate_items(source.get("items") or (), f"{path}.items")


def _config_map(source: Obj, path: str) -> Iterator[FieldError]:
    if not source.get("name"):
        yield required(f"{path}.name")
    yield from _validate_mode(source, path)
    yield from _validate_items(source.get("items") or (), f"{path}.items")


def _downward_items(items: Iterable[Obj], path: str) -> Iterator[FieldError]:
    # Kubernetes reports the items of a downward API volume under the list itself, without index.
    for item in items:
        if not item.get("path"):
            yield required(f"{path}.path")
        yield from validate_relative_path(item.get("path") or "", f"{path}.path")
        field, resource = item.get("fieldRef"), item.get("resourceFieldRef")
        if field is not None:
            yield from validate_field_reference(field, f"{path}.fieldRef", VOLUME_FIELDS)
            if resource is not None:
                detail = "fieldRef and resourceFieldRef can not be specified simultaneously"
                yield invalid_value(path, "resource", detail)
        elif resource is not None:
            yield from validate_resource_reference(resource, f"{path}.resourceFieldRef", in_volume=True)
        else:
            yield required(path, "one of fieldRef and resourceFieldRef is required")
        yield from _validate_mode(item, path, "mode")


def _downward(source: Obj, path: str) -> Iterator[FieldError]:
    yield from _validate_mode(source, path)
    yield from _downward_items(source.get("items") or (), path)


def _projected(source: Obj, path: str) -> Iterator[FieldError]:
    yield from _validate_mode(source, path)
    seen: set[str] = set()
    for index, part in enumerate(source.get("sources") or ()):
        at = f"{path}.sources[{index}]"
        given = [name for name, value in part.items() if value is not None]
        for surplus in given[1:]:
            yield forbidden_field(f"{at}.{surplus}", "may not specify more than 1 volume type per source")
        if given:
            yield from _projected_part(given[0], part[given[0]], f"{at}.{given[0]}")
            for file in _files_of(given[0], part[given[0]]):
                if file in seen:
                    name = part[given[0]].get("name") or file
                    yield invalid_value(path, name, "conflicting duplicate paths")
                seen.add(file)


def _files_of(name: str, part: Obj) -> Iterator[str]:
    # A token's file may cover another: Kubernetes only warns of it.
    if name == "clusterTrustBundle" and part.get("path"):
        yield part["path"]
    for item in part.get("items") or ():
        if item.get("path"):
            yield item["path"]


def _projected_part(name: str, part: Obj, path: str) -> Iterator[FieldError]:
    if name in ("secret", "configMap"):
        if not part.get("name"):
            yield required(f"{path}.name")
        yield from _validate_items(part.get("items") or (), f"{path}.items")
    elif name == "downwardAPI":
        yield from _downward_items(part.get("items") or (), path)
    elif name == "serviceAccountToken":
        seconds = part.get("expirationSeconds", 3600)
        if seconds < 600:
            detail = "may not specify a duration less than 10 minutes"
            yield invalid_value(f"{path}.expirationSeconds", seconds, detail)
        if seconds > 1 << 32:
            detail = "may not specify a duration larger than 2^32 seconds"
            yield invalid_value(f"{path}.expirationSeconds", seconds, detail)
        yield from _validate_file_path(part.get("path") or "", f"{path}.path")
    elif name == "clusterTrustBundle":
        yield from _validate_trust_bundle(part, path)


def _validate_trust_bundle(part: Obj, path: str) -> Iterator[FieldError]:
    if part.get("name") is not None and part.get("signerName") is not None:
        yield invalid_value(path, part, "only one of name and signerName may be used")
    elif part.get("name") is None and part.get("signerName") is None:
        yield required(path, "either name or signerName must be specified")
    yield from _validate_file_path(part.get("path") or "", f"{path}.path")


def _host_path(source: Obj, path: str) -> Iterator[FieldError]:
    value = source.get("path") or ""
    if not value:
        yield required(f"{path}.path")
    elif ".." in value.split("/"):
        yield invalid_value(f"{path}.path", value, _BACKSTEP)
    kind = source.get("type") or ""
    if kind not in _HOST_PATH_TYPES:
        yield not_supported(f"{path}.type", kind, _HOST_PATH_TYPES)


def _empty_dir(source: Obj, path: str) -> Iterator[FieldError]:
    if source.get("sizeLimit") is not None:
        size = read_amount(source["sizeLimit"])
        if size is None or size < 0:
            yield forbidden_field(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")


def _nfs(source: Obj, path: str) -> Iterator[FieldError]:
    for field in ("server", "path"):
        if not source.get(field):
            yield required(f"{path}.{field}")
    if source.get("path") and not source["path"].startswith("/"):
        yield invalid_value(f"{path}.path", source["path"], "must be an absolute path")


def validate_claim_spec(spec: Obj, path: str) -> Iterator[FieldError]:
    """What a persistent volume claim asks for; also as a template in a pod or a StatefulSet."""
    modes = spec.get("accessModes") or ()
    if not modes:
        yield required(f"{path}.accessModes", "at least 1 access mode is required")
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        detail = "may not use ReadWriteOncePod with other access modes"
        yield forbidden_field(f"{path}.accessModes", detail)
    for mode in modes:
        if mode not in _ACCESS_MODES:
            yield not_supported(f"{path}.accessModes", mode, _ACCESS_MODES)
    from navarch.api.validation import validate_label_selector

    yield from validate_label_selector(spec.get("selector"), f"{path}.selector")
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if storage is None:
        yield required(f"{path}.resources[storage]")
    else:
        amount = read_amount(storage)
        if amount is None or amount <= 0:
            yield invalid_value(f"{path}.resources[storage]", str(storage), "must be greater than zero")
    if spec.get("storageClassName"):
        yield from validate_dns_subdomain(spec["storageClassName"], f"{path}.storageClassName")
    mode = spec.get("volumeMode")
    if mode is not None:
        yield from validate_enum(mode, f"{path}.volumeMode", ("Block", "Filesystem"))
    yield from _validate_data_source(spec, path)


def _validate_data_source(spec: Obj, path: str) -> Iterator[FieldError]:
    for field in ("dataSource", "dataSourceRef"):
        source = spec.get(field)
        if not source:
            continue
        for part in ("name", "kind"):
            if not source.get(part):
                yield required(f"{path}.{field}.{part}")
        core = not source.get("apiGroup") and source.get("kind") not in ("PersistentVolumeClaim", "", None)
        # What no volume can come from is taken out of `dataSource` (for clients of old), and refused in the other.
        if core and field == "dataSourceRef":
            detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
            yield invalid_value(f"{path}.{field}", source["kind"], detail)


def _ephemeral(source: Obj, path: str) -> Iterator[FieldError]:
    template = source.get("volumeClaimTemplate")
    if template is None:
        yield required(f"{path}.volumeClaimTemplate")
    else:
        yield from validate_claim_spec(template.get("spec") or {}, f"{path}.volumeClaimTemplate.spec")


def _image(source: Obj, path: str) -> Iterator[FieldError]:
    if not source.get("reference"):
        yield required(f"{path}.reference")
    yield from validate_enum(source.get("pullPolicy") or "", f"{path}.pullPolicy", ("Always", "IfNotPresent", "Never"))


SHARED_SOURCES: Final[Mapping[str, Callable[[Obj, str], Iterator[FieldError]]]] = {
    "hostPath": _host_path,
    "nfs": _nfs,
    "csi": _needs("driver"),
    "iscsi": _needs("targetPortal", "iqn"),
    "fc": lambda source, path: iter(
        ()
        if source.get("targetWWNs") or source.get("wwids")
        else (required(f"{path}.targetWWNs", "must specify either targetWWNs or wwids, but not both"),)
    ),
    "glusterfs": _needs("endpoints", "path"),
    "rbd": _needs("monitors", "image"),
    "cephfs": _needs("monitors"),
    "cinder": _needs("volumeID"),
    "flexVolume": _needs("driver"),
    "awsElasticBlockStore": _needs("volumeID"),
    "gcePersistentDisk": _needs("pdName"),
    "azureDisk": _needs("diskName", "diskURI"),
    "azureFile": _needs("secretName", "shareName"),
    "vsphereVolume": _needs("volumePath"),
    "portworxVolume": _needs("volumeID"),
    "quobyte": _needs("registry", "volume"),
    "scaleIO": _needs("gateway", "system", "volumeName"),
    "photonPersistentDisk": _needs("pdID"),
}
_SOURCES: Final[Mapping[str, Callable[[Obj, str], Iterator[FieldError]]]] = {
    **SHARED_SOURCES,
    "emptyDir": _empty_dir,
    "secret": _secret,
    "configMap": _config_map,
    "downwardAPI": _downward,
    "projected": _projected,
    "persistentVolumeClaim": _needs("claimName"),
    "ephemeral": _ephemeral,
    "gitRepo": _needs("repository"),
    "image": _image,
}


# ----------------------------------------------------------------------------------------------------------- mounts


def validate_volume_mounts(container: Obj, volumes: Mapping[str, Obj], path: str) -> Iterator[FieldError]:
    """`volumeMounts` and `volumeDevices` of a container; `volumes` are the pod's by name."""
    mounts = container.get("volumeMounts") or ()
    devices = container.get("volumeDevices") or ()
    places: set[str] = set()
    device_names = {device.get("name") for device in devices}
    device_places = {device.get("devicePath") for device in devices}
    for index, mount in enumerate(mounts):
        at = f"{path}.volumeMounts[{index}]"
        name, place = mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            yield required(f"{at}.name")
        if not place:
            yield required(f"{at}.mountPath")
        if name not in volumes:
            yield field_not_found(f"{at}.name", name)
        if place in places:
            yield invalid_value(f"{at}.mountPath", place, "must be unique")
        places.add(place)
        if name in device_names:
            yield invalid_value(f"{at}.name", name, "must not already exist in volumeDevices")
        if place in device_places:
            yield invalid_value(f"{at}.mountPath", place, "must not already exist as a path in volumeDevices")
        # Kubernetes leaves the mount's number out of these.
        yield from _validate_sub_path(mount, path)
        yield from _validate_propagation(mount, container, path)
    yield from _validate_devices(devices, volumes, mounts, f"{path}.volumeDevices")


def _validate_sub_path(mount: Obj, path: str) -> Iterator[FieldError]:
    literal, expression = mount.get("subPath"), mount.get("subPathExpr")
    if literal:
        yield from validate_relative_path(literal, f"{path}.subPath")
    if expression:
        if literal:
            detail = "subPathExpr and subPath are mutually exclusive"
            yield invalid_value(f"{path}.subPathExpr", expression, detail)
        yield from validate_relative_path(expression, f"{path}.subPathExpr")


def _validate_propagation(mount: Obj, container: Obj, path: str) -> Iterator[FieldError]:
    propagation = mount.get("mountPropagation")
    if propagation is not None:
        at = f"{path}.mountPropagation"
        yield from validate_enum(propagation, at, ("Bidirectional", "HostToContainer", "None"))
        privileged = (container.get("securityContext") or {}).get("privileged")
        if propagation == "Bidirectional" and not privileged:
            detail = "Bidirectional mount propagation is available only to privileged containers"
            yield forbidden_field(at, detail)
    recursive = mount.get("recursiveReadOnly")
    if recursive is None:
        return
    at = f"{path}.recursiveReadOnly"
    if recursive not in ("Disabled", "Enabled", "IfPossible"):
        yield not_supported(at, recursive, ("Disabled", "Enabled", "IfPossible"))
    elif recursive != "Disabled":
        if not mount.get("readOnly"):
            yield forbidden_field(at, "may only be specified when readOnly is true")
        if propagation not in (None, "None"):
            detail = "may only be specified when mountPropagation is None or not specified"
            yield forbidden_field(at, detail)


def _validate_devices(
    devices: Iterable[Obj], volumes: Mapping[str, Obj], mounts: Iterable[Obj], path: str
) -> Iterator[FieldError]:
    mounted: set[Any] = {mount.get("name") for mount in mounts}
    names: set[str] = set()
    places: set[str] = set()
    for index, device in enumerate(devices):
        at, name, place = f"{path}[{index}]", device.get("name") or "", device.get("devicePath") or ""
        if not name:
            yield required(f"{at}.name")
        if not place:
            yield required(f"{at}.devicePath")
        if name in names:
            yield invalid_value(f"{at}.name", name, "must be unique")
        if place in places:
            yield invalid_value(f"{at}.devicePath", place, "must be unique")
        if name not in volumes:
            yield field_not_found(f"{at}.name", name)
        elif not {"persistentVolumeClaim", "ephemeral"} & set(volumes[name]):
            yield invalid_value(
                f"{at}.name",
                name,
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            )
        if name in mounted:
            yield invalid_value(f"{at}.name", name, "must not already exist in volumeMounts")
        names.add(name)
        places.add(place)
