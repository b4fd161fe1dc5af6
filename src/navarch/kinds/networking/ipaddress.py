"""IPAddress and ServiceCIDR, with which service addresses are given out: validation, columns."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from ipaddress import ip_address, ip_network

from navarch.api.errors import FieldError, invalid_value, required
from navarch.api.meta import Obj, get_path
from navarch.api.validation import validate_immutable
from navarch.kinds.base import AGE, NAME, SETTABLE_METADATA, Column, Strategy
from navarch.kinds.strategies import strategy


def _parent_cell(obj: Obj, now: datetime) -> str:
    parent = get_path(obj, "spec.parentRef") or {}
    group = f".{parent['group']}" if parent.get("group") else ""
    place = f"{parent['namespace']}/" if parent.get("namespace") else ""
    return f"{parent.get('resource', '')}{group}/{place}{parent.get('name', '')}"


@strategy("networking.k8s.io", "IPAddress")
class IPAddressStrategy(Strategy):
    selectable = ("spec.parentRef.resource", "spec.parentRef.namespace", "spec.parentRef.name")
    columns = (NAME, Column("ParentRef", _parent_cell), AGE)
    # `2001:db8::1` is a name here.
    name_rule = "path"

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        name = obj["metadata"].get("name") or ""
        try:
            if name and str(ip_address(name)) != name:
                yield invalid_value("metadata.name", name, "must be a valid IP address in canonical form")
        except ValueError:
            yield invalid_value("metadata.name", name, "must be a valid IP address in canonical form")
        parent = (obj.get("spec") or {}).get("parentRef")
        if parent is None:
            yield required("spec.parentRef")
            return
        for field in ("resource", "name"):
            if not parent.get(field):
                yield required(f"spec.parentRef.{field}")
        if old is not None:
            yield from validate_immutable(parent, (old.get("spec") or {}).get("parentRef"), "spec.parentRef")


@strategy("networking.k8s.io", "ServiceCIDR")
class ServiceCIDRStrategy(Strategy):
    status_keeps = SETTABLE_METADATA
    columns = (
        NAME,
        Column("CIDRs", lambda obj, now: ",".join(get_path(obj, "spec.cidrs") or ())),
        AGE,
    )

    def prepare_create(self, obj: Obj) -> None:
        obj["status"] = {}

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        cidrs = (obj.get("spec") or {}).get("cidrs") or []
        if old is not None:
            before = (old.get("spec") or {}).get("cidrs") or []
            # A second family may be added; nothing else may change.
            if cidrs[: len(before)] != before or (len(before) == 2 and cidrs != before):
                yield from validate_immutable(cidrs, before, "spec.cidrs")
        if not cidrs:
            yield required("spec.cidrs", "at least one CIDR required")
        elif len(cidrs) > 2:
            yield invalid_value("spec", obj["spec"], "may only hold up to 2 values")
        families: set[int] = set()
        for index, text in enumerate(cidrs):
            try:
                network = ip_network(text)
            except ValueError:
                detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
                yield invalid_value(f"spec.cidrs[{index}]", text, detail)
                continue
            if network.version in families:
                yield invalid_value("spec", obj["spec"], "may specify no more than one IP for each IP family")
            families.add(network.version)
