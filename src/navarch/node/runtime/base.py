"""`Runtime`: what the kubelet asks of a container runtime, and the data that goes both ways.

Plain, immutable values, none of any wire format: the engine works on these alone, so that containers may be those of
containerd (`cri.py`) or simulated (`navarch.sim`). Times are nanoseconds since 1970, as runtimes count them, 0 where
there is none. Every call raises `RuntimeFailure` with the runtime's own words, `NotFound` for an id that it does not
know, `ConnectionError` where it cannot be reached. `events` tells which containers changed, so that nobody polls.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from navarch.node.runtime.operations import Operations
from navarch.records import frozen

# Labels and annotations by which a runtime's things are known to belong to a pod, as Kubernetes' kubelet sets them.
POD_NAME: Final = "io.kubernetes.pod.name"
POD_NAMESPACE: Final = "io.kubernetes.pod.namespace"
POD_UID: Final = "io.kubernetes.pod.uid"
CONTAINER_NAME: Final = "io.kubernetes.container.name"
HASH: Final = "io.kubernetes.container.hash"
RESTART_COUNT: Final = "io.kubernetes.container.restartCount"
MESSAGE_PATH: Final = "io.kubernetes.container.terminationMessagePath"
MESSAGE_POLICY: Final = "io.kubernetes.container.terminationMessagePolicy"
GRACE_PERIOD: Final = "io.kubernetes.pod.terminationGracePeriod"
PRE_STOP: Final = "io.kubernetes.container.preStopHandler"
PORTS: Final = "io.kubernetes.container.ports"


_CODE: Final = re.compile(r"^rpc error: code = \w+ desc = ", re.ASCII)


class RuntimeFailure(RuntimeError):
    """The runtime refused or failed; the message is its own."""

    @property
    def words(self) -> str:
        """The message without the code that it came with, as it is shown of single containers."""
        return _CODE.sub("", str(self))


class NotFound(RuntimeFailure):
    """The runtime does not know the sandbox, container or image."""


class TimedOut(RuntimeFailure):
    """The call took longer than it may."""


class State(StrEnum):
    """A container's. What the runtime cannot tell counts as exited."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    UNKNOWN = "unknown"


class Namespace(StrEnum):
    """Whose namespace (of network, processes, IPC) a container is in."""

    POD = "pod"
    CONTAINER = "container"
    NODE = "node"
    TARGET = "target"


class Propagation(StrEnum):
    """Whether mounts made later below a mount are seen across it."""

    PRIVATE = "private"
    HOST_TO_CONTAINER = "host to container"
    BIDIRECTIONAL = "bidirectional"


# What is.


@frozen
class Sandbox:
    """What a pod's containers share. `ips` is empty in lists: only `sandbox_status` tells addresses."""

    id: str
    attempt: int = 0
    ready: bool = True
    created_at_ns: int = 0
    ips: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@frozen
class Container:
    """A container as a list has it; `image` is the name it was made from, `image_ref` the image's digest or id."""

    id: str
    sandbox_id: str
    attempt: int
    state: State
    created_at_ns: int
    image: str
    image_ref: str


@frozen
class Mount:
    """A place of the host's inside a container."""

    container_path: str
    host_path: str
    read_only: bool = False
    recursive_read_only: bool = False
    propagation: Propagation = Propagation.PRIVATE


class User(NamedTuple):
    """Whom a container's first process began as; not every runtime says so."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@frozen
class ContainerStatus:
    """All that the runtime knows of a container."""

    id: str
    name: str
    attempt: int
    state: State
    created_at_ns: int = 0
    started_at_ns: int = 0
    finished_at_ns: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    image: str = ""
    image_ref: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    log_path: str = ""
    user: User | None = None


@frozen
class Image:
    """An image on the node; `uid` or `username` is whom its processes run as, where it says so."""

    id: str
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    size_bytes: int = 0
    uid: int | None = None
    username: str = ""
    pinned: bool = False


@frozen
class ContainerStats:
    """What a running container uses; `cpu_nano_cores` is 0 where the runtime gives no rate."""

    id: str
    name: str
    labels: Mapping[str, str]
    cpu_at_ns: int = 0
    cpu_ns: int = 0
    cpu_nano_cores: int = 0
    memory_at_ns: int = 0
    memory_used_bytes: int = 0
    memory_working_set_bytes: int = 0
    memory_rss_bytes: int = 0
    memory_available_bytes: int = 0
    page_faults: int = 0
    major_page_faults: int = 0
    layer_at_ns: int = 0
    layer_used_bytes: int = 0
    layer_inodes: int = 0


class Condition(NamedTuple):
    """`RuntimeReady` or `NetworkReady`."""

    type: str
    status: bool
    reason: str
    message: str


class HandlerFeatures(NamedTuple):
    """What a handler of the runtime's can do."""

    recursive_read_only: bool = False
    user_namespaces: bool = False


class Features(NamedTuple):
    """What the runtime says that it can do; older ones say nothing. `handlers` are by name, the default's is empty."""

    handlers: Mapping[str, HandlerFeatures] = MappingProxyType({})
    supplemental_groups_policy: bool = False


class ContainerEvent(NamedTuple):
    """Something happened to a container or sandbox: `kind` is `start`, `exit`, `oom` or `delete`."""

    container_id: str
    kind: str


