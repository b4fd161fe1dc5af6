"""Security contexts: what a pod's and a container's `securityContext` mean in the runtime's terms. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from navarch.api.meta import Obj
from navarch.kinds.core.sysctls import SAFE_SYSCTLS
from navarch.node import podspec
from navarch.node.podspec import ConfigError
from navarch.node.runtime.base import IDRange, Image, Namespace, Namespaces, Profile, Security, SELinux

_MASKED_PATHS: Final = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
_READONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

# The seccomp profile where none is stated: none at all, or the runtime's own.
_UNSTATED: Final[Mapping[bool, Obj | None]] = {False: None, True: {"type": "RuntimeDefault"}}


def forbidden_sysctl(pod: Obj, unsafe: Sequence[str] = ()) -> str:
    """The first kernel parameter that the pod may not set; empty where it may set all that it asks for. `unsafe` are
    those that are allowed beside the safe ones, by name or as `kernel.msg*`."""
    for entry in (pod["spec"].get("securityContext") or {}).get("sysctls") or []:
        name = entry["name"].replace("/", ".")
        own_network = name.startswith("net.") and not podspec.host_network(pod)
        allowed = name in SAFE_SYSCTLS or any(_fits(name, one.replace("/", ".")) for one in unsafe)
        if not allowed or (name.startswith("net.") and not own_network):
            return str(entry["name"])
    return ""


def _fits(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def has_user_namespace(pod: Obj) -> bool:
    """Whether the pod's users are to be others than the host's."""
    return pod["spec"].get("hostUsers") is False


def namespaces(pod: Obj, users: IDRange | None, *, target_id: str = "") -> Namespaces:
    """Which namespaces a pod's containers share; `target_id` joins another container's processes (kubectl debug)."""
    spec = pod["spec"]
    processes = Namespace.CONTAINER
    if spec.get("hostPID"):
        processes = Namespace.NODE
    elif spec.get("shareProcessNamespace"):
        processes = Namespace.POD
    elif target_id:
        processes = Namespace.TARGET
    return Namespaces(
        network=Namespace.NODE if spec.get("hostNetwork") else Namespace.POD,
        processes=processes,
        ipc=Namespace.NODE if spec.get("hostIPC") else Namespace.POD,
        target_id=target_id if processes is Namespace.TARGET else "",
        users=users,
    )


def _profile(stated: Obj | None, directory: Path | None) -> Profile:
    """A seccomp or AppArmor profile; Kubernetes leaves containers unconfined where none is stated."""
    kind = (stated or {}).get("type", "Unconfined")
    if kind == "Localhost":
        name = (stated or {}).get("localhostProfile", "")
        return Profile(kind, str(directory / name) if directory else name)
    return Profile("RuntimeDefault" if kind == "RuntimeDefault" else "Unconfined")


def wants_apparmor(pod: Obj) -> bool:
    """Whether a container is to be confined by AppArmor."""
    profiles = (podspec.merged_security(pod, one, "appArmorProfile") for one in podspec.all_containers(pod))
    return any(profile and profile.get("type") != "Unconfined" for profile in profiles)


def apparmor_is_enabled() -> bool:
    try:
        return Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        return False


def supplemental_groups(pod: Obj) -> tuple[int, ...]:
    context = pod["spec"].get("securityContext") or {}
    groups = list(context.get("supplementalGroups") or [])
    if context.get("fsGroup") is not None:
        groups.insert(0, context["fsGroup"])
    return tuple(groups)


def strict_groups(pod: Obj) -> bool:
    """Whether only the groups that the pod names are to count."""
    return bool((pod["spec"].get("securityContext") or {}).get("supplementalGroupsPolicy") == "Strict")


def sandbox_security(pod: Obj, users: IDRange | None) -> Security:
    """The sandbox's own security context; it is privileged where any container is."""
    context = pod["spec"].get("securityContext") or {}
    user = context.get("runAsUser")
    return Security(
        namespaces=namespaces(pod, users),
        supplemental_groups=supplemental_groups(pod),
        strict_groups=strict_groups(pod),
        privileged=any(
            (container.get("securityContext") or {}).get("privileged") for container in podspec.all_containers(pod)
        ),
        # The sandbox runs nothing of the user's: the runtime's default profile always fits it.
        seccomp=Profile("RuntimeDefault"),
        run_as_user=user,
        run_as_group=context.get("runAsGroup") if user is not None else None,
        selinux=_selinux(context.get("seLinuxOptions")),
    )


