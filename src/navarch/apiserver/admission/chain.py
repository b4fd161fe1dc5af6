"""The chain of admission plugins: which see a write, in which order, and what they are configured with.

In: a write on its way (`Attributes`).  Out: the same, changed or refused. Which plugins concern a kind and operation is
worked out once, so that a write that no plugin wants to see costs one dictionary lookup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from navarch.api.meta import Obj, Resource
from navarch.apiserver.admission.base import Attributes, Plugin, Reader, Writer
from navarch.apiserver.admission.certificates import (
    Authorize,
    CertificateApproval,
    CertificateRequester,
    CertificateSigning,
    CertificateSubjectRestriction,
)
from navarch.apiserver.admission.default_classes import DefaultIngressClass, DefaultStorageClass
from navarch.apiserver.admission.escalation import RoleEscalation, Rules
from navarch.apiserver.admission.limit_ranger import LimitRanger
from navarch.apiserver.admission.namespace_lifecycle import NamespaceLifecycle
from navarch.apiserver.admission.node_restriction import NodeRestriction
from navarch.apiserver.admission.pod_security import PodSecurity
from navarch.apiserver.admission.priority import Priority
from navarch.apiserver.admission.resource_quota import ResourceQuota
from navarch.apiserver.admission.runtime_class import RuntimeClass
from navarch.apiserver.admission.service_account import ServiceAccount
from navarch.apiserver.admission.services import ServiceAllocator
from navarch.apiserver.admission.storage_protection import StorageObjectInUseProtection
from navarch.apiserver.admission.taint_nodes import TaintNodesByCondition
from navarch.apiserver.admission.toleration_seconds import DefaultTolerationSeconds
from navarch.kinds.base import Kind
from navarch.world import World


@dataclass(frozen=True, slots=True)
class AdmissionConfig:
    """What the plugins need to know of the cluster. `service_cidr` may be two ranges, one per address family, parted
    by a comma. `disabled` names plugins that shall not run."""

    service_cidr: str = "10.43.0.0/16"
    node_ports: range = range(30000, 32768)
    cluster_dns: str = "10.43.0.10"
    disabled: frozenset[str] = frozenset()


class _Interested(NamedTuple):
    """The plugins for one kind and operation, by the hooks that they have."""

    mutate: tuple[Plugin, ...]
    validate: tuple[Plugin, ...]
    committed: tuple[Plugin, ...]
    rolled_back: tuple[Plugin, ...]


def _having(plugins: Iterable[Plugin], hook: str) -> tuple[Plugin, ...]:
    return tuple(plugin for plugin in plugins if getattr(type(plugin), hook) is not getattr(Plugin, hook))


class Chain:
    """Runs the interested plugins, in order. Invariant: a write that is not a dry run ends in exactly one of
    `committed` and `rolled_back`; a plugin may be rolled back before its `mutate` was reached, and so keeps what it has
    to undo in `Attributes.state`."""

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        self.plugins = tuple(plugins)
        self._interested: dict[tuple[Resource, str], _Interested] = {}

    def _for(self, kind: Kind, operation: str) -> _Interested:
        key = (kind.resource, operation)
        found = self._interested.get(key)
        if found is None:
            plugins = [plugin for plugin in self.plugins if plugin.concerns(kind, operation)]
            found = self._interested[key] = _Interested(*(_having(plugins, hook) for hook in _Interested._fields))
        return found

    def concerns(self, kind: Kind, operation: str) -> bool:
        """Whether any plugin wants to see such a write."""
        return any(self._for(kind, operation))

    async def mutate(self, attributes: Attributes) -> None:
        """Raises StatusError."""
        for plugin in self._for(attributes.kind, attributes.operation).mutate:
            await plugin.mutate(attributes)

    async def validate(self, attributes: Attributes) -> None:
        """Raises StatusError."""
        for plugin in self._for(attributes.kind, attributes.operation).validate:
            await plugin.validate(attributes)

    async def committed(self, attributes: Attributes, stored: Obj) -> None:
        for plugin in self._for(attributes.kind, attributes.operation).committed:
            await plugin.committed(attributes, stored)

    async def rolled_back(self, attributes: Attributes) -> None:
        for plugin in self._for(attributes.kind, attributes.operation).rolled_back:
            await plugin.rolled_back(attributes)


def default_chain(
    reader: Reader,
    writer: Writer,
    config: AdmissionConfig,
    world: World,
    *,
    authorize: Authorize | None = None,
    rules: Rules | None = None,
    more: Callable[[], Iterable[Plugin]] = tuple,
) -> Chain:
    """Kubernetes' default plugins in Kubernetes' order. `authorize` decides what a signer's name is needed for, with
    `rules` (what a user holds) also who may give permissions away; `more` gives plugins that run before quota, which is
    last because it counts what the others have made of the object."""
    allocation = world.random("apiserver", "services")
    plugins: list[Plugin] = [
        NamespaceLifecycle(reader),
        LimitRanger(reader),
        ServiceAccount(reader, world),
        NodeRestriction(reader, authorize),
        TaintNodesByCondition(),
        PodSecurity(reader),
        Priority(reader),
        DefaultTolerationSeconds(),
        StorageObjectInUseProtection(),
        RuntimeClass(reader),
        CertificateRequester(),
        CertificateApproval(authorize),
        CertificateSigning(authorize),
        CertificateSubjectRestriction(),
        DefaultStorageClass(reader),
        DefaultIngressClass(reader),
        ServiceAllocator(reader, config.service_cidr, config.node_ports, config.cluster_dns, allocation),
        *more(),
        ResourceQuota(reader, writer),
    ]
    # Not among those that can be disabled: as in Kubernetes it belongs to the roles themselves.
    chosen = [plugin for plugin in plugins if plugin.name not in config.disabled]
    return Chain([*chosen, RoleEscalation(reader, authorize, rules)])
