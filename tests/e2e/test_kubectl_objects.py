"""kubectl's verbs on objects, against a cluster of simulated nodes: what they print and what they change."""

from __future__ import annotations

import json

import pytest

from .conftest import Cluster, KubectlError
from .objects import deployment, pod, service


def ready(cluster: Cluster, namespace: str, name: str, replicas: int) -> None:
    cluster.wait_until(
        lambda: cluster.get("deployment", name, "-n", namespace)["status"].get("readyReplicas", 0) == replicas,
        what=f"{name} has {replicas} ready replicas",
    )


def test_apply_creates_then_configures_then_leaves_alone(simulated: Cluster, namespace: str) -> None:
    assert "deployment.apps/web created" in simulated.apply(deployment("web"), namespace=namespace)
    assert "deployment.apps/web unchanged" in simulated.apply(deployment("web"), namespace=namespace)
    assert "deployment.apps/web configured" in simulated.apply(deployment("web", 2), namespace=namespace)
    ready(simulated, namespace, "web", 2)


def test_run_get_describe_delete(simulated: Cluster, namespace: str) -> None:
    assert simulated.kubectl("run", "web", "--image=nginx", "-n", namespace) == "pod/web created\n"
    simulated.kubectl("wait", "--for=condition=Ready", "pod/web", "-n", namespace, "--timeout=30s")

    wide = simulated.kubectl("get", "pod", "web", "-n", namespace, "-o", "wide").splitlines()
    described = simulated.kubectl("describe", "pod", "web", "-n", namespace)

    assert wide[0].split()[:6] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP"]
    assert wide[1].split()[:4] == ["web", "1/1", "Running", "0"]
    assert "Successfully assigned" in described
    assert 'pod "web" deleted' in simulated.kubectl("delete", "pod", "web", "-n", namespace, "--now")
    assert simulated.try_kubectl("get", "pod", "web", "-n", namespace).stderr == (
        'Error from server (NotFound): pods "web" not found\n'
    )


def test_create_generators(simulated: Cluster, namespace: str) -> None:
    create = ("create", "-n", namespace)
    assert "configmap/settings created" in simulated.kubectl(*create, "configmap", "settings", "--from-literal=a=1")
    assert "secret/key created" in simulated.kubectl(*create, "secret", "generic", "key", "--from-literal=p=s3cret")
    assert "serviceaccount/robot created" in simulated.kubectl(*create, "serviceaccount", "robot")
    assert "deployment.apps/app created" in simulated.kubectl(*create, "deployment", "app", "--image=nginx")
    assert "job.batch/once created" in simulated.kubectl(*create, "job", "once", "--image=busybox")
    assert "cronjob.batch/hourly created" in simulated.kubectl(
        *create, "cronjob", "hourly", "--image=busybox", "--schedule=0 * * * *"
    )
    assert "role.rbac.authorization.k8s.io/reader created" in simulated.kubectl(
        *create, "role", "reader", "--verb=get,list", "--resource=pods"
    )
    assert "resourcequota/q created" in simulated.kubectl(*create, "quota", "q", "--hard=pods=10")
    assert simulated.get("secret", "key", "-n", namespace)["data"] == {"p": "czNjcmV0"}


def test_edit_label_annotate_patch_set(simulated: Cluster, namespace: str) -> None:
    simulated.apply(deployment("web"), namespace=namespace)
    here = ("-n", namespace)
    simulated.kubectl("label", "deployment", "web", "tier=front", *here)
    simulated.kubectl("annotate", "deployment", "web", "note=hello", *here)
    simulated.kubectl("patch", "deployment", "web", "-p", '{"spec":{"minReadySeconds":1}}', *here)
    simulated.kubectl(
        "patch", "deployment", "web", "--type=json", "-p", '[{"op":"add","path":"/spec/paused","value":true}]', *here
    )
    simulated.kubectl("patch", "deployment", "web", "--type=merge", "-p", '{"spec":{"revisionHistoryLimit":3}}', *here)
    simulated.kubectl("set", "image", "deployment/web", "main=nginx:2", *here)
    simulated.kubectl("set", "env", "deployment/web", "COLOR=blue", *here)
    simulated.kubectl("set", "resources", "deployment/web", "--limits=cpu=200m,memory=64Mi", *here)

    web = simulated.get("deployment", "web", *here)
    container = web["spec"]["template"]["spec"]["containers"][0]

    assert web["metadata"]["labels"]["tier"] == "front"
    assert web["metadata"]["annotations"]["note"] == "hello"
    assert (web["spec"]["minReadySeconds"], web["spec"]["paused"], web["spec"]["revisionHistoryLimit"]) == (1, True, 3)
    assert container["image"] == "nginx:2"
    assert container["env"] == [{"name": "COLOR", "value": "blue"}]
    assert container["resources"]["limits"] == {"cpu": "200m", "memory": "64Mi"}


