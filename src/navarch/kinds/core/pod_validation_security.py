"""Pod validation, security context: of the pod and of each container.

In: a security context and its path.  Out: field errors in Kubernetes' words. Whether a context is *allowed* is
admission's business (Pod Security); here is only whether it makes sense.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from navarch.api.errors import FieldError, duplicate, forbidden_field, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import validate_enum

_ID_RANGE: Final = "must be between 0 and 2147483647, inclusive"
_SYSCTL: Final = re.compile(r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?")
_SYSCTL_TEXT: Final = (
    "must have at most 253 characters and match regex "
    r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
)
_PROFILES: Final = ("Localhost", "RuntimeDefault", "Unconfined")


def _validate_id(value: Any, path: str) -> Iterator[FieldError]:
    if value is not None and not 0 <= value <= 2147483647:
        yield invalid_value(path, value, _ID_RANGE)


def validate_pod_security_context(spec: Obj, path: str) -> Iterator[FieldError]:
    """`spec.securityContext`, and the host namespaces it goes together with."""
    context = spec.get("securityContext")
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        detail = "ShareProcessNamespace and HostPID cannot both be enabled"
        yield invalid_value(f"{path}.shareProcessNamespace", True, detail)
    if spec.get("hostUsers") is False:
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(field):
                yield forbidden_field(f"{path}.{field}", "when `hostUsers` is false")
    if not context:
        return
    at = f"{path}.securityContext"
    for field in ("fsGroup", "runAsUser", "runAsGroup"):
        yield from _validate_id(context.get(field), f"{at}.{field}")
    for index, group in enumerate(context.get("supplementalGroups") or ()):
        yield from _validate_id(group, f"{at}.supplementalGroups[{index}]")
    if context.get("sysctls"):
        yield from _validate_sysctls(context["sysctls"], f"{at}.sysctls", spec)
    if context.get("fsGroupChangePolicy") is not None:
        yield from validate_enum(
            context["fsGroupChangePolicy"], f"{at}.fsGroupChangePolicy", ("Always", "OnRootMismatch")
        )
    if context.get("supplementalGroupsPolicy") is not None:
        yield from validate_enum(
            context["supplementalGroupsPolicy"], f"{at}.supplementalGroupsPolicy", ("Merge", "Strict")
        )
    yield from _validate_profiles(context, at)


def _validate_sysctls(sysctls: list[Obj], path: str, spec: Obj) -> Iterator[FieldError]:
    seen: set[str] = set()
    for index, sysctl in enumerate(sysctls):
        name, at = sysctl.get("name") or "", f"{path}[{index}].name"
        if not name:
            yield required(at)
        elif len(name) > 253 or not _SYSCTL.fullmatch(name):
            yield invalid_value(at, name, _SYSCTL_TEXT)
        elif name in seen:
            yield duplicate(at, name)
        seen.add(name)
        dotted = name.replace("/", ".")
        if spec.get("hostNetwork") and dotted.startswith("net."):
            yield invalid_value(at, name, "may not be specified when 'hostNetwork' is true")
        if spec.get("hostIPC") and dotted.startswith(("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")):
            yield invalid_value(at, name, "may not be specified when 'hostIPC' is true")


def _validate_profiles(context: Obj, path: str) -> Iterator[FieldError]:
    for field, word in (("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")):
        profile = context.get(field)
        if profile is None:
            continue
        at, kind, local = f"{path}.{field}", profile.get("type") or "", profile.get("localhostProfile")
        if not kind:
            yield required(f"{at}.type", f"type is required when {field} is set")
            continue
        if kind not in _PROFILES:
            yield not_supported(f"{at}.type", kind, _PROFILES)
        elif kind == "Localhost":
            if local is None:
                yield required(f"{at}.localhostProfile", f"must be set when {word} type is Localhost")
            elif word == "seccomp" and local.startswith("/"):
                yield invalid_value(f"{at}.localhostProfile", local, "must be a relative path")
            elif word == "seccomp" and ".." in local.split("/"):
                yield invalid_value(f"{at}.localhostProfile", local, "must not contain '..'")
            elif word == "AppArmor" and not local.strip():
                yield required(f"{at}.localhostProfile", "must be set when AppArmor type is Localhost")
        elif local is not None:
            detail = f"can only be set when {word} type is Localhost"
            yield invalid_value(f"{at}.localhostProfile", local, detail)


def validate_container_security_context(context: Obj, path: str, spec: Obj) -> Iterator[FieldError]:
    """`securityContext` of a container."""
    for field in ("runAsUser", "runAsGroup"):
        yield from _validate_id(context.get(field), f"{path}.{field}")
    if context.get("procMount") is not None:
        yield from validate_enum(context["procMount"], f"{path}.procMount", ("Default", "Unmasked"))
        if context["procMount"] == "Unmasked" and spec.get("hostUsers") is not False:
            detail = "`hostUsers` must be false to use `Unmasked`"
            yield invalid_value(f"{path}.procMount", context["procMount"], detail)
    yield from _validate_profiles(context, path)
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            yield invalid_value(path, context, detail)
        added = (context.get("capabilities") or {}).get("add") or ()
        if "CAP_SYS_ADMIN" in added:
            detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            yield invalid_value(path, context, detail)
