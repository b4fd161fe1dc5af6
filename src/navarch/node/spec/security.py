"""Security contexts: what a pod's and a container's `securityContext` mean in the runtime's terms. Pure.

`ConfigError` says why a container may not be created as specified (`CreateContainerConfigError`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from navarch.api.meta import Obj
from navarch.kinds.core.sysctls import SAFE_SYSCTLS
from navarch.node.runtime.proto import cri_pb2 as cri
from navarch.node.spec import podspec

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


def forbidden_sysctl(pod: Obj) -> str:
    """The first kernel parameter that the pod may not set; empty where it may set all that it asks for."""
    for entry in (pod["spec"].get("securityContext") or {}).get("sysctls") or []:
        name = entry["name"].replace("/", ".")
        own_network = name.startswith("net.") and not podspec.host_network(pod)
        if name not in SAFE_SYSCTLS or (name.startswith("net.") and not own_network):
            return str(entry["name"])
    return ""


class ConfigError(Exception):
    """A container cannot be made from what the pod and the objects that it refers to say."""


def namespaces(pod: Obj, *, target_id: str = "") -> Any:
    """Which namespaces a pod's containers share; `target_id` joins another container's processes (kubectl debug)."""
    spec = pod["spec"]
    options = cri.NamespaceOption(pid=cri.CONTAINER)
    if spec.get("hostNetwork"):
        options.network = cri.NODE
    if spec.get("hostIPC"):
        options.ipc = cri.NODE
    if spec.get("hostPID"):
        options.pid = cri.NODE
    elif spec.get("shareProcessNamespace"):
        options.pid = cri.POD
    elif target_id:
        options.pid = cri.TARGET
        options.target_id = target_id
    return options


def _profile(stated: Obj | None, directory: Path | None) -> Any:
    """A seccomp or AppArmor profile; Kubernetes leaves containers unconfined where none is stated."""
    kind = (stated or {}).get("type", "Unconfined")
    if kind == "RuntimeDefault":
        return cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault)
    if kind == "Localhost":
        name = (stated or {}).get("localhostProfile", "")
        reference = str(directory / name) if directory else name
        return cri.SecurityProfile(profile_type=cri.SecurityProfile.Localhost, localhost_ref=reference)
    return cri.SecurityProfile(profile_type=cri.SecurityProfile.Unconfined)


def supplemental_groups(pod: Obj) -> list[int]:
    context = pod["spec"].get("securityContext") or {}
    groups = list(context.get("supplementalGroups") or [])
    if context.get("fsGroup") is not None:
        groups.insert(0, context["fsGroup"])
    return groups


def sandbox_security(pod: Obj) -> Any:
    """The sandbox's own security context; it is privileged where any container is."""
    context = pod["spec"].get("securityContext") or {}
    result = cri.LinuxSandboxSecurityContext(
        namespace_options=namespaces(pod),
        supplemental_groups=supplemental_groups(pod),
        privileged=any(
            (container.get("securityContext") or {}).get("privileged") for container in podspec.all_containers(pod)
        ),
        # The sandbox runs nothing of the user's: the runtime's default profile always fits it.
        seccomp=cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault),
    )
    if context.get("runAsUser") is not None:
        result.run_as_user.value = context["runAsUser"]
        if context.get("runAsGroup") is not None:
            result.run_as_group.value = context["runAsGroup"]
    if context.get("supplementalGroupsPolicy") == "Strict":
        result.supplemental_groups_policy = cri.Strict
    result.selinux_options.CopyFrom(_selinux(context.get("seLinuxOptions")))
    return result


def container_security(pod: Obj, container: Obj, image: Any, *, seccomp: Path, target_id: str = "") -> Any:
    """A container's security context; `image` is its CRI image, whose user counts where none is stated.

    Raises ConfigError where `runAsNonRoot` is broken or cannot be checked."""
    stated = container.get("securityContext") or {}
    uid = podspec.merged_security(pod, container, "runAsUser")
    gid = podspec.merged_security(pod, container, "runAsGroup")
    _check_non_root(pod, container, uid, image)
    capabilities = stated.get("capabilities") or {}
    result = cri.LinuxContainerSecurityContext(
        privileged=bool(stated.get("privileged")),
        namespace_options=namespaces(pod, target_id=target_id),
        readonly_rootfs=bool(stated.get("readOnlyRootFilesystem")),
        supplemental_groups=supplemental_groups(pod),
        no_new_privs=stated.get("allowPrivilegeEscalation") is False,
        capabilities=cri.Capability(
            add_capabilities=capabilities.get("add") or [], drop_capabilities=capabilities.get("drop") or []
        ),
        seccomp=_profile(podspec.merged_security(pod, container, "seccompProfile"), seccomp),
        selinux_options=_selinux(podspec.merged_security(pod, container, "seLinuxOptions")),
    )
    armour = podspec.merged_security(pod, container, "appArmorProfile")
    if armour:
        result.apparmor.CopyFrom(_profile(armour, None))
    if not result.privileged and stated.get("procMount") != "Unmasked":
        result.masked_paths.extend(_MASKED_PATHS)
        result.readonly_paths.extend(_READONLY_PATHS)
    if (pod["spec"].get("securityContext") or {}).get("supplementalGroupsPolicy") == "Strict":
        result.supplemental_groups_policy = cri.Strict
    if uid is not None:
        result.run_as_user.value = uid
    elif image is not None and image.HasField("uid"):
        result.run_as_user.value = image.uid.value
    elif image is not None and image.username:
        result.run_as_username = image.username
    if gid is not None:
        result.run_as_group.value = gid
        # CRI refuses a group without a user.
        if uid is None and not result.run_as_username and not result.HasField("run_as_user"):
            result.run_as_user.value = 0
    return result


def _selinux(stated: Obj | None) -> Any:
    return cri.SELinuxOption(**{key: (stated or {}).get(key, "") for key in ("user", "role", "type", "level")})


def _check_non_root(pod: Obj, container: Obj, uid: int | None, image: Any) -> None:
    if not podspec.merged_security(pod, container, "runAsNonRoot"):
        return
    where = f'(pod: "{podspec.quoted(pod)}", container: {container["name"]})'
    if uid is not None:
        if uid == 0:
            raise ConfigError(f"container's runAsUser breaks non-root policy {where}")
        return
    if image is None:
        return
    if image.HasField("uid"):
        if image.uid.value == 0:
            raise ConfigError(f"container has runAsNonRoot and image will run as root {where}")
    elif image.username:
        raise ConfigError(
            f"container has runAsNonRoot and image has non-numeric user ({image.username}), "
            f"cannot verify user is non-root {where}"
        )
    else:
        raise ConfigError(f"container has runAsNonRoot and image will run as root {where}")
