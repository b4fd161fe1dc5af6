"""Pod validation, operating systems: what only Windows pods have, and what they may not have.

In: a pod's spec, or a security context's `windowsOptions`, with its path.  Out: field errors in Kubernetes' words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from navarch.api.errors import FieldError, forbidden_field, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import dns_subdomain_problems

_SYSTEMS: Final = ("linux", "windows")
_MAX_CREDENTIAL_KIB: Final = 64
_MAX_DOMAIN: Final = 256
_MAX_USER: Final = 104
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]").search
_NETBIOS: Final = re.compile(r'[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}').fullmatch
_DNS_LABEL: Final = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_DNS_NAME: Final = re.compile(rf"{_DNS_LABEL}(?:\.{_DNS_LABEL})*").fullmatch
_USER_CHARS: Final = re.compile(r'["/\\:;|=,+*?<>@\[\]]').search
_DOTS_AND_SPACES: Final = re.compile(r"[. ]+").fullmatch
# Fields of a pod's and of a container's security context that say something to Linux alone, in Kubernetes' order; those
# that the API keeps beside the context are marked.
_POD_FIELDS: Final = (
    ("appArmorProfile", True),
    ("seLinuxOptions", True),
    ("hostUsers", False),
    ("hostPID", False),
    ("hostIPC", False),
    ("seccompProfile", True),
    ("fsGroup", True),
    ("fsGroupChangePolicy", True),
    ("sysctls", True),
    ("shareProcessNamespace", False),
    ("runAsUser", True),
    ("runAsGroup", True),
    ("supplementalGroups", True),
    ("supplementalGroupsPolicy", True),
    ("seLinuxChangePolicy", True),
)
_CONTAINER_FIELDS: Final = (
    *("appArmorProfile", "seLinuxOptions", "seccompProfile", "capabilities", "readOnlyRootFilesystem", "privileged"),
    *("allowPrivilegeEscalation", "procMount", "runAsUser", "runAsGroup"),
)
_FALSE_IS_UNSET: Final = ("hostPID", "hostIPC", "sysctls")


def validate_os(spec: Obj, path: str) -> Iterator[FieldError]:
    """`spec.os`, and that nothing is set that the other system alone knows."""
    name = spec["os"].get("name") or ""
    if not name:
        yield required(f"{path}.os.name")
    elif name not in _SYSTEMS:
        yield not_supported(f"{path}.os", name, _SYSTEMS)
    elif name == "linux":
        yield from _validate_linux(spec, path)
    else:
        yield from _validate_windows(spec, path)


def _contexts(spec: Obj, path: str) -> Iterator[tuple[Obj, str]]:
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(field) or ()):
            yield container.get("securityContext") or {}, f"{path}.{field}[{index}].securityContext"


def _validate_linux(spec: Obj, path: str) -> Iterator[FieldError]:
    for context, at in ((spec.get("securityContext") or {}, f"{path}.securityContext"), *_contexts(spec, path)):
        if context.get("windowsOptions") is not None:
            yield forbidden_field(f"{at}.windowsOptions", "windows options cannot be set for a linux pod")


def _validate_windows(spec: Obj, path: str) -> Iterator[FieldError]:
    detail = "cannot be set for a windows pod"
    pod_context = spec.get("securityContext") or {}
    for field, in_context in _POD_FIELDS:
        value = (pod_context if in_context else spec).get(field)
        if value is not None and (value or field not in _FALSE_IS_UNSET):
            yield forbidden_field(f"{path}.{'securityContext.' if in_context else ''}{field}", detail)
    for context, at in _contexts(spec, path):
        for field in _CONTAINER_FIELDS:
            if context.get(field) is not None:
                yield forbidden_field(f"{at}.{field}", detail)


def validate_host_process(spec: Obj, path: str) -> Iterator[FieldError]:
    """Containers that are processes of the host: all of a pod's, on the host's network."""
    of_pod = ((spec.get("securityContext") or {}).get("windowsOptions") or {}).get("hostProcess")
    count = total = 0
    for context, at in _contexts(spec, path):
        total += 1
        own = (context.get("windowsOptions") or {}).get("hostProcess")
        if of_pod is not None and own is not None and of_pod != own:
            detail = (
                f"pod hostProcess value must be identical if both are specified, was {'true' if of_pod else 'false'}"
            )
            yield invalid_value(f"{at}.windowsOptions.hostProcess", own, detail)
        count += bool(of_pod if own is None else own)
    if not count:
        return
    if count != total:
        detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers"
        yield invalid_value(path, "", detail)
    if not spec.get("hostNetwork"):
        detail = "hostNetwork must be true if pod contains any hostProcess containers"
        yield invalid_value(f"{path}.hostNetwork", False, detail)


def validate_windows_options(options: Obj | None, path: str) -> Iterator[FieldError]:
    if options is None:
        return
    name, credential = options.get("gmsaCredentialSpecName"), options.get("gmsaCredentialSpec")
    if name is not None:
        for problem in dns_subdomain_problems(name):
            yield invalid_value(f"{path}.gmsaCredentialSpecName", name, problem)
    if credential is not None:
        at = f"{path}.gmsaCredentialSpec"
        if not credential:
            yield invalid_value(at, credential, "gmsaCredentialSpec cannot be an empty string")
        elif len(credential.encode()) > _MAX_CREDENTIAL_KIB * 1024:
            yield invalid_value(at, credential, f"gmsaCredentialSpec size must be under {_MAX_CREDENTIAL_KIB} KiB")
    if options.get("runAsUserName") is not None:
        for problem in _user_problems(options["runAsUserName"]):
            yield invalid_value(f"{path}.runAsUserName", options["runAsUserName"], problem)


def _user_problems(name: str) -> Iterator[str]:
    """What is wrong with `DOMAIN\\user`, or with a user's name alone."""
    parts = name.split("\\")
    if not name:
        yield "runAsUserName cannot be an empty string"
    elif _CONTROL(name):
        yield "runAsUserName cannot contain control characters"
    elif len(parts) > 2:
        yield "runAsUserName cannot contain more than one backslash"
    else:
        if len(parts) == 2:
            domain = parts[0]
            if len(domain) >= _MAX_DOMAIN:
                yield f"runAsUserName's Domain length must be under {_MAX_DOMAIN} characters"
            if not _NETBIOS(domain) and not _DNS_NAME(domain):
                yield "runAsUserName's Domain doesn't match the NetBios nor the DNS format"
        user = parts[-1]
        if not user:
            yield "runAsUserName's User cannot be empty"
        elif len(user) > _MAX_USER:
            yield f"runAsUserName's User length must not be longer than {_MAX_USER} characters"
        if _DOTS_AND_SPACES(user):
            yield "runAsUserName's User cannot contain only periods or spaces"
        if _USER_CHARS(user):
            yield "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]"
