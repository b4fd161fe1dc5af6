"""What a cluster has before anybody asks for it: namespaces, default roles, priority classes, the `kubernetes` service.

Created at the first start, all at once so that the store commits them together; at later starts what is missing comes
back, and what no cluster can be without does within seconds of its deletion. Another API server may be at it at the
same time: what it was quicker to write is looked at again. Objects that people changed are left alone, but default
roles get back the rules that they lack, as in Kubernetes (annotation `rbac.authorization.kubernetes.io/autoupdate`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import field
from functools import partial
from ipaddress import ip_address
from typing import Final

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, Resource
from navarch.apiserver.admission.base import Reader
from navarch.apiserver.auth import bootstrap as rbac
from navarch.apiserver.auth.legacy_tokens import TRACKING
from navarch.apiserver.auth.proxy_headers import ProxyHeaders
from navarch.apiserver.auth.roles import AUTOUPDATE
from navarch.apiserver.housekeeping import Chore
from navarch.apiserver.presence import Place
from navarch.apiserver.server import ApiServer
from navarch.kinds import resources
from navarch.records import frozen

_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_NODE_CRITICAL = "Used for system critical pods that must not be moved from their current node."
_CLUSTER_CRITICAL = (
    "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."
)
_ATTEMPTS = 10
# How often is looked whether something is gone that no cluster can be without.
KEEP_EVERY_S: Final = 10.0
# What the range is that the server itself was told; the controller says since when.
_READY_RANGE: Obj = {
    "metadata": {"name": "kubernetes"},
    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
}
_RANGE_MANAGER = "kubernetes-service-cidr-controller"
_REPAIRED = ("labels", "annotations")

Get = Callable[[Resource, str, str], Obj | None]
_PRIORITIES = (
    ("system-node-critical", 2000001000, _NODE_CRITICAL),
    ("system-cluster-critical", 2000000000, _CLUSTER_CRITICAL),
)


@frozen
class BootstrapConfig:
    """`advertise_address` and `port` are where pods reach the API server; `service_address` is the virtual IP of the
    `kubernetes` service, the first of `service_cidr`; `client_ca` is PEM text."""

    advertise_address: str
    port: int
    service_address: str
    service_cidr: str
    client_ca: str = ""
    # By whose certificates, and under which names, this server speaks for others to extension API servers.
    front_proxy_ca: str = ""
    front_proxy_headers: ProxyHeaders = field(default_factory=ProxyHeaders)
    # ConfigMaps by which machines that join learn about the cluster.
    told_to_nodes: tuple[Obj, ...] = ()
    # Accounts in kube-system that pods on such machines have.
    accounts: tuple[str, ...] = ()


async def bootstrap(server: ApiServer, config: BootstrapConfig) -> None:
    """Bring the started server's store to where a cluster can begin.  Raises StatusError where it refuses a write."""
    new = server.reader.get(resources.NAMESPACES, "", "kube-system") is None
    for attempt in range(_ATTEMPTS):
        try:
            await _bring_up(server, config)
            break
        except* StatusError as errors:
            if attempt + 1 == _ATTEMPTS or not _are_races(errors):
                raise
            await server.core.caches.sync()
    await server.keep_flow_control()
    server.keep(Chore("what a cluster cannot be without", KEEP_EVERY_S, partial(_keep, server, config)))
    if new:
        await server.core.caches.begin()
    if not ip_address(config.advertise_address).is_loopback:
        await server.appear(Place(config.port, config.advertise_address))


def _are_races(errors: BaseExceptionGroup[StatusError]) -> bool:
    """Whether all that went wrong is that another server was quicker (to take the service's address, too)."""
    return errors.split(_is_race)[1] is None


def _is_race(error: BaseException) -> bool:
    return isinstance(error, StatusError) and (error.code == 409 or "is already allocated" in error.message)


async def _keep(server: ApiServer, config: BootstrapConfig) -> None:
    """Make anew what somebody deleted: without its namespace no node's Lease is renewed, without the service no pod
    finds the API server. Another server may be quicker."""
    try:
        await server.writer.create_all(_missing(server, _namespaces()))
        await server.writer.create_all(_missing(server, [*_network(config), *_client_ca(config)]))
    except* StatusError as errors:
        if not _are_races(errors):
            raise


async def _bring_up(server: ApiServer, config: BootstrapConfig) -> None:
    reader, writer = server.reader, server.writer
    # Namespaces first: nothing can be created in one that is not there.
    await writer.create_all(_missing(server, _namespaces()))
    by_kind = {
        "ClusterRole": resources.CLUSTER_ROLES,
        "ClusterRoleBinding": resources.CLUSTER_ROLE_BINDINGS,
        "Role": resources.ROLES,
        "RoleBinding": resources.ROLE_BINDINGS,
    }
    defaults = [(by_kind[obj["kind"]], obj) for obj in rbac.objects(server.serves)]
    stale = [repaired for resource, obj in defaults if (repaired := _repaired(resource, obj, reader.get)) is not None]
    told = [*_client_ca(config), *((resources.CONFIG_MAPS, obj) for obj in config.told_to_nodes)]
    stale += [anew for resource, obj in told if (anew := _told_anew(resource, obj, reader)) is not None]
    tracking = {**_named(TRACKING, "kube-system"), "data": {"since": server.core.world.now().strftime("%Y-%m-%d")}}
    told.append((resources.CONFIG_MAPS, tracking))
    accounts = [(resources.SERVICE_ACCOUNTS, _named(name, "kube-system")) for name in config.accounts]
    await writer.create_all(_missing(server, [*defaults, *_priority_classes(), *_network(config), *told, *accounts]))
    async with asyncio.TaskGroup() as tasks:
        for resource, obj in stale:
            tasks.create_task(writer.update(resource, obj))
        for obj in _aggregated(reader, [obj for _, obj in defaults]):
            tasks.create_task(writer.apply(resources.CLUSTER_ROLES, obj, rbac.AGGREGATION))
        if _lacks_status(server, resources.SERVICE_CIDRS, "kubernetes"):
            tasks.create_task(writer.apply(resources.SERVICE_CIDRS, _READY_RANGE, _RANGE_MANAGER, "status"))


