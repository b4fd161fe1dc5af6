"""What Kubernetes' conformance requirements ask of controllers, admission and scheduler, as far as no container has to
run: garbage collection, quotas, limits, workloads, services and endpoints, disruption, priorities, pods as objects."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .conftest import Cluster
from .objects import deployment, pod, service
from .rest import JSON_PATCH, MERGE, STRATEGIC, Rest

Obj = dict[str, Any]
PRIORITIES = "/apis/scheduling.k8s.io/v1/priorityclasses"


@pytest.fixture(scope="module")
def rest(simulated: Cluster) -> Rest:
    return Rest(simulated)


class Space:
    """One test's namespace: paths into it, and waiting for what the controllers make of its objects."""

    def __init__(self, rest: Rest, cluster: Cluster, name: str) -> None:
        self.rest, self.cluster, self.name = rest, cluster, name

    def path(self, plural: str, name: str = "", group: str = "") -> str:
        root = f"/apis/{group}/v1" if group else "/api/v1"
        return f"{root}/namespaces/{self.name}/{plural}" + (f"/{name}" if name else "")

    def create(self, plural: str, obj: Obj, group: str = "") -> Obj:
        created: Obj = self.rest.ok("POST", self.path(plural, group=group), obj)
        return created

    def items(self, plural: str, group: str = "", **query: str) -> list[Obj]:
        items: list[Obj] = self.rest.ok("GET", self.path(plural, group=group), **query)["items"]
        return items

    def pods(self, **labels: str) -> list[Obj]:
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        return [p for p in self.items("pods", labelSelector=selector) if "deletionTimestamp" not in p["metadata"]]

    def until(self, condition: Callable[[], Any], what: str, timeout_s: float = 30) -> Any:
        return self.cluster.wait_until(condition, timeout_s, what)


@pytest.fixture
def space(rest: Rest, simulated: Cluster, namespace: str) -> Space:
    made = Space(rest, simulated, namespace)
    made.until(lambda: rest.send("GET", made.path("serviceaccounts", "default"))[0] == 200, "no service account")
    return made