def container_security(
    pod: Obj,
    container: Obj,
    image: Image | None,
    *,
    seccomp: Path,
    users: IDRange | None = None,
    target_id: str = "",
    confined: bool = False,
) -> Security:
    """A container's security context; `image` says whose user counts where none is stated. `confined`
    containers have the runtime's own seccomp profile where nothing is stated.

    Raises ConfigError where `runAsNonRoot` is broken or cannot be checked."""
    stated = container.get("securityContext") or {}
    uid = podspec.merged_security(pod, container, "runAsUser")
    gid = podspec.merged_security(pod, container, "runAsGroup")
    _check_non_root(pod, container, uid, image)
    user, username = _user(uid, gid, image)
    capabilities = stated.get("capabilities") or {}
    armour = podspec.merged_security(pod, container, "appArmorProfile")
    privileged = bool(stated.get("privileged"))
    masked = not privileged and stated.get("procMount") != "Unmasked"
    return Security(
        namespaces=namespaces(pod, users, target_id=target_id),
        privileged=privileged,
        read_only_root=bool(stated.get("readOnlyRootFilesystem")),
        supplemental_groups=supplemental_groups(pod),
        strict_groups=strict_groups(pod),
        no_new_privileges=stated.get("allowPrivilegeEscalation") is False,
        added_capabilities=tuple(capabilities.get("add") or ()),
        dropped_capabilities=tuple(capabilities.get("drop") or ()),
        seccomp=_profile(
            podspec.merged_security(pod, container, "seccompProfile") or _UNSTATED[confined and not privileged], seccomp
        ),
        apparmor=_profile(armour, None) if armour else None,
        selinux=_selinux(podspec.merged_security(pod, container, "seLinuxOptions")),
        masked_paths=_MASKED_PATHS if masked else (),
        read_only_paths=_READONLY_PATHS if masked else (),
        run_as_user=user,
        run_as_username=username,
        run_as_group=gid,
    )


def _user(uid: int | None, gid: int | None, image: Image | None) -> tuple[int | None, str]:
    """Whom a container runs as, by number or by a name that the image knows."""
    if uid is not None:
        return uid, ""
    if image is not None and image.uid is not None:
        return image.uid, ""
    if image is not None and image.username:
        return None, image.username
    # CRI refuses a group without a user.
    return (None if gid is None else 0), ""


def _selinux(stated: Obj | None) -> SELinux:
    return SELinux(**{key: (stated or {}).get(key) or "" for key in ("user", "role", "type", "level")})


def _check_non_root(pod: Obj, container: Obj, uid: int | None, image: Image | None) -> None:
    if not podspec.merged_security(pod, container, "runAsNonRoot"):
        return
    where = f'(pod: "{podspec.quoted(pod)}", container: {container["name"]})'
    if uid is not None:
        if uid == 0:
            raise ConfigError(f"container's runAsUser breaks non-root policy {where}")
        return
    if image is None:
        return
    if image.uid is not None:
        if image.uid == 0:
            raise ConfigError(f"container has runAsNonRoot and image will run as root {where}")
    elif image.username:
        raise ConfigError(
            f"container has runAsNonRoot and image has non-numeric user ({image.username}), "
            f"cannot verify user is non-root {where}"
        )
    else:
        raise ConfigError(f"container has runAsNonRoot and image will run as root {where}")
