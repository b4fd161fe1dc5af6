"""A container as the runtime is told to make it: image, command, environment, mounts, limits, security, log."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from navarch.api.meta import Obj
from navarch.node import podspec
from navarch.node.config import KubeletConfig
from navarch.node.contained import read_head
from navarch.node.fieldref import PodFacts, expand
from navarch.node.podspec import ConfigError
from navarch.node.resources.amounts import container_resources
from navarch.node.runtime.base import (
    CONTAINER_NAME,
    GRACE_PERIOD,
    HASH,
    MESSAGE_PATH,
    MESSAGE_POLICY,
    PORTS,
    PRE_STOP,
    RESTART_COUNT,
    ContainerConfig,
    Device,
    IDRange,
    Image,
    Mount,
    Propagation,
)
from navarch.node.spec.dns import hosts_file
from navarch.node.spec.sandbox import pod_labels
from navarch.node.spec.security import container_security
from navarch.node.volumes.base import VolumeError
from navarch.node.volumes.sub_path import bind_sub_path
from navarch.world import MACHINE

_PROPAGATION: Final = {
    "None": Propagation.PRIVATE,
    "HostToContainer": Propagation.HOST_TO_CONTAINER,
    "Bidirectional": Propagation.BIDIRECTIONAL,
}
# What the kubelet makes of objects and images is never a container's to change.
_READ_ONLY: Final = frozenset({"configMap", "secret", "downwardAPI", "projected", "image"})
DEFAULT_MESSAGE_PATH: Final = "/dev/termination-log"


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What of the node goes into containers."""

    memory_capacity: int
    unified_cgroups: bool
    swap_capacity: int = 0


@dataclass(frozen=True, slots=True)
class ContainerInputs:
    """All that a container's configuration is made of; `attempt` is its restart count, `users` are those of its user
    namespace, `recursive_read_only` says whether the runtime can mount so."""

    pod: Obj
    container: Obj
    attempt: int
    image: Image
    env: Mapping[str, str]
    volumes: Mapping[str, Path]
    facts: PodFacts
    node: NodeFacts
    target_id: str = ""
    users: IDRange | None = None
    recursive_read_only: bool = False
    cdi_devices: Sequence[str] = ()


def container_config(inputs: ContainerInputs, config: KubeletConfig) -> ContainerConfig:
    """What the runtime is told. Makes the files that are mounted into the container.

    Raises ConfigError where the specification cannot be met."""
    pod, container, env = inputs.pod, inputs.container, inputs.env
    name = container["name"]
    result = ContainerConfig(
        name=name,
        attempt=inputs.attempt,
        image_id=inputs.image.id,
        image=container.get("image", ""),
        command=tuple(expand(word, env) for word in container.get("command") or []),
        args=tuple(expand(word, env) for word in container.get("args") or []),
        working_dir=container.get("workingDir") or "",
        env=env,
        labels={**pod_labels(pod), CONTAINER_NAME: name},
        annotations={
            HASH: podspec.container_hash(container),
            RESTART_COUNT: str(inputs.attempt),
            MESSAGE_PATH: container.get("terminationMessagePath") or DEFAULT_MESSAGE_PATH,
            MESSAGE_POLICY: container.get("terminationMessagePolicy") or "File",
            GRACE_PERIOD: str(podspec.grace_period_s(pod)),
            **_pre_stop(container),
        },
        log_path=f"{name}/{inputs.attempt}.log",
        stdin=bool(container.get("stdin")),
        stdin_once=bool(container.get("stdinOnce")),
        tty=bool(container.get("tty")),
        resources=container_resources(
            pod,
            container,
            memory_capacity=inputs.node.memory_capacity,
            unified=inputs.node.unified_cgroups,
            settings=config.cgroups,
            swap_capacity=inputs.node.swap_capacity,
        ),
        security=container_security(
            pod,
            container,
            inputs.image,
            seccomp=config.seccomp,
            users=inputs.users,
            target_id=inputs.target_id,
            confined=config.seccomp_default,
        ),
        mounts=tuple(_mounts(inputs, config)),
        devices=tuple(_devices(inputs)),
        cdi_devices=tuple(inputs.cdi_devices),
    )
    metadata = pod["metadata"]
    log_directory = config.log_directory(metadata["namespace"], metadata["name"], metadata["uid"])
    (log_directory / name).mkdir(parents=True, exist_ok=True)
    return result


