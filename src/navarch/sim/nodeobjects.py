"""The Node and Lease objects of a simulated node, as its kubelet would write them. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime

from navarch.api.features import Features, parse
from navarch.api.meta import Obj
from navarch.api.time import format_micro_time, format_time
from navarch.api.version import DEFAULT_VERSION
from navarch.kinds.core.declared_features import declared
from navarch.kinds.core.kubelets import SIMULATED
from navarch.sim.addresses import NODES, NODES_IPV6

KUBELET_VERSION = f"v{DEFAULT_VERSION}.0-navarch"
LEASE_NAMESPACE = "kube-node-lease"
LEASE_DURATION_S = 40
_KUBELET_PORT = 10250

DEFAULT_CAPACITY: Mapping[str, str] = {
    "cpu": "8",
    "memory": "32Gi",
    "pods": "110",
    "ephemeral-storage": "100Gi",
    "hugepages-1Gi": "0",
    "hugepages-2Mi": "0",
}

_CONDITIONS = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


def node_address(index: int, family: int = 4) -> str:
    """The address of the node with this index, from 0."""
    return str((NODES_IPV6 if family == 6 else NODES).network_address + 10 + index)


def conditions(now: datetime, transition: Mapping[str, str] | None = None) -> list[Obj]:
    """The conditions of a healthy node; `transition` has since when each of them holds."""
    stamp = format_time(now)
    return [
        {
            "type": kind,
            "status": status,
            "lastHeartbeatTime": stamp,
            "lastTransitionTime": (transition or {}).get(kind, stamp),
            "reason": reason,
            "message": message,
        }
        for kind, status, reason, message in _CONDITIONS
    ]


def node_object(
    name: str,
    addresses: Sequence[str],
    capacity: Mapping[str, str],
    labels: Mapping[str, str],
    version: str,
    now: datetime,
    *,
    kubelet: tuple[str, int] | None = None,
) -> Obj:
    """A node that is ready from its first moment; `kubelet` is the host and port at which its kubelet answers."""
    host, port = kubelet or ("", _KUBELET_PORT)
    dialled = [{"type": "InternalDNS", "address": host}] if host else []
    identity = uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.sim.navarch.dev")
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "beta.kubernetes.io/arch": "amd64",
                "beta.kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                **labels,
            },
            "annotations": {SIMULATED: "true"},
        },
        "spec": {},
        "status": {
            "capacity": dict(capacity),
            "allocatable": dict(capacity),
            "conditions": conditions(now),
            "addresses": [
                *({"type": "InternalIP", "address": address} for address in addresses),
                {"type": "Hostname", "address": name},
                *dialled,
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            "nodeInfo": {
                "machineID": identity.hex,
                "systemUUID": str(identity),
                "bootID": str(uuid.uuid5(identity, "boot")),
                "kernelVersion": "6.1.0-simulated",
                "osImage": "Navarch simulated node",
                "containerRuntimeVersion": "simulated://1.0.0",
                "kubeletVersion": version,
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": "amd64",
            },
            # Groups of users are nothing here that an image could add to.
            "features": {"supplementalGroupsPolicy": True},
            **declared(features_of(version)),
        },
    }


def features_of(kubelet_version: str) -> Features:
    """The gates of a kubelet that says of itself that it is `v1.37.0-…`, as they are by default."""
    major, minor, *_ = kubelet_version.removeprefix("v").split(".")
    return parse((), f"{major}.{minor}")


def lease_object(node: Obj, now: datetime) -> Obj:
    name = node["metadata"]["name"]
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "namespace": LEASE_NAMESPACE,
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"].get("uid", "")}
            ],
        },
        "spec": {
            "holderIdentity": name,
            "leaseDurationSeconds": LEASE_DURATION_S,
            "renewTime": format_micro_time(now),
        },
    }
