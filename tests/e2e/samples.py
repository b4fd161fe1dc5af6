"""A small valid object of every stored kind, with a status to write for those that have one."""

from __future__ import annotations

import base64
import datetime
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

Obj = dict[str, Any]

PODS: Obj = {"metadata": {"labels": {"app": "sample"}}, "spec": {"containers": [{"name": "c", "image": "busybox"}]}}
_SELECTOR: Obj = {"matchLabels": {"app": "sample"}}
_ONCE: Obj = {**PODS, "spec": {**PODS["spec"], "restartPolicy": "Never"}}
_WAITING: Obj = {**PODS["spec"], "schedulingGates": [{"name": "example.com/wait"}]}
_BACKEND: Obj = {"service": {"name": "web", "port": {"number": 80}}}
_RULES = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
_ROLE: Obj = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
_CLAIM: Obj = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "x"}
_LIMITED: Obj = {
    "type": "Limited",
    "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}},
}
_CONDITION: Obj = {
    "type": "Sample",
    "status": "True",
    "reason": "Tried",
    "message": "by a test",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}
_CONDITIONS: Obj = {"conditions": [_CONDITION]}
_SELECTOR_OF_DEVICES: Obj = {"cel": {"expression": 'device.driver == "gpu.example.com"'}}
_DEVICE_CLAIM: Obj = {"spec": {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpus"}}]}}}
_SLICE: Obj = {
    "driver": "gpu.example.com",
    "nodeName": "no-such",
    "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
    "devices": [{"name": "d0"}],
}
_WORN: Obj = {"deviceSelector": {"pool": "no"}, "taint": {"key": "example.com/worn", "effect": "NoSchedule"}}
# What nobody writes.
_NOTHINGS: Obj = {
    "apiGroups": ["example.com"],
    "apiVersions": ["v1"],
    "operations": ["CREATE"],
    "resources": ["nothings"],
}
_HOOK: Obj = {
    "name": "hook.example.com",
    "clientConfig": {"url": "https://127.0.0.1:9/"},
    "rules": [_NOTHINGS],
    "sideEffects": "None",
    "admissionReviewVersions": ["v1"],
}
_PATCH = '[JSONPatch{op: "add", path: "/metadata/labels", value: {"a": "b"}}]'
_MUTATING: Obj = {
    "matchConstraints": {"resourceRules": [_NOTHINGS]},
    "reinvocationPolicy": "Never",
    "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": _PATCH}}],
}
_VALIDATING: Obj = {
    "matchConstraints": {"resourceRules": [_NOTHINGS]},
    "validations": [{"expression": "object.metadata.name != ''"}],
}


@dataclass(frozen=True)
class Sample:
    """`obj` lacks only apiVersion, kind, name and labels; `names` are used in order where any name will not do."""

    group: str
    version: str
    plural: str
    kind: str
    obj: Obj = field(default_factory=dict)
    status: Obj | None = None
    namespaced: bool = True
    names: tuple[str, ...] = ("sample-a", "sample-b")
    in_default: bool = False

    @property
    def id(self) -> str:
        return f"{self.plural}.{self.version}.{self.group}".rstrip(".")

    def collection(self, namespace: str) -> str:
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return f"{root}/namespaces/{namespace}/{self.plural}" if self.namespaced else f"{root}/{self.plural}"

    def everywhere(self) -> str:
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return f"{root}/{self.plural}"

    def made(self, name: str, labels: dict[str, str]) -> Obj:
        api_version = f"{self.group}/{self.version}" if self.group else self.version
        metadata = {"name": name, "labels": labels}
        return {"apiVersion": api_version, "kind": self.kind, "metadata": metadata, **self.obj}


def _event(namespace: str = "default") -> Obj:
    return {"kind": "ConfigMap", "namespace": namespace, "name": "x", "apiVersion": "v1"}


def _certificate_request(encoding: Encoding = Encoding.PEM) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tester")])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return base64.b64encode(made.public_bytes(encoding)).decode()


def _certificate() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tester")])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36500))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode()


