"""What fields a `KubeSchedulerConfiguration` and its plugins' arguments have, of which types, and what has no effect.

Every field of Kubernetes' is known. Those in `WITHOUT_EFFECT` change nothing here, for the reason said beside them; a
file that sets one gets a warning. All others act.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from navarch.api.config_files import TEXTS, ListOf, Shape, Struct

API_VERSION: Final = "kubescheduler.config.k8s.io/v1"
KIND: Final = "KubeSchedulerConfiguration"

# In the order in which Kubernetes looks at them, which decides what of several mistakes is said first.
POINTS: Final = (
    "preFilter", "filter", "postFilter", "reserve", "preScore", "score", "preBind", "bind", "postBind", "permit",
    "preEnqueue", "queueSort",
)  # fmt: skip

_PLUGIN_SET: Final = Struct(
    {
        "enabled": ListOf(Struct({"name": str, "weight": int})),
        "disabled": ListOf(Struct({"name": str, "weight": int})),
    }
)
_PROFILE: Final = Struct(
    {
        "schedulerName": str,
        "percentageOfNodesToScore": int,
        "plugins": Struct(dict.fromkeys(("multiPoint", *POINTS), _PLUGIN_SET)),
        "pluginConfig": ListOf(Struct({"name": str, "args": dict})),
    }
)
_EXTENDER: Final = Struct(
    {
        **dict.fromkeys(("urlPrefix", "filterVerb", "preemptVerb", "prioritizeVerb", "bindVerb", "httpTimeout"), str),
        **dict.fromkeys(("enableHTTPS", "nodeCacheCapable", "ignorable"), bool),
        "weight": int,
        "tlsConfig": Struct(
            {
                "insecure": bool,
                **dict.fromkeys(("serverName", "certFile", "keyFile", "caFile", "certData", "keyData", "caData"), str),
            }
        ),
        "managedResources": ListOf(Struct({"name": str, "ignoredByScheduler": bool})),
    }
)
FIELDS: Final[Mapping[str, Shape]] = {
    **dict.fromkeys(
        ("parallelism", "percentageOfNodesToScore", "podInitialBackoffSeconds", "podMaxBackoffSeconds"), int
    ),
    **dict.fromkeys(("enableProfiling", "enableContentionProfiling", "delayCacheUntilActive"), bool),
    "leaderElection": Struct(
        {
            "leaderElect": bool,
            **dict.fromkeys(("leaseDuration", "renewDeadline", "retryPeriod"), str),
            **dict.fromkeys(("resourceLock", "resourceName", "resourceNamespace"), str),
        }
    ),
    "clientConnection": Struct(
        {**dict.fromkeys(("kubeconfig", "acceptContentTypes", "contentType"), str), "qps": object, "burst": int}
    ),
    "profiles": ListOf(_PROFILE),
    "extenders": ListOf(_EXTENDER),
}

_REQUIREMENT: Final = Struct({"key": str, "operator": str, "values": TEXTS})
_TERM: Final = Struct({"matchExpressions": ListOf(_REQUIREMENT), "matchFields": ListOf(_REQUIREMENT)})
_RESOURCES: Final = ListOf(Struct({"name": str, "weight": int}))
_SHAPE_POINTS: Final = ListOf(Struct({"utilization": int, "score": int}))
ARGUMENTS: Final[Mapping[str, Mapping[str, Shape]]] = {
    "DefaultPreemption": {"minCandidateNodesPercentage": int, "minCandidateNodesAbsolute": int},
    "DynamicResources": {"filterTimeout": str, "bindingTimeout": str},
    "InterPodAffinity": {"hardPodAffinityWeight": int, "ignorePreferredTermsOfExistingPods": bool},
    "NodeAffinity": {
        "addedAffinity": Struct(
            {
                "requiredDuringSchedulingIgnoredDuringExecution": Struct({"nodeSelectorTerms": ListOf(_TERM)}),
                "preferredDuringSchedulingIgnoredDuringExecution": ListOf(Struct({"weight": int, "preference": _TERM})),
            }
        )
    },
    "NodeResourcesBalancedAllocation": {"resources": _RESOURCES},
    "NodeResourcesFit": {
        "ignoredResources": TEXTS,
        "ignoredResourceGroups": TEXTS,
        "scoringStrategy": Struct(
            {
                "type": str,
                "resources": _RESOURCES,
                "requestedToCapacityRatio": Struct({"shape": _SHAPE_POINTS}),
            }
        ),
    },
    "PodTopologySpread": {
        "defaultingType": str,
        "defaultConstraints": ListOf(
            Struct(
                {
                    **dict.fromkeys(("topologyKey", "whenUnsatisfiable"), str),
                    **dict.fromkeys(("nodeAffinityPolicy", "nodeTaintsPolicy"), str),
                    **dict.fromkeys(("maxSkew", "minDomains"), int),
                    "labelSelector": dict,
                    "matchLabelKeys": TEXTS,
                }
            )
        ),
    },
    "VolumeBinding": {"bindTimeoutSeconds": int, "shape": _SHAPE_POINTS},
}

_PROCESS: Final = "the scheduler's process is navarch's"
_ELECTED: Final = "one set of controllers and scheduler acts per cluster"
WITHOUT_EFFECT: Final[Mapping[str, str]] = {
    "clientConnection": "the scheduler's access to the API server is navarch's",
    "delayCacheUntilActive": _ELECTED,
    "enableContentionProfiling": _PROCESS,
    "enableProfiling": _PROCESS,
    "leaderElection": _ELECTED,
    "parallelism": "all nodes are looked at in one go",
}
