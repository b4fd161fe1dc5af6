"""The other core kinds: what each adds of its own, what it refuses, what its columns show."""

from __future__ import annotations

import base64
import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from navarch.api.meta import get_path
from navarch.api.metadata_validation import validate_object_meta
from navarch.kinds.base import Strategy
from navarch.kinds.registry import builtin

Obj = dict[str, Any]
NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
KINDS = builtin()


def strategy(kind: str) -> Strategy:
    found = KINDS.by_kind("", "v1", kind)
    assert found is not None
    return found.strategy


def made(kind: str, obj: Obj) -> Obj:
    """The object as a create would store it."""
    obj.setdefault("metadata", {"name": "x", "namespace": "default"})
    obj["metadata"].setdefault("creationTimestamp", "2026-01-01T11:00:00Z")
    strategy(kind).defaults(obj)
    strategy(kind).prepare_create(obj)
    return obj


def errors(kind: str, obj: Obj, old: Obj | None = None) -> list[str]:
    return [str(error) for error in strategy(kind).validate(obj, old)]


def row(kind: str, obj: Obj) -> dict[str, Any]:
    cells = {}
    for column in strategy(kind).columns:
        if callable(column.value):
            cells[column.name] = column.value(obj, NOW)
        else:
            cells[column.name] = get_path(obj, column.value.lstrip("."), "<none>" if column.none else "")
    return cells


@pytest.mark.parametrize(
    ("kind", "names", "wide"),
    [
        ("Pod", "Name Ready Status Restarts Age", "IP Node Nominated-Node Readiness-Gates"),
        ("Service", "Name Type Cluster-IP External-IP Port(s) Age", "Selector"),
        ("Node", "Name Status Roles Age Version", "Internal-IP External-IP OS-Image Kernel-Version Container-Runtime"),
        ("Namespace", "Name Status Age", ""),
        ("ConfigMap", "Name Data Age", ""),
        ("Secret", "Name Type Data Age", ""),
        ("ServiceAccount", "Name Age", ""),
        ("Endpoints", "Name Endpoints Age", ""),
        ("LimitRange", "Name Created-At", ""),
        ("ResourceQuota", "Name Request Limit Age", ""),
        ("Event", "Last-Seen Type Reason Object Message", "Subobject Source First-Seen Count Name"),
        ("ReplicationController", "Name Desired Current Ready Age", "Containers Images Selector"),
        (
            "PersistentVolumeClaim",
            "Name Status Volume Capacity Access-Modes StorageClass VolumeAttributesClass Age",
            "VolumeMode",
        ),
    ],
)
def test_kubectl_get_shows_the_columns_that_people_know(kind: str, names: str, wide: str) -> None:
    columns = strategy(kind).columns
    assert " ".join(c.name.replace(" ", "-") for c in columns if not c.wide) == names
    assert " ".join(c.name.replace(" ", "-") for c in columns if c.wide) == wide


def test_a_namespace_is_born_active_labelled_and_held() -> None:
    namespace = made("Namespace", {"metadata": {"name": "shop"}})
    assert namespace["metadata"]["labels"] == {"kubernetes.io/metadata.name": "shop"}
    assert namespace["spec"]["finalizers"] == ["kubernetes"]
    assert namespace["status"] == {"phase": "Active"}
    assert strategy("Namespace").holds_deletion(namespace)


def test_an_update_of_a_namespace_leaves_its_finalizers() -> None:
    old = made("Namespace", {"metadata": {"name": "shop"}})
    new = copy.deepcopy(old)
    new["spec"]["finalizers"] = []
    strategy("Namespace").prepare_update(new, old)
    assert new["spec"]["finalizers"] == ["kubernetes"]