def replication_controller(name: str, replicas: int) -> Obj:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    return {"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"app": name}, "template": template}}


def replica_set(name: str, replicas: int) -> Obj:
    made = replication_controller(name, replicas)
    made["spec"]["selector"] = {"matchLabels": {"app": name}}
    return made


def owner_of(obj: Obj, api_version: str, kind: str, **more: Any) -> Obj:
    metadata = obj["metadata"]
    return {"apiVersion": api_version, "kind": kind, "name": metadata["name"], "uid": metadata["uid"], **more}


def requesting(name: str, cpu: str, memory: str = "50Mi", **spec: Any) -> Obj:
    made = pod(name, **spec)
    amounts = {"cpu": cpu, "memory": memory}
    made["spec"]["containers"][0]["resources"] = {"requests": amounts, "limits": dict(amounts)}
    return made


# Garbage collection


@pytest.mark.parametrize(("policy", "left"), [("Background", 0), ("Foreground", 0), ("Orphan", 1)])
def test_deleting_a_deployment_deletes_or_orphans_what_it_owns(space: Space, policy: str, left: int) -> None:
    space.create("deployments", deployment("web", 2), "apps")
    space.until(lambda: len(space.pods(app="web")) == 2, "no pods")

    space.rest.ok("DELETE", space.path("deployments", "web", "apps"), {"propagationPolicy": policy})

    space.until(lambda: not space.items("deployments", "apps"), "the deployment is still there")
    space.until(lambda: len(space.items("replicasets", "apps")) == left, f"not {left} replica sets")
    space.until(lambda: len(space.pods(app="web")) == 2 * left, f"not {2 * left} pods")
    if left:
        assert "ownerReferences" not in space.items("replicasets", "apps")[0]["metadata"]


@pytest.mark.parametrize(("policy", "left"), [("Foreground", 0), ("Orphan", 10)])
def test_deleting_a_replication_controller(space: Space, policy: str, left: int) -> None:
    space.create("replicationcontrollers", replication_controller("rc", 10))
    space.until(lambda: len(space.pods(app="rc")) == 10, "no pods")

    space.rest.ok("DELETE", space.path("replicationcontrollers", "rc"), {"propagationPolicy": policy})

    space.until(lambda: not space.items("replicationcontrollers"), "the controller is still there")
    if policy == "Foreground":
        # It went last.
        assert space.pods(app="rc") == []
    assert len(space.pods(app="rc")) == left


def test_a_second_owner_keeps_what_the_first_leaves(space: Space) -> None:
    space.create("replicationcontrollers", replication_controller("first", 4))
    second = space.create("replicationcontrollers", replication_controller("second", 0))
    pods = space.until(lambda: len(found := space.pods(app="first")) == 4 and found, "no pods")
    kept = {p["metadata"]["name"] for p in pods[:2]}
    reference = owner_of(second, "v1", "ReplicationController")
    for name in kept:
        space.rest.ok(
            "PATCH", space.path("pods", name), {"metadata": {"ownerReferences": [reference]}}, content_type=STRATEGIC
        )

    space.rest.ok("DELETE", space.path("replicationcontrollers", "first"), {"propagationPolicy": "Foreground"})

    space.until(lambda: len(space.items("replicationcontrollers")) == 1, "the first owner is still there")
    assert {p["metadata"]["name"] for p in space.pods(app="first")} == kept


def test_a_circle_of_owners_is_collected(space: Space) -> None:
    made = [space.create("pods", pod(f"p{index}")) for index in range(3)]
    for index, obj in enumerate(made):
        reference = owner_of(made[index - 1], "v1", "Pod", controller=True, blockOwnerDeletion=True)
        space.rest.ok(
            "PATCH",
            space.path("pods", obj["metadata"]["name"]),
            {"metadata": {"ownerReferences": [reference]}},
            content_type=MERGE,
        )

    space.rest.ok("DELETE", space.path("pods", "p0"))

    space.until(lambda: not space.items("pods"), "some pods are left")


# Quotas and limits


def used(space: Space, quota: str) -> dict[str, str]:
    status = space.rest.ok("GET", space.path("resourcequotas", quota)).get("status", {})
    return dict(status.get("used", {}))


def test_a_quota_counts_pods_and_their_requests(space: Space) -> None:
    hard = {"pods": "2", "cpu": "1", "memory": "500Mi", "requests.example.com/dongle": "3", "secrets": "5"}
    space.create("resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    space.until(lambda: used(space, "q").get("pods") == "0", "no status")

    space.create("pods", requesting("a", "500m", "252Mi"))
    assert used(space, "q")["cpu"] == "500m"
    assert used(space, "q")["memory"] == "252Mi"
    refused = space.rest.refused(403, "POST", space.path("pods"), requesting("b", "600m"))
    assert "exceeded quota: q, requested: cpu=600m, used: cpu=500m, limited: cpu=1" in refused["message"]
    unstated = space.rest.refused(403, "POST", space.path("pods"), pod("c"))
    assert "must specify cpu for: main" in unstated["message"]
    grown = [{"op": "replace", "path": "/spec/containers/0/resources/requests/cpu", "value": "100m"}]
    space.rest.refused(422, "PATCH", space.path("pods", "a"), grown, content_type=JSON_PATCH)

    space.rest.ok("DELETE", space.path("pods", "a"), {"gracePeriodSeconds": 0})
    space.until(lambda: used(space, "q")["pods"] == "0", "the pod still counts")


@pytest.mark.parametrize(
    ("plural", "obj"),
    [
        ("secrets", {"metadata": {"name": "s"}}),
        ("replicationcontrollers", replication_controller("rc", 0)),
        ("configmaps", {"metadata": {"name": "c"}}),
        ("services", service("web")),
        ("persistentvolumeclaims", {
            "metadata": {"name": "p"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
    ],
)  # fmt: skip
def test_a_quota_counts_objects(space: Space, plural: str, obj: Obj) -> None:
    space.until(lambda: space.rest.send("GET", space.path("configmaps", "kube-root-ca.crt"))[0] == 200, "no root CA")
    space.create("resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": {plural: "5"}}})
    space.until(lambda: plural in used(space, "q"), "no status")
    before = int(used(space, "q")[plural])

    space.create(plural, obj)
    assert int(used(space, "q")[plural]) == before + 1
    space.rest.ok("DELETE", space.path(plural, obj["metadata"]["name"]))
    space.until(lambda: int(used(space, "q")[plural]) == before, "it still counts")


def test_quota_scopes_tell_pods_that_end(space: Space) -> None:
    for scope in ("Terminating", "NotTerminating"):
        quota = {"metadata": {"name": scope.lower()}, "spec": {"hard": {"pods": "5"}, "scopes": [scope]}}
        space.create("resourcequotas", quota)
    space.until(lambda: used(space, "terminating") and used(space, "notterminating"), "no status")

    space.create("pods", requesting("long", "100m"))
    space.create("pods", requesting("short", "100m", activeDeadlineSeconds=3600))
    space.create("pods", requesting("short-too", "100m", activeDeadlineSeconds=3600))

    assert (used(space, "terminating")["pods"], used(space, "notterminating")["pods"]) == ("2", "1")


def test_a_limit_range_fills_in_and_refuses(space: Space) -> None:
    limit = {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"}}
    space.create("limitranges", {"metadata": {"name": "l"}, "spec": {"limits": [limit]}})

    filled = space.create("pods", pod("filled"))["spec"]["containers"][0]["resources"]
    assert filled == {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}}
    refused = space.rest.refused(403, "POST", space.path("pods"), requesting("big", "2"))
    assert "maximum cpu usage per Container is 1, but limit is 2" in refused["message"]


# Workloads


@pytest.mark.parametrize(
    ("plural", "group", "make"),
    [("replicationcontrollers", "", replication_controller), ("replicasets", "apps", replica_set)],
)
def test_matching_pods_are_adopted_and_others_released(space: Space, plural: str, group: str, make: Any) -> None:
    orphan = pod("orphan")
    orphan["metadata"]["labels"] = {"app": "set"}
    space.create("pods", orphan)
    created = space.create(plural, make("set", 1), group)

    def owners() -> list[str]:
        references = space.rest.ok("GET", space.path("pods", "orphan"))["metadata"].get("ownerReferences", [])
        return [reference["uid"] for reference in references]

    space.until(lambda: owners() == [created["metadata"]["uid"]], "not adopted")
    space.rest.ok("PATCH", space.path("pods", "orphan"), {"metadata": {"labels": {"app": "x"}}}, content_type=MERGE)
    space.until(lambda: owners() == [], "not released")
    space.until(lambda: len(space.pods(app="set")) == 1, "not replaced")


@pytest.mark.parametrize(
    ("plural", "group", "make"),
    [
        ("replicationcontrollers", "", replication_controller),
        ("replicasets", "apps", replica_set),
        ("deployments", "apps", deployment),
    ],
)
def test_scale_is_read_updated_and_patched(space: Space, plural: str, group: str, make: Any) -> None:
    space.create(plural, make("set", 1), group)
    path = space.path(plural, "set", group) + "/scale"
    space.until(lambda: len(space.pods(app="set")) == 1, "no pod")

    scale = space.rest.ok("GET", path)
    assert (scale["kind"], scale["apiVersion"], scale["spec"]["replicas"]) == ("Scale", "autoscaling/v1", 1)
    scale["spec"]["replicas"] = 2
    scale["metadata"].pop("resourceVersion")
    assert space.rest.ok("PUT", path, scale)["spec"]["replicas"] == 2
    space.until(lambda: len(space.pods(app="set")) == 2, "not two pods")
    assert space.rest.ok("PATCH", path, {"spec": {"replicas": 4}}, content_type=MERGE)["spec"]["replicas"] == 4
    space.until(lambda: space.rest.ok("GET", path)["status"]["replicas"] == 4, "not four pods")
    assert "app=set" in space.rest.ok("GET", path)["status"]["selector"]


def test_old_revisions_of_a_deployment_are_forgotten(space: Space) -> None:
    made = deployment("web", 1)
    made["spec"]["revisionHistoryLimit"] = 1
    space.create("deployments", made, "apps")
    path = space.path("deployments", "web", "apps")
    for image in ("one", "two", "three"):
        operations = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image}]
        generation = space.rest.ok("PATCH", path, operations, content_type=JSON_PATCH)["metadata"]["generation"]

        def rolled_out(generation: int = generation) -> bool:
            status = space.rest.ok("GET", path).get("status", {})
            done = status.get("observedGeneration") == generation and status.get("updatedReplicas") == 1
            return bool(done and status.get("replicas") == 1 and status.get("availableReplicas") == 1)

        space.until(rolled_out, f"{image} is not rolled out")

    space.until(lambda: len(space.items("replicasets", "apps")) == 2, "old replica sets are still there")


def test_a_daemon_set_has_a_pod_per_node_and_replaces_it(space: Space) -> None:
    made = replica_set("ds", 1)
    del made["spec"]["replicas"]
    space.create("daemonsets", made, "apps")
    nodes = len(space.rest.ok("GET", "/api/v1/nodes")["items"])
    pods = space.until(lambda: len(found := space.pods(app="ds")) == nodes and found, "not one per node")

    space.rest.ok("DELETE", space.path("pods", pods[0]["metadata"]["name"]), {"gracePeriodSeconds": 0})

    def replaced() -> bool:
        names = [p["metadata"]["name"] for p in space.pods(app="ds")]
        return len(names) == nodes and pods[0]["metadata"]["name"] not in names

    space.until(replaced, "not replaced")
    assert len(space.items("controllerrevisions", "apps")) == 1
    operations = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "new"}]
    space.rest.ok("PATCH", space.path("daemonsets", "ds", "apps"), operations, content_type=JSON_PATCH)
    space.until(
        lambda: [p["spec"]["containers"][0]["image"] for p in space.pods(app="ds")] == ["new"] * nodes, "no rollout"
    )
    assert sorted(r["revision"] for r in space.items("controllerrevisions", "apps")) == [1, 2]


