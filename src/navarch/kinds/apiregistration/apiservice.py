"""APIService: who serves a version of a group, this API server itself or another one behind a Service."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from navarch.api.errors import FieldError, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import (
    dns_label_1035_problems,
    dns_subdomain_problems,
    path_segment_problems,
    port_number_problems,
)
from navarch.kinds.base import AGE, NAME, SETTABLE_METADATA, Column, Strategy
from navarch.kinds.strategies import strategy
from navarch.kinds.webhooks import DEFAULT_PORT

GROUP: Final = "apiregistration.k8s.io"
_HIGHEST_GROUP_PRIORITY: Final = 20000
_HIGHEST_VERSION_PRIORITY: Final = 1000
_STATUSES: Final = ("True", "False", "Unknown")


def available(obj: Obj) -> Obj | None:
    """The condition that says whether it can be asked."""
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Available":
            found: Obj = condition
            return found
    return None


def _service_cell(obj: Obj, now: datetime) -> str:
    service = (obj.get("spec") or {}).get("service")
    return "Local" if service is None else f"{service.get('namespace', '')}/{service.get('name', '')}"


def _available_cell(obj: Obj, now: datetime) -> str:
    condition = available(obj)
    if condition is None:
        return "Unknown"
    status = str(condition.get("status", ""))
    return status if status == "True" else f"{status} ({condition.get('reason', '')})"


def local_condition(now: str) -> Obj:
    """What is said of a version that this server serves itself."""
    return {
        "type": "Available",
        "status": "True",
        "lastTransitionTime": now,
        "reason": "Local",
        "message": "Local APIServices are always available",
    }


@strategy(GROUP, "APIService")
class APIServiceStrategy(Strategy):
    """Defaults, checks and columns of an APIService."""

    allow_unconditional_update = False
    finalizers_have_domains = False
    # Its name is looked at together with the group and version.
    name_rule = "path"
    status_keeps = SETTABLE_METADATA
    columns = (
        NAME,
        Column("Service", _service_cell, description="The service in front of the API server, or Local."),
        Column("Available", _available_cell, description="Whether the API server can be asked."),
        AGE,
    )

    def defaults(self, obj: Obj) -> None:
        spec = obj.get("spec") or {}
        service = spec.get("service")
        if service is not None and service.get("port") is None:
            service["port"] = DEFAULT_PORT
        if spec.get("insecureSkipTLSVerify") is False:
            # As good as not said, and left out then.
            del spec["insecureSkipTLSVerify"]

    def prepare_create(self, obj: Obj) -> None:
        obj["status"] = {}
        if (obj.get("spec") or {}).get("service") is None:
            obj["status"] = {"conditions": [local_condition(obj["metadata"]["creationTimestamp"])]}

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        group, version = spec.get("group") or "", spec.get("version") or ""
        name, required_name = obj["metadata"].get("name") or "", f"{version}.{group}"
        if name and not path_segment_problems(name) and name != required_name:
            detail = f'must be `spec.version+"."+spec.group`: "{required_name}"'
            yield invalid_value("metadata.name", name, detail)
        if not group and version != "v1":
            yield required("spec.group", "only v1 may have an empty group and it better be legacy kube")
        for problem in dns_subdomain_problems(group) if group else ():
            yield invalid_value("spec.group", group, problem)
        for problem in dns_label_1035_problems(version):
            yield invalid_value("spec.version", version, problem)
        for field, highest in (
            ("groupPriorityMinimum", _HIGHEST_GROUP_PRIORITY),
            ("versionPriority", _HIGHEST_VERSION_PRIORITY),
        ):
            priority = spec.get(field) or 0
            if not 0 < priority <= highest:
                yield invalid_value(f"spec.{field}", priority, f"must be positive and less than {highest}")
        yield from _validate_service(spec)

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        for index, condition in enumerate((obj.get("status") or {}).get("conditions") or ()):
            if condition.get("status") not in _STATUSES:
                yield not_supported(f"status.conditions[{index}].status", condition.get("status", ""), _STATUSES)


def _validate_service(spec: Obj) -> Iterator[FieldError]:
    service, bundle, insecure = spec.get("service"), spec.get("caBundle") or "", spec.get("insecureSkipTLSVerify")
    if service is None:
        if bundle:
            detail = "local APIServices may not have a caBundle"
            yield invalid_value("spec.caBundle", f"{_length(bundle)} bytes", detail)
        if insecure:
            detail = "local APIServices may not have insecureSkipTLSVerify"
            yield invalid_value("spec.insecureSkipTLSVerify", insecure, detail)
        return
    for name in ("namespace", "name"):
        if not service.get(name):
            yield required(f"spec.service.{name}")
    port = service.get("port", DEFAULT_PORT)
    if problems := port_number_problems(port):
        yield invalid_value("spec.service.port", port, f"port is not valid: {', '.join(problems)}")
    if insecure and bundle:
        yield invalid_value("spec.insecureSkipTLSVerify", insecure, "may not be true if caBundle is present")


def _length(bundle: str) -> int:
    try:
        return len(base64.b64decode(bundle))
    except (ValueError, binascii.Error):
        return len(bundle)