class ExecResult(NamedTuple):
    exit_code: int
    output: bytes


class Login(NamedTuple):
    """Credentials for a registry."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""


class Filesystem(NamedTuple):
    """Where something is kept, and what it uses there."""

    mountpoint: str
    used_bytes: int
    inodes: int


# What shall be.


@frozen
class Resources:
    """Limits as the kernel takes them; 0 is no limit, and in an update "as it is", which -1 lifts."""

    cpu_shares: int = 0
    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    memory_limit_bytes: int = 0
    oom_score_adj: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    hugepage_limits: Mapping[str, int] = field(default_factory=dict)
    unified: Mapping[str, str] = field(default_factory=dict)


class IDRange(NamedTuple):
    """Users and groups from 0 on in a user namespace are these of the host's."""

    first: int
    length: int


@frozen
class Namespaces:
    network: Namespace = Namespace.POD
    processes: Namespace = Namespace.CONTAINER
    ipc: Namespace = Namespace.POD
    # The container whose processes are joined, with `processes` TARGET.
    target_id: str = ""
    # With a user namespace of the pod's own.
    users: IDRange | None = None


@frozen
class Profile:
    """A seccomp or AppArmor profile: `RuntimeDefault`, `Unconfined`, or `Localhost` with its file or name."""

    kind: str
    reference: str = ""


@frozen
class SELinux:
    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


@frozen
class Security:
    """What the processes of a sandbox or container may do, and as whom they run."""

    namespaces: Namespaces
    privileged: bool = False
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_username: str = ""
    supplemental_groups: tuple[int, ...] = ()
    # Only the groups that are named count, not those of the image.
    strict_groups: bool = False
    read_only_root: bool = False
    no_new_privileges: bool = False
    added_capabilities: tuple[str, ...] = ()
    dropped_capabilities: tuple[str, ...] = ()
    masked_paths: tuple[str, ...] = ()
    read_only_paths: tuple[str, ...] = ()
    seccomp: Profile | None = None
    apparmor: Profile | None = None
    selinux: SELinux = SELinux()


@frozen
class PortMapping:
    """A port of the pod's, and the host's port that leads to it (0: none)."""

    protocol: str
    container_port: int
    host_port: int = 0
    host_ip: str = ""


@frozen
class SandboxConfig:
    """A sandbox to make. `log_directory` is where its containers' logs go."""

    name: str
    uid: str
    namespace: str
    attempt: int
    log_directory: str
    cgroup_parent: str
    security: Security
    resources: Resources
    hostname: str = ""
    dns_servers: tuple[str, ...] = ()
    dns_searches: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    port_mappings: tuple[PortMapping, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)


@frozen
class Device:
    """A device of the host's inside a container; `permissions` of r, w and m."""

    container_path: str
    host_path: str
    permissions: str = "rwm"


@frozen
class ContainerConfig:
    """A container to make; `log_path` is relative to its sandbox's `log_directory`."""

    name: str
    attempt: int
    image_id: str
    image: str
    security: Security
    resources: Resources
    log_path: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    cdi_devices: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False


class Streams(NamedTuple):
    """Which streams of a process a client wants to be connected with."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    tty: bool = False


class Runtime(Protocol):
    """The container runtime, as the kubelet needs it. The `…_url` calls answer where the runtime's streaming server
    (SPDY/3.1) waits for the connection. `operations` counts what was asked."""

    @property
    def operations(self) -> Operations: ...

    async def version(self) -> str: ...
    async def conditions(self) -> Sequence[Condition]: ...
    async def features(self) -> Features: ...
    async def run_sandbox(self, config: SandboxConfig, handler: str = "") -> str: ...
    async def stop_sandbox(self, sandbox_id: str) -> None: ...
    async def remove_sandbox(self, sandbox_id: str) -> None: ...
    async def sandbox_status(self, sandbox_id: str) -> Sandbox: ...
    async def list_sandboxes(self, labels: Mapping[str, str] | None = None) -> Sequence[Sandbox]: ...
    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> str: ...
    async def start_container(self, container_id: str) -> None: ...
    async def stop_container(self, container_id: str, grace_s: int) -> None: ...
    async def remove_container(self, container_id: str) -> None: ...
    async def container_status(self, container_id: str) -> ContainerStatus: ...
    async def list_containers(self, labels: Mapping[str, str] | None = None) -> Sequence[Container]: ...
    async def update_resources(self, container_id: str, resources: Resources) -> None: ...
    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult: ...
    async def exec_url(self, container_id: str, command: Sequence[str], streams: Streams) -> str: ...
    async def attach_url(self, container_id: str, streams: Streams) -> str: ...
    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str: ...
    async def reopen_log(self, container_id: str) -> None: ...
    async def checkpoint(self, container_id: str, file: Path, timeout_s: int) -> None: ...
    async def stats(self) -> Sequence[ContainerStats]: ...
    async def list_images(self) -> Sequence[Image]: ...
    async def image_status(self, image: str) -> Image | None: ...
    async def pull_image(self, image: str, login: Login | None) -> str: ...
    async def remove_image(self, image: str) -> None: ...
    async def image_filesystem(self) -> Filesystem: ...
    async def collect(self) -> None: ...
    def events(self) -> AsyncIterator[ContainerEvent]: ...
    async def close(self) -> None: ...
