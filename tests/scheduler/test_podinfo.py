"""What a pod asks of a node."""

from __future__ import annotations

from typing import Any

from navarch.kinds.core.resource_lists import pod_requests
from navarch.scheduler.podinfo import PodParser


def _container(name: str, **requests: str) -> dict[str, Any]:
    return {"name": name, "image": "i", "resources": {"requests": requests}}


def test_the_largest_init_container_counts_where_it_is_more_than_all_containers() -> None:
    spec = {"containers": [_container("a", cpu="1"), _container("b", cpu="500m")], "initContainers": []}
    spec["initContainers"] = [_container("i", cpu="2"), _container("j", cpu="100m")]

    assert pod_requests({"spec": spec})["cpu"] == 2000


def test_sidecars_run_beside_containers_and_beside_later_init_containers() -> None:
    sidecar = {**_container("s", cpu="1"), "restartPolicy": "Always"}
    spec = {"containers": [_container("a", cpu="1")], "initContainers": [_container("before", cpu="2500m"), sidecar]}
    assert pod_requests({"spec": spec})["cpu"] == 2500

    spec["initContainers"].append(_container("after", cpu="2"))
    assert pod_requests({"spec": spec})["cpu"] == 3000


def test_overhead_comes_on_top() -> None:
    spec = {"containers": [_container("a", memory="1Gi")], "overhead": {"memory": "64Mi"}}

    assert pod_requests({"spec": spec})["memory"] == (1024 + 64) * 2**20


def test_pods_of_one_template_share_their_traits_whatever_their_volumes_are_called() -> None:
    parser = PodParser()

    def pod(name: str, image: str = "i") -> dict[str, Any]:
        volumes = [{"name": f"kube-api-access-{name}", "projected": {}}]
        spec = {"containers": [{"name": "c", "image": image}], "volumes": volumes}
        return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}

    assert parser.parse(pod("a")).traits is parser.parse(pod("b")).traits
    assert parser.parse(pod("a")).traits is not parser.parse(pod("c", image="j")).traits
