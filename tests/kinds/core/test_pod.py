"""Pods as their users see them: defaults, refusals, what may change, how they are deleted and shown."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import pytest

from navarch.api.errors import FieldError
from navarch.kinds.core.pod import PodStrategy
from navarch.kinds.core.pod_columns import summarize
from navarch.kinds.core.pod_defaults import default_pod, default_pod_spec, pull_policy_of
from navarch.kinds.core.pod_validation import validate_pod_spec, validate_pod_template_spec
from navarch.kinds.core.resource_lists import containers_quantities, pod_amounts, qos_class
from tests.kinds.writing import CONTAINER, created, template, updated

Obj = dict[str, Any]
STRATEGY = PodStrategy()
BY_FIELD = {"fieldRef": {"fieldPath": "metadata.name"}}
SPREAD = {"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def pod(**spec: Any) -> Obj:
    spec.setdefault("containers", [{"name": "web", "image": "nginx:1.27"}])
    made: Obj = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"}, "spec": spec}
    default_pod(made)
    return made


def texts(errors: Any) -> list[str]:
    listed: list[FieldError] = list(errors)
    return [str(error) for error in listed]


def container(**fields: Any) -> Obj:
    return {"name": "web", "image": "nginx:1.27", **fields}


class TestDefaults:
    def test_a_bare_pod_reads_back_complete(self) -> None:
        spec = pod()["spec"]
        assert spec["restartPolicy"] == "Always"
        assert spec["dnsPolicy"] == "ClusterFirst"
        assert spec["terminationGracePeriodSeconds"] == 30
        assert spec["schedulerName"] == "default-scheduler"
        assert spec["securityContext"] == {}
        assert spec["enableServiceLinks"] is True
        assert spec["containers"][0] == {
            "name": "web",
            "image": "nginx:1.27",
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "imagePullPolicy": "IfNotPresent",
            "resources": {},
        }

    @pytest.mark.parametrize(
        ("image", "policy"),
        [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("registry:5000/nginx", "Always"),
            ("registry:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
            ("nginx:latest@sha256:abc", "Always"),
        ],
    )
    def test_the_pull_policy_follows_the_tag(self, image: str, policy: str) -> None:
        assert pull_policy_of(image) == policy

    def test_requests_follow_limits_in_pods_but_not_in_templates(self) -> None:
        resources = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}
        real = pod(containers=[container(resources=copy.deepcopy(resources))])
        template: Obj = {"containers": [container(resources=copy.deepcopy(resources))]}
        default_pod_spec(template)
        assert real["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "500m", "memory": "1Gi"}
        assert template["containers"][0]["resources"]["requests"] == {"cpu": "500m"}
        assert "enableServiceLinks" not in template

    def test_probes_ports_env_and_volumes_are_filled_in(self) -> None:
        spec = pod(
            containers=[
                container(
                    ports=[{"containerPort": 80}],
                    livenessProbe={"httpGet": {"port": 80}},
                    env=[{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                )
            ],
            volumes=[
                {"name": "a"},
                {"name": "b", "configMap": {"name": "x"}},
                {"name": "c", "hostPath": {"path": "/x"}},
                {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
            ],
            serviceAccountName="bot",
        )["spec"]
        web = spec["containers"][0]
        assert web["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
        assert web["livenessProbe"] == {
            "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
            "timeoutSeconds": 1,
            "periodSeconds": 10,
            "successThreshold": 1,
            "failureThreshold": 3,
        }
        assert web["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
        empty, config_map, host_path, projected = spec["volumes"]
        assert empty["emptyDir"] == {}
        assert config_map["configMap"]["defaultMode"] == 420
        assert host_path["hostPath"]["type"] == ""
        assert projected["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"] == 3600
        assert spec["serviceAccount"] == "bot"

    def test_host_network_makes_container_ports_host_ports(self) -> None:
        spec = pod(hostNetwork=True, containers=[container(ports=[{"containerPort": 80}])])["spec"]
        assert spec["containers"][0]["ports"][0]["hostPort"] == 80

    def test_defaulting_twice_changes_nothing(self) -> None:
        once = pod(containers=[container(resources={"limits": {"cpu": "1"}})], volumes=[{"name": "a"}])
        twice = copy.deepcopy(once)
        default_pod(twice)
        assert twice == once


class TestValidation:
    def test_a_defaulted_pod_is_valid(self) -> None:
        assert texts(validate_pod_spec(pod()["spec"])) == []

    @pytest.mark.parametrize(
        ("spec", "expected"),
        [
            ({"containers": []}, "spec.containers: Required value"),
            ({"containers": [{"name": "web"}]}, "spec.containers[0].image: Required value"),
            (
                {"restartPolicy": "Sometimes"},
                'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"',
            ),
            (
                {"containers": [container(), container()]},
                'spec.containers[1].name: Duplicate value: "web"',
            ),
            (
                {"containers": [container(volumeMounts=[{"name": "x", "mountPath": "/x"}])]},
                'spec.containers[0].volumeMounts[0].name: Not found: "x"',
            ),
            (
                {"containers": [container(ports=[{"containerPort": 70000}])]},
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: "
                "must be between 1 and 65535, inclusive",
            ),
            (
                {"containers": [container(resources={"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}})]},
                'spec.containers[0].resources.requests: Invalid value: "2Gi": '
                "must be less than or equal to memory limit of 1Gi",
            ),
            (
                {"containers": [container(resources={"limits": {"cpus": "1"}, "requests": {"cpus": "1"}})]},
                'spec.containers[0].resources.limits[cpus]: Invalid value: "cpus": '
                "must be a standard resource type or fully qualified",
            ),
            (
                {"containers": [container(livenessProbe={"periodSeconds": 5})]},
                "spec.containers[0].livenessProbe: Required value: must specify a handler type",
            ),
            (
                {"containers": [container(livenessProbe={"tcpSocket": {"port": 80}, "successThreshold": 2})]},
                "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            ),
            (
                {"volumes": [{"name": "a", "emptyDir": {}, "hostPath": {"path": "/"}}]},
                "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
            ),
            (
                {"volumes": [{"name": "a", "secret": {}}]},
                "spec.volumes[0].secret.secretName: Required value",
            ),
            (
                {"tolerations": [{"operator": "Equal", "value": "x"}]},
                'spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, '
                'which means "match all values and all keys"',
            ),
            (
                {"topologySpreadConstraints": [SPREAD]},
                "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
            ),
            (
                {"securityContext": {"runAsUser": -1}},
                "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            ),
            (
                {"initContainers": [{"name": "i", "image": "x", "livenessProbe": {"tcpSocket": {"port": 1}}}]},
                "spec.initContainers[0].livenessProbe: Forbidden: "
                "may not be set for init containers without restartPolicy=Always",
            ),
            (
                {"containers": [container(env=[{"name": "A", "value": "x", "valueFrom": BY_FIELD}])]},
                'spec.containers[0].env[0].valueFrom: Invalid value: "": '
                "may not be specified when `value` is not empty",
            ),
            (
                {"activeDeadlineSeconds": 0},
                "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
            ),
            (
                {"dnsPolicy": "None"},
                "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
            ),
        ],
    )
    def test_what_is_wrong_is_said_in_kubernetes_words(self, spec: Obj, expected: str) -> None:
        assert expected in texts(validate_pod_spec(pod(**copy.deepcopy(spec))["spec"]))

    def test_the_same_host_port_twice_is_refused(self) -> None:
        ports = [{"containerPort": 80, "hostPort": 80}]
        spec = pod(containers=[container(ports=ports), {**container(ports=copy.deepcopy(ports)), "name": "other"}])
        assert 'spec.containers[1].ports[0].hostPort: Duplicate value: "TCP//80"' in texts(
            validate_pod_spec(spec["spec"])
        )

    def test_a_template_reports_at_its_own_path(self) -> None:
        template: Obj = {"metadata": {"labels": {"bad key": "x"}}, "spec": {"containers": []}}
        default_pod_spec(template["spec"])
        found = texts(validate_pod_template_spec(template, "spec.template"))
        assert any(text.startswith("spec.template.labels: Invalid value") for text in found)
        assert "spec.template.spec.containers: Required value" in found


class TestUpdate:
    def changed(self, **spec: Any) -> list[str]:
        old = pod()
        new = copy.deepcopy(old)
        new["spec"].update(spec)
        return texts(STRATEGY.validate(new, old))

    def test_an_image_may_change(self) -> None:
        old = pod()
        new = copy.deepcopy(old)
        new["spec"]["containers"][0]["image"] = "nginx:1.28"
        assert texts(STRATEGY.validate(new, old)) == []

    def test_a_node_name_may_not_change(self) -> None:
        (found,) = self.changed(nodeName="n1")
        assert found.startswith("spec: Forbidden: pod updates may not change fields other than `spec.containers[*]")
        assert '\n- "NodeName": "",\n+ "NodeName": "n1",\n' in found

    def test_containers_may_not_be_added(self) -> None:
        found = self.changed(containers=[container(), {**container(), "name": "b"}])
        assert any("pod updates may not add or remove containers" in text for text in found)

    def test_tolerations_may_be_added_only(self) -> None:
        toleration = {"key": "a", "operator": "Exists"}
        assert self.changed(tolerations=[toleration]) == []
        old, new = pod(tolerations=[toleration]), pod()
        assert any("existing toleration can not be modified" in text for text in texts(STRATEGY.validate(new, old)))

    def test_ephemeral_containers_come_through_their_subresource_alone(self) -> None:
        old = pod()
        debug = {"name": "debug", "image": "busybox:1", "terminationMessagePolicy": "File", "imagePullPolicy": "Always"}
        new = copy.deepcopy(old)
        new["spec"]["ephemeralContainers"] = [debug]
        new["spec"]["nodeName"] = "elsewhere"
        STRATEGY.through("ephemeralcontainers").prepare(STRATEGY, new, old)
        assert "nodeName" not in new["spec"]
        assert texts(STRATEGY.through("ephemeralcontainers").validate(STRATEGY, new, old)) == []
        assert texts(STRATEGY.through("ephemeralcontainers").validate(STRATEGY, old, new)) != []

    def test_a_resize_may_not_change_the_quality_of_service(self) -> None:
        old = pod(containers=[container(resources={"requests": {"cpu": "100m"}})])
        new = copy.deepcopy(old)
        new["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "200m"}}
        assert texts(STRATEGY.through("resize").validate(STRATEGY, new, old)) == []
        new["spec"]["containers"][0]["resources"]["limits"] = {"cpu": "200m", "memory": "1Gi"}
        new["spec"]["containers"][0]["resources"]["requests"]["memory"] = "1Gi"
        assert any(
            "QOS Class may not change" in t for t in texts(STRATEGY.through("resize").validate(STRATEGY, new, old))
        )


class TestLife:
    def test_a_new_pod_is_pending_with_its_quality_of_service(self) -> None:
        made = pod(containers=[container(resources={"requests": {"cpu": "1"}})])
        made["status"] = {"phase": "Running"}
        STRATEGY.prepare_create(made)
        assert made["status"] == {"phase": "Pending", "qosClass": "Burstable"}

    def test_a_gated_pod_says_so(self) -> None:
        made = pod(schedulingGates=[{"name": "example.com/wait"}])
        STRATEGY.prepare_create(made)
        assert made["status"]["conditions"][0]["reason"] == "SchedulingGated"
        made["metadata"]["creationTimestamp"] = "2026-01-01T11:00:00Z"
        assert summarize(made).reason == "SchedulingGated"

    @pytest.mark.parametrize(
        ("spec", "phase", "requested", "grace"),
        [
            ({"nodeName": "n"}, "Running", None, 30),
            ({"nodeName": "n"}, "Running", 5, 5),
            ({"nodeName": "n"}, "Running", 0, 0),
            ({"nodeName": "n"}, "Succeeded", None, 0),
            ({}, "Pending", None, 0),
            ({"nodeName": "n", "terminationGracePeriodSeconds": 0}, "Running", None, 0),
        ],
    )
    def test_grace(self, spec: Obj, phase: str, requested: int | None, grace: int) -> None:
        made = pod(**spec)
        made["status"] = {"phase": phase}
        assert STRATEGY.delete_grace_s(made, requested) == grace

    def test_status_keeps_the_spec_and_brings_addresses_together(self) -> None:
        old = pod()
        old["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
        new = copy.deepcopy(old)
        new["spec"]["nodeName"] = "x"
        new["status"] = {"phase": "Running", "podIP": "10.42.0.5"}
        STRATEGY.prepare_status(new, old)
        assert "nodeName" not in new["spec"]
        assert new["status"]["podIPs"] == [{"ip": "10.42.0.5"}]
        assert new["status"]["qosClass"] == "BestEffort"

    @pytest.mark.parametrize(
        ("field", "own", "exit_code", "stays"),
        [
            ("containers", {}, 1, True),
            ("containers", {"restartPolicy": "Always"}, 0, False),
            ("containers", {"restartPolicy": "OnFailure"}, 0, True),
            ("containers", {"restartPolicy": "OnFailure"}, 1, False),
            (
                "containers",
                {"restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]},
                42,
                False,
            ),
            ("initContainers", {}, 1, True),
            ("initContainers", {"restartPolicy": "Always"}, 1, False),
        ],
    )
    def test_what_ended_for_good_stays_ended(self, field: str, own: Obj, exit_code: int, stays: bool) -> None:
        spec = {field: [container(name="it", **own)], "restartPolicy": "Never"}
        old = pod(**spec)
        statuses = "containerStatuses" if field == "containers" else "initContainerStatuses"
        old["status"] = {statuses: [{"name": "it", "state": {"terminated": {"exitCode": exit_code}}}]}
        new = copy.deepcopy(old)
        new["status"][statuses][0]["state"] = {"running": {}}

        refused = texts(STRATEGY.through("status").validate(STRATEGY, new, old))

        assert any("may not be transitioned to non-terminated state" in text for text in refused) == stays

    def test_selectable_fields(self) -> None:
        made = pod(nodeName="n1")
        assert STRATEGY.field_value(made, "spec.nodeName") == "n1"
        assert STRATEGY.field_value(made, "spec.hostNetwork") == "false"
        assert STRATEGY.field_value(made, "status.phase") == ""


class TestResources:
    def test_quality_of_service(self) -> None:
        full = {"cpu": "1", "memory": "1Gi"}
        assert qos_class(pod()["spec"]) == "BestEffort"
        assert qos_class(pod(containers=[container(resources={"limits": full})])["spec"]) == "Guaranteed"
        assert qos_class(pod(containers=[container(resources={"limits": {"cpu": "1"}})])["spec"]) == "Burstable"

    def test_init_containers_count_one_at_a_time_and_sidecars_stay(self) -> None:
        def asking(name: str, cpu: str, **more: Any) -> Obj:
            return {"name": name, "image": "x:1", "resources": {"requests": {"cpu": cpu}}, **more}

        spec = pod(
            containers=[asking("main", "500m")],
            initContainers=[
                asking("once", "2"),
                asking("side", "100m", restartPolicy="Always"),
                asking("late", "200m"),
            ],
            overhead={"cpu": "50m"},
        )["spec"]
        assert pod_amounts(spec)["cpu"] == Fraction("2.05")
        assert containers_quantities(spec, "requests") == {"cpu": "2"}


def status_of(**status: Any) -> Obj:
    made = pod(**status.pop("spec", {}))
    made["status"] = status
    return made


class TestColumns:
    def waiting(self, reason: str, **more: Any) -> Obj:
        return {"name": "web", "state": {"waiting": {"reason": reason}}, **more}

    @pytest.mark.parametrize(
        ("made", "ready", "word"),
        [
            (status_of(phase="Pending"), "0/1", "Pending"),
            (
                status_of(
                    phase="Pending",
                    containerStatuses=[{"name": "web", "state": {"waiting": {"reason": "ContainerCreating"}}}],
                ),
                "0/1",
                "ContainerCreating",
            ),
            (
                status_of(
                    phase="Running",
                    conditions=[{"type": "Ready", "status": "True"}],
                    containerStatuses=[{"name": "web", "ready": True, "state": {"running": {}}}],
                ),
                "1/1",
                "Running",
            ),
            (
                status_of(
                    phase="Succeeded",
                    containerStatuses=[
                        {"name": "web", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
                    ],
                ),
                "0/1",
                "Completed",
            ),
            (
                status_of(
                    phase="Running",
                    containerStatuses=[{"name": "web", "state": {"terminated": {"exitCode": 3}}}],
                ),
                "0/1",
                "ExitCode:3",
            ),
            (
                status_of(
                    spec={"initContainers": [{"name": "i", "image": "x"}]},
                    phase="Pending",
                    initContainerStatuses=[{"name": "i", "state": {"running": {}}}],
                    containerStatuses=[{"name": "web", "state": {"waiting": {"reason": "PodInitializing"}}}],
                ),
                "0/1",
                "Init:0/1",
            ),
            (
                status_of(
                    spec={"initContainers": [{"name": "i", "image": "x"}]},
                    phase="Pending",
                    initContainerStatuses=[{"name": "i", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}],
                ),
                "0/1",
                "Init:CrashLoopBackOff",
            ),
            (
                status_of(
                    spec={"initContainers": [{"name": "s", "image": "x", "restartPolicy": "Always"}]},
                    phase="Running",
                    conditions=[{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}],
                    initContainerStatuses=[{"name": "s", "started": True, "ready": True, "state": {"running": {}}}],
                    containerStatuses=[{"name": "web", "ready": True, "state": {"running": {}}}],
                ),
                "2/2",
                "Running",
            ),
        ],
    )
    def test_the_status_word(self, made: Obj, ready: str, word: str) -> None:
        summary = summarize(made)
        assert (f"{summary.ready}/{summary.total}", summary.reason) == (ready, word)

    def test_a_pod_on_its_way_out_is_terminating(self) -> None:
        made = status_of(phase="Running")
        made["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        assert summarize(made).reason == "Terminating"

    def test_restarts_tell_when(self) -> None:
        last = {"terminated": {"finishedAt": "2026-01-01T11:55:00Z"}}
        status = {"name": "web", "restartCount": 3, "lastState": last, "state": {"running": {}}, "ready": True}
        made = status_of(phase="Running", containerStatuses=[status])
        (cell,) = [column.value for column in STRATEGY.columns if column.name == "Restarts"]
        assert callable(cell)
        assert cell(made, NOW) == "3 (5m ago)"


def whole_pod(resources: Any, *, overhead: Any = None, **container: Any) -> Any:
    """What is stated for a whole pod once it has its defaults."""
    of_its_own = {"overhead": overhead} if overhead else {}
    made = pod(
        resources=resources, containers=[{"name": "web", "image": "nginx", "resources": container}], **of_its_own
    )
    return made["spec"]["resources"]


def test_a_pod_with_a_limit_of_its_own_asks_for_what_its_containers_ask_for() -> None:
    asked = {"cpu": "1", "memory": "64Mi", "example.com/x": "1"}

    assert whole_pod({"limits": {"cpu": "2"}}, requests=asked, limits={"example.com/x": "1"}) == {
        "limits": {"cpu": "2"},
        "requests": {"cpu": "1", "memory": "64Mi"},
    }
    assert whole_pod({"limits": {"cpu": "2"}}, requests={"cpu": "1"}, overhead={"cpu": "250m"})["requests"] == {
        "cpu": "1"
    }
    assert whole_pod({"limits": {"cpu": "2"}}) == {"limits": {"cpu": "2"}, "requests": {"cpu": "2"}}


def test_huge_pages_of_containers_are_the_whole_pods() -> None:
    pages = {"cpu": "1", "hugepages-2Mi": "4Mi"}

    assert whole_pod({"limits": {"cpu": "2"}}, limits=pages, requests=pages) == {
        "limits": {"cpu": "2", "hugepages-2Mi": "4Mi"},
        "requests": {"cpu": "1", "hugepages-2Mi": "4Mi"},
    }


def test_a_group_that_pods_are_scheduled_with_goes_as_long_as_the_feature_is_off() -> None:
    group = {"podGroupName": "crew"}
    spec = {"containers": [dict(CONTAINER)], "schedulingGroup": group}

    fresh, _ = created("", "Pod", {"spec": spec})
    stored = {**fresh, "spec": {**fresh["spec"], "schedulingGroup": group}}
    kept, _ = updated("", "Pod", stored, stored)
    made, _ = created("apps", "ReplicaSet", {"spec": {"template": template(schedulingGroup=group)}})

    assert "schedulingGroup" not in fresh["spec"]
    assert "schedulingGroup" not in made["spec"]["template"]["spec"]
    assert kept["spec"]["schedulingGroup"] == group