def test_a_suspended_cron_job_makes_no_jobs(space: Space) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    spec = {"schedule": "* * * * *", "suspend": True, "jobTemplate": {"spec": {"template": template}}}
    space.create("cronjobs", {"metadata": {"name": "c"}, "spec": spec}, "batch")
    assert space.items("jobs", "batch") == []


# Services and endpoints


def test_a_service_without_pods_has_empty_endpoints(space: Space) -> None:
    space.create("services", service("empty"))

    endpoints = space.until(
        lambda: (answer := space.rest.send("GET", space.path("endpoints", "empty")))[0] == 200 and answer[1], "none"
    )
    slices = space.until(lambda: space.items("endpointslices", "discovery.k8s.io"), "no slice")
    assert not endpoints.get("subsets")
    assert not slices[0].get("endpoints")
    space.rest.ok("DELETE", space.path("services", "empty"))
    space.until(lambda: not space.items("endpointslices", "discovery.k8s.io"), "the slice is still there")
    space.until(lambda: space.rest.send("GET", space.path("endpoints", "empty"))[0] == 404, "endpoints are still there")


def test_endpoints_follow_the_pods(space: Space) -> None:
    space.create("services", service("web"))
    space.create("deployments", deployment("web", 2), "apps")

    def addresses() -> tuple[set[str], set[str]]:
        subsets = space.rest.ok("GET", space.path("endpoints", "web")).get("subsets") or []
        old = {address["ip"] for subset in subsets for address in subset.get("addresses", [])}
        slices = space.items("endpointslices", "discovery.k8s.io")
        new = {a for s in slices for e in s.get("endpoints") or () if e["conditions"]["ready"] for a in e["addresses"]}
        return old, new

    def agree() -> bool:
        ips = {p["status"].get("podIP", "") for p in space.pods(app="web")}
        return len(ips) == 2 and addresses() == (ips, ips)

    space.until(agree, "the endpoints are not those of the pods")


