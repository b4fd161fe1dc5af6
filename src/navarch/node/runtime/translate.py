"""The runtime's data as CRI's messages, and back. Pure."""

from __future__ import annotations

from typing import Any, Final

from navarch.node.runtime.base import (
    CONTAINER_NAME,
    Container,
    ContainerConfig,
    ContainerStats,
    ContainerStatus,
    Features,
    HandlerFeatures,
    IDRange,
    Image,
    Login,
    Mount,
    Namespace,
    Namespaces,
    Profile,
    Propagation,
    Resources,
    Sandbox,
    SandboxConfig,
    Security,
    State,
    User,
)
from navarch.node.runtime.proto import cri_pb2 as cri

_STATES: Final = {
    cri.CONTAINER_CREATED: State.CREATED,
    cri.CONTAINER_RUNNING: State.RUNNING,
    cri.CONTAINER_EXITED: State.EXITED,
}
_NAMESPACES: Final = {
    Namespace.POD: cri.POD,
    Namespace.CONTAINER: cri.CONTAINER,
    Namespace.NODE: cri.NODE,
    Namespace.TARGET: cri.TARGET,
}
_PROPAGATIONS: Final = {
    Propagation.PRIVATE: cri.PROPAGATION_PRIVATE,
    Propagation.HOST_TO_CONTAINER: cri.PROPAGATION_HOST_TO_CONTAINER,
    Propagation.BIDIRECTIONAL: cri.PROPAGATION_BIDIRECTIONAL,
}
_PROTOCOLS: Final = {"TCP": cri.TCP, "UDP": cri.UDP, "SCTP": cri.SCTP}
_PROFILES: Final = {
    "RuntimeDefault": cri.SecurityProfile.RuntimeDefault,
    "Unconfined": cri.SecurityProfile.Unconfined,
    "Localhost": cri.SecurityProfile.Localhost,
}


# To CRI.


def resources_message(resources: Resources) -> Any:
    result = cri.LinuxContainerResources(
        cpu_shares=resources.cpu_shares,
        cpu_period=resources.cpu_period_us,
        cpu_quota=resources.cpu_quota_us,
        memory_limit_in_bytes=resources.memory_limit_bytes,
        oom_score_adj=resources.oom_score_adj,
        cpuset_cpus=resources.cpuset_cpus,
        cpuset_mems=resources.cpuset_mems,
        unified=resources.unified,
    )
    for page_size, limit in resources.hugepage_limits.items():
        result.hugepage_limits.add(page_size=page_size, limit=limit)
    return result


def _namespaces(namespaces: Namespaces) -> Any:
    return cri.NamespaceOption(
        network=_NAMESPACES[namespaces.network],
        pid=_NAMESPACES[namespaces.processes],
        ipc=_NAMESPACES[namespaces.ipc],
        target_id=namespaces.target_id,
        userns_options=_users(namespaces.users),
    )


def _users(users: IDRange | None) -> Any:
    """None: those of the node."""
    if users is None:
        return None
    mappings = _mappings(users)
    return cri.UserNamespace(mode=cri.POD, uids=mappings, gids=mappings)


def _mappings(users: IDRange | None) -> list[Any]:
    return [] if users is None else [cri.IDMapping(host_id=users.first, container_id=0, length=users.length)]


def _profile(profile: Profile) -> Any:
    return cri.SecurityProfile(profile_type=_PROFILES[profile.kind], localhost_ref=profile.reference)


def _complete_security(result: Any, security: Security) -> Any:
    """What sandboxes and containers have in common."""
    result.namespace_options.CopyFrom(_namespaces(security.namespaces))
    result.privileged = security.privileged
    result.readonly_rootfs = security.read_only_root
    result.supplemental_groups.extend(security.supplemental_groups)
    selinux = security.selinux
    result.selinux_options.CopyFrom(
        cri.SELinuxOption(user=selinux.user, role=selinux.role, type=selinux.type, level=selinux.level)
    )
    if security.strict_groups:
        result.supplemental_groups_policy = cri.Strict
    if security.run_as_user is not None:
        result.run_as_user.value = security.run_as_user
    if security.run_as_group is not None:
        result.run_as_group.value = security.run_as_group
    if security.seccomp is not None:
        result.seccomp.CopyFrom(_profile(security.seccomp))
    if security.apparmor is not None:
        result.apparmor.CopyFrom(_profile(security.apparmor))
    return result


def sandbox_message(config: SandboxConfig) -> Any:
    result = cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(
            name=config.name, uid=config.uid, namespace=config.namespace, attempt=config.attempt
        ),
        hostname=config.hostname,
        log_directory=config.log_directory,
        dns_config=cri.DNSConfig(servers=config.dns_servers, searches=config.dns_searches, options=config.dns_options),
        labels=config.labels,
        annotations=config.annotations,
        linux=cri.LinuxPodSandboxConfig(
            cgroup_parent=config.cgroup_parent,
            security_context=_complete_security(cri.LinuxSandboxSecurityContext(), config.security),
            sysctls=config.sysctls,
            resources=resources_message(config.resources),
        ),
    )
    for port in config.port_mappings:
        result.port_mappings.add(
            protocol=_PROTOCOLS[port.protocol],
            container_port=port.container_port,
            host_port=port.host_port,
            host_ip=port.host_ip,
        )
    return result