def test_scale_autoscale_expose(simulated: Cluster, namespace: str) -> None:
    here = ("-n", namespace)
    simulated.apply(deployment("web"), namespace=namespace)
    assert "scaled" in simulated.kubectl("scale", "deployment/web", "--replicas=4", *here)
    ready(simulated, namespace, "web", 4)
    assert "autoscaled" in simulated.kubectl("autoscale", "deployment/web", "--min=2", "--max=5", "--cpu=80%", *here)
    assert "exposed" in simulated.kubectl("expose", "deployment/web", "--port=80", "--target-port=8080", *here)

    simulated.wait_until(
        lambda: (
            sum(
                len(entry.get("endpoints") or [])
                for entry in simulated.get("endpointslices", "-l", "kubernetes.io/service-name=web", *here)["items"]
            )
            == 4
        ),
        what="four endpoints",
    )
    assert simulated.get("service", "web", *here)["spec"]["clusterIP"].startswith("10.")
    assert simulated.get("hpa", "web", *here)["spec"]["maxReplicas"] == 5


def test_rollout(simulated: Cluster, namespace: str) -> None:
    here = ("-n", namespace)
    simulated.apply(deployment("web", 3, image="nginx:1"), namespace=namespace)
    simulated.kubectl("rollout", "status", "deployment/web", "--timeout=60s", *here)
    simulated.kubectl("set", "image", "deployment/web", "main=nginx:2", *here)
    assert "successfully rolled out" in simulated.kubectl("rollout", "status", "deployment/web", "--timeout=60s", *here)
    history = simulated.kubectl("rollout", "history", "deployment/web", *here)
    assert [line.split()[0] for line in history.splitlines()[2:] if line] == ["1", "2"]

    simulated.kubectl("rollout", "undo", "deployment/web", *here)
    simulated.kubectl("rollout", "status", "deployment/web", "--timeout=60s", *here)
    web = simulated.get("deployment", "web", *here)
    assert web["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx:1"

    simulated.kubectl("rollout", "restart", "deployment/web", *here)
    simulated.kubectl("rollout", "pause", "deployment/web", *here)
    simulated.kubectl("rollout", "resume", "deployment/web", *here)
    simulated.kubectl("rollout", "status", "deployment/web", "--timeout=60s", *here)


def test_explain_diff_replace_dry_run(simulated: Cluster, namespace: str) -> None:
    here = ("-n", namespace)
    simulated.apply(deployment("web"), namespace=namespace)

    assert "minReadySeconds" in simulated.kubectl("explain", "deployment.spec")
    assert "containers" in simulated.kubectl("explain", "pod.spec", "--recursive")
    differing = simulated.try_kubectl("diff", *here, "-f", "-", stdin=json.dumps(deployment("web", 5)))
    assert differing.returncode == 1
    assert "+  replicas: 5" in differing.stdout

    replacement = simulated.get("deployment", "web", *here)
    replacement["spec"]["replicas"] = 2
    assert "replaced" in simulated.kubectl("replace", "-f", "-", *here, stdin=json.dumps(replacement))
    assert "created (server dry run)" in simulated.kubectl(
        "create", "deployment", "ghost", "--image=x", "--dry-run=server", *here
    )
    assert simulated.try_kubectl("get", "deployment", "ghost", *here).returncode == 1


def test_server_side_apply_conflicts_and_force(simulated: Cluster, namespace: str) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}, "data": {"a": "1"}}
    apply = ("apply", "--server-side", "-n", namespace, "-f", "-")
    simulated.kubectl(*apply, "--field-manager=one", stdin=json.dumps(config))
    config["data"] = {"a": "2"}

    refused = simulated.try_kubectl(*apply, "--field-manager=two", stdin=json.dumps(config))

    assert refused.returncode == 1
    assert 'conflict with "one": .data.a' in refused.stderr
    simulated.kubectl(*apply, "--field-manager=two", "--force-conflicts", stdin=json.dumps(config))
    assert simulated.get("configmap", "shared", "-n", namespace)["data"] == {"a": "2"}