def test_endpoints_made_by_hand_are_mirrored(space: Space) -> None:
    made = service("manual")
    del made["spec"]["selector"]
    space.create("services", made)
    subsets = [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"name": "http", "port": 80}]}]
    space.create("endpoints", {"metadata": {"name": "manual"}, "subsets": subsets})

    def mirrored() -> list[str]:
        slices = space.items("endpointslices", "discovery.k8s.io")
        return [a for s in slices for e in s["endpoints"] or [] for a in e["addresses"]]

    space.until(lambda: mirrored() == ["10.1.2.3"], "not mirrored")
    subsets[0]["addresses"] = [{"ip": "10.2.3.4"}]
    space.rest.ok("PATCH", space.path("endpoints", "manual"), {"subsets": subsets}, content_type=MERGE)
    space.until(lambda: mirrored() == ["10.2.3.4"], "the change is not mirrored")
    space.rest.ok("DELETE", space.path("endpoints", "manual"))
    space.until(lambda: mirrored() == [], "the removal is not mirrored")


def test_a_service_changes_its_type(space: Space) -> None:
    made = space.create("services", service("svc", type="NodePort"))
    path = space.path("services", "svc")
    assert made["spec"]["clusterIP"].count(".") == 3
    port = made["spec"]["ports"][0]["nodePort"]
    assert 30000 <= port <= 32767
    assert made["spec"]["sessionAffinity"] == "None"

    sticky = space.rest.ok("PATCH", path, {"spec": {"sessionAffinity": "ClientIP"}}, content_type=MERGE)["spec"]
    assert sticky["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"] == 10800
    external = {"type": "ExternalName", "externalName": "example.com", "sessionAffinity": "None"}
    changed = space.rest.ok("GET", path)
    changed["spec"] = {**changed["spec"], **external}
    for name in ("clusterIP", "clusterIPs", "sessionAffinityConfig", "ipFamilies", "ipFamilyPolicy"):
        changed["spec"].pop(name, None)
    changed["spec"]["ports"] = [{"port": 80}]
    spec = space.rest.ok("PUT", path, changed)["spec"]
    assert not spec.get("clusterIP")
    assert "nodePort" not in spec["ports"][0]
    other = service("other", type="NodePort")
    other["spec"]["ports"][0]["nodePort"] = port
    space.create("services", other)
    back = {"spec": {"type": "ClusterIP", "externalName": None}}
    assert space.rest.ok("PATCH", path, back, content_type=MERGE)["spec"]["clusterIP"]