def container_message(config: ContainerConfig) -> Any:
    security = config.security
    context = cri.LinuxContainerSecurityContext(
        run_as_username=security.run_as_username,
        no_new_privs=security.no_new_privileges,
        capabilities=cri.Capability(
            add_capabilities=security.added_capabilities, drop_capabilities=security.dropped_capabilities
        ),
        masked_paths=security.masked_paths,
        readonly_paths=security.read_only_paths,
    )
    result = cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name=config.name, attempt=config.attempt),
        image=cri.ImageSpec(image=config.image_id, user_specified_image=config.image),
        command=config.command,
        args=config.args,
        working_dir=config.working_dir,
        envs=[cri.KeyValue(key=key, value=value) for key, value in config.env.items()],
        labels=config.labels,
        annotations=config.annotations,
        log_path=config.log_path,
        stdin=config.stdin,
        stdin_once=config.stdin_once,
        tty=config.tty,
        linux=cri.LinuxContainerConfig(
            resources=resources_message(config.resources), security_context=_complete_security(context, security)
        ),
    )
    for mount in config.mounts:
        result.mounts.add(
            container_path=mount.container_path,
            host_path=mount.host_path,
            readonly=mount.read_only,
            recursive_read_only=mount.recursive_read_only,
            propagation=_PROPAGATIONS[mount.propagation],
            # Files belong to the same users inside as outside.
            uidMappings=_mappings(security.namespaces.users),
            gidMappings=_mappings(security.namespaces.users),
        )
    for name in config.cdi_devices:
        result.CDI_devices.add(name=name)
    for device in config.devices:
        result.devices.add(
            container_path=device.container_path, host_path=device.host_path, permissions=device.permissions
        )
    return result


def login_message(login: Login) -> Any:
    return cri.AuthConfig(
        username=login.username,
        password=login.password,
        identity_token=login.identity_token,
        registry_token=login.registry_token,
    )


# From CRI.


def sandbox_of(message: Any) -> Sandbox:
    """From PodSandbox (of a list) or PodSandboxStatus."""
    ips: tuple[str, ...] = ()
    if isinstance(message, cri.PodSandboxStatus):
        network = message.network
        ips = tuple(ip for ip in (network.ip, *(other.ip for other in network.additional_ips)) if ip)
    return Sandbox(
        id=message.id,
        attempt=message.metadata.attempt,
        ready=message.state == cri.SANDBOX_READY,
        created_at_ns=message.created_at,
        ips=ips,
        labels=dict(message.labels),
        annotations=dict(message.annotations),
    )


def features_of(message: Any) -> Features:
    """From the answer to Status."""
    handlers = {
        one.name: HandlerFeatures(one.features.recursive_read_only_mounts, one.features.user_namespaces)
        for one in message.runtime_handlers
    }
    return Features(handlers, message.features.supplemental_groups_policy)


def container_of(message: Any) -> Container:
    return Container(
        id=message.id,
        sandbox_id=message.pod_sandbox_id,
        attempt=message.metadata.attempt,
        state=_STATES.get(message.state, State.UNKNOWN),
        created_at_ns=message.created_at,
        image=message.image.image,
        image_ref=message.image_ref,
    )


def status_of(message: Any) -> ContainerStatus:
    return ContainerStatus(
        id=message.id,
        name=message.labels.get(CONTAINER_NAME) or message.metadata.name,
        attempt=message.metadata.attempt,
        state=_STATES.get(message.state, State.UNKNOWN),
        created_at_ns=message.created_at,
        started_at_ns=message.started_at,
        finished_at_ns=message.finished_at,
        exit_code=message.exit_code,
        reason=message.reason,
        message=message.message,
        image=message.image.image,
        image_ref=message.image_ref,
        labels=dict(message.labels),
        annotations=dict(message.annotations),
        mounts=tuple(
            Mount(mount.container_path, mount.host_path, mount.readonly, mount.recursive_read_only)
            for mount in message.mounts
        ),
        log_path=message.log_path,
        user=_user(message.user.linux) if message.user.HasField("linux") else None,
    )


def _user(message: Any) -> User:
    return User(message.uid, message.gid, tuple(message.supplemental_groups))


def image_of(message: Any) -> Image:
    return Image(
        id=message.id,
        tags=tuple(message.repo_tags),
        digests=tuple(message.repo_digests),
        size_bytes=message.size,
        uid=message.uid.value if message.HasField("uid") else None,
        username=message.username,
        pinned=message.pinned,
    )


def stats_of(message: Any) -> ContainerStats:
    cpu, memory, layer = message.cpu, message.memory, message.writable_layer
    attributes = message.attributes
    return ContainerStats(
        id=attributes.id,
        name=attributes.labels.get(CONTAINER_NAME) or attributes.metadata.name,
        labels=dict(attributes.labels),
        cpu_at_ns=cpu.timestamp,
        cpu_ns=cpu.usage_core_nano_seconds.value,
        cpu_nano_cores=cpu.usage_nano_cores.value,
        memory_at_ns=memory.timestamp,
        memory_used_bytes=memory.usage_bytes.value,
        memory_working_set_bytes=memory.working_set_bytes.value,
        memory_rss_bytes=memory.rss_bytes.value,
        memory_available_bytes=memory.available_bytes.value,
        page_faults=memory.page_faults.value,
        major_page_faults=memory.major_page_faults.value,
        layer_at_ns=layer.timestamp,
        layer_used_bytes=layer.used_bytes.value,
        layer_inodes=layer.inodes_used.value,
    )
