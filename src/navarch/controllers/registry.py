"""The table of controllers: everything that a controller manager runs, in the order in which it starts them."""

from __future__ import annotations

from collections.abc import Callable

from navarch.controllers.base import Context, Runnable
from navarch.controllers.bootstrap_signer import BootstrapSigner
from navarch.controllers.bootstrap_tokens import TokenCleaner
from navarch.controllers.certificates import CertificateController
from navarch.controllers.clusterrole_aggregation import ClusterRoleAggregationController
from navarch.controllers.daemonset import DaemonSetController
from navarch.controllers.deployment import DeploymentController
from navarch.controllers.device_taints import DeviceTaintEvictionController
from navarch.controllers.disruption import DisruptionController
from navarch.controllers.endpoints import (
    EndpointsController,
    EndpointSliceController,
    EndpointSliceMirroringController,
)
from navarch.controllers.garbage import GarbageCollector
from navarch.controllers.ingress_status import IngressStatusController
from navarch.controllers.job import (
    CronJobController,
    JobController,
    JobOrphanController,
    TTLAfterFinishedController,
)
from navarch.controllers.legacy_tokens import LegacyTokenCleaner
from navarch.controllers.load_balancer import LoadBalancerController
from navarch.controllers.namespace import NamespaceController
from navarch.controllers.nodes import NodeIPAMController, NodeLifecycleController, TaintEvictionController
from navarch.controllers.pod_certificates import PodCertificateRequestCleaner
from navarch.controllers.podautoscaler import HorizontalPodAutoscalerController
from navarch.controllers.podgc import PodGarbageCollector
from navarch.controllers.pool_status import PoolStatusController
from navarch.controllers.quota import ResourceQuotaController
from navarch.controllers.replicaset import ReplicaSetController, ReplicationControllerController
from navarch.controllers.resource_claims import PodResourceClaimController, ResourceClaimController
from navarch.controllers.service_cidr import ServiceCIDRController
from navarch.controllers.serviceaccount import RootCAPublisher, ServiceAccountController, TokenController
from navarch.controllers.stale_disruptions import StaleDisruptionController
from navarch.controllers.statefulset import StatefulSetController
from navarch.controllers.storage_migration import StorageMigrationController
from navarch.controllers.volumes import (
    AttachDetachController,
    AttributesClassProtectionController,
    ClaimProtectionController,
    EphemeralVolumeController,
    LocalPathProvisioner,
    VolumeBinder,
    VolumeExpandController,
    VolumeProtectionController,
)

CONTROLLERS: tuple[Callable[[Context], Runnable], ...] = (
    ServiceAccountController,
    RootCAPublisher,
    TokenController,
    NamespaceController,
    DeploymentController,
    ReplicaSetController,
    ReplicationControllerController,
    EndpointSliceController,
    EndpointsController,
    EndpointSliceMirroringController,
    ServiceCIDRController,
    LoadBalancerController,
    IngressStatusController,
    DaemonSetController,
    StatefulSetController,
    JobController,
    JobOrphanController,
    CronJobController,
    TTLAfterFinishedController,
    NodeIPAMController,
    NodeLifecycleController,
    TaintEvictionController,
    PodGarbageCollector,
    DisruptionController,
    StaleDisruptionController,
    HorizontalPodAutoscalerController,
    ResourceQuotaController,
    ClaimProtectionController,
    VolumeProtectionController,
    AttributesClassProtectionController,
    VolumeBinder,
    AttachDetachController,
    VolumeExpandController,
    LocalPathProvisioner,
    EphemeralVolumeController,
    PodResourceClaimController,
    ResourceClaimController,
    DeviceTaintEvictionController,
    PoolStatusController,
    StorageMigrationController,
    ClusterRoleAggregationController,
    CertificateController,
    PodCertificateRequestCleaner,
    TokenCleaner,
    LegacyTokenCleaner,
    BootstrapSigner,
    GarbageCollector,
)
