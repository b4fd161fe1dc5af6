"""How Kubernetes writes a pod template down before it hashes it: Go's values with their types (spew's `%#v`).

In: a value of a message (`core/v1.PodTemplateSpec`).  Out: the text whose FNV-1a names what the template makes. Fields
and pointers are those of `go_structs`; `_NAMES` has the fields that Go calls otherwise than by their name in JSON with
a capital letter, `_TYPES` those whose type is more than a string or an int32. Fields that v1.36 did not have are
written where they are set only, so that hashes stay what they were.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from navarch.api import quantity
from navarch.api.go_structs import struct
from navarch.api.protobuf_fields import stated_fields
from navarch.records import frozen

# Words that Go writes in capitals where a name begins with them.
_UPPER: Final = (
    *("aws", "api", "csi", "dns", "fc", "fs", "gce", "gmsa", "grpc", "http", "ip", "iqn", "iscsi", "nfs", "os", "pd"),
    *("rbd", "se", "ssl", "tcp", "tty", "uid"),
)
_BEGINS: Final = re.compile(rf"({'|'.join(sorted(_UPPER, key=len, reverse=True))})(?=[A-Z]|$)")
_NAMES: Final[Mapping[str, str]] = {
    "core/v1.PodSpec.serviceAccount": "DeprecatedServiceAccount",
    "core/v1.VolumeSource.cephfs": "CephFS",
    "core/v1.VolumeSource.storageos": "StorageOS",
    "core/v1.GlusterfsVolumeSource.endpoints": "EndpointsName",
    "core/v1.RBDVolumeSource.monitors": "CephMonitors",
    "core/v1.RBDVolumeSource.image": "RBDImage",
    "core/v1.RBDVolumeSource.pool": "RBDPool",
    "core/v1.RBDVolumeSource.user": "RadosUser",
    "core/v1.ISCSIVolumeSource.chapAuthDiscovery": "DiscoveryCHAPAuth",
    "core/v1.ISCSIVolumeSource.chapAuthSession": "SessionCHAPAuth",
    "core/v1.AzureDiskVolumeSource.diskURI": "DataDiskURI",
    "core/v1.PhotonPersistentDiskVolumeSource.pdID": "PdID",
    "core/v1.FCVolumeSource.wwids": "WWIDs",
}
_TYPES: Final[Mapping[str, str]] = {
    "meta/v1.ObjectMeta.uid": "types.UID",
    "meta/v1.ObjectMeta.generation": "int64",
    "meta/v1.ObjectMeta.deletionGracePeriodSeconds": "int64",
    "meta/v1.OwnerReference.uid": "types.UID",
    "meta/v1.LabelSelectorRequirement.operator": "v1.LabelSelectorOperator",
    "core/v1.PodSpec.restartPolicy": "v1.RestartPolicy",
    "core/v1.PodSpec.terminationGracePeriodSeconds": "int64",
    "core/v1.PodSpec.activeDeadlineSeconds": "int64",
    "core/v1.PodSpec.dnsPolicy": "v1.DNSPolicy",
    "core/v1.PodSpec.preemptionPolicy": "v1.PreemptionPolicy",
    "core/v1.PodOS.name": "v1.OSName",
    "core/v1.PodReadinessGate.conditionType": "v1.PodConditionType",
    "core/v1.PodSecurityContext.runAsUser": "int64",
    "core/v1.PodSecurityContext.runAsGroup": "int64",
    "core/v1.PodSecurityContext.fsGroup": "int64",
    "core/v1.PodSecurityContext.supplementalGroups": "int64",
    "core/v1.PodSecurityContext.supplementalGroupsPolicy": "v1.SupplementalGroupsPolicy",
    "core/v1.PodSecurityContext.fsGroupChangePolicy": "v1.PodFSGroupChangePolicy",
    "core/v1.PodSecurityContext.seLinuxChangePolicy": "v1.PodSELinuxChangePolicy",
    "core/v1.SecurityContext.runAsUser": "int64",
    "core/v1.SecurityContext.runAsGroup": "int64",
    "core/v1.SecurityContext.procMount": "v1.ProcMountType",
    "core/v1.SeccompProfile.type": "v1.SeccompProfileType",
    "core/v1.AppArmorProfile.type": "v1.AppArmorProfileType",
    "core/v1.Capabilities.add": "v1.Capability",
    "core/v1.Capabilities.drop": "v1.Capability",
    "core/v1.Container.restartPolicy": "v1.ContainerRestartPolicy",
    "core/v1.Container.terminationMessagePolicy": "v1.TerminationMessagePolicy",
    "core/v1.Container.imagePullPolicy": "v1.PullPolicy",
    "core/v1.ContainerRestartRule.action": "v1.ContainerRestartRuleAction",
    "core/v1.ContainerRestartRuleOnExitCodes.operator": "v1.ContainerRestartRuleOnExitCodesOperator",
    "core/v1.ContainerPort.protocol": "v1.Protocol",
    "core/v1.ContainerResizePolicy.resourceName": "v1.ResourceName",
    "core/v1.ContainerResizePolicy.restartPolicy": "v1.ResourceResizeRestartPolicy",
    "core/v1.VolumeMount.recursiveReadOnly": "v1.RecursiveReadOnlyMode",
    "core/v1.VolumeMount.mountPropagation": "v1.MountPropagationMode",
    "core/v1.HTTPGetAction.scheme": "v1.URIScheme",
    "core/v1.SleepAction.seconds": "int64",
    "core/v1.Lifecycle.stopSignal": "v1.Signal",
    "core/v1.Probe.terminationGracePeriodSeconds": "int64",
    "core/v1.Toleration.operator": "v1.TolerationOperator",
    "core/v1.Toleration.effect": "v1.TaintEffect",
    "core/v1.Toleration.tolerationSeconds": "int64",
    "core/v1.TopologySpreadConstraint.whenUnsatisfiable": "v1.UnsatisfiableConstraintAction",
    "core/v1.TopologySpreadConstraint.nodeAffinityPolicy": "v1.NodeInclusionPolicy",
    "core/v1.TopologySpreadConstraint.nodeTaintsPolicy": "v1.NodeInclusionPolicy",
    "core/v1.NodeSelectorRequirement.operator": "v1.NodeSelectorOperator",
    "core/v1.HostPathVolumeSource.type": "v1.HostPathType",
    "core/v1.EmptyDirVolumeSource.medium": "v1.StorageMedium",
    "core/v1.ImageVolumeSource.pullPolicy": "v1.PullPolicy",
    "core/v1.AzureDiskVolumeSource.cachingMode": "v1.AzureDataDiskCachingMode",
    "core/v1.AzureDiskVolumeSource.kind": "v1.AzureDataDiskKind",
    "core/v1.ServiceAccountTokenProjection.expirationSeconds": "int64",
    "core/v1.PersistentVolumeClaimSpec.accessModes": "v1.PersistentVolumeAccessMode",
    "core/v1.PersistentVolumeClaimSpec.volumeMode": "v1.PersistentVolumeMode",
}
# Fields that came with v1.37.
_NEWER: Final = frozenset(
    (
        "core/v1.ClusterTrustBundleProjection.user",
        "core/v1.ConfigMapVolumeSource.defaultUser",
        "core/v1.DownwardAPIVolumeFile.user",
        "core/v1.DownwardAPIVolumeSource.defaultUser",
        "core/v1.EmptyDirVolumeSource.mode",
        "core/v1.GRPCAction.mode",
        "core/v1.HTTPGetAction.protocol",
        "core/v1.KeyToPath.user",
        "core/v1.PodCertificateProjection.user",
        "core/v1.PodSpec.evictionResponders",
        "core/v1.ProjectedVolumeSource.defaultUser",
        "core/v1.SecretVolumeSource.defaultUser",
        "core/v1.ServiceAccountTokenProjection.user",
        "core/v1.VolumeMount.bindMountOptions",
    )
)
_SCALARS: Final[Mapping[str, str]] = {"s": "string", "b": "bool", "i": "int32", "y": "uint8"}
_QUANTITY: Final = "api/resource.Quantity"
_NIL: Final = "<nil>"
_NO_TIME: Final = "{Time:(time.Time){wall:(uint64)0 ext:(int64)0 loc:(*time.Location)<nil>}}"
_NO_DECIMAL: Final = "(resource.infDecAmount){Dec:(*inf.Dec)<nil>}"
# A canonical quantity: digits, and what they count.
_NUMBER: Final = re.compile(r"(-?[0-9]+)(.*)", re.ASCII)
_SCALES: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_FORMATS: Final[Mapping[str, str]] = {"binary": "BinarySI", "decimal": "DecimalSI", "exponent": "DecimalExponent"}


@frozen
class _Field:
    """`type` is that of one item, `message` its message (of what is no scalar), `shape` as in `GoField`."""

    json_name: str
    go_name: str
    shape: str
    type: str
    message: str
    pointer: bool
    newer: bool

    @property
    def whole_type(self) -> str:
        if self.shape == "{}":
            return "v1.ResourceList" if self.message == _QUANTITY else f"map[string]{self.type}"
        return f"[]{self.type}" if self.shape else self.type


def dump(value: Mapping[str, Any], message: str) -> str:
    """`(v1.PodTemplateSpec){ObjectMeta:(v1.ObjectMeta){Name:(string) …`"""
    return f"({_type(message)}){_struct(value, message)}"


def _type(message: str) -> str:
    return message.rpartition("/")[2]


@cache
def _fields(message: str) -> tuple[_Field, ...]:
    types = dict(entry.partition("=")[::2] for entry in (stated_fields(message) or "").split())
    found = []
    for name in struct(message):
        type_ = types[name].partition(":")[2].removesuffix("!")
        pointer, type_ = type_.startswith("*"), type_.removeprefix("*")
        shape = type_[:2] if type_[:2] in ("[]", "{}") else ""
        type_ = type_[len(shape) :]
        whole = f"{message}.{name}"
        of_message = type_ if "/" in type_ else ""
        item = (
            _type(of_message)
            if of_message
            else _TYPES.get(whole.replace("EphemeralContainerCommon", "Container"), _SCALARS.get(type_, type_))
        )
        go_name = "ObjectMeta" if of_message == "meta/v1.ObjectMeta" else _name(name, whole)
        found.append(_Field(name, go_name, shape, item, of_message, pointer, whole in _NEWER))
    return tuple(found)


def _name(name: str, whole: str) -> str:
    if whole in _NAMES:
        return _NAMES[whole]
    if found := _BEGINS.match(name):
        word = "SE" if found[1] == "se" else found[1].upper()
        return word + name[found.end() :]
    return name[0].upper() + name[1:]


def _struct(value: Mapping[str, Any], message: str) -> str:
    parts = []
    for field in _fields(message):
        item = value if field.json_name[0].isupper() else value.get(field.json_name)
        if item is None and field.newer:
            continue
        parts.append(f"{field.go_name}:{_shown(item, field)}")
    return f"{{{' '.join(parts)}}}"


def _shown(item: Any, field: _Field) -> str:
    if field.shape:
        start = f"({field.whole_type})"
        if not item:
            return start + _NIL
        if field.shape == "[]":
            return f"{start}[{' '.join(_value(each, field) for each in item)}]"
        return f"{start}map[{' '.join(f'{key}:{_value(item[key], field)}' for key in sorted(item))}]"
    start = f"({'*' if field.pointer else ''}{field.type})"
    return start + (_NIL if field.pointer and item is None else _value(item, field))


def _value(item: Any, field: _Field) -> str:
    """One item, without its type."""
    if field.message == _QUANTITY:
        return _quantity(item)
    if field.message == "util/intstr.IntOrString":
        kind, number, text = (1, 0, item) if isinstance(item, str) else (0, item or 0, "")
        return f"{{Type:(intstr.Type){kind} IntVal:(int32){number} StrVal:(string){text}}}"
    if field.message == "meta/v1.Time":
        return _NO_TIME
    if field.message:
        return _struct(item or {}, field.message)
    if field.type == "bool":
        return "true" if item else "false"
    if field.type.startswith("int"):
        return str(item or 0)
    return item or ""


def _quantity(item: Any) -> str:
    text, value, scale, form = "", 0, 0, ""
    if item is not None:
        text, form = quantity.canonical(item), _FORMATS.get(quantity.form_of(item), "DecimalSI")
        number, suffix = _NUMBER.fullmatch(text).groups()  # type: ignore[union-attr]
        if suffix.endswith("i"):
            value = int(quantity.parse(item))
        else:
            scale = _SCALES[suffix] if suffix in _SCALES else int(suffix[1:])
            value = int(number)
    amount = f"(resource.int64Amount){{value:(int64){value} scale:(resource.Scale){scale}}}"
    return f"{{i:{amount} d:{_NO_DECIMAL} s:(string){text} Format:(resource.Format){form}}}"