class TestConfigMapsAndSecrets:
    def test_an_immutable_config_map_keeps_its_data(self) -> None:
        old: Obj = {"metadata": {"name": "x"}, "data": {"a": "1"}, "immutable": True}
        assert errors("ConfigMap", {**old, "data": {"a": "2"}}, old) == [
            "data: Forbidden: field is immutable when `immutable` is set"
        ]
        assert errors("ConfigMap", {**old, "immutable": False}, old) == [
            "immutable: Forbidden: field is immutable when `immutable` is set"
        ]

    def test_a_config_map_has_a_limit(self) -> None:
        assert errors("ConfigMap", {"data": {"a": "x" * (1024 * 1024 + 1)}}) == [
            "[]: Too long: may not be more than 1048576 bytes"
        ]
        assert errors("ConfigMap", {"data": {"a": "x" * (1024 * 1024)}}) == []

    def test_keys_are_file_names(self) -> None:
        (found,) = errors("ConfigMap", {"data": {"a/b": ""}})
        assert found.startswith('data[a/b]: Invalid value: "a/b": a valid config key must consist of')

    def test_string_data_becomes_data(self) -> None:
        secret = made("Secret", {"data": {"a": "b2xk"}, "stringData": {"a": "new", "b": "x"}})
        assert secret["data"] == {"a": base64.b64encode(b"new").decode(), "b": "eA=="}
        assert "stringData" not in secret
        assert secret["type"] == "Opaque"

    def test_a_tls_secret_needs_both_keys(self) -> None:
        secret = {"metadata": {"name": "x"}, "type": "kubernetes.io/tls", "data": {"tls.crt": "eA=="}}
        assert errors("Secret", secret) == ["data[tls.key]: Required value"]

    def test_a_docker_config_must_be_json_and_is_not_shown(self) -> None:
        data = {".dockerconfigjson": base64.b64encode(b"hunter2").decode()}
        (found,) = errors("Secret", {"type": "kubernetes.io/dockerconfigjson", "data": data})
        assert "hunter2" not in found
        assert "<secret contents redacted>" in found

    def test_the_type_never_changes(self) -> None:
        old: Obj = {"metadata": {"name": "x"}, "type": "Opaque"}
        assert errors("Secret", {**old, "type": "other"}, old) == ['type: Invalid value: "other": field is immutable']


@pytest.mark.parametrize(("name", "allowed"), [("1-web", True), ("9", True), ("web.a", False), ("Web", False)])
def test_a_services_name_is_a_label_that_may_begin_with_a_digit(name: str, allowed: bool) -> None:
    named = {"metadata": {"name": name, "namespace": "default"}}
    found = list(validate_object_meta(named, namespaced=True, name_rule=strategy("Service").name_rule))
    assert (not found) is allowed
    said = "must not contain dots" if "." in name else "a lowercase RFC 1123 label must consist of"
    assert all(said in str(error) for error in found)


def service(**spec: Any) -> Obj:
    spec.setdefault("ports", [{"port": 80}])
    return {"metadata": {"name": "web", "namespace": "default"}, "spec": spec}


class TestService:
    def test_defaults(self) -> None:
        spec = made("Service", service())["spec"]
        assert spec["type"] == "ClusterIP"
        assert spec["sessionAffinity"] == "None"
        assert spec["internalTrafficPolicy"] == "Cluster"
        assert spec["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]

    def test_client_affinity_lasts_three_hours(self) -> None:
        spec = made("Service", service(sessionAffinity="ClientIP"))["spec"]
        assert spec["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}

    @pytest.mark.parametrize(
        ("spec", "expected"),
        [
            ({"ports": []}, "spec.ports: Required value"),
            (
                {"ports": [{"port": 80}, {"port": 81, "name": "b"}]},
                "spec.ports[0].name: Required value",
            ),
            ({"type": "ExternalName"}, "spec.externalName: Required value"),
            (
                {"ports": [{"port": 80, "nodePort": 30000}]},
                "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
            ),
            (
                {"type": "Magic"},
                'spec.type: Unsupported value: "Magic": supported values: '
                '"ClusterIP", "ExternalName", "LoadBalancer", "NodePort"',
            ),
            (
                {"type": "NodePort", "clusterIP": "None"},
                "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
            ),
            (
                {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 90000}}},
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 90000: "
                "must be greater than 0 and less than 86400",
            ),
        ],
    )
    def test_refusals(self, spec: Obj, expected: str) -> None:
        assert expected in errors("Service", made("Service", service(**spec)))

    def test_a_headless_service_needs_no_ports(self) -> None:
        assert errors("Service", made("Service", service(clusterIP="None", ports=[]))) == []

    def allocated(self) -> Obj:
        return made(
            "Service",
            service(
                type="NodePort", clusterIP="10.43.0.7", ports=[{"port": 80, "nodePort": 30123}], ipFamilies=["IPv4"]
            ),
        )

    def test_what_was_allocated_stays_where_an_update_is_silent(self) -> None:
        old = self.allocated()
        new = service(type="NodePort")
        strategy("Service").defaults(new)
        strategy("Service").prepare_update(new, old)
        assert new["spec"]["clusterIP"] == "10.43.0.7"
        assert new["spec"]["ports"][0]["nodePort"] == 30123

    def test_a_cluster_ip_never_changes(self) -> None:
        old = self.allocated()
        new = copy.deepcopy(old)
        new["spec"]["clusterIP"] = "10.43.0.8"
        strategy("Service").prepare_update(new, old)
        assert errors("Service", new, old) == [
            'spec.clusterIPs[0]: Invalid value: ["10.43.0.8"]: may not change once set'
        ]

    def test_becoming_an_external_name_drops_the_addresses(self) -> None:
        old = self.allocated()
        new = copy.deepcopy(old)
        new["spec"].update(type="ExternalName", externalName="example.com")
        strategy("Service").prepare_update(new, old)
        assert "clusterIP" not in new["spec"]
        assert "nodePort" not in new["spec"]["ports"][0]
        assert errors("Service", new, old) == []

    def test_nor_does_one_that_cleared_its_address_keep_families(self) -> None:
        old = self.allocated()
        new = copy.deepcopy(old)
        new["spec"].update(type="ExternalName", externalName="example.com", clusterIP="")
        strategy("Service").prepare_update(new, old)
        assert errors("Service", new, old) == []

    def test_the_row(self) -> None:
        cells = row("Service", self.allocated())
        assert cells["Port(s)"] == "80:30123/TCP"
        assert cells["External-IP"] == "<none>"
        assert row("Service", made("Service", service(type="LoadBalancer")))["External-IP"] == "<pending>"


