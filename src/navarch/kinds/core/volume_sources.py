"""What a volume may come from, for pods and for persistent volumes: each source's own rules.

In: one source and its path.  Out: field errors in Kubernetes' words. Where the two differ (a persistent volume's
secrets have a namespace) there is a rule for each: `POD_SOURCES` and `PERSISTENT_SOURCES`, both in the order in which
Kubernetes looks at them, which decides which of several is the one too many.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from navarch.api.errors import FieldError, forbidden_field, invalid_value, not_supported, required, too_long
from navarch.api.meta import Obj
from navarch.api.validation import (
    dns_subdomain_problems,
    range_problem,
    validate_dns_label,
    validate_dns_subdomain,
    validate_namespace_name,
)

Check = Callable[[Obj, str], Iterator[FieldError]]

_BACKSTEP: Final = "must not contain '..'"
_HOST_PATH_TYPES: Final = (
    *("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"),
)
_CACHING_MODES: Final = ("None", "ReadOnly", "ReadWrite")
_DISK_KINDS: Final = ("Dedicated", "Managed", "Shared")
_MANAGED_URI: Final = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
_BLOB_URI: Final = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
_INITIATORS: Final = {
    "iqn": re.compile(r"iqn\.\d{4}-\d{2}\.([A-Za-z0-9.-]+)(:[^,;*&$|\s]+)$", re.ASCII).search,
    "eui": re.compile(r"^eui.[A-Za-z0-9]{16}$").search,
    "naa": re.compile(r"^naa.[A-Za-z0-9]{32}$").search,
}
_INITIATOR_LENGTH: Final = (
    "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is "
    "specified."
)
_MAX_DRIVER_NAME: Final = 63
# What is said of sources that are on their way out.
DEPRECATED_SOURCES: Final = {
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "gitRepo": "deprecated in v1.11, and disabled by default in v1.33+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "flocker": "deprecated in v1.22, non-functional in v1.25+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "quobyte": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A kind of source: the field that names it, and what Kubernetes calls that field in errors of it, and in the error
    that it is one too many, where that is something else."""

    field: str
    check: Check
    path: str = ""
    surplus: str = ""
    # Kubernetes never counts a persistent volume's `flexVolume` as one too many.
    never_surplus: bool = False


def validate_one_source(owner: Obj, sources: Sequence[Source], path: str) -> Iterator[FieldError]:
    """Exactly one of the sources is given, and it makes sense."""
    first = True
    for source in sources:
        stated = owner.get(source.field)
        if stated is None:
            continue
        if first or source.never_surplus:
            yield from source.check(stated, f"{path}.{source.path or source.field}")
        else:
            yield forbidden_field(f"{path}.{source.surplus or source.field}", "may not specify more than 1 volume type")
        first = False
    if first:
        yield required(path, "must specify a volume type")


# ------------------------------------------------------------------------------------------------------- paths


def validate_no_backsteps(value: str, path: str) -> Iterator[FieldError]:
    if ".." in value.split("/"):
        yield invalid_value(path, value, _BACKSTEP)


def validate_relative_path(value: str, path: str) -> Iterator[FieldError]:
    """A path within a volume, which may not leave it."""
    if value.startswith("/"):
        yield invalid_value(path, value, "must be a relative path")
    yield from validate_no_backsteps(value, path)


def validate_file_path(value: str, path: str) -> Iterator[FieldError]:
    """A file in a volume that the kubelet writes: `..data` and its like are how it updates one atomically."""
    yield from validate_relative_path(value, path)
    if value.startswith("..") and not value.startswith("../"):
        yield invalid_value(path, value, "must not start with '..'")


# ----------------------------------------------------------------------------------------------------- sources


def needs(*fields: str) -> Check:
    def check(source: Obj, path: str) -> Iterator[FieldError]:
        for field in fields:
            if not source.get(field):
                yield required(f"{path}.{field}")

    return check


def _secret_ref(source: Obj, path: str, *fields: str, name: str = "secretRef") -> Iterator[FieldError]:
    reference = source.get(name)
    if reference is not None:
        for field in fields:
            if not reference.get(field):
                yield required(f"{path}.{name}.{field}")