# Disruption


def test_a_budget_blocks_an_eviction_until_it_allows_it(space: Space) -> None:
    space.create("deployments", deployment("web", 2), "apps")
    budget = {"metadata": {"name": "b"}, "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}}
    space.create("poddisruptionbudgets", budget, "policy")
    path = space.path("poddisruptionbudgets", "b", "policy")

    def counted() -> bool:
        status = space.rest.ok("GET", path).get("status", {})
        return bool(status.get("currentHealthy") == 2 and status.get("disruptionsAllowed") == 0)

    space.until(counted, "the budget does not count the pods")
    name = space.pods(app="web")[0]["metadata"]["name"]
    eviction = {"metadata": {"name": name}}
    blocked = space.rest.refused(429, "POST", space.path("pods", name) + "/eviction", eviction)
    assert blocked["reason"] == "TooManyRequests"
    assert blocked["details"]["causes"][0]["reason"] == "DisruptionBudget"

    space.rest.ok("PATCH", path, {"spec": {"minAvailable": 1}}, content_type=MERGE)
    space.until(lambda: space.rest.ok("GET", path)["status"]["disruptionsAllowed"] == 1, "no disruption is allowed")
    space.rest.ok("POST", space.path("pods", name) + "/eviction", eviction)
    space.until(lambda: name not in [p["metadata"]["name"] for p in space.pods(app="web")], "the pod was not evicted")


# Priorities


@pytest.fixture
def priority(rest: Rest) -> Iterator[str]:
    name = f"high-{uuid.uuid4().hex[:6]}"
    rest.ok("POST", PRIORITIES, {"metadata": {"name": name}, "value": 1000, "description": "first"})
    yield name
    rest.send("DELETE", f"{PRIORITIES}/{name}")


def test_a_priority_class_keeps_its_value(rest: Rest, priority: str) -> None:
    path = f"{PRIORITIES}/{priority}"
    assert rest.ok("PATCH", path, {"description": "second"}, content_type=MERGE)["description"] == "second"
    rest.refused(422, "PATCH", path, {"value": 7}, content_type=MERGE)
    rest.refused(422, "PUT", path, {"metadata": {"name": priority}, "value": 7})
    rest.refused(422, "PATCH", path, {"preemptionPolicy": "Never"}, content_type=MERGE)


def test_a_high_priority_takes_the_place_of_a_low_one(space: Space, rest: Rest, priority: str) -> None:
    node = rest.ok("GET", "/api/v1/nodes")["items"][0]["metadata"]["name"]
    amount = {"example.com/seat": "1"}
    rest.ok("PATCH", f"/api/v1/nodes/{node}/status", {"status": {"capacity": amount, "allocatable": amount}},
            content_type=MERGE)  # fmt: skip
    seated = {"resources": {"requests": amount, "limits": amount}}
    low, high = pod("low"), pod("high", priorityClassName=priority)
    low["metadata"]["finalizers"] = ["e2e.example.com/hold"]
    for made in (low, high):
        made["spec"]["containers"][0].update(seated)
    space.create("pods", low)
    space.until(
        lambda: space.rest.ok("GET", space.path("pods", "low"))["spec"].get("nodeName") == node, "low is not placed"
    )

    assert space.create("pods", high)["spec"]["priority"] == 1000

    space.until(
        lambda: "deletionTimestamp" in space.rest.ok("GET", space.path("pods", "low"))["metadata"], "not preempted"
    )
    conditions = space.rest.ok("GET", space.path("pods", "low"))["status"]["conditions"]
    target = next(condition for condition in conditions if condition["type"] == "DisruptionTarget")
    assert (target["status"], target["reason"]) == ("True", "PreemptionByScheduler")
    space.rest.ok("PATCH", space.path("pods", "low"), {"metadata": {"finalizers": None}}, content_type=MERGE)
    space.until(
        lambda: space.rest.ok("GET", space.path("pods", "high"))["spec"].get("nodeName") == node, "high is not placed"
    )
    nothing = {"status": {"capacity": {"example.com/seat": None}, "allocatable": {"example.com/seat": None}}}
    rest.ok("PATCH", f"/api/v1/nodes/{node}/status", nothing, content_type=MERGE)


def test_a_pod_too_big_for_any_node_waits(space: Space) -> None:
    space.create("pods", requesting("huge", "100000"))

    def waiting() -> bool:
        conditions = space.rest.ok("GET", space.path("pods", "huge"))["status"].get("conditions", [])
        return any(c["type"] == "PodScheduled" and c["reason"] == "Unschedulable" for c in conditions)

    space.until(waiting, "no condition says so")


# Pods as objects


def test_a_pods_generation_counts_what_is_asked_of_it(space: Space) -> None:
    made = pod("p", activeDeadlineSeconds=1000)
    made["metadata"]["finalizers"] = ["e2e.example.com/hold"]
    assert space.create("pods", made)["metadata"]["generation"] == 1
    path = space.path("pods", "p")

    def patched(patch: Obj) -> int:
        return int(space.rest.ok("PATCH", path, patch, content_type=STRATEGIC)["metadata"]["generation"])

    assert patched({"metadata": {"labels": {"a": "b"}}}) == 1
    assert patched({"spec": {"activeDeadlineSeconds": 900}}) == 2
    assert patched({"spec": {"containers": [{"name": "main", "image": "other"}]}}) == 3
    assert patched({"spec": {"tolerations": [{"key": "x", "operator": "Exists"}]}}) == 4
    space.until(lambda: space.rest.ok("GET", path)["status"].get("observedGeneration") == 4, "not observed")
    space.rest.ok("DELETE", path)
    assert space.rest.ok("GET", path)["metadata"]["generation"] == 5
    patched({"metadata": {"finalizers": None}})


@pytest.mark.parametrize(
    ("resources", "quality"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"requests": {"cpu": "1", "memory": "1Mi"}, "limits": {"cpu": "1000m", "memory": "1Mi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Mi"}}, "Guaranteed"),
    ],
)
def test_a_pods_quality_of_service(space: Space, resources: Obj, quality: str) -> None:
    made = pod("p")
    made["spec"]["containers"][0]["resources"] = resources
    assert space.create("pods", made)["status"]["qosClass"] == quality


