"""Static pods: what a node runs by itself, and the mirror pods by which the API server shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from navarch.api.meta import Obj
from navarch.node.engine.manifests import ManifestError, static_pod
from tests.node.engine.conftest import Simulated
from tests.node.objects import NOW

MIRROR = "kubernetes.io/config.mirror"


def manifest(name: str = "web", image: str = "web:1", **spec: Any) -> Obj:
    containers = [{"name": "c", "image": image}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": containers, "terminationGracePeriodSeconds": 1, **spec},
    }


def made(document: Any) -> Obj:
    return static_pod(document, source="file", origin="/m/web.yaml", node_name="n1", now=NOW)


def write(node: Simulated, document: Obj, name: str = "web.yaml") -> Path:
    path = node.config.manifests / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document))
    return path


# What a manifest becomes.


def test_a_manifest_becomes_a_pod_of_the_node_with_defaults() -> None:
    pod = made(manifest())

    metadata, spec = pod["metadata"], pod["spec"]
    assert (metadata["name"], metadata["namespace"], spec["nodeName"]) == ("web-n1", "default", "n1")
    assert metadata["annotations"] == {
        "kubernetes.io/config.hash": metadata["uid"],
        "kubernetes.io/config.seen": "2026-01-01T00:00:00Z",
        "kubernetes.io/config.source": "file",
    }
    assert spec["tolerations"] == [{"operator": "Exists", "effect": "NoExecute"}]
    assert (spec["restartPolicy"], spec["containers"][0]["imagePullPolicy"]) == ("Always", "IfNotPresent")


def test_another_manifest_is_another_pod() -> None:
    assert made(manifest())["metadata"]["uid"] == made(manifest())["metadata"]["uid"]
    assert made(manifest())["metadata"]["uid"] != made(manifest(image="web:2"))["metadata"]["uid"]


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"kind": "Service", "apiVersion": "v1"}, "not that of a v1 Pod"),
        ([], "not that of a v1 Pod"),
        ({**manifest(), "metadata": {}}, "no name"),
        (manifest(containers=[]), "spec.containers: Required value"),
        (manifest(containers="many"), "cannot unmarshal"),
        (manifest(serviceAccountName="default"), "static pods can not reference serviceaccounts"),
        (
            manifest(volumes=[{"name": "s", "secret": {"secretName": "s"}}]),
            "static pods can not reference secrets",
        ),
    ],
)
def test_what_is_no_pod_of_the_nodes_own_is_refused(document: Any, complaint: str) -> None:
    with pytest.raises(ManifestError, match=complaint):
        made(document)


# What runs.


async def test_a_manifest_in_the_folder_runs_and_is_mirrored(simulated: Simulated) -> None:
    write(simulated, manifest())

    mirror = await simulated.running("web-n1")

    annotations = mirror["metadata"]["annotations"]
    assert annotations[MIRROR] == annotations["kubernetes.io/config.hash"]
    assert mirror["metadata"]["labels"] == {"app": "web"}
    node = simulated.api.get("nodes", "", "n1")
    assert mirror["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": node["metadata"]["uid"], "controller": True}
    ]
    assert [status["state"].keys() for status in mirror["status"]["containerStatuses"]] == [{"running"}]


async def test_a_mirror_pod_that_is_deleted_comes_back_and_nothing_restarts(simulated: Simulated) -> None:
    write(simulated, manifest())
    first = await simulated.running("web-n1")
    containers = await simulated.runtime.list_containers()

    await simulated.api.delete_gracefully("default", "web-n1")

    await simulated.until(
        lambda: (
            (simulated.shown("web-n1") or first)["metadata"]["uid"] != first["metadata"]["uid"]
            and simulated.phase("web-n1") == "Running"
        )
    )
    assert await simulated.runtime.list_containers() == containers
    assert simulated.shown("web-n1")["status"]["startTime"] == first["status"]["startTime"]


async def test_a_manifest_that_is_removed_ends_the_pod_and_its_mirror(simulated: Simulated) -> None:
    path = write(simulated, manifest())
    await simulated.running("web-n1")

    path.unlink()

    await simulated.until(lambda: simulated.shown("web-n1") is None)
    assert await simulated.runtime.list_sandboxes() == []


async def test_a_manifest_that_changes_replaces_the_pod(simulated: Simulated) -> None:
    write(simulated, manifest())
    first = await simulated.running("web-n1")

    write(simulated, manifest(image="web:2"))

    def replaced() -> bool:
        pod = simulated.shown("web-n1")
        return pod is not None and pod["spec"]["containers"][0]["image"] == "web:2"

    await simulated.until(replaced)
    second = await simulated.running("web-n1")
    assert second["metadata"]["annotations"][MIRROR] != first["metadata"]["annotations"][MIRROR]
    assert len(await simulated.runtime.list_sandboxes()) == 1


async def test_a_manifest_that_is_no_pod_leaves_the_others_alone(simulated: Simulated) -> None:
    write(simulated, manifest())
    (simulated.config.manifests / "broken.yaml").write_text("a: [")
    (simulated.config.manifests / ".hidden.yaml").write_text(yaml.safe_dump(manifest("hidden")))
    write(simulated, manifest("other"), "other.json")

    await simulated.running("web-n1")
    await simulated.running("other-n1")
    assert simulated.shown("hidden-n1") is None


async def test_static_pods_run_while_the_api_server_is_away(simulated: Simulated) -> None:
    await simulated.until(lambda: simulated.api.get("nodes", "", "n1"))
    simulated.api.down = True
    await simulated.restart()
    write(simulated, manifest())

    await simulated.until(lambda: [worker for worker in simulated.kubelet.pods if worker.observed.any_running])
    assert simulated.shown("web-n1") is None

    simulated.api.down = False
    await simulated.running("web-n1")


async def test_a_restarted_kubelet_goes_on_with_the_same_pod_and_mirror(simulated: Simulated) -> None:
    write(simulated, manifest())
    before = await simulated.running("web-n1")
    containers = await simulated.runtime.list_containers()

    await simulated.restart()

    await simulated.until(lambda: len(simulated.kubelet.pods) == 1)
    await simulated.until(lambda: [worker for worker in simulated.kubelet.pods if worker.mirror is not None])
    after = simulated.shown("web-n1")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["startTime"] == before["status"]["startTime"]
    assert await simulated.runtime.list_containers() == containers


async def test_a_mirror_whose_manifest_went_while_the_kubelet_was_away_is_deleted(simulated: Simulated) -> None:
    path = write(simulated, manifest())
    await simulated.running("web-n1")

    await simulated.stop()
    path.unlink()
    await simulated.start_again()

    await simulated.until(lambda: simulated.shown("web-n1") is None)

    async def none_left() -> bool:
        return not await simulated.runtime.list_sandboxes()

    await simulated.until_async(none_left)


async def test_pods_come_from_a_url(simulated: Simulated) -> None:
    listed = {"apiVersion": "v1", "kind": "PodList", "items": [manifest("one"), manifest("two")]}

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=json.dumps(listed))

    app = web.Application()
    app.router.add_get("/pods", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        port = runner.addresses[0][1]
        await simulated.restart(static_pod_url=f"http://127.0.0.1:{port}/pods", static_pod_url_check_s=0.05)

        one = await simulated.running("one-n1")
        await simulated.running("two-n1")
        assert one["metadata"]["annotations"]["kubernetes.io/config.source"] == "http"

        listed["items"] = [manifest("two")]
        await simulated.until(lambda: simulated.shown("one-n1") is None)
        assert simulated.phase("two-n1") == "Running"
    finally:
        await runner.cleanup()


async def test_an_annotation_makes_no_pod_of_the_api_a_static_one(simulated: Simulated) -> None:
    await simulated.pod("sly")
    await simulated.api.patch_pod("sly", {"metadata": {"annotations": {"kubernetes.io/config.source": "file"}}})
    await simulated.running("sly")

    await simulated.api.delete_gracefully("default", "sly")

    await simulated.until(lambda: simulated.shown("sly") is None)
