"""What fields a `KubeletConfiguration` has, of which types, and what becomes of each here.

Every field of Kubernetes' is known. Those in `WITHOUT_EFFECT` change nothing on a node of ours, for the reason that is
said beside them; a file that sets one gets a warning. All others act.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from navarch.api.config_files import TEXTS, ListOf, Shape, Struct

API_VERSION: Final = "kubelet.config.k8s.io/v1beta1"
KIND: Final = "KubeletConfiguration"

DURATIONS: Final = frozenset(
    {
        "syncFrequency", "fileCheckFrequency", "httpCheckFrequency", "streamingConnectionIdleTimeout",
        "nodeStatusUpdateFrequency", "nodeStatusReportFrequency", "imageMinimumGCAge", "imageMaximumGCAge",
        "volumeStatsAggPeriod", "cpuManagerReconcilePeriod", "runtimeRequestTimeout", "cpuCFSQuotaPeriod",
        "evictionPressureTransitionPeriod", "shutdownGracePeriod", "shutdownGracePeriodCriticalPods",
        "containerLogMonitorInterval", "podHousekeepingPeriod", "draManagerReconcilePeriod",
        "authentication.webhook.cacheTTL", "authorization.webhook.cacheAuthorizedTTL",
        "authorization.webhook.cacheUnauthorizedTTL", "crashLoopBackOff.maxContainerRestartPeriod",
    }
)  # fmt: skip
"""The paths of durations."""

_TEXTS: Final = (
    "staticPodPath", "podLogsDir", "staticPodURL", "address", "tlsCertFile", "tlsPrivateKeyFile", "tlsMinVersion",
    "imagePullCredentialsVerificationPolicy", "healthzBindAddress", "clusterDomain", "kubeletCgroups", "systemCgroups",
    "cgroupRoot", "cgroupDriver", "cpuManagerPolicy", "memoryManagerPolicy", "topologyManagerPolicy",
    "topologyManagerScope", "hairpinMode", "podCIDR", "resolvConf", "contentType", "containerLogMaxSize",
    "configMapAndSecretChangeDetectionStrategy", "reservedSystemCPUs", "showHiddenMetricsForVersion",
    "systemReservedCgroup", "kubeReservedCgroup", "volumePluginDir", "providerID", "containerRuntimeEndpoint",
    "imageServiceEndpoint", "memoryReservationPolicy",
)  # fmt: skip
_NUMBERS: Final = (
    "port", "readOnlyPort", "registryPullQPS", "registryBurst", "eventRecordQPS", "eventBurst", "healthzPort",
    "oomScoreAdj", "nodeLeaseDurationSeconds", "imageGCHighThresholdPercent", "imageGCLowThresholdPercent", "maxPods",
    "podPidsLimit", "nodeStatusMaxImages", "maxOpenFiles", "kubeAPIQPS", "kubeAPIBurst", "maxParallelImagePulls",
    "evictionMaxPodGracePeriod", "podsPerCore", "iptablesMasqueradeBit", "iptablesDropBit", "containerLogMaxFiles",
    "containerLogMaxWorkers",
)  # fmt: skip
_BOOLEANS: Final = (
    "enableServer", "rotateCertificates", "serverTLSBootstrap", "enableDebuggingHandlers", "enableContentionProfiling",
    "cgroupsPerQOS", "singleProcessOOMKill", "runOnce", "cpuCFSQuota", "serializeImagePulls",
    "mergeDefaultEvictionSettings", "enableControllerAttachDetach", "protectKernelDefaults", "makeIPTablesUtilChains",
    "failSwapOn", "kernelMemcgNotification", "enableSystemLogHandler", "enableSystemLogQuery",
    "enableProfilingHandler", "enableDebugFlagsHandler", "seccompDefault", "registerNode",
    "localStorageCapacityIsolation", "failCgroupV1",
)  # fmt: skip
MAPS: Final[Mapping[str, Any]] = {
    "staticPodURLHeader": list,
    "cpuManagerPolicyOptions": str,
    "topologyManagerPolicyOptions": str,
    "qosReserved": str,
    "evictionHard": str,
    "evictionSoft": str,
    "evictionSoftGracePeriod": str,
    "evictionMinimumReclaim": str,
    "featureGates": bool,
    "systemReserved": str,
    "kubeReserved": str,
}
"""Maps by name, with the type of their values."""

FIELDS: Final[Mapping[str, Shape]] = {
    **dict.fromkeys(_TEXTS, str),
    **dict.fromkeys(_NUMBERS, int),
    **dict.fromkeys(_BOOLEANS, bool),
    **{name: str for name in DURATIONS if "." not in name},
    **dict.fromkeys(MAPS, dict),
    "memoryThrottlingFactor": object,
    "tlsCipherSuites": TEXTS,
    "tlsCurvePreferences": ListOf(object),
    "clusterDNS": TEXTS,
    "enforceNodeAllocatable": TEXTS,
    "allowedUnsafeSysctls": TEXTS,
    "preloadedImagesVerificationAllowlist": TEXTS,
    "authentication": Struct(
        {
            "x509": Struct({"clientCAFile": str}),
            "webhook": Struct({"enabled": bool, "cacheTTL": str}),
            "anonymous": Struct({"enabled": bool}),
        }
    ),
    "authorization": Struct({"mode": str, "webhook": Struct({"cacheAuthorizedTTL": str, "cacheUnauthorizedTTL": str})}),
    "memorySwap": Struct({"swapBehavior": str}),
    "logging": object,
    "tracing": Struct({"endpoint": str, "samplingRatePerMillion": int}),
    "shutdownGracePeriodByPodPriority": ListOf(Struct({"priority": int, "shutdownGracePeriodSeconds": int})),
    "reservedMemory": ListOf(Struct({"numaNode": int, "limits": dict})),
    "registerWithTaints": ListOf(Struct({"key": str, "value": str, "effect": str, "timeAdded": str})),
    "userNamespaces": Struct({"idsPerPod": int}),
    "crashLoopBackOff": Struct({"maxContainerRestartPeriod": str}),
}

_NETWORK: Final = "the node's network is navarch's"
_LOADED: Final = "the kubelet's process is navarch's"
WITHOUT_EFFECT: Final[Mapping[str, str]] = {
    "configMapAndSecretChangeDetectionStrategy": "the kubelet always watches what its pods refer to",
    "contentType": "the kubelet speaks JSON",
    "cgroupDriver": "containers' cgroups are made directly (cgroupfs), below the node's own",
    "cgroupRoot": "every kubelet has a cgroup of its own, named by cluster and node",
    "containerRuntimeEndpoint": "every node has a containerd of its own",
    "imageServiceEndpoint": "every node has a containerd of its own",
    "enableContentionProfiling": _LOADED,
    "enableProfilingHandler": _LOADED,
    "enableDebugFlagsHandler": _LOADED,
    "eventBurst": "events are limited object by object",
    "eventRecordQPS": "events are limited object by object",
    "hairpinMode": _NETWORK,
    "iptablesDropBit": _NETWORK,
    "iptablesMasqueradeBit": _NETWORK,
    "makeIPTablesUtilChains": _NETWORK,
    "podCIDR": _NETWORK,
    "kernelMemcgNotification": "memory is looked at every second instead",
    "kubeAPIBurst": "the kubelet asks the API server no more than it needs",
    "kubeAPIQPS": "the kubelet asks the API server no more than it needs",
    "kubeletCgroups": _LOADED,
    "systemCgroups": _LOADED,
    "maxOpenFiles": _LOADED,
    "oomScoreAdj": _LOADED,
    "logging": "logs are navarch's",
    "tracing": "the kubelet writes no traces",
    "podLogsDir": "logs are below the node's own folder",
    "showHiddenMetricsForVersion": "no metric is hidden",
    "volumePluginDir": "FlexVolume plugins are not run",
    "enableControllerAttachDetach": "volumes are attached by the controller always",
    "rotateCertificates": "client certificates are always rotated",
    "streamingConnectionIdleTimeout": "containerd ends idle streams after four hours",
    "podHousekeepingPeriod": "a pod's worker looks after it",
    "draManagerReconcilePeriod": "device claims are looked after as they change",
    "runtimeRequestTimeout": "each call to containerd has a limit of its own",
    "cpuManagerReconcilePeriod": "containers are moved when what is shared changes",
    "serverTLSBootstrap": "serving certificates are always requested and rotated",
    "qosReserved": "an alpha feature of Kubernetes that is off",
}
