"""Node: taints, address ranges, and what `kubectl get nodes` shows.

A kubelet registers its node with status, so a create keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from navarch.api.addresses import is_one_of_each_family
from navarch.api.errors import FieldError, duplicate, forbidden_field, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import label_value_problems, validate_cidr, validate_positive, validate_qualified_name
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.core.cells import NONE
from navarch.kinds.core.node_warnings import node_warnings
from navarch.kinds.core.pod_validation_resources import validate_resource_value
from navarch.kinds.internal import internal
from navarch.kinds.strategies import strategy

_ROLE_PREFIX: Final = "node-role.kubernetes.io/"
_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def _status_cell(node: Obj, now: datetime) -> str:
    words = ["Unknown"]
    for condition in (node.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Ready":
            words = ["Ready" if condition.get("status") == "True" else "NotReady"]
    if (node.get("spec") or {}).get("unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _roles_cell(node: Obj, now: datetime) -> str:
    roles = set()
    for key, value in (node["metadata"].get("labels") or {}).items():
        if key.startswith(_ROLE_PREFIX):
            roles.add(key.removeprefix(_ROLE_PREFIX))
        elif key == "kubernetes.io/role" and value:
            roles.add(value)
    return ",".join(sorted(roles - {""})) or NONE


def _address_cell(kind: str) -> Column:
    def cell(node: Obj, now: datetime) -> str:
        for address in (node.get("status") or {}).get("addresses") or ():
            if address.get("type") == kind:
                return str(address.get("address") or NONE)
        return NONE

    return Column(kind.replace("IP", "-IP"), cell, wide=True, description=f"The node's {kind}")


def _info(name: str, field: str) -> Column:
    def cell(node: Obj, now: datetime) -> str:
        return ((node.get("status") or {}).get("nodeInfo") or {}).get(field) or "<unknown>"

    return Column(name, cell, wide=True, description=f"The node's {field}")


# What a node says of itself, empty until it does.
_INFO = (
    "machineID",
    "systemUUID",
    "bootID",
    "kernelVersion",
    "osImage",
    "containerRuntimeVersion",
    "kubeletVersion",
    "kubeProxyVersion",
    "operatingSystem",
    "architecture",
)


@strategy("", "Node")
class NodeStrategy(Strategy):
    columns = (
        NAME,
        Column("Status", _status_cell, description="The status of the node"),
        Column("Roles", _roles_cell, description="The roles of the node"),
        AGE,
        Column("Version", ".status.nodeInfo.kubeletVersion", description="Kubelet version of the node"),
        _address_cell("InternalIP"),
        _address_cell("ExternalIP"),
        _info("OS-Image", "osImage"),
        _info("Kernel-Version", "kernelVersion"),
        _info("Container-Runtime", "containerRuntimeVersion"),
    )
    selectable = ("spec.unschedulable",)

    def defaults(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        if spec.get("podCIDR") and not spec.get("podCIDRs"):
            spec["podCIDRs"] = [spec["podCIDR"]]
        elif spec.get("podCIDRs") and not spec.get("podCIDR"):
            spec["podCIDR"] = spec["podCIDRs"][0]
        status = obj.setdefault("status", {})
        if status.get("capacity") and not status.get("allocatable"):
            status["allocatable"] = dict(status["capacity"])

    def field_value(self, obj: Obj, path: str) -> str:
        if path == "spec.unschedulable":
            return "true" if (obj.get("spec") or {}).get("unschedulable") else "false"
        return super().field_value(obj, path)

    def complete(self, obj: Obj) -> None:
        status = obj.setdefault("status", {})
        status.setdefault("daemonEndpoints", {}).setdefault("kubeletEndpoint", {}).setdefault("Port", 0)
        info = status.setdefault("nodeInfo", {})
        for name in _INFO:
            info.setdefault(name, "")
        for image in status.get("images") or ():
            image.setdefault("names", None)

    def prepare_create(self, obj: Obj) -> None:
        """What a node says of itself is kept, its status too, but for settings that came over the API once."""
        obj["spec"].pop("configSource", None)
        obj["status"].pop("config", None)

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        super().prepare_update(obj, old)
        if (old.get("spec") or {}).get("configSource") is None:
            obj["spec"].pop("configSource", None)

    def warnings(self, obj: Obj, old: Obj | None) -> Iterator[str]:
        return node_warnings(obj)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj["spec"]
        yield from validate_taints(spec.get("taints") or (), "metadata.taints")
        yield from _validate_amounts(obj)
        capacity = (((obj.get("status") or {}).get("nodeInfo") or {}).get("swap") or {}).get("capacity")
        if capacity is not None:
            yield from validate_positive(capacity, "metadata.nodeSwapStatus.capacity")
        yield from _validate_ranges(spec.get("podCIDRs") or [])
        if old is not None:
            # Kubernetes looks at taints and amounts once more, and says everything twice.
            yield from _validate_update(obj, old)

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        return _validate_update(obj, old)


def _validate_update(obj: Obj, old: Obj) -> Iterator[FieldError]:
    spec, was = obj["spec"], old.get("spec") or {}
    yield from _validate_amounts(obj)
    yield from _validate_addresses(obj)
    before, ranges = was.get("podCIDRs") or [], spec.get("podCIDRs") or []
    if before:
        changed = 1 if len(before) != len(ranges) else sum(a != b for a, b in zip(before, ranges, strict=True))
        for _ in range(changed):
            detail = 'node updates may not change podCIDR except from "" to valid'
            yield forbidden_field("spec.podCIDRs", detail)
    if was.get("providerID") and spec.get("providerID") != was["providerID"]:
        detail = 'node updates may not change providerID except from "" to valid'
        yield forbidden_field("spec.providerID", detail)
    yield from validate_taints(spec.get("taints") or (), "metadata.taints")
    if (spec.get("externalID") or "") != (was.get("externalID") or ""):
        yield forbidden_field("spec.externalID", "may not be updated")


def _validate_amounts(node: Obj) -> Iterator[FieldError]:
    for field in ("capacity", "allocatable"):
        for name, value in ((node.get("status") or {}).get(field) or {}).items():
            yield from validate_resource_value(name, value, f"status.{field}.{name}")


def _validate_addresses(node: Obj) -> Iterator[FieldError]:
    seen: set[tuple[str | None, str | None]] = set()
    for index, address in enumerate((node.get("status") or {}).get("addresses") or ()):
        key = (address.get("type"), address.get("address"))
        if key in seen:
            yield duplicate(f"status.addresses[{index}]", internal(address, "NodeAddress"))
        seen.add(key)


def _validate_ranges(ranges: list[str]) -> Iterator[FieldError]:
    for index, text in enumerate(ranges):
        yield from validate_cidr(text, f"spec.podCIDRs[{index}]")
    if len(ranges) < 2:
        return
    if len(ranges) > 2 or not is_one_of_each_family(ranges):
        yield invalid_value("spec.podCIDRs", ranges, "may specify no more than one CIDR for each IP family")
    for index, text in enumerate(ranges):
        if text in ranges[:index]:
            yield duplicate(f"spec.podCIDRs[{index}]", text)


def validate_taints(taints: object, path: str) -> Iterator[FieldError]:
    """Taints of a node: well-formed, and each (key, effect) once."""
    seen: set[tuple[str, str]] = set()
    assert isinstance(taints, list | tuple)
    for index, taint in enumerate(taints):
        at = f"{path}[{index}]"
        key, effect, value = taint.get("key") or "", taint.get("effect") or "", taint.get("value") or ""
        yield from validate_qualified_name(key, f"{at}.key")
        if problems := label_value_problems(value):
            yield invalid_value(f"{at}.value", value, ";".join(problems))
        if not effect:
            yield required(f"{at}.effect")
        elif effect not in _EFFECTS:
            yield not_supported(f"{at}.effect", effect, _EFFECTS)
        if (key, effect) in seen:
            detail = "taints must be unique by key and effect pair"
            yield FieldError("FieldValueDuplicate", at, detail, internal(taint, "Taint"))
        seen.add((key, effect))
