"""Pod validation, security context: of the pod and of each container.

In: a security context and its path.  Out: field errors in Kubernetes' words. Whether a context is *allowed* is
admission's business (Pod Security); here is only whether it makes sense.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from navarch.api.errors import (
    FieldError,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    too_long,
)
from navarch.api.meta import Obj
from navarch.api.validation import validate_enum
from navarch.kinds.core.pod_validation_windows import validate_windows_options
from navarch.kinds.core.volume_sources import validate_relative_path
from navarch.kinds.internal import internal

_ID_RANGE: Final = "must be between 0 and 2147483647, inclusive"
_SYSCTL: Final = re.compile(r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?")
_SYSCTL_TEXT: Final = (
    "must have at most 253 characters and match regex "
    r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
)
_PROFILES: Final = ("Localhost", "RuntimeDefault", "Unconfined")
_GROUP_POLICIES: Final = ("Always", "OnRootMismatch")
_MAX_PROFILE: Final = 4095


def validate_id(value: Any, path: str) -> Iterator[FieldError]:
    """The number of a user or a group."""
    if value is not None and not 0 <= value <= 2147483647:
        yield invalid_value(path, value, _ID_RANGE)


def validate_pod_security_context(spec: Obj, path: str) -> Iterator[FieldError]:
    """`spec.securityContext`."""
    context, at = spec.get("securityContext") or {}, f"{path}.securityContext"
    get = context.get
    if context:
        for field in ("fsGroup", "runAsUser", "runAsGroup"):
            yield from validate_id(get(field), f"{at}.{field}")
        for index, group in enumerate(get("supplementalGroups") or ()):
            yield from validate_id(group, f"{at}.supplementalGroups[{index}]")
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        detail = "ShareProcessNamespace and HostPID cannot both be enabled"
        yield invalid_value(f"{at}.shareProcessNamespace", True, detail)
    if not context:
        return
    if get("sysctls"):
        yield from _validate_sysctls(context["sysctls"], f"{at}.sysctls", spec)
    if get("fsGroupChangePolicy") is not None:
        yield from validate_enum(context["fsGroupChangePolicy"], f"{at}.fsGroupChangePolicy", _GROUP_POLICIES)
    yield from _validate_seccomp(get("seccompProfile"), f"{at}.seccompProfile")
    yield from validate_windows_options(get("windowsOptions"), f"{at}.windowsOptions")
    yield from validate_app_armor(get("appArmorProfile"), f"{at}.appArmorProfile")
    if get("supplementalGroupsPolicy") is not None:
        yield from validate_enum(
            context["supplementalGroupsPolicy"], f"{at}.supplementalGroupsPolicy", ("Merge", "Strict")
        )
    if get("seLinuxChangePolicy") is not None:
        yield from validate_enum(
            context["seLinuxChangePolicy"], f"{at}.seLinuxChangePolicy", ("MountOption", "Recursive")
        )


def validate_host_users(spec: Obj, path: str) -> Iterator[FieldError]:
    """A user namespace of the pod's own goes with none of the host's namespaces, and with no block devices."""
    if spec.get("hostUsers") is not False:
        return
    detail = "when `hostUsers` is false"
    for field, said in (("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")):
        if spec.get(field):
            yield forbidden_field(f"{path}.{said}", detail)
    for container, at in containers_with_paths(spec, path):
        if container.get("volumeDevices"):
            yield forbidden_field(f"{at}.volumeDevices", detail)


def containers_with_paths(spec: Obj, path: str) -> Iterator[tuple[Obj, str]]:
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(field) or ()):
            yield container, f"{path}.{field}[{index}]"


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


def _validate_seccomp(profile: Obj | None, path: str) -> Iterator[FieldError]:
    if profile is None:
        return
    kind, local, at = profile.get("type") or "", profile.get("localhostProfile"), f"{path}.localhostProfile"
    if not kind:
        yield required(f"{path}.type", "type is required when seccompProfile is set")
    elif kind not in _PROFILES:
        yield not_supported(f"{path}.type", kind, _PROFILES)
    if kind != "Localhost":
        if local is not None:
            shown = internal(profile, "SeccompProfile")
            yield invalid_value(at, shown, "can only be set when seccomp type is Localhost")
    elif local is None:
        yield required(at, "must be set when seccomp type is Localhost")
    else:
        yield from validate_relative_path(local, at)


def validate_app_armor(profile: Obj | None, path: str) -> Iterator[FieldError]:
    if profile is None:
        return
    kind, local, at = profile.get("type") or "", profile.get("localhostProfile"), f"{path}.localhostProfile"
    if not kind:
        yield required(f"{path}.type", "type is required when appArmorProfile is set")
    elif kind not in _PROFILES:
        yield not_supported(f"{path}.type", kind, _PROFILES)
    elif kind != "Localhost":
        if local is not None:
            yield invalid_value(at, local, "can only be set when AppArmor type is Localhost")
    elif local is None or not local:
        yield required(at, "must be set when AppArmor type is Localhost")
    else:
        if local != local.strip():
            yield invalid_value(at, local, "must not be padded with whitespace")
        if len(local) > _MAX_PROFILE:
            yield too_long(at, _MAX_PROFILE)


def validate_container_security_context(context: Obj, path: str, spec: Obj) -> Iterator[FieldError]:
    """`securityContext` of a container."""
    get = context.get
    for field in ("runAsUser", "runAsGroup"):
        yield from validate_id(get(field), f"{path}.{field}")
    if get("procMount") is not None:
        yield from validate_enum(context["procMount"], f"{path}.procMount", ("Default", "Unmasked"))
        if context["procMount"] == "Unmasked" and spec.get("hostUsers") is not False:
            detail = "`hostUsers` must be false to use `Unmasked`"
            yield invalid_value(f"{path}.procMount", context["procMount"], detail)
    yield from _validate_seccomp(get("seccompProfile"), f"{path}.seccompProfile")
    if get("allowPrivilegeEscalation") is False:
        if get("privileged"):
            detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            yield invalid_value(path, internal(context, "SecurityContext"), detail)
        for capability in (get("capabilities") or {}).get("add") or ():
            if capability == "CAP_SYS_ADMIN":
                detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
                yield invalid_value(path, internal(context, "SecurityContext"), detail)
    yield from validate_windows_options(get("windowsOptions"), f"{path}.windowsOptions")
    yield from validate_app_armor(get("appArmorProfile"), f"{path}.appArmorProfile")