def _lacks_status(server: ApiServer, resource: Resource, name: str) -> bool:
    if server.core.registry.by_path(resource.group, resource.version, resource.plural) is None:
        return False
    stored = server.reader.get(resource, "", name)
    return stored is not None and not stored.get("status")


def _aggregated(reader: Reader, defaults: Sequence[Obj]) -> Iterator[Obj]:
    """Aggregated default roles that have no rules yet, with those that they will have: nobody need wait for the
    controller that keeps them so, or have one."""
    for role, rules in rbac.aggregated(defaults):
        stored = reader.get(resources.CLUSTER_ROLES, "", role)
        if stored is not None and not stored.get("rules"):
            yield {"metadata": {"name": role}, "rules": rules}


def _missing(server: ApiServer, objects: Iterable[tuple[Resource, Obj]]) -> list[tuple[Resource, Obj]]:
    """What is not stored yet, of the kinds that the served version of Kubernetes has."""
    cache, registry = server.core.caches, server.core.registry
    return [
        (resource, obj)
        for resource, obj in objects
        if registry.by_path(resource.group, resource.version, resource.plural) is not None
        and cache.of(resource).get(obj["metadata"].get("namespace", ""), obj["metadata"]["name"]) is None
    ]


def _repaired(resource: Resource, default: Obj, get: Get) -> tuple[Resource, Obj] | None:
    """The stored role or binding with what it lacks: rules, subjects, roles to aggregate, labels and annotations. None
    if it has all, or if somebody said that it is his."""
    metadata = default["metadata"]
    stored = get(resource, metadata.get("namespace", ""), metadata["name"])
    if stored is None or (stored["metadata"].get("annotations") or {}).get(AUTOUPDATE) == "false":
        return None
    better = dict(stored)
    for part in ("subjects", "rules"):
        lacking = [entry for entry in default.get(part) or () if entry not in (stored.get(part) or ())]
        if lacking:
            better[part] = [*(stored.get(part) or ()), *lacking]
    if "aggregationRule" in default and not stored.get("aggregationRule"):
        better["aggregationRule"] = default["aggregationRule"]
    said = {part: {**(stored["metadata"].get(part) or {}), **metadata[part]} for part in _REPAIRED if part in metadata}
    better["metadata"] = {**stored["metadata"], **said}
    return None if better == stored else (resource, better)


def _told_anew(resource: Resource, default: Obj, reader: Reader) -> tuple[Resource, Obj] | None:
    """The stored ConfigMap with what is true now; None if it says so, or is not there."""
    stored = reader.get(resource, default["metadata"]["namespace"], default["metadata"]["name"])
    if stored is None:
        return None
    data = {**(stored.get("data") or {}), **default["data"]}
    return None if data == stored.get("data") else (resource, {**stored, "data": data})


def _named(name: str, namespace: str = "") -> Obj:
    return {"metadata": {"name": name, **({"namespace": namespace} if namespace else {})}}


def _namespaces() -> Iterable[tuple[Resource, Obj]]:
    return ((resources.NAMESPACES, _named(name)) for name in _NAMESPACES)


def _priority_classes() -> Iterable[tuple[Resource, Obj]]:
    for name, value, description in _PRIORITIES:
        yield resources.PRIORITY_CLASSES, {"metadata": {"name": name}, "value": value, "description": description}


def _client_ca(config: BootstrapConfig) -> Iterable[tuple[Resource, Obj]]:
    """Where extension API servers find the CA of client certificates, and that of who speaks for others."""
    if config.client_ca:
        metadata = {"name": "extension-apiserver-authentication", "namespace": "kube-system"}
        data = {"client-ca-file": config.client_ca}
        if config.front_proxy_ca:
            headers = config.front_proxy_headers
            lists = {
                "allowed-names": headers.allowed,
                "extra-headers-prefix": headers.extra_prefix,
                "group-headers": headers.group,
                "username-headers": headers.username,
            }
            if headers.uid:
                lists["uid-headers"] = headers.uid
            data |= {f"requestheader-{name}": json.dumps(each, separators=(",", ":")) for name, each in lists.items()}
            data["requestheader-client-ca-file"] = config.front_proxy_ca
        yield resources.CONFIG_MAPS, {"metadata": metadata, "data": data}


def _network(config: BootstrapConfig) -> Iterable[tuple[Resource, Obj]]:
    """The service `kubernetes` in the namespace default, and the range that service addresses come from."""
    labels = {"component": "apiserver", "provider": "kubernetes"}
    metadata = {"name": "kubernetes", "namespace": "default", "labels": labels}
    cidrs = [part.strip() for part in config.service_cidr.split(",")]
    yield resources.SERVICE_CIDRS, {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs}}
    yield (
        resources.SERVICES,
        {
            "metadata": metadata,
            "spec": {
                "type": "ClusterIP",
                "clusterIP": config.service_address,
                "ipFamilyPolicy": "SingleStack",
                "sessionAffinity": "None",
                "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": config.port}],
            },
        },
    )
