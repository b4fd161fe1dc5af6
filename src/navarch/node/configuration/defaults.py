"""What a `KubeletConfiguration` says where its file says nothing: Kubernetes' defaults, and what a node of ours has
where there is no file at all. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from navarch.api.meta import Obj
from navarch.node.config import USUAL_THRESHOLDS
from navarch.node.configuration.shape import API_VERSION, KIND
from navarch.numbers import is_digits

EVICTION_HARD: Final = {
    "memory.available": "100Mi",
    "nodefs.available": "10%",
    "nodefs.inodesFree": "5%",
    "imagefs.available": "15%",
    "imagefs.inodesFree": "5%",
}

# Values that Go takes for none, and that are therefore as good as not said.
_DEFAULTS: Final[Obj] = {
    "enableServer": True,
    "syncFrequency": "1m0s",
    "fileCheckFrequency": "20s",
    "httpCheckFrequency": "20s",
    "address": "0.0.0.0",
    "port": 10250,
    "authentication": {
        "x509": {},
        "webhook": {"enabled": True, "cacheTTL": "2m0s"},
        "anonymous": {"enabled": False},
    },
    "authorization": {
        "mode": "Webhook",
        "webhook": {"cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s"},
    },
    "registryPullQPS": 5,
    "registryBurst": 10,
    "imagePullCredentialsVerificationPolicy": "NeverVerifyPreloadedImages",
    "eventRecordQPS": 50,
    "eventBurst": 100,
    "enableDebuggingHandlers": True,
    "healthzPort": 10248,
    "healthzBindAddress": "127.0.0.1",
    "oomScoreAdj": -999,
    "streamingConnectionIdleTimeout": "4h0m0s",
    "nodeStatusUpdateFrequency": "10s",
    "nodeLeaseDurationSeconds": 40,
    "imageMinimumGCAge": "2m0s",
    "imageMaximumGCAge": "0s",
    "imageGCHighThresholdPercent": 85,
    "imageGCLowThresholdPercent": 80,
    "volumeStatsAggPeriod": "1m0s",
    "cgroupsPerQOS": True,
    "cgroupDriver": "cgroupfs",
    "cpuManagerPolicy": "none",
    "cpuManagerReconcilePeriod": "10s",
    "memoryManagerPolicy": "None",
    "topologyManagerPolicy": "none",
    "topologyManagerScope": "container",
    "runtimeRequestTimeout": "2m0s",
    "hairpinMode": "promiscuous-bridge",
    "maxPods": 110,
    "resolvConf": "/etc/resolv.conf",
    "cpuCFSQuota": True,
    "cpuCFSQuotaPeriod": "100ms",
    "nodeStatusMaxImages": 50,
    "maxOpenFiles": 1000000,
    "contentType": "application/vnd.kubernetes.protobuf",
    "kubeAPIQPS": 50,
    "kubeAPIBurst": 100,
    "evictionPressureTransitionPeriod": "5m0s",
    "mergeDefaultEvictionSettings": False,
    "enableControllerAttachDetach": True,
    "makeIPTablesUtilChains": True,
    "iptablesMasqueradeBit": 14,
    "iptablesDropBit": 15,
    "failSwapOn": True,
    "memorySwap": {},
    "containerLogMaxSize": "10Mi",
    "containerLogMaxFiles": 5,
    "containerLogMaxWorkers": 1,
    "containerLogMonitorInterval": "10s",
    "configMapAndSecretChangeDetectionStrategy": "Watch",
    "enforceNodeAllocatable": ["pods"],
    "volumePluginDir": "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/",
    "enableSystemLogHandler": True,
    "shutdownGracePeriod": "0s",
    "shutdownGracePeriodCriticalPods": "0s",
    "enableProfilingHandler": True,
    "enableDebugFlagsHandler": True,
    "seccompDefault": False,
    "memoryThrottlingFactor": 0.9,
    "memoryReservationPolicy": "None",
    "registerNode": True,
    "localStorageCapacityIsolation": True,
    "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
    "failCgroupV1": False,
    "crashLoopBackOff": {},
    "podLogsDir": "/var/log/pods",
}
# Where Go has a value and no pointer, its zero is as good as nothing said.
_ZERO_IS_NONE: Final = frozenset(
    {
        "address", "port", "registryBurst", "eventBurst", "healthzBindAddress", "nodeLeaseDurationSeconds",
        "cgroupDriver", "cpuManagerPolicy", "memoryManagerPolicy", "topologyManagerPolicy", "topologyManagerScope",
        "hairpinMode", "maxPods", "maxOpenFiles", "contentType", "kubeAPIBurst", "containerLogMaxSize",
        "configMapAndSecretChangeDetectionStrategy", "volumePluginDir", "containerRuntimeEndpoint", "podLogsDir",
        "memoryReservationPolicy", "imagePullCredentialsVerificationPolicy", "mode", "clusterDomain",
    }
)  # fmt: skip
_ZEROES: Final = ("", 0, "0", "0s")

# What a node of ours is like where nobody configures it: pulls side by side, manifests that are seen at once.
UNCONFIGURED: Final[Obj] = {
    "apiVersion": API_VERSION,
    "kind": KIND,
    "fileCheckFrequency": "1s",
    "serializeImagePulls": False,
    "maxParallelImagePulls": 4,
    "registryPullQPS": 0,
    "failSwapOn": False,
    "evictionHard": USUAL_THRESHOLDS,
}


def completed(stated: Obj) -> Obj:
    """The configuration with all defaults."""
    result = _over(stated, _DEFAULTS)
    if not _said(stated, "nodeStatusReportFrequency"):
        # As long as nobody chooses how often the status is looked at.
        chosen = _said(stated, "nodeStatusUpdateFrequency")
        result["nodeStatusReportFrequency"] = stated["nodeStatusUpdateFrequency"] if chosen else "5m0s"
    limit = stated.get("podPidsLimit")
    result["podPidsLimit"] = -1 if limit is None or limit < 0 else limit
    if stated.get("serializeImagePulls") is None:
        result["serializeImagePulls"] = int(stated.get("maxParallelImagePulls") or 0) < 2
    hard = stated.get("evictionHard")
    if hard is None or result["mergeDefaultEvictionSettings"]:
        result["evictionHard"] = {**EVICTION_HARD, **(hard or {})}
    return {"apiVersion": API_VERSION, "kind": KIND, **dict(sorted(result.items()))}


def _said(stated: Obj, name: str) -> bool:
    return stated.get(name) is not None and stated[name] not in _ZEROES


def _over(stated: Mapping[str, Any], defaults: Mapping[str, Any]) -> Obj:
    result: Obj = {name: value for name, value in stated.items() if value is not None}
    for name, default in defaults.items():
        said = result.get(name)
        if isinstance(default, dict):
            result[name] = _over(said or {}, default)
        elif said is None or (name in _ZERO_IS_NONE and said in _ZEROES):
            result[name] = default
        elif isinstance(default, str) and default[-1:] == "s" and is_digits(default[:1]) and said in _ZEROES:
            # A duration.
            result[name] = default
    return result