def _pre_stop(container: Obj) -> dict[str, str]:
    """Who ends the container may know nothing of its pod but this."""
    hook = (container.get("lifecycle") or {}).get("preStop")
    if not hook:
        return {}
    return {PRE_STOP: json.dumps(hook), PORTS: json.dumps(container.get("ports") or [])}


def _mounts(inputs: ContainerInputs, config: KubeletConfig) -> list[Mount]:
    pod, container = inputs.pod, inputs.container
    own = config.pod_directory(pod["metadata"]["uid"]) / "volume-subpaths"
    mounts = [
        _mount(mount, inputs, own / mount["name"] / container["name"] / str(index))
        for index, mount in enumerate(container.get("volumeMounts") or [])
    ]
    paths = {mount.container_path.rstrip("/") for mount in mounts}
    directory = config.pod_directory(pod["metadata"]["uid"])
    if "/etc/hosts" not in paths:
        hosts = directory / "etc-hosts"
        hosts.parent.mkdir(parents=True, exist_ok=True)
        text = hosts_file(pod, inputs.facts.pod_ips, config.cluster_domain)
        if not _says(hosts, text):
            hosts.write_text(text)
            hosts.chmod(0o644)
        read_only = bool((container.get("securityContext") or {}).get("readOnlyRootFilesystem"))
        mounts.append(Mount("/etc/hosts", str(hosts), read_only))
    message_path = container.get("terminationMessagePath") or DEFAULT_MESSAGE_PATH
    place = directory / "containers" / container["name"] / f"{MACHINE.unpredictable().getrandbits(32):08x}"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()
    # Whatever user the container runs as may leave its last words.
    place.chmod(0o666)
    mounts.append(Mount(message_path, str(place)))
    return mounts


def _devices(inputs: ContainerInputs) -> Iterator[Device]:
    """Volumes that are block devices."""
    for stated in inputs.container.get("volumeDevices") or ():
        host = inputs.volumes.get(stated["name"])
        if host is None:
            name = inputs.container["name"]
            raise ConfigError(f"cannot find volume {stated['name']!r} to pass into container {name!r}")
        permissions = "r" if _is_read_only(inputs.pod, stated["name"]) else "mrw"
        yield Device(stated["devicePath"], str(host), permissions)


def _is_read_only(pod: Obj, name: str) -> bool:
    """Whether containers may not write to a volume, whatever they ask for."""
    for volume in pod["spec"].get("volumes") or ():
        if volume["name"] == name:
            if _READ_ONLY & volume.keys():
                return True
            return any((volume.get(kind) or {}).get("readOnly") for kind in ("persistentVolumeClaim", "csi", "nfs"))
    return False


def _says(file: Path, text: str) -> bool:
    """Whether a file, which containers write as well, is as it was made."""
    wanted = text.encode()
    try:
        return read_head(file, len(wanted) + 1) == wanted
    except OSError:
        return False


def _mount(mount: Obj, inputs: ContainerInputs, place: Path) -> Mount:
    """`place` is where a part of a volume is put for the container."""
    host = inputs.volumes.get(mount["name"])
    if host is None:
        raise ConfigError(f"cannot find volume {mount['name']!r} to mount into container {inputs.container['name']!r}")
    sub_path = mount.get("subPath") or ""
    if mount.get("subPathExpr"):
        sub_path = expand(mount["subPathExpr"], inputs.env)
        if "$(" in sub_path:
            raise ConfigError(f"failed to expand subPathExpr {mount['subPathExpr']!r}: missing value")
    if sub_path:
        try:
            host = bind_sub_path(host, sub_path, place)
        except (VolumeError, OSError) as error:
            raise ConfigError(
                f'failed to prepare subPath for volumeMount "{mount["name"]}" of container: {error}'
            ) from error
    path = mount["mountPath"]
    return Mount(
        container_path=path if path.startswith("/") else f"/{path}",
        host_path=str(host),
        read_only=bool(mount.get("readOnly")) or _is_read_only(inputs.pod, mount["name"]),
        recursive_read_only=_recursive(mount, supported=inputs.recursive_read_only),
        propagation=_PROPAGATION[mount.get("mountPropagation") or "None"],
    )


def _recursive(mount: Obj, *, supported: bool) -> bool:
    """Whether a mount is read-only with all that is mounted below it."""
    stated = mount.get("recursiveReadOnly") if mount.get("readOnly") else None
    if stated == "Enabled" and not supported:
        raise ConfigError(
            f'volume "{mount["name"]}" requested recursive read-only mode, but it is not supported by the runtime'
        )
    return supported and stated in ("Enabled", "IfPossible")
