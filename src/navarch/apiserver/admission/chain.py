"""The chain of admission plugins: which see a write, in which order, and what they are configured with.

In: a kind, an operation and a subresource.  Out: the plugins that want to see such a write. That is worked out once, so
that a write that no plugin wants to see costs one dictionary lookup. How they are run is `apiserver/admitting.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from functools import partial
from typing import Final

from navarch.api.meta import labels_of
from navarch.apiserver.admission.always_pull_images import AlwaysPullImages
from navarch.apiserver.admission.base import NOBODY, Interested, Plugin, Reader, Writer
from navarch.apiserver.admission.certificates import (
    CertificateApproval,
    CertificateSigning,
    CertificateSubjectRestriction,
)
from navarch.apiserver.admission.claim_resize import PersistentVolumeClaimResize
from navarch.apiserver.admission.configuration import PodSecurityConfig
from navarch.apiserver.admission.default_classes import DefaultIngressClass, DefaultStorageClass
from navarch.apiserver.admission.deny_external_ips import DenyServiceExternalIPs
from navarch.apiserver.admission.device_claims import DeviceAdminAccess, DeviceStatusAuthorization
from navarch.apiserver.admission.escalation import RoleEscalation, Rules
from navarch.apiserver.admission.extended_resource_toleration import ExtendedResourceToleration
from navarch.apiserver.admission.limit_ranger import LimitRanger
from navarch.apiserver.admission.namespace_lifecycle import NamespaceLifecycle
from navarch.apiserver.admission.node_restriction import NodeRestriction
from navarch.apiserver.admission.parameter_reading import ParameterReading
from navarch.apiserver.admission.pod_security import PodSecurity
from navarch.apiserver.admission.pod_topology_labels import LabelsOf, PodTopologyLabels
from navarch.apiserver.admission.pod_updates import NodeDeclaredFeatureValidator, PodResizeValidator
from navarch.apiserver.admission.policies import MutatingAdmissionPolicy, Policies, ValidatingAdmissionPolicy
from navarch.apiserver.admission.priority import Priority
from navarch.apiserver.admission.resource_quota import ResourceQuota
from navarch.apiserver.admission.runtime_class import RuntimeClass
from navarch.apiserver.admission.service_account import ServiceAccount
from navarch.apiserver.admission.storage_protection import StorageObjectInUseProtection
from navarch.apiserver.admission.taint_nodes import TaintNodesByCondition
from navarch.apiserver.admission.toleration_seconds import DefaultTolerationSeconds
from navarch.apiserver.admission.webhooks import (
    IneffectiveRules,
    MutatingAdmissionWebhook,
    ValidatingAdmissionWebhook,
    Webhooks,
)
from navarch.apiserver.auth.base import Decide
from navarch.kinds.base import Kind
from navarch.kinds.resources import NODES
from navarch.records import frozen
from navarch.world import World

_REMEMBERED: Final = 8192


@frozen
class AdmissionConfig:
    """`disabled` names plugins that shall not run, `enabled` such that do not run by default; `node_audiences`: whether
    it matters for whom a node asks for tokens."""

    disabled: frozenset[str] = frozenset()
    enabled: frozenset[str] = frozenset()
    pod_security: PodSecurityConfig = field(default_factory=PodSecurityConfig)
    node_audiences: bool = True


def _having(plugins: Iterable[Plugin], hook: str) -> tuple[Plugin, ...]:
    return tuple(plugin for plugin in plugins if getattr(type(plugin), hook) is not getattr(Plugin, hook))


class Chain:
    """The plugins in their order."""

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        self.plugins = tuple(plugins)
        # With the kind itself, so that nothing else can have its number.
        self._interested: dict[tuple[int, str, str], tuple[Kind, Interested]] = {}
        for plugin in self.plugins:
            plugin.follow(self._interested.clear)

    def forget_kinds(self) -> None:
        self._interested.clear()
        for plugin in self.plugins:
            plugin.forget_kinds()

    def interested(self, kind: Kind, operation: str, subresource: str) -> Interested:
        # By the kind itself, not its name: what is another kind now may have other plugins.
        key = (id(kind), operation, subresource)
        known = self._interested.get(key)
        if known is not None:
            return known[1]
        if len(self._interested) >= _REMEMBERED:
            self._interested.clear()
        plugins = [plugin for plugin in self.plugins if plugin.concerns(kind, operation, subresource)]
        mutate = tuple(plugin for plugin in _having(plugins, "mutate") if operation in plugin.mutated)
        found = Interested(
            mutate,
            _having(plugins, "validate"),
            _having(plugins, "committed"),
            _having(plugins, "rolled_back"),
            all(plugin.leaves_whole for plugin in mutate),
        )
        found = found if found != NOBODY else NOBODY
        self._interested[key] = (kind, found)
        return found


# What runs only where it is asked for.
_OPTIONAL: Final[Mapping[str, Callable[[], Plugin]]] = {
    plugin.name: plugin for plugin in (AlwaysPullImages, DenyServiceExternalIPs, ExtendedResourceToleration)
}


def default_chain(
    reader: Reader,
    writer: Writer,
    config: AdmissionConfig,
    world: World,
    *,
    authorize: Decide | None = None,
    rules: Rules | None = None,
    more: Callable[[], Iterable[Plugin]] = tuple,
    policies: Policies | None = None,
    webhooks: Webhooks | None = None,
    labels_of_node: LabelsOf | None = None,
) -> Chain:
    """Kubernetes' default plugins in Kubernetes' order. `authorize` decides what a signer's name is needed for, with
    `rules` (what a user holds) also who may give permissions away; `more` gives plugins that run before `policies`,
    `webhooks` and quota, which is last because it counts what the others have made of the object."""
    asked_for = [make() for name, make in _OPTIONAL.items() if name in config.enabled]
    plugins: list[Plugin] = [
        *asked_for,
        NamespaceLifecycle(reader),
        LimitRanger(reader),
        ServiceAccount(reader, world),
        NodeRestriction(reader, authorize, audiences=config.node_audiences),
        TaintNodesByCondition(),
        PodSecurity(reader, config.pod_security),
        Priority(reader),
        DefaultTolerationSeconds(),
        StorageObjectInUseProtection(),
        PersistentVolumeClaimResize(reader),
        RuntimeClass(reader),
        CertificateApproval(authorize),
        CertificateSigning(authorize),
        CertificateSubjectRestriction(),
        DefaultStorageClass(reader),
        DefaultIngressClass(reader),
        PodTopologyLabels(labels_of_node or partial(_labels_of_node, reader)),
        NodeDeclaredFeatureValidator(reader),
        PodResizeValidator(reader),
        *more(),
        *(() if policies is None else (MutatingAdmissionPolicy(policies), ValidatingAdmissionPolicy(policies))),
        *(() if policies is None else (policies.types,)),
        *(() if webhooks is None else (MutatingAdmissionWebhook(webhooks), ValidatingAdmissionWebhook(webhooks))),
        ResourceQuota(reader, writer),
    ]
    chosen = [plugin for plugin in plugins if plugin.name not in config.disabled]
    # Not among those that can be disabled: as in Kubernetes they belong to the roles and policies themselves.
    chosen += [RoleEscalation(reader, authorize, rules), DeviceAdminAccess(reader)]
    if authorize is not None and DeviceStatusAuthorization.name not in config.disabled:
        chosen.append(DeviceStatusAuthorization(authorize))
    if webhooks is not None and webhooks.spares_reviews:
        chosen.append(IneffectiveRules())
    if policies is not None and authorize is not None:
        chosen.append(ParameterReading(reader, authorize, policies.params))
    return Chain(chosen)


def _labels_of_node(reader: Reader, name: str) -> Mapping[str, str] | None:
    node = reader.get(NODES, "", name)
    return None if node is None else labels_of(node)
