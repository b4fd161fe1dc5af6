"""Pod validation, volumes: one well-formed source each, and mounts that name a volume and a place of their own.

In: `spec.volumes` and each container's mounts and devices, with their paths.  Out: field errors in Kubernetes' words.
What a volume may come from is in `volume_sources`, but for what only pods have: files made of the cluster's objects,
claims made for the pod, images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from navarch.api.validation import (
    dns_subdomain_problems,
    validate_annotations,
    validate_dns_label,
    validate_dns_subdomain,
    validate_enum,
    validate_label_selector,
    validate_labels,
    validate_namespace_name,
)
from navarch.kinds.core.pod_validation_env import (
    VOLUME_FIELDS,
    validate_field_reference,
    validate_resource_reference,
)
from navarch.kinds.core.pod_validation_resources import read_amount, validate_resource_value
from navarch.kinds.core.volume_sources import (
    Source,
    needs,
    pod_sources,
    validate_file_path,
    validate_iscsi_volume_name,
    validate_no_backsteps,
    validate_one_source,
    validate_relative_path,
)
from navarch.kinds.internal import internal
from navarch.kinds.signer_names import (
    is_kubernetes_signer,
    trust_bundle_name_problems,
    validate_signer_name,
)

_MODE: Final = "must be a number between 0 and 0777 (octal), both inclusive"
_ACCESS_MODES: Final = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
_KEY_TYPES: Final = ("RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519")
_CONFLICT: Final = "conflicting duplicate paths"
_TOKEN_MIN_S: Final = 600
_TOKEN_MAX_S: Final = 1 << 32
_CERTIFICATE_MIN_S: Final = 3600
_CERTIFICATE_MAX_S: Final = 91 * 86400
_KUBERNETES_CERTIFICATE_MAX_S: Final = 86400


def validate_volumes(
    volumes: Sequence[Obj], path: str, sound: dict[str, Obj], *, pod_name: str = "", in_pod: bool = True
) -> Iterator[FieldError]:
    """`pod_name` is that of a real pod: claims are named after it. Into `sound` go the volumes with which nothing is
    wrong, by name: a container's mounts find no others."""
    made = {f"{pod_name}-{each.get('name') or ''}" for each in volumes if each.get("ephemeral") is not None}
    for index, volume in enumerate(volumes):
        at, name = f"{path}[{index}]", volume.get("name") or ""
        wrong = [*_validate_volume(volume, at, name, pod_name, in_pod=in_pod)]
        if name in sound:
            wrong.append(duplicate(f"{at}.name", name))
        if not wrong:
            sound[name] = volume
        yield from wrong
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if pod_name and claim in made:
            detail = "must not reference a PVC that gets created for an ephemeral volume"
            yield invalid_value(f"{at}.persistentVolumeClaim.claimName", claim, detail)


def _validate_volume(volume: Obj, path: str, name: str, pod_name: str, *, in_pod: bool) -> Iterator[FieldError]:
    yield from validate_one_source(volume, _SOURCES if in_pod else _TEMPLATE_SOURCES, path)
    if volume.get("iscsi") is not None:
        yield from validate_iscsi_volume_name(volume["iscsi"], name, path)
    if volume.get("ephemeral") is not None and pod_name and name:
        claim = f"{pod_name}-{name}"
        for problem in dns_subdomain_problems(claim):
            yield invalid_value(f"{path}.name", name, f'PVC name "{claim}": {problem}')
    if not name:
        yield required(f"{path}.name")
    else:
        yield from validate_dns_label(name, f"{path}.name")


# ---------------------------------------------------------------------------------------------------------- sources


def _validate_mode(source: Obj, path: str, field: str = "defaultMode") -> Iterator[FieldError]:
    mode = source.get(field)
    if mode is not None and not 0 <= mode <= 0o777:
        yield invalid_value(f"{path}.{field}", mode, _MODE)


def _validate_items(items: Iterable[Obj], path: str) -> Iterator[FieldError]:
    for index, item in enumerate(items):
        at = f"{path}[{index}]"
        yield from needs("key", "path")(item, at)
        yield from validate_file_path(item.get("path") or "", f"{at}.path")
        yield from _validate_mode(item, at, "mode")


def _secret(source: Obj, path: str) -> Iterator[FieldError]:
    yield from needs("secretName")(source, path)
    yield from _validate_mode(source, path)
    yield from _validate_items(source.get("items") or (), f"{path}.items")