class TestNode:
    def test_the_row(self) -> None:
        node: Obj = {
            "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": True},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
                "nodeInfo": {"kubeletVersion": "v1.37.0"},
            },
        }
        node = made("Node", node)
        cells = row("Node", node)
        assert cells["Status"] == "Ready,SchedulingDisabled"
        assert cells["Roles"] == "control-plane"
        assert cells["Internal-IP"] == "192.0.2.1"
        assert cells["External-IP"] == "<none>"

    def test_a_kubelet_registers_with_status(self) -> None:
        node = made("Node", {"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "2"}}})
        assert node["status"]["allocatable"] == {"cpu": "2"}

    def test_taints_are_unique_and_the_pod_range_stays(self) -> None:
        taint = {"key": "a", "effect": "NoSchedule"}
        node = made("Node", {"metadata": {"name": "n"}, "spec": {"taints": [taint, taint], "podCIDR": "10.42.0.0/24"}})
        assert any("taints must be unique" in text for text in errors("Node", node))
        old = made("Node", {"metadata": {"name": "n"}, "spec": {"podCIDR": "10.42.0.0/24"}})
        new = made("Node", {"metadata": {"name": "n"}, "spec": {"podCIDR": "10.42.1.0/24"}})
        assert any("may not change podCIDR" in text for text in errors("Node", new, old))


def test_a_limit_range_fills_its_own_gaps_and_is_checked() -> None:
    item: Obj = {"type": "Container", "max": {"cpu": "1"}, "min": {"memory": "1Mi"}}
    limit = made("LimitRange", {"spec": {"limits": [item]}})
    assert limit["spec"]["limits"][0]["default"] == {"cpu": "1"}
    assert limit["spec"]["limits"][0]["defaultRequest"] == {"cpu": "1", "memory": "1Mi"}
    bad = {"spec": {"limits": [{"type": "Pod", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}}
    assert errors("LimitRange", bad) == [
        'spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1'
    ]


def test_a_quota_shows_requests_and_limits_apart() -> None:
    quota: Obj = {
        "metadata": {"name": "q"},
        "status": {"hard": {"pods": "3", "limits.cpu": "2"}, "used": {"pods": "1", "limits.cpu": "500m"}},
    }
    cells = row("ResourceQuota", {**quota, "metadata": {"name": "q", "creationTimestamp": "2026-01-01T11:00:00Z"}})
    assert (cells["Request"], cells["Limit"]) == ("pods: 1/3", "limits.cpu: 500m/2")
    assert errors("ResourceQuota", {"spec": {"scopes": ["Terminating", "NotTerminating"]}}) != []


def test_a_quota_names_resources_that_can_be_counted() -> None:
    hard = {"pods": "1", "count/deployments.apps": "1", "requests.example.com/gpu": "1", "requests.cpu": "1"}
    assert errors("ResourceQuota", {"spec": {"hard": hard}}) == []
    assert errors("ResourceQuota", {"spec": {"hard": {"cpus": "1"}}}) == [
        'spec.hard[cpus]: Invalid value: "cpus": must be a standard resource type or fully qualified',
        'spec.hard[cpus]: Invalid value: "cpus": must be a standard resource for quota',
    ]
    assert errors("ResourceQuota", {"spec": {"hard": {"pods": "1500m"}}}) == [
        'spec.hard[pods]: Invalid value: "1500m": must be an integer'
    ]


def test_a_replication_controller_takes_its_selector_from_its_template() -> None:
    template: Obj = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x:1"}]}}
    controller = made("ReplicationController", {"spec": {"template": template}})
    assert controller["spec"]["selector"] == {"a": "b"}
    assert controller["metadata"]["labels"] == {"a": "b"}
    assert controller["spec"]["replicas"] == 1
    assert errors("ReplicationController", controller) == []
    controller["spec"]["selector"] = {"a": "c"}
    assert any("`selector` does not match template `labels`" in t for t in errors("ReplicationController", controller))


def claim(**spec: Any) -> Obj:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, **spec}
    return made("PersistentVolumeClaim", {"metadata": {"name": "c", "namespace": "default"}, "spec": spec})


def test_a_claim_may_only_grow_once_bound() -> None:
    old = claim(volumeName="v")
    old["status"] = {"phase": "Bound", "capacity": {"storage": "1Gi"}}
    bigger, smaller, other = copy.deepcopy(old), copy.deepcopy(old), copy.deepcopy(old)
    bigger["spec"]["resources"]["requests"]["storage"] = "2Gi"
    smaller["spec"]["resources"]["requests"]["storage"] = "500Mi"
    other["spec"]["accessModes"] = ["ReadWriteMany"]
    assert errors("PersistentVolumeClaim", bigger, old) == []
    assert errors("PersistentVolumeClaim", smaller, old) == [
        "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
    ]
    assert "spec is immutable after creation" in errors("PersistentVolumeClaim", other, old)[0]


def test_a_volume_keeps_its_source() -> None:
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/a"}}
    old = made("PersistentVolume", {"metadata": {"name": "v"}, "spec": spec})
    assert old["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert errors("PersistentVolume", old) == []
    new = copy.deepcopy(old)
    new["spec"]["hostPath"]["path"] = "/b"
    assert errors("PersistentVolume", new, old)[0].startswith(
        "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"
    )


def test_endpoints_show_three_and_count_the_rest() -> None:
    addresses = [{"ip": f"10.42.0.{n}"} for n in range(1, 6)]
    endpoints = made("Endpoints", {"subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]})
    assert row("Endpoints", endpoints)["Endpoints"] == "10.42.0.1:80,10.42.0.2:80,10.42.0.3:80 + 2 more..."
    assert endpoints["subsets"][0]["ports"][0]["protocol"] == "TCP"
    assert errors("Endpoints", {"subsets": [{"addresses": [{"ip": "127.0.0.1"}]}]}) != []


def test_an_event_is_found_by_what_it_is_about() -> None:
    event: Obj = {
        "metadata": {"name": "e", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "name": "web", "namespace": "default"},
        "source": {"component": "kubelet", "host": "n1"},
        "lastTimestamp": "2026-01-01T11:58:00Z",
        "message": "Started\n",
    }
    cells = row("Event", event)
    assert (cells["Last Seen"], cells["Object"], cells["Source"], cells["Message"]) == (
        "2m",
        "pod/web",
        "kubelet, n1",
        "Started",
    )
    assert strategy("Event").field_value(event, "source") == "kubelet"
    assert errors("Event", {**event, "metadata": {"name": "e", "namespace": "other"}}) == [
        'involvedObject.namespace: Invalid value: "default": does not match event.namespace'
    ]


def test_a_node_says_what_it_has_not_said_yet() -> None:
    node: dict[str, Any] = {"metadata": {"name": "n"}}
    strategy("Node").complete(node)
    assert node["status"]["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 0}}
    assert set(node["status"]["nodeInfo"].values()) == {""}


def test_a_source_in_another_namespace_is_none_unless_the_claim_has_it() -> None:
    claims = strategy("PersistentVolumeClaim")
    source = {"apiGroup": "a.io", "kind": "Copy", "name": "x", "namespace": "else"}
    new: Any = {"metadata": {}, "spec": {"dataSourceRef": dict(source)}}
    kept: Any = {"metadata": {}, "spec": {"dataSourceRef": dict(source)}}

    claims.prepare_create(new)
    claims.prepare_update(kept, {"metadata": {}, "spec": {"dataSourceRef": dict(source)}})

    assert new["spec"] == {}
    assert kept["spec"] == {"dataSourceRef": source}