def test_what_a_pod_update_may_change(space: Space) -> None:
    space.create("pods", pod("p"))
    path = space.path("pods", "p")
    refused = space.rest.refused(422, "PATCH", path, {"spec": {"hostname": "x"}}, content_type=MERGE)
    assert "pod updates may not change fields other than" in refused["message"]
    labelled = space.rest.ok("PATCH", path, {"metadata": {"labels": {"time": "now"}}}, content_type=MERGE)
    assert labelled["metadata"]["labels"]["time"] == "now"
    assert [p["metadata"]["name"] for p in space.pods(time="now")] == ["p"]
    status = {"status": {"message": "patched", "reason": "Test"}}
    assert space.rest.ok("PATCH", path + "/status", status, content_type=MERGE)["status"]["message"] == "patched"


def test_an_ephemeral_container_is_added_through_its_subresource(space: Space) -> None:
    space.create("pods", pod("p"))
    path = space.path("pods", "p")
    debugger = {"name": "debugger", "image": "busybox", "stdin": True}
    patch = {"spec": {"ephemeralContainers": [debugger]}}
    space.rest.refused(422, "PATCH", path, patch, content_type=STRATEGIC)

    added = space.rest.ok("PATCH", path + "/ephemeralcontainers", patch, content_type=STRATEGIC)
    assert [c["name"] for c in added["spec"]["ephemeralContainers"]] == ["debugger"]

    def second() -> bool:
        current = space.rest.ok("GET", path + "/ephemeralcontainers")
        current["spec"]["ephemeralContainers"].append({"name": "second", "image": "busybox"})
        code, answer = space.rest.send("PUT", path + "/ephemeralcontainers", current)
        assert code in (200, 409), answer
        return code == 200 and len(answer["spec"]["ephemeralContainers"]) == 2

    space.until(second, "every update meets a conflict")
    gone = [{"op": "remove", "path": "/spec/ephemeralContainers/0"}]
    space.rest.refused(422, "PATCH", path + "/ephemeralcontainers", gone, content_type=JSON_PATCH)