def _config_map(source: Obj, path: str) -> Iterator[FieldError]:
    yield from needs("name")(source, path)
    yield from _validate_mode(source, path)
    yield from _validate_items(source.get("items") or (), f"{path}.items")


def _downward_item(item: Obj, path: str) -> Iterator[FieldError]:
    # Kubernetes reports the items of a downward API volume under the list itself, without index.
    yield from needs("path")(item, path)
    yield from validate_file_path(item.get("path") or "", f"{path}.path")
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
    for item in source.get("items") or ():
        yield from _downward_item(item, path)


def _projected(source: Obj, path: str) -> Iterator[FieldError]:
    yield from _validate_mode(source, path)
    taken: set[str] = set()
    for index, part in enumerate(source.get("sources") or ()):
        at, count = f"{path}.sources[{index}]", 0
        for name, check in _PROJECTIONS:
            if part.get(name) is not None:
                count += 1
                yield from check(part[name], f"{at}.{name}", path, taken)
        if count > 1:
            yield forbidden_field(at, "may not specify more than 1 volume type per source")


def _take(file: str, named: str, path: str, taken: set[str]) -> Iterator[FieldError]:
    """No two projections write the same file."""
    if file in taken:
        yield invalid_value(path, named, _CONFLICT)
    taken.add(file)


def _project_keys(part: Obj, path: str, volume: str, taken: set[str]) -> Iterator[FieldError]:
    yield from needs("name")(part, path)
    for index, item in enumerate(part.get("items") or ()):
        at = f"{path}.items[{index}]"
        yield from needs("key", "path")(item, at)
        yield from validate_file_path(item.get("path") or "", f"{at}.path")
        yield from _validate_mode(item, at, "mode")
        if item.get("path"):
            yield from _take(item["path"], part.get("name") or "", volume, taken)


def _project_fields(part: Obj, path: str, volume: str, taken: set[str]) -> Iterator[FieldError]:
    for item in part.get("items") or ():
        yield from _downward_item(item, path)
        if item.get("path"):
            yield from _take(item["path"], item["path"], volume, taken)


def _project_token(part: Obj, path: str, volume: str, taken: set[str]) -> Iterator[FieldError]:
    seconds = part.get("expirationSeconds", _CERTIFICATE_MIN_S)
    if seconds < _TOKEN_MIN_S:
        yield invalid_value(f"{path}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes")
    if seconds > _TOKEN_MAX_S:
        yield invalid_value(f"{path}.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds")
    # Said of the volume, not of the projection.
    if part.get("path"):
        yield from validate_file_path(part["path"], f"{volume}.path")
    else:
        yield required(f"{volume}.path")


def _project_trust(part: Obj, path: str, volume: str, taken: set[str]) -> Iterator[FieldError]:
    name, signer, selector = part.get("name"), part.get("signerName"), part.get("labelSelector")
    if name is not None and signer is not None:
        shown = internal(part, "ClusterTrustBundleProjection")
        yield invalid_value(path, shown, "only one of name and signerName may be used")
    elif name is not None:
        if not name:
            yield required(f"{path}.name", "must be a valid object name")
        for problem in trust_bundle_name_problems(name):
            yield invalid_value(f"{path}.name", name, f"not a valid clustertrustbundlename: {problem}")
        if selector is not None:
            detail = "labelSelector must be unset if name is specified"
            yield invalid_value(f"{path}.labelSelector", selector, detail)
    elif signer is not None:
        if not signer:
            yield required(f"{path}.signerName", "must be a valid signer name")
        yield from validate_signer_name(signer, f"{path}.signerName")
        yield from validate_label_selector(selector, f"{path}.labelSelector")
    else:
        yield required(path, "either name or signerName must be specified")
    file = part.get("path") or ""
    if not file:
        yield required(f"{path}.path")
    yield from validate_file_path(file, f"{path}.path")
    yield from _take(file, file, volume, taken)


