"""What the pods of a node take of it together: requests, host ports, one place each. Kept pod by pod, so that whether
another one fits costs the same whatever runs there already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from navarch.api.meta import Obj
from navarch.kinds.core.resource_lists import pod_requests
from navarch.node import podspec

_EVERY_ADDRESS: Final = ("", "0.0.0.0")


class HostPort(NamedTuple):
    address: str
    protocol: str
    number: int


class Share(NamedTuple):
    """What one pod takes."""

    requests: tuple[tuple[str, int], ...]
    ports: tuple[HostPort, ...]


def share_of(pod: Obj) -> Share:
    return Share(tuple(pod_requests(pod).items()), tuple(host_ports(pod)))


class Taken:
    """Of pods that hold room on one node."""

    __slots__ = ("_amounts", "_ports", "pods")

    def __init__(self, pods: Iterable[Obj] = ()) -> None:
        self.pods = 0
        self._amounts: dict[str, int] = {}
        self._ports: list[HostPort] = []
        for pod in pods:
            self.add(share_of(pod))

    def add(self, share: Share) -> None:
        self.pods += 1
        for resource, amount in share.requests:
            self._amounts[resource] = self._amounts.get(resource, 0) + amount
        self._ports.extend(share.ports)

    def remove(self, share: Share) -> None:
        """One that was added."""
        self.pods -= 1
        for resource, amount in share.requests:
            self._amounts[resource] -= amount
        for port in share.ports:
            self._ports.remove(port)

    def amount(self, resource: str) -> int:
        return self._amounts.get(resource, 0)

    def has_any(self, ports: Iterable[HostPort]) -> bool:
        """Whether somebody has one of these."""
        return any(_collide(port, other) for port in ports for other in self._ports)


def host_ports(pod: Obj) -> Iterator[HostPort]:
    """The ports of the host that a pod takes; on the host's network these are its containers' own."""
    on_host = podspec.host_network(pod)
    sidecars = [container for container in podspec.init_containers(pod) if podspec.is_sidecar(container)]
    for container in [*sidecars, *podspec.containers(pod)]:
        for port in container.get("ports") or ():
            number = port.get("hostPort") or (port.get("containerPort") if on_host else 0)
            if number:
                yield HostPort(port.get("hostIP") or "", port.get("protocol") or "TCP", int(number))


def _collide(one: HostPort, other: HostPort) -> bool:
    if (one.number, one.protocol) != (other.number, other.protocol):
        return False
    return one.address == other.address or one.address in _EVERY_ADDRESS or other.address in _EVERY_ADDRESS