def test_resources_are_changed_through_resize(space: Space) -> None:
    made = pod("p")
    made["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}
    space.create("pods", made)
    path = space.path("pods", "p")
    space.until(lambda: space.rest.ok("GET", path)["spec"].get("nodeName"), "it is bound")
    resources = {"requests": {"cpu": "500m"}, "limits": {"cpu": "3"}}
    patch = {"spec": {"containers": [{"name": "main", "resources": resources}]}}
    space.rest.refused(422, "PATCH", path, patch, content_type=STRATEGIC)

    resized = space.rest.ok("PATCH", path + "/resize", patch, content_type=STRATEGIC)

    assert resized["spec"]["containers"][0]["resources"] == resources
    assert space.rest.ok("GET", path + "/resize")["spec"] == space.rest.ok("GET", path)["spec"]
    other = {"spec": {"containers": [{"name": "main", "image": "other"}]}}
    left = space.rest.ok("PATCH", path + "/resize", other, content_type=STRATEGIC)
    assert left["spec"] == resized["spec"], "what is no resize is passed over"


def test_a_runtime_class_must_exist_and_adds_its_overhead(space: Space, rest: Rest) -> None:
    name = f"rc-{uuid.uuid4().hex[:6]}"
    refused = rest.refused(403, "POST", space.path("pods"), pod("p", runtimeClassName=name))
    assert f'RuntimeClass "{name}" not found' in refused["message"]
    overhead = {"podFixed": {"cpu": "10m"}}
    classes = "/apis/node.k8s.io/v1/runtimeclasses"
    rest.ok("POST", classes, {"metadata": {"name": name}, "handler": "runc", "overhead": overhead})

    made = space.create("pods", pod("p", runtimeClassName=name))

    assert made["spec"]["overhead"] == {"cpu": "10m"}
    space.until(lambda: rest.ok("GET", space.path("pods", "p"))["spec"].get("nodeName"), "not scheduled")
    rest.ok("DELETE", f"{classes}/{name}")
    rest.refused(403, "POST", space.path("pods"), pod("q", runtimeClassName=name))


def test_immutable_configuration_stays(space: Space) -> None:
    for plural in ("configmaps", "secrets"):
        space.create(plural, {"metadata": {"name": "fixed"}, "immutable": True})
        path = space.path(plural, "fixed")
        space.rest.refused(422, "PATCH", path, {"data": {"a": "YQ=="}}, content_type=MERGE)
        space.rest.refused(422, "PATCH", path, {"immutable": False}, content_type=MERGE)
        space.rest.ok("PATCH", path, {"metadata": {"labels": {"a": "b"}}}, content_type=MERGE)
        space.rest.refused(422, "POST", space.path(plural), {"metadata": {"name": "k"}, "data": {"": "YQ=="}})