def _project_certificate(part: Obj, path: str, volume: str, taken: set[str]) -> Iterator[FieldError]:
    signer, kind, seconds = part.get("signerName") or "", part.get("keyType") or "", part.get("maxExpirationSeconds")
    yield from validate_signer_name(signer, f"{path}.signerName")
    if part.get("userAnnotations"):
        yield from validate_annotations(part["userAnnotations"], f"{path}.userAnnotations")
    if kind not in _KEY_TYPES:
        yield not_supported(f"{path}.keyType", kind, _KEY_TYPES)
    if seconds is not None:
        at = f"{path}.maxExpirationSeconds"
        most = _KUBERNETES_CERTIFICATE_MAX_S if is_kubernetes_signer(signer) else _CERTIFICATE_MAX_S
        if seconds < _CERTIFICATE_MIN_S:
            detail = f"if provided, maxExpirationSeconds must be >= {_CERTIFICATE_MIN_S}"
            yield invalid_value(at, seconds, detail)
        if seconds > most:
            yield invalid_value(at, seconds, f"if provided, maxExpirationSeconds must be <= {most}")
    given = False
    for field in ("credentialBundlePath", "keyPath", "certificateChainPath"):
        if file := part.get(field):
            given = True
            yield from validate_file_path(file, f"{path}.{field}")
            yield from _take(file, file, volume, taken)
    if not given:
        yield required(path, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath")


_PROJECTIONS: Final = (
    ("secret", _project_keys),
    ("configMap", _project_keys),
    ("downwardAPI", _project_fields),
    ("serviceAccountToken", _project_token),
    ("clusterTrustBundle", _project_trust),
    ("podCertificate", _project_certificate),
)


def _empty_dir(source: Obj, path: str) -> Iterator[FieldError]:
    if source.get("sizeLimit") is not None:
        size = read_amount(source["sizeLimit"])
        if size is None or size < 0:
            yield forbidden_field(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")


def _ephemeral(source: Obj, path: str) -> Iterator[FieldError]:
    template = source.get("volumeClaimTemplate")
    if template is None:
        yield required(f"{path}.volumeClaimTemplate")
    else:
        yield from validate_claim_template(template, f"{path}.volumeClaimTemplate")


def _image(source: Obj, path: str) -> Iterator[FieldError]:
    if not source.get("reference"):
        yield required(f"{path}.reference")
    yield from _image_in_template(source, path)


def _image_in_template(source: Obj, path: str) -> Iterator[FieldError]:
    """In templates somebody may fill the reference in later."""
    policy = source.get("pullPolicy") or ""
    if not policy:
        yield required(f"{path}.pullPolicy")
    elif policy not in _PULL_POLICIES:
        yield not_supported(f"{path}.pullPolicy", policy, _PULL_POLICIES)


_OWN_SOURCES: Final = {
    "emptyDir": _empty_dir,
    "secret": _secret,
    "configMap": _config_map,
    "downwardAPI": _downward,
    "projected": _projected,
    "ephemeral": _ephemeral,
    "image": _image,
}
_SOURCES: Final[tuple[Source, ...]] = tuple(pod_sources(_OWN_SOURCES))
_TEMPLATE_SOURCES: Final[tuple[Source, ...]] = tuple(pod_sources({**_OWN_SOURCES, "image": _image_in_template}))


# ----------------------------------------------------------------------------------------------------------- claims


_TEMPLATE_METADATA: Final = (
    *("name", "generateName", "namespace", "selfLink", "uid", "resourceVersion", "generation", "creationTimestamp"),
    *("deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences", "finalizers", "managedFields"),
)


def validate_claim_template(template: Obj, path: str) -> Iterator[FieldError]:
    """A claim that is made for a pod: of its metadata only labels and annotations count."""
    metadata = template.get("metadata") or {}
    if metadata.get("annotations"):
        yield from validate_annotations(metadata["annotations"], f"{path}.metadata.annotations")
    if metadata.get("labels"):
        yield from validate_labels(metadata["labels"], f"{path}.metadata.labels")
    for field in _TEMPLATE_METADATA:
        if metadata.get(field):
            yield forbidden_field(f"{path}.metadata.{field}", "cannot be set")
    yield from validate_claim_spec(template.get("spec") or {}, f"{path}.spec")


def validate_claim_spec(spec: Obj, path: str) -> Iterator[FieldError]:
    """What a persistent volume claim asks for; also as a template in a pod or a StatefulSet."""
    modes = spec.get("accessModes") or ()
    if not modes:
        yield required(f"{path}.accessModes", "at least 1 access mode is required")
    yield from validate_label_selector(spec.get("selector"), f"{path}.selector")
    yield from validate_access_modes(modes, f"{path}.accessModes")
    storage, at = ((spec.get("resources") or {}).get("requests") or {}).get("storage"), f"{path}.resources[storage]"
    if storage is None:
        yield required(at)
    else:
        amount = read_amount(storage)
        if amount is None or amount <= 0:
            yield invalid_value(at, str(storage), "must be greater than zero")
        else:
            yield from validate_resource_value("storage", storage, at)
    if spec.get("storageClassName"):
        yield from validate_dns_subdomain(spec["storageClassName"], f"{path}.storageClassName")
    mode = spec.get("volumeMode")
    if mode is not None:
        yield from validate_enum(mode, f"{path}.volumeMode", ("Block", "Filesystem"))
    yield from _validate_data_source(spec, path)
    if spec.get("volumeAttributesClassName"):
        yield from validate_dns_subdomain(spec["volumeAttributesClassName"], f"{path}.volumeAttributesClassName")


def validate_access_modes(modes: Iterable[str], path: str) -> Iterator[FieldError]:
    for mode in modes:
        if mode not in _ACCESS_MODES:
            yield not_supported(path, mode, _ACCESS_MODES)
    if "ReadWriteOncePod" in modes and any(mode in _ACCESS_MODES[:3] for mode in modes):
        yield forbidden_field(path, "may not use ReadWriteOncePod with other access modes")


def _validate_data_source(spec: Obj, path: str) -> Iterator[FieldError]:
    for field in ("dataSource", "dataSourceRef"):
        source, at = spec.get(field), f"{path}.{field}"
        if source is None:
            continue
        yield from needs("name", "kind")(source, at)
        group, kind = source.get("apiGroup") or "", source.get("kind") or ""
        if not group and kind != "PersistentVolumeClaim":
            yield invalid_value(at, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup")
        if group:
            yield from validate_dns_subdomain(group, f"{at}.apiGroup")
        if field == "dataSourceRef" and source.get("namespace"):
            yield from validate_namespace_name(source["namespace"], f"{at}.namespace")
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if source is None or reference is None:
        return
    # The value shown is the field's own path: so Kubernetes words it.
    if reference.get("namespace"):
        detail = "may not be specified when dataSourceRef.namespace is specified"
        yield invalid_value(path, f"{path}.dataSource", detail)
    elif any((source.get(part) or "") != (reference.get(part) or "") for part in ("apiGroup", "kind", "name")):
        yield invalid_value(path, f"{path}.dataSource", "must match dataSourceRef")


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
        if name not in volumes:
            yield field_not_found(f"{at}.name", name)
        if not place:
            yield required(f"{at}.mountPath")
        if place in places:
            yield invalid_value(f"{at}.mountPath", place, "must be unique")
        places.add(place)
        if name in device_names:
            yield invalid_value(f"{at}.name", name, "must not already exist in volumeDevices")
        if place in device_places:
            yield invalid_value(f"{at}.mountPath", place, "must not already exist as a path in volumeDevices")
        # Kubernetes leaves the mount's number out of these.
        yield from _validate_sub_path(mount, at, f"{path}.volumeMounts")
        yield from _validate_propagation(mount, container, f"{path}.volumeMounts")
    if devices:
        yield from _validate_devices(devices, volumes, mounts, f"{path}.volumeDevices")


def _validate_sub_path(mount: Obj, at: str, path: str) -> Iterator[FieldError]:
    literal, expression = mount.get("subPath"), mount.get("subPathExpr")
    if literal:
        yield from validate_relative_path(literal, f"{path}.subPath")
    if expression:
        if literal:
            detail = "subPathExpr and subPath are mutually exclusive"
            yield invalid_value(f"{at}.subPathExpr", expression, detail)
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
    mount_places: set[Any] = {mount.get("mountPath") for mount in mounts}
    names: set[str] = set()
    places: set[str] = set()
    for index, device in enumerate(devices):
        at, name, place = f"{path}[{index}]", device.get("name") or "", device.get("devicePath") or ""
        if not name:
            yield required(f"{at}.name")
        if name in names:
            yield invalid_value(f"{at}.name", name, "must be unique")
        if name not in volumes:
            yield field_not_found(f"{at}.name", name)
        elif not {"persistentVolumeClaim", "ephemeral"} & set(volumes[name]):
            detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            yield invalid_value(f"{at}.name", name, detail)
        if not place:
            yield required(f"{at}.devicePath")
        if place in places:
            yield invalid_value(f"{at}.devicePath", place, "must be unique")
        if any(validate_no_backsteps(place, at)):
            yield invalid_value(f"{at}.devicePath", place, "can not contain backsteps ('..')")
        else:
            places.add(place)
        if name in mounted:
            yield invalid_value(f"{at}.name", name, "must not already exist in volumeMounts")
        if place in mount_places:
            yield invalid_value(f"{at}.devicePath", place, "must not already exist as a path in volumeMounts")
        if name:
            names.add(name)
