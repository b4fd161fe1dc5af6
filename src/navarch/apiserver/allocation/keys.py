"""The keys that hold a service's addresses and node ports: IPAddress objects, as in Kubernetes, and an object of our
own per node port, which no client sees.

In: a service and what it has.  Out: the key and the bytes; and of a stored key, whose it is. Pure but for what an
`Author` adds to a new object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from navarch.api.meta import Obj, Resource, new_uid
from navarch.api.time import format_time
from navarch.apiserver.codec import Codec
from navarch.kinds.base import Kind, Strategy
from navarch.kinds.resources import IP_ADDRESSES, SERVICE_CIDRS
from navarch.records import frozen
from navarch.world import World

NODE_PORTS: Final = Resource("allocation.navarch.dev", "v1", "nodeports", "NodePort", False)
# Kept and followed whether or not they are served: node ports are ours, the others came with Kubernetes 1.33.
OWN_KINDS: Final = (
    Kind(NODE_PORTS, "nodeport", Strategy(), verbs=()),
    Kind(IP_ADDRESSES, "ipaddress", Strategy(), verbs=()),
    Kind(SERVICE_CIDRS, "servicecidr", Strategy(), verbs=()),
)

MANAGED_BY: Final = "ipaddress.kubernetes.io/managed-by"
FAMILY: Final = "ipaddress.kubernetes.io/ip-family"
ALLOCATOR: Final = "ipallocator.k8s.io"

_PARENT_FIELDS: Final[Obj] = {".": {}, "f:name": {}, "f:namespace": {}, "f:resource": {}}
_OWNED: Final[Obj] = {
    "f:metadata": {"f:labels": {".": {}, f"f:{FAMILY}": {}, f"f:{MANAGED_BY}": {}}},
    "f:spec": {"f:parentRef": _PARENT_FIELDS},
}


class Held(NamedTuple):
    """An address or a node port."""

    resource: Resource
    name: str


def address(text: str) -> Held:
    return Held(IP_ADDRESSES, text)


def node_port(number: int) -> Held:
    return Held(NODE_PORTS, str(number))


def addresses_of(spec: Obj) -> list[str]:
    listed = spec.get("clusterIPs") or [spec.get("clusterIP") or ""]
    return [each for each in listed if each not in ("", "None")]


def ports_of(spec: Obj) -> list[int]:
    numbers = [int(port["nodePort"]) for port in spec.get("ports") or () if port.get("nodePort")]
    if spec.get("healthCheckNodePort"):
        numbers.append(int(spec["healthCheckNodePort"]))
    return list(dict.fromkeys(numbers))


def held_by(spec: Obj) -> list[Held]:
    """All that a service has."""
    return [*map(address, addresses_of(spec)), *map(node_port, ports_of(spec))]


def parent_of(obj: Obj) -> tuple[str, str] | None:
    """The service (namespace, name) that an address or a port is held for; None for another's."""
    if obj.get("kind") == IP_ADDRESSES.kind and (obj["metadata"].get("labels") or {}).get(MANAGED_BY) != ALLOCATOR:
        return None
    parent = (obj.get("spec") or {}).get("parentRef") or {}
    if parent.get("resource") != "services" or parent.get("group"):
        return None
    return parent.get("namespace") or "", parent.get("name") or ""


@frozen
class Author:
    """Makes the bytes of keys."""

    world: World
    codec_of: Callable[[Resource], Codec]

    def key(self, held: Held) -> str:
        return self.codec_of(held.resource).key("", held.name)

    def value(self, held: Held, service: Obj) -> bytes:
        metadata = service["metadata"]
        now = format_time(self.world.now())
        made: Obj = {
            "metadata": {
                "name": held.name,
                "uid": new_uid(self.world.identities("uids", held.resource.plural)),
                "creationTimestamp": now,
            },
            "spec": {
                "parentRef": {
                    "resource": "services",
                    "namespace": metadata.get("namespace") or "",
                    "name": metadata["name"],
                }
            },
        }
        if held.resource == IP_ADDRESSES:
            family = "IPv6" if ":" in held.name else "IPv4"
            made["metadata"]["labels"] = {FAMILY: family, MANAGED_BY: ALLOCATOR}
            made["metadata"]["managedFields"] = [
                {
                    "manager": "kube-apiserver",
                    "operation": "Update",
                    "apiVersion": IP_ADDRESSES.api_version,
                    "time": now,
                    "fieldsType": "FieldsV1",
                    "fieldsV1": _OWNED,
                }
            ]
        return self.codec_of(held.resource).encode(made)