SAMPLES = (
    Sample("", "v1", "configmaps", "ConfigMap", {"data": {"a": "b"}}),
    Sample(
        "", "v1", "endpoints", "Endpoints", {"subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}]}
    ),
    Sample(
        "", "v1", "events", "Event", {"involvedObject": _event(), "reason": "Tried", "type": "Normal"}, in_default=True
    ),
    Sample("", "v1", "limitranges", "LimitRange", {"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}}]}}),
    Sample("", "v1", "namespaces", "Namespace", {}, {"phase": "Active", **_CONDITIONS}, namespaced=False),
    Sample("", "v1", "nodes", "Node", {}, {"conditions": [{"type": "Sample", "status": "True"}]}, namespaced=False),
    Sample("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", {"spec": _CLAIM}, {"phase": "Pending"}),
    Sample(
        "",
        "v1",
        "persistentvolumes",
        "PersistentVolume",
        {"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp"}}},
        {"phase": "Pending", "message": "by a test"},
        namespaced=False,
    ),
    Sample(
        "",
        "v1",
        "pods",
        "Pod",
        {"spec": _WAITING},
        {"phase": "Pending", "conditions": [{"type": "S", "status": "True"}]},
    ),
    Sample("", "v1", "podtemplates", "PodTemplate", {"template": PODS}),
    Sample(
        "",
        "v1",
        "replicationcontrollers",
        "ReplicationController",
        {"spec": {"replicas": 0, "selector": {"app": "sample"}, "template": PODS}},
        {"replicas": 0, **_CONDITIONS},
    ),
    Sample("", "v1", "resourcequotas", "ResourceQuota", {"spec": {"hard": {"pods": "50"}}}, {"hard": {"pods": "50"}}),
    Sample("", "v1", "secrets", "Secret", {"data": {"a": "YQ=="}}),
    Sample("", "v1", "serviceaccounts", "ServiceAccount", {}),
    Sample(
        "",
        "v1",
        "services",
        "Service",
        {"spec": {"type": "LoadBalancer", "selector": {"app": "sample"}, "ports": [{"port": 80}]}},
        {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}, **_CONDITIONS},
    ),
    Sample(
        "apps", "v1", "controllerrevisions", "ControllerRevision", {"revision": 1, "data": {"a": [1, None, {"b": 2.5}]}}
    ),
    Sample(
        "apps",
        "v1",
        "daemonsets",
        "DaemonSet",
        {"spec": {"selector": _SELECTOR, "template": {**PODS, "spec": {**PODS["spec"], "nodeSelector": {"no": "ne"}}}}},
        {
            "currentNumberScheduled": 0,
            "numberMisscheduled": 0,
            "desiredNumberScheduled": 0,
            "numberReady": 0,
            **_CONDITIONS,
        },
    ),
    Sample(
        "apps",
        "v1",
        "deployments",
        "Deployment",
        {"spec": {"replicas": 0, "selector": _SELECTOR, "template": PODS}},
        _CONDITIONS,
    ),
    Sample(
        "apps",
        "v1",
        "replicasets",
        "ReplicaSet",
        {"spec": {"replicas": 0, "selector": _SELECTOR, "template": PODS}},
        {"replicas": 0, **_CONDITIONS},
    ),
    Sample(
        "apps",
        "v1",
        "statefulsets",
        "StatefulSet",
        {"spec": {"replicas": 0, "serviceName": "x", "selector": _SELECTOR, "template": PODS}},
        {"replicas": 0, **_CONDITIONS},
    ),
    Sample(
        "events.k8s.io",
        "v1",
        "events",
        "Event",
        {
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "reportingController": "example.com/tester",
            "reportingInstance": "tester-1",
            "action": "Try",
            "reason": "Tried",
            "type": "Normal",
            "regarding": _event(),
        },
        in_default=True,
    ),
    Sample(
        "autoscaling",
        "v2",
        "horizontalpodautoscalers",
        "HorizontalPodAutoscaler",
        {"spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}}},
        {"currentReplicas": 1, "desiredReplicas": 2, **_CONDITIONS},
    ),
    Sample(
        "autoscaling",
        "v1",
        "horizontalpodautoscalers",
        "HorizontalPodAutoscaler",
        {"spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}}},
        {"currentReplicas": 1, "desiredReplicas": 2},
    ),
    Sample(
        "batch",
        "v1",
        "cronjobs",
        "CronJob",
        {"spec": {"schedule": "0 0 1 1 *", "suspend": True, "jobTemplate": {"spec": {"template": _ONCE}}}},
        {"lastScheduleTime": "2026-01-01T00:00:00Z"},
    ),
    Sample("batch", "v1", "jobs", "Job", {"spec": {"suspend": True, "template": _ONCE}}, _CONDITIONS),
    Sample(
        "networking.k8s.io",
        "v1",
        "ingresses",
        "Ingress",
        {"spec": {"defaultBackend": _BACKEND}},
        {"loadBalancer": {"ingress": [{"ip": "169.1.1.1"}]}},
    ),
    Sample(
        "certificates.k8s.io",
        "v1",
        "certificatesigningrequests",
        "CertificateSigningRequest",
        {
            "spec": {
                "request": _certificate_request(),
                "signerName": "example.com/signer",
                "usages": ["digital signature", "client auth"],
            }
        },
        _CONDITIONS,
        namespaced=False,
    ),
    Sample(
        "certificates.k8s.io",
        "v1",
        "podcertificaterequests",
        "PodCertificateRequest",
        {
            "spec": {
                "signerName": "example.com/signer",
                "podName": "x",
                "podUID": "00000000-0000-0000-0000-000000000001",
                "serviceAccountName": "x",
                "serviceAccountUID": "00000000-0000-0000-0000-000000000002",
                "nodeName": "x",
                "nodeUID": "00000000-0000-0000-0000-000000000003",
                "stubPKCS10Request": _certificate_request(Encoding.DER),
            }
        },
        {"conditions": [{**_CONDITION, "type": "Denied"}]},
    ),
    Sample(
        "certificates.k8s.io",
        "v1",
        "clustertrustbundles",
        "ClusterTrustBundle",
        {"spec": {"trustBundle": _certificate()}},
        namespaced=False,
    ),
    Sample(
        "networking.k8s.io", "v1", "ingressclasses", "IngressClass", {"spec": {"controller": "a.b/c"}}, namespaced=False
    ),
    Sample("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", {"spec": {"podSelector": {}}}),
    Sample(
        "networking.k8s.io",
        "v1",
        "ipaddresses",
        "IPAddress",
        {"spec": {"parentRef": {"group": "", "resource": "services", "namespace": "default", "name": "no-such"}}},
        namespaced=False,
        names=("192.0.2.7", "192.0.2.8"),
    ),
    Sample(
        "networking.k8s.io",
        "v1",
        "servicecidrs",
        "ServiceCIDR",
        {"spec": {"cidrs": ["10.199.0.0/24"]}},
        _CONDITIONS,
        namespaced=False,
    ),
    Sample(
        "policy",
        "v1",
        "poddisruptionbudgets",
        "PodDisruptionBudget",
        {"spec": {"minAvailable": 1, "selector": _SELECTOR}},
        {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 1, "expectedPods": 0, **_CONDITIONS},
    ),
    Sample("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", {"rules": _RULES}, namespaced=False),
    Sample(
        "rbac.authorization.k8s.io",
        "v1",
        "clusterrolebindings",
        "ClusterRoleBinding",
        {"roleRef": _ROLE},
        namespaced=False,
    ),
    Sample("rbac.authorization.k8s.io", "v1", "roles", "Role", {"rules": _RULES}),
    Sample("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", {"roleRef": _ROLE}),
    Sample("storage.k8s.io", "v1", "csidrivers", "CSIDriver", {"spec": {"attachRequired": False}}, namespaced=False),
    Sample("storage.k8s.io", "v1", "csinodes", "CSINode", {"spec": {"drivers": []}}, namespaced=False),
    Sample(
        "storage.k8s.io",
        "v1",
        "csistoragecapacities",
        "CSIStorageCapacity",
        {"storageClassName": "x", "capacity": "1Gi"},
    ),
    Sample(
        "storage.k8s.io", "v1", "storageclasses", "StorageClass", {"provisioner": "example.com/x"}, namespaced=False
    ),
    Sample(
        "storage.k8s.io",
        "v1",
        "volumeattachments",
        "VolumeAttachment",
        {"spec": {"attacher": "example.com", "nodeName": "x", "source": {"persistentVolumeName": "x"}}},
        {"attached": True},
        namespaced=False,
    ),
    Sample(
        "storage.k8s.io",
        "v1",
        "volumeattributesclasses",
        "VolumeAttributesClass",
        {"driverName": "example.com", "parameters": {"iops": "1"}},
        namespaced=False,
    ),
    Sample("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", {"value": 7}, namespaced=False),
    Sample(
        "coordination.k8s.io", "v1", "leases", "Lease", {"spec": {"holderIdentity": "x", "leaseDurationSeconds": 3}}
    ),
    Sample("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", {"handler": "runc"}, namespaced=False),
    Sample(
        "discovery.k8s.io",
        "v1",
        "endpointslices",
        "EndpointSlice",
        {"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}], "ports": [{"port": 80}]},
    ),
    Sample(
        "flowcontrol.apiserver.k8s.io",
        "v1",
        "flowschemas",
        "FlowSchema",
        {"spec": {"matchingPrecedence": 10000, "priorityLevelConfiguration": {"name": "global-default"}}},
        _CONDITIONS,
        namespaced=False,
    ),
    Sample(
        "flowcontrol.apiserver.k8s.io",
        "v1",
        "prioritylevelconfigurations",
        "PriorityLevelConfiguration",
        {"spec": _LIMITED},
        _CONDITIONS,
        namespaced=False,
    ),
    *(
        Sample("resource.k8s.io", "v1", plural, kind, obj, namespaced=namespaced)
        for plural, kind, obj, namespaced in (
            ("deviceclasses", "DeviceClass", {"spec": {"selectors": [_SELECTOR_OF_DEVICES]}}, False),
            ("resourceclaims", "ResourceClaim", _DEVICE_CLAIM, True),
            ("resourceclaimtemplates", "ResourceClaimTemplate", {"spec": _DEVICE_CLAIM}, True),
            ("resourceslices", "ResourceSlice", {"spec": _SLICE}, False),
            (
                "devicetaintrules",
                "DeviceTaintRule",
                {"spec": _WORN},
                False,
            ),
        )
    ),
    Sample(
        "storagemigration.k8s.io",
        "v1",
        "storageversionmigrations",
        "StorageVersionMigration",
        {"spec": {"resource": {"group": "example.com", "resource": "nothings"}}},
        namespaced=False,
    ),
    *(
        Sample("admissionregistration.k8s.io", "v1", plural, kind, obj, namespaced=False)
        for plural, kind, obj in (
            ("mutatingwebhookconfigurations", "MutatingWebhookConfiguration", {"webhooks": [_HOOK]}),
            ("validatingwebhookconfigurations", "ValidatingWebhookConfiguration", {"webhooks": [_HOOK]}),
            ("mutatingadmissionpolicies", "MutatingAdmissionPolicy", {"spec": _MUTATING}),
            ("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding", {"spec": {"policyName": "no"}}),
            ("validatingadmissionpolicies", "ValidatingAdmissionPolicy", {"spec": _VALIDATING}),
            (
                "validatingadmissionpolicybindings",
                "ValidatingAdmissionPolicyBinding",
                {"spec": {"policyName": "no", "validationActions": ["Deny"]}},
            ),
        )
    ),
)

# Their names are made of what they define: other tests try them.
NAMED_BY_CONTENT = {
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions"): "test_custom_resources.py",
    ("apiregistration.k8s.io", "v1", "apiservices"): "test_extensions.py",
}
