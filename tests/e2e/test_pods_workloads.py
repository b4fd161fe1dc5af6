"""Workloads with real containers: Job, CronJob, DaemonSet, StatefulSet, ReplicationController, resize, generations."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from ..ports import free_port
from .batch import Batch, container_status, is_ready
from .conftest import Cluster
from .objects import BUSYBOX, service

pytestmark = [pytest.mark.e2e, pytest.mark.containers]
BATCH = Batch()
FOREVER = "trap exit TERM; while :; do sleep 0.1; done"


def template(name: str, script: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script], **spec.pop("container", {})}
    return {
        "metadata": {"labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], **spec},
    }


def job(name: str, script: str, **spec: Any) -> None:
    spec.setdefault("backoffLimit", 1)
    once = template(name, script, restartPolicy=spec.pop("restartPolicy", "Never"))
    BATCH.need("Job", name, version="batch/v1", spec={**spec, "template": once})


SELECTOR = {"selector": {"matchLabels": {"app": "x"}}}
job("done", "echo $JOB_COMPLETION_INDEX done", completions=3, parallelism=3, completionMode="Indexed")
job("fails", "exit 1", backoffLimit=0)
job("retried", "[ $(date +%s) -ge 0 ] && exit 1", restartPolicy="OnFailure", backoffLimit=1)
job("late", "sleep 100", activeDeadlineSeconds=2)
job("brief", "true", ttlSecondsAfterFinished=1)
INDEXED = {"completionMode": "Indexed", "completions": 2, "parallelism": 2}


def rule(action: str, code: int) -> dict[str, Any]:
    return {"rules": [{"action": action, "onExitCodes": {"operator": "In", "values": [code]}}]}


job("fatal", "exit 3", backoffLimit=6, podFailurePolicy=rule("FailJob", 3))
job("half", "exit $JOB_COMPLETION_INDEX", **INDEXED, backoffLimitPerIndex=1, podFailurePolicy=rule("FailIndex", 1))
ENOUGH = {"rules": [{"succeededIndexes": "0"}]}
job("enough", f"[ $JOB_COMPLETION_INDEX = 0 ] && exit; {FOREVER}", **INDEXED, successPolicy=ENOUGH)
ON_DISRUPTION = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]}
job("evicted", FOREVER, backoffLimit=0, podFailurePolicy=ON_DISRUPTION)
BATCH.need(
    "CronJob",
    "suspended",
    version="batch/v1",
    spec={
        "schedule": "* * * * *",
        "suspend": True,
        "jobTemplate": {"spec": {"template": template("suspended", "echo cron", restartPolicy="Never")}},
    },
)
BATCH.need(
    "DaemonSet",
    "daemon",
    version="apps/v1",
    spec={"selector": {"matchLabels": {"app": "daemon"}}, "template": template("daemon", FOREVER)},
)
BATCH.objects.append(service("set", clusterIP="None"))
BATCH.need(
    "StatefulSet",
    "set",
    version="apps/v1",
    spec={
        "serviceName": "set",
        "replicas": 2,
        "selector": {"matchLabels": {"app": "set"}},
        "template": template("set", f"hostname -f; {FOREVER}"),
    },
)
BATCH.need(
    "ReplicationController",
    "controller",
    spec={"replicas": 2, "selector": {"app": "controller"}, "template": template("controller", FOREVER)},
)
SIZES = {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}}
BATCH.pod("resized", FOREVER, container={"resources": SIZES})
BATCH.pod(
    "restarted-by-resize",
    FOREVER,
    restartPolicy="Always",
    container={
        "resources": SIZES,
        "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}],
    },
)
BATCH.pod("changed", FOREVER)


@pytest.fixture(scope="module")
def batch(containers: Cluster) -> Iterator[Batch]:
    for made in BATCH.run(containers):
        # Its Job waits ten seconds before it makes another: the time that others need to end.
        evict_first(made, "evicted")
        yield made


def evict_first(batch: Batch, name: str) -> None:
    batch.cluster.wait_until(lambda: [is_ready(pod) for pod in pods(batch, name)] == [True], 60)
    first = pods(batch, name)[0]["metadata"]["name"]
    path = f"/api/v1/namespaces/{batch.namespace}/pods/{first}/eviction"
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": first}}
    batch.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    batch.kubectl("annotate", "job", name, f"evicted={first}")


def pods(batch: Batch, name: str) -> list[dict[str, Any]]:
    return list(batch.get("pods", "-l", f"app={name}")["items"])


def test_jobs_run_to_their_end(batch: Batch) -> None:
    batch.kubectl("wait", "--for=condition=Complete", "job/done", "--timeout=30s")

    told = {batch.kubectl("logs", pod["metadata"]["name"]).strip() for pod in pods(batch, "done")}
    assert told == {"0 done", "1 done", "2 done"}
    assert batch.get("job", "done")["status"]["succeeded"] == 3


def test_jobs_fail(batch: Batch) -> None:
    batch.kubectl("wait", "--for=condition=Failed", "job/fails", "job/late", "--timeout=40s")

    reasons = {
        name: next(c["reason"] for c in batch.get("job", name)["status"]["conditions"] if c["type"] == "Failed")
        for name in ("fails", "late")
    }
    assert reasons == {"fails": "BackoffLimitExceeded", "late": "DeadlineExceeded"}
    batch.cluster.wait_until(lambda: pods(batch, "late") == [] or pods(batch, "late")[0]["status"]["phase"] == "Failed")


def test_an_evicted_pod_of_a_job_that_ignores_disruptions_does_not_count(batch: Batch) -> None:
    first = batch.get("job", "evicted")["metadata"]["annotations"]["evicted"]

    def replaced() -> bool:
        return any(is_ready(pod) for pod in pods(batch, "evicted") if pod["metadata"]["name"] != first)

    batch.cluster.wait_until(replaced, 60)
    status = batch.get("job", "evicted")["status"]
    assert (status["active"], status.get("failed"), status.get("conditions")) == (1, None, None)


def test_jobs_end_as_their_policies_say(batch: Batch) -> None:
    batch.kubectl("wait", "--for=condition=Failed", "job/fatal", "job/half", "--timeout=40s")
    batch.kubectl("wait", "--for=condition=Complete", "job/enough", "--timeout=40s")

    jobs = {name: batch.get("job", name)["status"] for name in ("fatal", "half", "enough")}
    reasons = {name: [(c["type"], c["reason"]) for c in status["conditions"]] for name, status in jobs.items()}
    assert reasons == {
        "fatal": [("FailureTarget", "PodFailurePolicy"), ("Failed", "PodFailurePolicy")],
        "half": [("FailureTarget", "FailedIndexes"), ("Failed", "FailedIndexes")],
        "enough": [("SuccessCriteriaMet", "SuccessPolicy"), ("Complete", "SuccessPolicy")],
    }
    assert (jobs["half"]["completedIndexes"], jobs["half"]["failedIndexes"], jobs["half"]["failed"]) == ("0", "1", 1)
    assert jobs["enough"]["completedIndexes"] == "0"


def test_a_jobs_pods_are_restarted_in_place_and_then_given_up(batch: Batch) -> None:
    batch.kubectl("wait", "--for=condition=Failed", "job/retried", "--timeout=60s")


def test_an_ended_job_goes_after_its_time(batch: Batch) -> None:
    batch.cluster.wait_until(
        lambda: batch.cluster.try_kubectl("-n", batch.namespace, "get", "job", "brief").returncode == 1, 30
    )
    batch.cluster.wait_until(lambda: pods(batch, "brief") == [], 20)


def test_a_cron_jobs_job_can_be_started_by_hand(batch: Batch) -> None:
    batch.kubectl("create", "job", "by-hand", "--from=cronjob/suspended")
    batch.kubectl("wait", "--for=condition=Complete", "job/by-hand", "--timeout=30s")

    assert batch.kubectl("logs", "job/by-hand") == "cron\n"


def test_a_daemon_runs_on_every_node(batch: Batch) -> None:
    batch.kubectl("rollout", "status", "daemonset/daemon", "--timeout=30s")

    assert len(pods(batch, "daemon")) == len(batch.get("nodes")["items"])
    batch.kubectl("delete", "pod", pods(batch, "daemon")[0]["metadata"]["name"])
    batch.cluster.wait_until(lambda: [is_ready(pod) for pod in pods(batch, "daemon")] == [True], 20)


def test_a_set_has_stable_names(batch: Batch) -> None:
    batch.kubectl("rollout", "status", "statefulset/set", "--timeout=30s")
    first = batch.get("pod", "set-0")

    assert batch.kubectl("logs", "set-0").strip() == f"set-0.set.{batch.namespace}.svc.cluster.local"
    batch.kubectl("delete", "pod", "set-0")
    again = batch.ready("set-0")
    assert again["metadata"]["uid"] != first["metadata"]["uid"]
    batch.kubectl("scale", "statefulset/set", "--replicas=1")
    batch.cluster.wait_until(lambda: [pod["metadata"]["name"] for pod in pods(batch, "set")] == ["set-0"], 20)


def test_a_sets_pod_that_the_node_refuses_is_made_anew_until_it_is_taken(batch: Batch) -> None:
    node = batch.get("nodes")["items"][0]["metadata"]["name"]
    port = free_port()
    container = {"ports": [{"containerPort": port, "hostPort": port}]}
    holder = template("holder", FOREVER, container=container, nodeName=node)
    batch.cluster.apply(
        {"apiVersion": "v1", "kind": "Pod", **holder, "metadata": {"name": "holder"}}, namespace=batch.namespace
    )
    batch.ready("holder")

    refused = template("refused", FOREVER, container=container, nodeName=node)
    spec = {"serviceName": "set", "selector": {"matchLabels": {"app": "refused"}}, "template": refused}
    batch.cluster.apply(
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "refused"}, "spec": spec},
        namespace=batch.namespace,
    )

    made_anew = (
        "get",
        "events",
        "-o",
        "name",
        "--field-selector",
        "reason=SuccessfulDelete,involvedObject.name=refused",
    )
    batch.cluster.wait_until(lambda: batch.kubectl(*made_anew) != "", 30)
    batch.kubectl("delete", "pod", "holder")
    batch.cluster.wait_until(lambda: [is_ready(pod) for pod in pods(batch, "refused")] == [True], 60)
    batch.kubectl("delete", "statefulset", "refused")


def test_a_replication_controller_keeps_its_number(batch: Batch) -> None:
    batch.kubectl("wait", "--for=jsonpath={.status.readyReplicas}=2", "rc/controller", "--timeout=30s")
    batch.kubectl("scale", "rc/controller", "--replicas=1")
    batch.cluster.wait_until(lambda: len(pods(batch, "controller")) == 1, 20)
    batch.kubectl("scale", "rc/controller", "--replicas=2")

    batch.cluster.wait_until(lambda: [is_ready(pod) for pod in pods(batch, "controller")] == [True] * 2, 20)


def test_a_running_pod_is_resized_in_place(batch: Batch) -> None:
    before = batch.ready("resized")
    more = {"requests": {"cpu": "100m", "memory": "48Mi"}, "limits": {"cpu": "200m", "memory": "96Mi"}}

    patch = json.dumps({"spec": {"containers": [{"name": "main", "resources": more}]}})
    batch.kubectl("patch", "pod", "resized", "--subresource=resize", "-p", patch)

    after = batch.until("resized", lambda pod: container_status(pod).get("resources") == more)
    assert container_status(after)["allocatedResources"] == more["requests"]
    assert container_status(after)["containerID"] == container_status(before)["containerID"]
    look = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true"
    batch.cluster.wait_until(lambda: batch.exec("resized", look).strip() == str(96 << 20), 10)
    look = "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null; true"
    assert batch.exec("resized", look).split()[0] == "20000"


def replaced_resize(batch: Batch, name: str, resources: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """As a client does that sends the whole pod."""
    pod = batch.cluster.get("pod", name, "-n", batch.namespace)
    pod["spec"]["containers"][0]["resources"] = resources
    # Whatever the kubelet writes meanwhile.
    del pod["metadata"]["resourceVersion"]
    path = f"/api/v1/namespaces/{batch.namespace}/pods/{name}/resize"
    return batch.cluster.try_kubectl("replace", "--raw", path, "-f", "-", stdin=json.dumps(pod))


def resize_condition(pod: Any) -> Any:
    found = [one for one in pod["status"]["conditions"] if one["type"].startswith("PodResize")]
    return (found[0]["type"], found[0].get("reason")) if found else None


def test_a_resize_that_the_node_cannot_give_is_refused_and_another_restarts_the_container(batch: Batch) -> None:
    name = "restarted-by-resize"
    batch.ready(name)

    limits = {"cpu": "9999", "memory": "64Mi"}
    refused = replaced_resize(batch, name, {"requests": {"cpu": "9999", "memory": "32Mi"}, "limits": limits})

    assert "Node didn't have enough allocatable resources: cpu, requested: 9999000, allocatable: " in refused.stderr
    pod = batch.get("pod", name)
    assert container_status(pod)["resources"] == SIZES
    assert container_status(pod)["restartCount"] == 0

    more = {"requests": {"cpu": "100m", "memory": "48Mi"}, "limits": {"cpu": "200m", "memory": "96Mi"}}
    assert replaced_resize(batch, name, more).returncode == 0

    pod = batch.until(name, lambda pod: container_status(pod)["restartCount"] == 1 and is_ready(pod))
    pod = batch.until(name, lambda pod: resize_condition(pod) is None)
    assert container_status(pod)["resources"] == more
    look = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true"
    assert batch.exec(name, look).strip() == str(96 << 20)


def test_generations_are_observed(batch: Batch) -> None:
    pod = batch.ready("changed")
    assert pod["metadata"]["generation"] == pod["status"]["observedGeneration"] == 1

    batch.kubectl("patch", "pod", "changed", "-p", '{"spec": {"activeDeadlineSeconds": 5000}}')
    batch.kubectl("patch", "pod", "changed", "-p", '{"spec": {"activeDeadlineSeconds": 4000}}')

    pod = batch.until("changed", lambda pod: pod["status"]["observedGeneration"] == 3)
    assert pod["metadata"]["generation"] == 3
    batch.kubectl("delete", "pod", "changed", "--wait=false", "--grace-period=3")
