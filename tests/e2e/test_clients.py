"""The client libraries that people use, against a cluster of simulated nodes: list, watch, create, patch, delete."""

from __future__ import annotations

import threading
from typing import Any

import kr8s
import lightkube
import pytest
from kr8s.objects import ConfigMap as Kr8sConfigMap
from kr8s.objects import Deployment as Kr8sDeployment
from kr8s.objects import Pod as Kr8sPod
from kubernetes import client as official
from kubernetes import config as official_config
from kubernetes import dynamic, watch
from lightkube.core.exceptions import ApiError
from lightkube.models.core_v1 import Container, PodSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment as LightDeployment
from lightkube.resources.core_v1 import ConfigMap as LightConfigMap
from lightkube.resources.core_v1 import Pod as LightPod

from .conftest import Cluster
from .objects import deployment, pod


@pytest.fixture
def api(simulated: Cluster) -> official.ApiClient:
    return official_config.new_client_from_config(str(simulated.config.admin_kubeconfig))


def test_official_client_creates_lists_patches_deletes(api: official.ApiClient, namespace: str) -> None:
    core, apps = official.CoreV1Api(api), official.AppsV1Api(api)
    created = apps.create_namespaced_deployment(namespace, deployment("web", 2))
    assert created.spec.strategy.type == "RollingUpdate"

    apps.patch_namespaced_deployment_scale("web", namespace, {"spec": {"replicas": 3}})
    patched = apps.read_namespaced_deployment("web", namespace)
    assert patched.spec.replicas == 3

    for event in watch.Watch().stream(core.list_namespaced_pod, namespace, timeout_seconds=30):
        if event["object"].status.phase == "Running":
            break
    else:
        pytest.fail("no pod ran")
    apps.delete_namespaced_deployment("web", namespace)


def test_official_client_raises_the_status_of_a_failure(api: official.ApiClient, namespace: str) -> None:
    core = official.CoreV1Api(api)

    with pytest.raises(official.ApiException) as missing:
        core.read_namespaced_pod("absent", namespace)
    with pytest.raises(official.ApiException) as invalid:
        core.create_namespaced_pod(namespace, {"metadata": {"name": "x"}, "spec": {"containers": []}})

    assert (missing.value.status, missing.value.reason) == (404, "Not Found")
    assert invalid.value.status == 422
    assert "spec.containers" in invalid.value.body


def test_official_dynamic_client(api: official.ApiClient, namespace: str) -> None:
    config_maps = dynamic.DynamicClient(api).resources.get(api_version="v1", kind="ConfigMap")

    config_maps.create(namespace=namespace, body={"metadata": {"name": "a"}, "data": {"k": "1"}})
    applied = config_maps.server_side_apply(
        namespace=namespace,
        name="a",
        body={"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "2"}},
        field_manager="test",
        force_conflicts=True,
    )

    assert applied.data.k == "2"


def test_a_watch_sees_each_change_once(api: official.ApiClient, namespace: str) -> None:
    core = official.CoreV1Api(api)
    start = core.list_namespaced_config_map(namespace).metadata.resource_version
    seen: list[tuple[str, str]] = []

    def follow() -> None:
        stream = watch.Watch().stream(
            core.list_namespaced_config_map, namespace, resource_version=start, timeout_seconds=20
        )
        for event in stream:
            seen.append((event["type"], event["object"].metadata.name))
            if event["type"] == "DELETED":
                return

    follower = threading.Thread(target=follow)
    follower.start()
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "x"}})
    core.patch_namespaced_config_map("x", namespace, {"data": {"a": "b"}})
    core.delete_namespaced_config_map("x", namespace)
    follower.join(30)

    assert seen == [("ADDED", "x"), ("MODIFIED", "x"), ("DELETED", "x")]


def test_kr8s(simulated: Cluster, namespace: str) -> None:
    api = kr8s.api(kubeconfig=str(simulated.config.admin_kubeconfig), namespace=namespace)
    web: Any = Kr8sDeployment({**deployment("web", 2), "metadata": {"name": "web", "namespace": namespace}}, api=api)
    web.create()
    web.wait("condition=Available", timeout=30)
    web.scale(3)
    web.refresh()

    assert web.replicas == 3
    assert len(list(api.get("pods", namespace=namespace, label_selector={"app": "web"}))) >= 2
    settings: Any = Kr8sConfigMap({"metadata": {"name": "s", "namespace": namespace}, "data": {"a": "1"}}, api=api)
    settings.create()
    settings.patch({"data": {"a": "2"}})
    assert settings.data["a"] == "2"
    single: Any = Kr8sPod({**pod("one"), "metadata": {"name": "one", "namespace": namespace}}, api=api)
    single.create()
    single.wait("condition=Ready", timeout=30)
    single.delete()
    web.delete()


def test_lightkube(simulated: Cluster, namespace: str) -> None:
    config = lightkube.KubeConfig.from_file(str(simulated.config.admin_kubeconfig))
    client = lightkube.Client(config=config, namespace=namespace, field_manager="lightkube-test")
    client.create(LightConfigMap(metadata=ObjectMeta(name="a"), data={"k": "1"}))
    client.patch(LightConfigMap, "a", {"data": {"k": "2"}})
    assert client.get(LightConfigMap, "a").data == {"k": "2"}

    applied = client.apply(
        LightConfigMap(apiVersion="v1", kind="ConfigMap", metadata=ObjectMeta(name="b"), data={"x": "y"})
    )
    assert applied.metadata.name == "b"

    client.create(LightPod(metadata=ObjectMeta(name="p"), spec=PodSpec(containers=[Container(name="c", image="i")])))
    for _, seen in client.watch(LightPod, server_timeout=30):
        if seen.status.phase == "Running":
            break
    client.create(LightDeployment.from_dict(deployment("web")))
    client.wait(LightDeployment, "web", for_conditions=["Available"])
    client.delete(LightPod, "p")
    with pytest.raises(ApiError) as missing:
        client.get(LightPod, "absent")
    assert missing.value.status.reason == "NotFound"
