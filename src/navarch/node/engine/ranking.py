"""Which pods go first when the node is short of something, and what is said of one that goes. Pure.

Kubernetes' order: pods that use more than they requested, then those of lower priority, then those that exceed their
requests by most. Of process ids nothing can be requested: lower priority, then more processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from navarch.api import quantity
from navarch.api.meta import Obj
from navarch.kinds.core.resource_lists import limits_of, pod_amounts, pod_requests, requests_of
from navarch.node import podspec
from navarch.node.resources.amounts import whole
from navarch.node.resources.usage import PodUse, Use
from navarch.node.thresholds import CONTAINER_DISK, CONTAINER_INODES, IMAGE_DISK, IMAGE_INODES, RESOURCES

_OF_IMAGES = (IMAGE_DISK, IMAGE_INODES, CONTAINER_DISK, CONTAINER_INODES)


class Words(NamedTuple):
    """Why a pod is evicted, and the annotations of the event."""

    message: str
    annotations: Mapping[str, str]


def used_of(signal: str, use: PodUse, *, separate_images: bool) -> int:
    """How much of what is short a pod uses."""
    resource = RESOURCES[signal]
    if resource == "memory":
        return use.memory
    if resource == "pids":
        return use.processes
    disk: Use
    if not separate_images:
        disk = use.disk()
    elif signal in _OF_IMAGES:
        disk = use.disk(logs=False, volumes=False)
    else:
        disk = use.disk(layers=False)
    return disk.inodes if resource == "inodes" else disk.bytes


def rank(pods: Sequence[Obj], signal: str, uses: Mapping[str, PodUse], *, separate_images: bool = False) -> list[Obj]:
    """The pods in the order in which they are evicted, first first. One of which nothing is known goes first."""
    resource = RESOURCES[signal]

    def key(pod: Obj) -> Any:
        use, priority = uses.get(pod["metadata"]["uid"]), int(pod["spec"].get("priority") or 0)
        if use is None:
            return (0, False, priority, 0)
        used = used_of(signal, use, separate_images=separate_images)
        if resource == "pids":
            return (1, False, priority, -used)
        requested = pod_requests(pod).get(resource, 0)
        return (1, used <= requested, priority, requested - used)

    return sorted(pods, key=key)


def low_on(resource: str, pod: Obj, use: PodUse | None, level: tuple[int, int] | None) -> Words:
    """What is said of a pod that goes because of `resource`; `level` is the threshold and what is available."""
    message = f"The node was low on resource: {resource}. "
    render = _render if resource in ("memory", "ephemeral-storage") else str
    if level is not None:
        message += f"Threshold quantity: {render(level[0])}, available: {render(level[1])}. "
    offending: dict[str, str] = {}
    if use is not None and resource in ("memory", "ephemeral-storage"):
        for container in podspec.containers(pod):
            own = use.containers.get(container["name"])
            if own is None:
                continue
            used = own.memory if resource == "memory" else own.layer.bytes + own.log.bytes
            stated = requests_of(container).get(resource, 0)
            if used > whole(stated):
                offending[container["name"]] = _render(used)
                shown = quantity.canonical(stated)
                message += (
                    f"Container {container['name']} was using {_render(used)}, request is {shown}, "
                    f"has larger consumption of {resource}. "
                )
    annotations = {
        "offending_containers": ",".join(offending),
        "offending_containers_usage": ",".join(offending.values()),
        "starved_resource": resource,
    }
    return Words(message, annotations)


def _render(amount: int) -> str:
    return quantity.render(Fraction(amount), "binary")


def over_limit(pod: Obj, use: PodUse, *, separate_images: bool = False) -> str:
    """Why a pod uses more local storage than it may; empty where it does not."""
    checks: tuple[Callable[[Obj, PodUse, bool], str], ...] = (_volume_over, _pod_over, _container_over)
    return next((words for check in checks if (words := check(pod, use, separate_images))), "")


def has_storage_limits(pod: Obj) -> bool:
    """Whether a pod's use of local storage is bounded at all."""
    volumes = pod["spec"].get("volumes") or ()
    if any((volume.get("emptyDir") or {}).get("sizeLimit") for volume in volumes):
        return True
    return any("ephemeral-storage" in limits_of(container) for container in podspec.containers(pod))


def _volume_over(pod: Obj, use: PodUse, separate_images: bool) -> str:
    for volume in pod["spec"].get("volumes") or ():
        limit = (volume.get("emptyDir") or {}).get("sizeLimit")
        used = use.volumes.get(volume["name"])
        if used is not None and limit is not None and whole(limit) and used.bytes > whole(limit):
            return f'Usage of EmptyDir volume "{volume["name"]}" exceeds the limit "{quantity.canonical(limit)}". '
    return ""


def _pod_over(pod: Obj, use: PodUse, separate_images: bool) -> str:
    allowed = pod_amounts(pod["spec"], "limits").get("ephemeral-storage")
    if allowed is not None and use.disk().bytes > allowed:
        return f"Pod ephemeral local storage usage exceeds the total limit of containers {_render(int(allowed))}. "
    return ""


def _container_over(pod: Obj, use: PodUse, separate_images: bool) -> str:
    for container in podspec.containers(pod):
        limit, own = limits_of(container).get("ephemeral-storage"), use.containers.get(container["name"])
        if limit is None or own is None or not whole(limit):
            continue
        used = own.log.bytes + (0 if separate_images else own.layer.bytes)
        if used > whole(limit):
            shown = quantity.canonical(limit)
            return f'Container {container["name"]} exceeded its local ephemeral storage limit "{shown}". '
    return ""