def test_selectors_watch_and_events(simulated: Cluster, namespace: str) -> None:
    here = ("-n", namespace)
    simulated.apply(pod("a"), pod("b"), namespace=namespace)
    simulated.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=30s", *here)

    assert simulated.kubectl("get", "pods", "-l", "app in (a,c)", "-o", "name", *here) == "pod/a\n"
    assert simulated.kubectl("get", "pods", "--field-selector=metadata.name=b", "-o", "name", *here) == "pod/b\n"
    assert simulated.kubectl("get", "pods", "--field-selector=status.phase!=Running", "-o", "name", *here) == ""
    assert "Scheduled" in simulated.kubectl("events", *here)
    assert "Scheduled" in simulated.kubectl("get", "events", *here)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({**pod("x"), "spec": {"containers": [{"name": "a", "image": "b", "imge": "c"}]}},
         'unknown field "spec.containers[0].imge"'),
        ({**pod("x"), "spec": {"containers": "none"}}, "cannot unmarshal string"),
        ({**pod("x"), "spec": {"containers": []}}, "spec.containers: Required value"),
        ({**pod("x"), "metadata": {"name": "Not_Valid"}}, "a lowercase RFC 1123 subdomain must consist of"),
        ({**pod("x"), "metadata": {}}, "metadata.name: Required value: name or generateName is required"),
        ({**pod("x"), "metadata": {"name": "x", "labels": {"a": "b c"}}}, "a valid label must be an empty string or"),
        ({**deployment("x"), "spec": {**deployment("x")["spec"], "selector": {"matchLabels": {"app": "y"}}}},
         "`selector` does not match template `labels`"),
        ({**service("x"), "spec": {"ports": [{"port": 99999}]}}, "must be between 1 and 65535, inclusive"),
    ],
)  # fmt: skip
def test_bad_manifests_are_refused_in_kubernetes_words(
    simulated: Cluster, namespace: str, manifest: dict[str, object], message: str
) -> None:
    with pytest.raises(KubectlError) as refused:
        simulated.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(manifest))
    assert message in str(refused.value)


def test_immutable_fields_and_conflicts(simulated: Cluster, namespace: str) -> None:
    simulated.apply(deployment("web"), service("web"), namespace=namespace)
    web = simulated.get("deployment", "web", "-n", namespace)
    stale = json.loads(json.dumps(web))
    web["spec"]["selector"]["matchLabels"] = {"app": "other"}
    web["spec"]["template"]["metadata"]["labels"] = {"app": "other"}

    immutable = simulated.try_kubectl("replace", "-f", "-", stdin=json.dumps(web))
    stale["metadata"]["resourceVersion"] = "1"
    conflict = simulated.try_kubectl("replace", "-f", "-", stdin=json.dumps(stale))

    assert "field is immutable" in immutable.stderr
    assert "the object has been modified; please apply your changes to the latest version" in conflict.stderr


def test_quota_is_enforced(simulated: Cluster, namespace: str) -> None:
    simulated.kubectl("create", "quota", "few", "--hard=pods=1", "-n", namespace)
    simulated.wait_until(lambda: "hard" in simulated.get("quota", "few", "-n", namespace).get("status", {}))
    simulated.apply(pod("a"), namespace=namespace)

    with pytest.raises(KubectlError) as refused:
        simulated.apply(pod("b"), namespace=namespace)

    assert "exceeded quota: few, requested: pods=1, used: pods=1, limited: pods=1" in str(refused.value)


def test_deleting_a_namespace_takes_everything_in_it(simulated: Cluster) -> None:
    simulated.kubectl("create", "namespace", "doomed")
    simulated.apply(deployment("web", 2), service("web"), namespace="doomed")
    ready(simulated, "doomed", "web", 2)

    simulated.kubectl("delete", "namespace", "doomed", "--timeout=60s")

    assert simulated.get("pods", "-n", "doomed")["items"] == []
    assert simulated.try_kubectl("get", "namespace", "doomed").returncode == 1


def test_cascades(simulated: Cluster, namespace: str) -> None:
    here = ("-n", namespace)
    simulated.apply(deployment("kept"), deployment("gone"), namespace=namespace)
    ready(simulated, namespace, "kept", 1)
    ready(simulated, namespace, "gone", 1)

    simulated.kubectl("delete", "deployment", "kept", "--cascade=orphan", *here)
    simulated.kubectl("delete", "deployment", "gone", "--cascade=foreground", "--timeout=30s", *here)

    assert simulated.get("replicasets", "-l", "app=gone", *here)["items"] == []
    [orphan] = simulated.get("replicasets", "-l", "app=kept", *here)["items"]
    assert "ownerReferences" not in orphan["metadata"]