def _host_path(source: Obj, path: str) -> Iterator[FieldError]:
    value = source.get("path") or ""
    if not value:
        yield required(f"{path}.path")
        return
    yield from validate_no_backsteps(value, f"{path}.path")
    kind = source.get("type") or ""
    if kind not in _HOST_PATH_TYPES:
        yield not_supported(f"{path}.type", kind, _HOST_PATH_TYPES)


def _local(source: Obj, path: str) -> Iterator[FieldError]:
    value = source.get("path") or ""
    if value:
        yield from validate_no_backsteps(value, f"{path}.path")
    else:
        yield required(f"{path}.path")


def _nfs(source: Obj, path: str) -> Iterator[FieldError]:
    yield from needs("server", "path")(source, path)
    if not (source.get("path") or "").startswith("/"):
        yield invalid_value(f"{path}.path", source.get("path") or "", "must be an absolute path")


def _partitioned(identity: str) -> Check:
    def check(source: Obj, path: str) -> Iterator[FieldError]:
        yield from needs(identity)(source, path)
        partition = source.get("partition") or 0
        if not 0 <= partition <= 255:
            yield invalid_value(f"{path}.partition", partition, range_problem(1, 255))

    return check


def _git_repo(source: Obj, path: str) -> Iterator[FieldError]:
    yield from needs("repository")(source, path)
    yield from validate_relative_path(source.get("directory") or "", f"{path}.directory")


def _iscsi(source: Obj, path: str, *, persistent: bool = False) -> Iterator[FieldError]:
    yield from needs("targetPortal")(source, path)
    iqn = source.get("iqn") or ""
    known = "must be valid format" if persistent else "must be valid format starting with iqn, eui, or naa"
    if not iqn:
        yield required(f"{path}.iqn")
    else:
        yield from _initiator_name(iqn, f"{path}.iqn", known)
    lun = source.get("lun") or 0
    if not 0 <= lun <= 255:
        yield invalid_value(f"{path}.lun", lun, range_problem(0, 255))
    if (source.get("chapAuthDiscovery") or source.get("chapAuthSession")) and source.get("secretRef") is None:
        yield required(f"{path}.secretRef")
    if persistent:
        yield from _secret_ref(source, path, "name")
    if source.get("initiatorName") is not None:
        yield from _initiator_name(source["initiatorName"], f"{path}.initiatorname", known)


def _initiator_name(value: str, path: str, unknown: str) -> Iterator[FieldError]:
    fits = _INITIATORS.get(value[:3])
    if fits is None:
        yield invalid_value(path, value, unknown)
    elif not fits(value):
        yield invalid_value(path, value, "must be valid format")


def initiator_too_long(source: Obj, volume: str) -> bool:
    return source.get("initiatorName") is not None and len(f"{volume}:{source.get('targetPortal') or ''}") > 64


def validate_iscsi_volume_name(source: Obj, name: str, path: str) -> Iterator[FieldError]:
    """With an initiator of its own, a pod's volume and its portal make up a name on the node."""
    if initiator_too_long(source, name):
        yield invalid_value(f"{path}.name", name, _INITIATOR_LENGTH)


def validate_iscsi_persistent_name(source: Obj, name: str, path: str) -> Iterator[FieldError]:
    if initiator_too_long(source, name):
        yield invalid_value(f"{path}.iscsi.targetportal", source.get("targetPortal") or "", _INITIATOR_LENGTH)


def _fibre_channel(source: Obj, path: str) -> Iterator[FieldError]:
    names, ids, lun = source.get("targetWWNs") or [], source.get("wwids") or [], source.get("lun")
    if not names and not ids:
        yield required(f"{path}.targetWWNs", "must specify either targetWWNs or wwids, but not both")
    if names and ids:
        yield invalid_value(f"{path}.targetWWNs", names, "targetWWNs and wwids can not be specified simultaneously")
    if names and lun is None:
        yield required(f"{path}.lun", "lun is required if targetWWNs is specified")
    elif names and lun is not None and not 0 <= lun <= 255:
        yield invalid_value(f"{path}.lun", lun, range_problem(0, 255))


def _persistent_glusterfs(source: Obj, path: str) -> Iterator[FieldError]:
    yield from needs("endpoints", "path")(source, path)
    namespace = source.get("endpointsNamespace")
    if namespace == "":
        detail = "if the endpointnamespace is set, it must be a valid namespace name"
        yield invalid_value(f"{path}.endpointsNamespace", namespace, detail)
    elif namespace is not None:
        yield from validate_namespace_name(namespace, f"{path}.endpointsNamespace")


