"""IPAddress and ServiceCIDR, with which service addresses are given out: validation, columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from navarch.api.addresses import cidr_problems, ip_problems, read_cidr, read_ip
from navarch.api.errors import FieldError, immutable, invalid_value, required
from navarch.api.meta import Obj, get_path
from navarch.api.validation import validate_dns_subdomain, validate_immutable, validate_path_segment
from navarch.kinds.base import AGE, NAME, SETTABLE_METADATA, Column, Strategy
from navarch.kinds.internal import immutable_internal, internal
from navarch.kinds.strategies import strategy


def _parent_cell(obj: Obj, now: datetime) -> str:
    parent = get_path(obj, "spec.parentRef") or {}
    group = f".{parent['group']}" if parent.get("group") else ""
    place = f"{parent['namespace']}/" if parent.get("namespace") else ""
    return f"{parent.get('resource', '')}{group}/{place}{parent.get('name', '')}"


@strategy("networking.k8s.io", "IPAddress")
class IPAddressStrategy(Strategy):
    selectable = ("spec.parentRef.resource", "spec.parentRef.namespace", "spec.parentRef.name")
    # Kubernetes fills in the age and names no column for it.
    columns = (NAME, Column("ParentRef", _parent_cell), replace(AGE, name=""))
    # `2001:db8::1` is a name here.
    name_rule = "path"

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        name = obj["metadata"].get("name") or ""
        # Who lacks a name is told that already.
        problems, address = (ip_problems(name, strict=True), read_ip(name)) if name else ([], "")
        for problem in problems:
            yield invalid_value("metadata.name", name, problem)
        if not problems and str(address) != name:
            yield invalid_value("metadata.name", name, f'must be in canonical form ("{address}")')
        parent = (obj.get("spec") or {}).get("parentRef")
        if parent is None:
            yield required("spec.parentRef")
        else:
            yield from _validate_parent(parent, "spec.parentRef")
        if old is not None:
            before = (old.get("spec") or {}).get("parentRef")
            yield from immutable_internal(parent, before, "spec.parentRef", "ParentReference")


def _validate_parent(parent: Obj, path: str) -> Iterator[FieldError]:
    if group := parent.get("group"):
        yield from validate_dns_subdomain(group, f"{path}.group")
    yield from validate_path_segment(parent.get("resource") or "", f"{path}.resource")
    yield from validate_path_segment(parent.get("name") or "", f"{path}.name")
    if namespace := parent.get("namespace"):
        yield from validate_path_segment(namespace, f"{path}.namespace")


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
        spec, before = obj.get("spec") or {}, ((old or {}).get("spec") or {}).get("cidrs") or []
        cidrs = spec.get("cidrs") or []
        if old is None:
            yield from _validate_cidrs(spec)
        elif len(cidrs) == len(before):
            yield from _validate_kept(cidrs, before)
        elif (len(before), len(cidrs)) == (1, 2):
            # A second family may be added; nothing else may change.
            yield from _validate_cidrs(spec)
            yield from _validate_kept(cidrs, before)
        else:
            yield immutable("spec.cidrs", cidrs or None)


def _validate_kept(cidrs: list[str], before: list[str]) -> Iterator[FieldError]:
    for index, (text, was) in enumerate(zip(cidrs, before, strict=False)):
        yield from validate_immutable(text, was, f"spec.cidrs[{index}]")


def _validate_cidrs(spec: Obj) -> Iterator[FieldError]:
    cidrs = spec.get("cidrs") or []
    if not cidrs:
        yield required("spec.cidrs", "at least one CIDR required")
        return
    shown = internal(spec, "ServiceCIDRSpec")
    if len(cidrs) > 2:
        yield invalid_value("spec.cidrs", shown, "may only hold up to 2 values")
        return
    found = [read_cidr(text) for text in cidrs]
    if len(found) == 2 and len({each[1].version for each in found if each is not None}) != 2:
        detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
        yield invalid_value("spec.cidrs", shown, detail)
        return
    for index, text in enumerate(cidrs):
        for problem in cidr_problems(text, strict=True):
            yield invalid_value(f"spec.cidrs[{index}]", text, problem)
