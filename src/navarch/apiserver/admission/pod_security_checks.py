"""The checks of the Pod Security Standards: what `baseline` and `restricted` forbid
(https://kubernetes.io/docs/concepts/security/pod-security-standards/).

In: a pod or a template.  Out: one text per broken rule, rule first, who breaks it in parentheses, in Kubernetes' words.
Pure; one function per rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from navarch.api.meta import Obj
from navarch.kinds.core.pod_defaults import containers_of
from navarch.kinds.core.sysctls import SAFE_SYSCTLS

_DEFAULT_CAPABILITIES: Final = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)
_SELINUX_TYPES: Final = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
_RESTRICTED_VOLUMES: Final = frozenset(
    {
        "name",
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)
_APPARMOR_ANNOTATION: Final = "container.apparmor.security.beta.kubernetes.io/"


def violations(level: str, pod: Obj) -> list[str]:
    """What the pod breaks of a level, in the order in which Kubernetes says it."""
    checks: Iterable[Callable[[Obj], str]] = _BASELINE
    if level == "restricted":
        checks = (*(check for check in _BASELINE if check not in _OVERRIDDEN), *_RESTRICTED)
    return [text for text in (check(pod) for check in checks) if text]


def _spec(pod: Obj) -> Obj:
    return pod.get("spec") or {}


def _context(owner: Obj) -> Obj:
    return owner.get("securityContext") or {}


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _who(kind: str, names: list[str]) -> str:
    return f"{kind}{'' if len(names) == 1 else 's'} {_quoted(names)}"


def _offenders(pod: Obj, broken: Callable[[Obj], Any]) -> list[str]:
    return [container.get("name", "") for container in containers_of(_spec(pod)) if broken(container)]


def _by_container(pod: Obj, broken: Callable[[Obj], Any], rule: str, what: str) -> str:
    names = _offenders(pod, broken)
    return f"{rule} ({_who('container', names)} {what})" if names else ""


# --------------------------------------------------------------------------------------------------------- baseline


def _app_armor(pod: Obj) -> str:
    parts = []
    if (_context(_spec(pod)).get("appArmorProfile") or {}).get("type") == "Unconfined":
        parts.append('pod must not set AppArmor profile type to "Unconfined"')
    names = _offenders(pod, lambda each: (_context(each).get("appArmorProfile") or {}).get("type") == "Unconfined")
    if names:
        parts.append(f'{_who("container", names)} must not set AppArmor profile type to "Unconfined"')
    for key, value in ((pod.get("metadata") or {}).get("annotations") or {}).items():
        if key.startswith(_APPARMOR_ANNOTATION) and value == "unconfined":
            parts.append(f'annotation must not set AppArmor profile type to "{key}={value}"')
    return f"forbidden AppArmor profile ({', '.join(parts)})" if parts else ""


def _added(container: Obj) -> list[str]:
    return (_context(container).get("capabilities") or {}).get("add") or []


def _capabilities_baseline(pod: Obj) -> str:
    names = _offenders(pod, lambda each: set(_added(each)) - _DEFAULT_CAPABILITIES)
    if not names:
        return ""
    wrong = sorted({name for each in containers_of(_spec(pod)) for name in _added(each)} - _DEFAULT_CAPABILITIES)
    what = f"must not include {_quoted(wrong)} in securityContext.capabilities.add"
    return f"non-default capabilities ({_who('container', names)} {what})"


def _host_namespaces(pod: Obj) -> str:
    used = [f"{field}=true" for field in ("hostNetwork", "hostPID", "hostIPC") if _spec(pod).get(field)]
    return f"host namespaces ({', '.join(used)})" if used else ""


def _host_paths(pod: Obj) -> str:
    names = [v.get("name", "") for v in _spec(pod).get("volumes") or () if v.get("hostPath") is not None]
    return f"hostPath volumes ({_who('volume', names)})" if names else ""


def _host_ports(pod: Obj) -> str:
    def ports(container: Obj) -> list[int]:
        return [port["hostPort"] for port in container.get("ports") or () if port.get("hostPort")]

    names = _offenders(pod, ports)
    if not names:
        return ""
    numbers = [str(port) for port in sorted({p for c in containers_of(_spec(pod)) for p in ports(c)})]
    verb = "uses" if len(names) == 1 else "use"
    word = "hostPort" if len(numbers) == 1 else "hostPorts"
    return f"hostPort ({_who('container', names)} {verb} {word} {', '.join(numbers)})"


def _privileged(pod: Obj) -> str:
    what = "must not set securityContext.privileged=true"
    return _by_container(pod, lambda each: _context(each).get("privileged"), "privileged", what)


def _probe_hosts(pod: Obj) -> str:
    def hosts(container: Obj) -> list[str]:
        return list(_handler_hosts(container))

    names = _offenders(pod, hosts)
    if not names:
        return ""
    wrong = sorted({host for each in containers_of(_spec(pod)) for host in hosts(each)})
    verb = "uses" if len(names) == 1 else "use"
    word = "host" if len(wrong) == 1 else "hosts"
    return f"probe or lifecycle host ({_who('container', names)} {verb} probe or lifecycle {word} {_quoted(wrong)})"


def _handler_hosts(container: Obj) -> Iterator[str]:
    lifecycle = container.get("lifecycle") or {}
    handlers = [container.get(name) for name in ("livenessProbe", "readinessProbe", "startupProbe")]
    for handler in (*handlers, lifecycle.get("postStart"), lifecycle.get("preStop")):
        for action in ("httpGet", "tcpSocket"):
            host = ((handler or {}).get(action) or {}).get("host")
            if host and host not in ("127.0.0.1", "::1", "localhost"):
                yield host


def _proc_mount(pod: Obj) -> str:
    def broken(container: Obj) -> bool:
        return _context(container).get("procMount") not in (None, "", "Default")

    if _spec(pod).get("hostUsers") is False:
        return ""
    return _by_container(pod, broken, "procMount", 'must not set securityContext.procMount to "Unmasked"')


def _selinux(pod: Obj) -> str:
    def broken(owner: Obj) -> bool:
        options = _context(owner).get("seLinuxOptions") or {}
        wrong_type = (options.get("type") or "") not in _SELINUX_TYPES
        return bool(wrong_type or options.get("user") or options.get("role"))

    parts = ["pod"] if broken(_spec(pod)) else []
    names = _offenders(pod, broken)
    if names:
        parts.append(_who("container", names))
    if not parts:
        return ""
    owners = [_spec(pod), *containers_of(_spec(pod))]
    options = [_context(owner).get("seLinuxOptions") or {} for owner in owners]
    wrong = sorted({each["type"] for each in options if (each.get("type") or "") not in _SELINUX_TYPES})
    details = [f"type{'' if len(wrong) == 1 else 's'} {_quoted(wrong)}"] if wrong else []
    details += [f"{field} may not be set" for field in ("user", "role") if any(each.get(field) for each in options)]
    what = f"set forbidden securityContext.seLinuxOptions: {'; '.join(details)}"
    return f"seLinuxOptions ({' and '.join(parts)} {what})"


def _seccomp_baseline(pod: Obj) -> str:
    def broken(owner: Obj) -> bool:
        return bool((_context(owner).get("seccompProfile") or {}).get("type") == "Unconfined")

    parts = ["pod"] if broken(_spec(pod)) else []
    names = _offenders(pod, broken)
    if names:
        parts.append(_who("container", names))
    if not parts:
        return ""
    return f'seccompProfile ({" and ".join(parts)} must not set securityContext.seccompProfile.type to "Unconfined")'


def _sysctls(pod: Obj) -> str:
    wrong = [each.get("name", "") for each in _context(_spec(pod)).get("sysctls") or ()]
    wrong = [name for name in wrong if name not in SAFE_SYSCTLS]
    return f"forbidden sysctls ({', '.join(wrong)})" if wrong else ""


def _host_process(pod: Obj) -> str:
    def broken(owner: Obj) -> bool:
        return bool((_context(owner).get("windowsOptions") or {}).get("hostProcess"))

    parts = ["pod"] if broken(_spec(pod)) else []
    names = _offenders(pod, broken)
    if names:
        parts.append(_who("container", names))
    what = "must not set securityContext.windowsOptions.hostProcess=true"
    return f"hostProcess ({' and '.join(parts)} {what})" if parts else ""


# ------------------------------------------------------------------------------------------------------- restricted


def _is_windows(pod: Obj) -> bool:
    return bool((_spec(pod).get("os") or {}).get("name") == "windows")


def _escalation(pod: Obj) -> str:
    if _is_windows(pod):
        return ""
    what = "must set securityContext.allowPrivilegeEscalation=false"
    return _by_container(
        pod,
        lambda each: _context(each).get("allowPrivilegeEscalation") is not False,
        "allowPrivilegeEscalation != false",
        what,
    )


def _capabilities_restricted(pod: Obj) -> str:
    if _is_windows(pod):
        return ""
    parts = []
    keeping = _offenders(pod, lambda each: "ALL" not in ((_context(each).get("capabilities") or {}).get("drop") or ()))
    if keeping:
        parts.append(f'{_who("container", keeping)} must set securityContext.capabilities.drop=["ALL"]')
    allowed = {"NET_BIND_SERVICE"}
    adding = _offenders(pod, lambda each: set(_added(each)) - allowed)
    if adding:
        wrong = sorted({name for each in containers_of(_spec(pod)) for name in _added(each)} - allowed)
        what = f"must not include {_quoted(wrong)} in securityContext.capabilities.add"
        parts.append(f"{_who('container', adding)} {what}")
    return f"unrestricted capabilities ({'; '.join(parts)})" if parts else ""


def _restricted_volumes(pod: Obj) -> str:
    bad: list[str] = []
    kinds: set[str] = set()
    for volume in _spec(pod).get("volumes") or ():
        wrong = [field for field in volume if field not in _RESTRICTED_VOLUMES and volume[field] is not None]
        if wrong:
            bad.append(volume.get("name", ""))
            kinds.update(wrong)
    if not bad:
        return ""
    verb = "uses" if len(bad) == 1 else "use"
    word = "type" if len(kinds) == 1 else "types"
    return f"restricted volume types ({_who('volume', bad)} {verb} restricted volume {word} {_quoted(sorted(kinds))})"


def _non_root(pod: Obj) -> str:
    own = _context(_spec(pod)).get("runAsNonRoot")
    denied = _offenders(pod, lambda each: _context(each).get("runAsNonRoot") is False)
    silent = _offenders(pod, lambda each: _context(each).get("runAsNonRoot") is None)
    if denied or (own is False and silent):
        parts = ["pod"] if own is False and silent else []
        parts += [_who("container", denied)] if denied else []
        return f"runAsNonRoot != true ({' and '.join(parts)} must not set securityContext.runAsNonRoot=false)"
    if own is True or not silent:
        return ""
    return f"runAsNonRoot != true (pod or {_who('container', silent)} must set securityContext.runAsNonRoot=true)"


def _root_user(pod: Obj) -> str:
    if _spec(pod).get("hostUsers") is False:
        return ""
    parts = ["pod"] if _context(_spec(pod)).get("runAsUser") == 0 else []
    names = _offenders(pod, lambda each: _context(each).get("runAsUser") == 0)
    if names:
        parts.append(_who("container", names))
    return f"runAsUser=0 ({' and '.join(parts)} must not set runAsUser=0)" if parts else ""


def _seccomp_restricted(pod: Obj) -> str:
    if _is_windows(pod):
        return ""
    good = ("RuntimeDefault", "Localhost")

    def kind(owner: Obj) -> Any:
        return (_context(owner).get("seccompProfile") or {}).get("type")

    own = kind(_spec(pod))
    wrong = ["pod"] if own is not None and own not in good else []
    bad = _offenders(pod, lambda each: kind(each) is not None and kind(each) not in good)
    if bad:
        wrong.append(_who("container", bad))
    if wrong:
        what = 'must not set securityContext.seccompProfile.type to "Unconfined"'
        return f"seccompProfile ({' and '.join(wrong)} {what})"
    silent = _offenders(pod, lambda each: kind(each) is None)
    if own in good or not silent:
        return ""
    what = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return f"seccompProfile (pod or {_who('container', silent)} {what})"


_BASELINE: Final = (
    _app_armor,
    _capabilities_baseline,
    _host_namespaces,
    _host_paths,
    _host_ports,
    _probe_hosts,
    _privileged,
    _proc_mount,
    _selinux,
    _seccomp_baseline,
    _sysctls,
    _host_process,
)
_RESTRICTED: Final = (
    _escalation,
    _capabilities_restricted,
    _restricted_volumes,
    _non_root,
    _root_user,
    _seccomp_restricted,
)
# What a rule of the higher level says more strictly.
_OVERRIDDEN: Final = (_capabilities_baseline, _host_paths, _seccomp_baseline)