def _flocker(source: Obj, path: str) -> Iterator[FieldError]:
    name, uuid = source.get("datasetName") or "", source.get("datasetUUID") or ""
    if not name and not uuid:
        yield required(path, "one of datasetName and datasetUUID is required")
    if name and uuid:
        yield invalid_value(path, "resource", "datasetName and datasetUUID can not be specified simultaneously")
    if "/" in name:
        yield invalid_value(f"{path}.datasetName", name, "must not contain '/'")


def _cinder(*fields: str) -> Check:
    def check(source: Obj, path: str) -> Iterator[FieldError]:
        yield from needs("volumeID")(source, path)
        yield from _secret_ref(source, path, *fields)

    return check


def _quobyte(source: Obj, path: str) -> Iterator[FieldError]:
    registry, detail = source.get("registry") or "", "must be a host:port pair or multiple pairs separated by commas"
    if not registry:
        yield required(f"{path}.registry", detail)
    elif len(source.get("tenant") or "") >= 65:
        yield required(f"{path}.tenant", "must be a UUID and may not exceed a length of 64 characters")
    else:
        for pair in registry.split(","):
            if not _is_host_and_port(pair):
                yield invalid_value(f"{path}.registry", registry, detail)
    yield from needs("volume")(source, path)


def _is_host_and_port(pair: str) -> bool:
    host, colon, _ = pair.rpartition(":")
    if pair.startswith("["):
        return host.endswith("]") and "[" not in host[1:]
    return bool(colon) and ":" not in host and "[" not in pair and "]" not in pair


def _flex_volume(source: Obj, path: str) -> Iterator[FieldError]:
    yield from needs("driver")(source, path)
    for key in source.get("options") or ():
        namespace = "." + key.partition("/")[0].lower()
        if namespace.endswith((".kubernetes.io", ".k8s.io")):
            yield invalid_value(f"{path}.options[{key}]", key, "kubernetes.io and k8s.io namespaces are reserved")


def _persistent_azure_file(source: Obj, path: str) -> Iterator[FieldError]:
    yield from needs("secretName", "shareName")(source, path)
    if source.get("secretNamespace") == "":
        yield required(f"{path}.secretNamespace")


def _azure_disk(source: Obj, path: str) -> Iterator[FieldError]:
    yield from needs("diskName", "diskURI")(source, path)
    caching, kind, uri = source.get("cachingMode"), source.get("kind"), source.get("diskURI") or ""
    if caching is not None and caching not in _CACHING_MODES:
        yield not_supported(f"{path}.cachingMode", caching, _CACHING_MODES)
    if kind is not None and kind not in _DISK_KINDS:
        yield not_supported(f"{path}.kind", kind, _DISK_KINDS)
    if kind == "Managed" and not uri.startswith("/subscriptions/"):
        yield not_supported(f"{path}.diskURI", uri, (_MANAGED_URI,))
    elif kind not in (None, "Managed") and not uri.startswith("https://"):
        yield not_supported(f"{path}.diskURI", uri, (_BLOB_URI,))


def _storage_os(*fields: str) -> Check:
    def check(source: Obj, path: str) -> Iterator[FieldError]:
        name = source.get("volumeName") or ""
        if name:
            yield from validate_dns_label(name, f"{path}.volumeName")
        else:
            yield required(f"{path}.volumeName")
        if source.get("volumeNamespace"):
            yield from validate_dns_label(source["volumeNamespace"], f"{path}.volumeNamespace")
        yield from _secret_ref(source, path, *fields)

    return check


def validate_csi_driver_name(name: str, path: str) -> Iterator[FieldError]:
    if not name:
        yield required(path)
        return
    if len(name) > _MAX_DRIVER_NAME:
        yield too_long(path, _MAX_DRIVER_NAME)
    for problem in dns_subdomain_problems(name.lower()):
        yield invalid_value(path, name, problem)


def _csi(source: Obj, path: str) -> Iterator[FieldError]:
    yield from validate_csi_driver_name(source.get("driver") or "", f"{path}.driver")
    reference = source.get("nodePublishSecretRef")
    if reference is not None:
        if not reference.get("name"):
            yield required(f"{path}.nodePublishSecretRef.name")
        else:
            yield from validate_dns_subdomain(reference["name"], f"{path}.name")


def _persistent_csi(source: Obj, path: str) -> Iterator[FieldError]:
    yield from validate_csi_driver_name(source.get("driver") or "", f"{path}.driver")
    yield from needs("volumeHandle")(source, path)
    for field in ("controllerPublish", "controllerExpand", "nodePublish", "nodeExpand"):
        reference, at = source.get(f"{field}SecretRef"), f"{path}.{field}SecretRef"
        if reference is None:
            continue
        for name, check in (("name", validate_dns_subdomain), ("namespace", validate_dns_label)):
            if reference.get(name):
                yield from check(reference[name], f"{at}.{name}")
            else:
                yield required(f"{at}.{name}")


def _persistent_iscsi(source: Obj, path: str) -> Iterator[FieldError]:
    return _iscsi(source, path, persistent=True)


_GCE: Final = Source("gcePersistentDisk", _partitioned("pdName"), path="persistentDisk")
_AWS: Final = Source("awsElasticBlockStore", _partitioned("volumeID"))
_RBD: Final = Source("rbd", needs("monitors", "image"))
_CEPHFS: Final = Source("cephfs", needs("monitors"), surplus="cephFS")
_SHARED: Final[Mapping[str, Any]] = {
    source.field: source
    for source in (
        Source("hostPath", _host_path),
        Source("nfs", _nfs),
        Source("flocker", _flocker),
        Source("quobyte", _quobyte),
        Source("fc", _fibre_channel),
        Source("flexVolume", _flex_volume),
        Source("vsphereVolume", needs("volumePath")),
        Source("photonPersistentDisk", needs("pdID")),
        Source("portworxVolume", needs("volumeID")),
        Source("azureDisk", _azure_disk),
        Source("scaleIO", needs("gateway", "system", "volumeName")),
    )
}
PERSISTENT_SOURCES: Final[Sequence[Source]] = (
    _SHARED["hostPath"],
    _GCE,
    _AWS,
    Source("glusterfs", _persistent_glusterfs),
    _SHARED["flocker"],
    _SHARED["nfs"],
    _RBD,
    _SHARED["quobyte"],
    _CEPHFS,
    Source("iscsi", _persistent_iscsi),
    Source("cinder", _cinder("name", "namespace")),
    _SHARED["fc"],
    Source("flexVolume", _flex_volume, never_surplus=True),
    Source("azureFile", _persistent_azure_file),
    _SHARED["vsphereVolume"],
    _SHARED["photonPersistentDisk"],
    _SHARED["portworxVolume"],
    _SHARED["azureDisk"],
    _SHARED["scaleIO"],
    Source("local", _local),
    Source("storageos", _storage_os("name", "namespace")),
    Source("csi", _persistent_csi),
)


def pod_sources(own: Mapping[str, Check]) -> Sequence[Source]:
    """The sources of a pod's volume; `own` are the rules of those that only pods have."""
    return (
        Source("emptyDir", own["emptyDir"]),
        _SHARED["hostPath"],
        Source("gitRepo", _git_repo),
        _GCE,
        _AWS,
        Source("secret", own["secret"]),
        _SHARED["nfs"],
        Source("iscsi", _iscsi),
        Source("glusterfs", needs("endpoints", "path")),
        _SHARED["flocker"],
        Source("persistentVolumeClaim", needs("claimName")),
        _RBD,
        Source("cinder", _cinder("name")),
        _CEPHFS,
        _SHARED["quobyte"],
        # The name in the error is Kubernetes' own.
        Source("downwardAPI", own["downwardAPI"], surplus="downwarAPI"),
        _SHARED["fc"],
        _SHARED["flexVolume"],
        Source("configMap", own["configMap"]),
        Source("azureFile", needs("secretName", "shareName")),
        _SHARED["vsphereVolume"],
        _SHARED["photonPersistentDisk"],
        _SHARED["portworxVolume"],
        _SHARED["azureDisk"],
        Source("storageos", _storage_os("name")),
        Source("projected", own["projected"]),
        _SHARED["scaleIO"],
        Source("csi", _csi),
        Source("ephemeral", own["ephemeral"]),
        Source("image", own["image"]),
    )
