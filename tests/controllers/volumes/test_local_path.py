"""The class `local-path`: a claim gets a directory of the node that its pod is on; the node wipes it in the end."""

from __future__ import annotations

from typing import Any

from navarch.api.meta import Obj, annotations_of
from navarch.client.base import PatchKind
from navarch.client.resources import NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES
from navarch.controllers.base import ControllerConfig
from navarch.kinds.storage import local_path
from tests.controllers.conftest import Cluster, node, running
from tests.controllers.volumes.objects import claim

CONFIG = ControllerConfig(local_path=True)
SELECTED = "volume.kubernetes.io/selected-node"


async def provisioned(cluster: Cluster, name: str = "data", on: str = "n1", **spec: Any) -> Obj:
    """A claim whose pod the scheduler has placed, and its volume."""
    await cluster.until(lambda: has_class(cluster))
    made = claim(name, storageClassName="local-path", **spec)
    made["metadata"]["annotations"] = {SELECTED: on}
    await cluster.create(PERSISTENT_VOLUME_CLAIMS, made)
    bound = await cluster.until_status(PERSISTENT_VOLUME_CLAIMS, name, phase="Bound")
    return await cluster.get(PERSISTENT_VOLUMES, bound["spec"]["volumeName"])


async def has_class(cluster: Cluster) -> bool:
    return bool(await cluster.list(STORAGE_CLASSES))


async def removals(cluster: Cluster, on: str = "n1") -> dict[str, str]:
    return local_path.removals(await cluster.get(NODES, on))


async def says(cluster: Cluster, name: str, state: str) -> None:
    """The node's kubelet has dealt with a directory."""
    text = local_path.removals_text({name: state})
    patch = {"metadata": {"annotations": {local_path.REMOVALS: text}}}
    await cluster.client.patch(NODES, "n1", "", patch, kind=PatchKind.MERGE)


async def test_a_cluster_starts_with_a_default_class() -> None:
    async with running(CONFIG, kubelet=False) as cluster:
        await cluster.until(lambda: has_class(cluster))

        (made,) = await cluster.list(STORAGE_CLASSES)
        assert made["metadata"]["name"] == "local-path"
        assert annotations_of(made)["storageclass.kubernetes.io/is-default-class"] == "true"
        assert (made["volumeBindingMode"], made["reclaimPolicy"]) == ("WaitForFirstConsumer", "Delete")


async def test_a_claim_gets_a_directory_of_the_selected_node() -> None:
    async with running(CONFIG, kubelet=False) as cluster:
        volume = await provisioned(cluster)

        name = volume["metadata"]["name"]
        assert volume["spec"]["local"] == {"path": f"/var/lib/kubelet/local-path/{name}"}
        assert volume["spec"]["capacity"] == {"storage": "1Gi"}
        terms = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
        assert terms[0]["matchExpressions"][0]["values"] == ["n1"]
        reasons = [reason for reason, _ in await cluster.events("data")]
        assert reasons.index("Provisioning") < reasons.index("ProvisioningSucceeded")


async def test_a_claim_waits_for_its_first_consumer() -> None:
    async with running(CONFIG, kubelet=False) as cluster:
        await cluster.until(lambda: has_class(cluster))
        await cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("data", storageClassName="local-path"))

        async def told() -> bool:
            return "WaitForFirstConsumer" in [reason for reason, _ in await cluster.events("data")]

        await cluster.until(told)
        assert await cluster.list(PERSISTENT_VOLUMES) == []


async def test_what_cannot_be_a_directory_is_refused() -> None:
    async with running(CONFIG, kubelet=False) as cluster:
        await cluster.until(lambda: has_class(cluster))
        made = claim("data", storageClassName="local-path", volumeMode="Block")
        made["metadata"]["annotations"] = {SELECTED: "n1"}
        await cluster.create(PERSISTENT_VOLUME_CLAIMS, made)

        async def told() -> str:
            return next((words for why, words in await cluster.events("data") if why == "ProvisioningFailed"), "")

        assert await cluster.until(told) == (
            'failed to provision volume with StorageClass "local-path": block volumes are not supported'
        )


async def test_the_volume_goes_once_its_node_has_wiped_the_directory() -> None:
    async with running(CONFIG, kubelet=False) as cluster:
        name = (await provisioned(cluster))["metadata"]["name"]
        await cluster.client.delete(PERSISTENT_VOLUME_CLAIMS, "data", "default")

        async def asked() -> bool:
            return await removals(cluster) == {name: local_path.WANTED}

        await cluster.until(asked)
        assert (await cluster.get(PERSISTENT_VOLUMES, name))["status"]["phase"] == "Released"
        await says(cluster, name, local_path.DONE)

        async def gone() -> bool:
            return not await cluster.list(PERSISTENT_VOLUMES) and await removals(cluster) == {}

        await cluster.until(gone)


async def test_a_directory_that_cannot_be_wiped_is_told_of_and_tried_again() -> None:
    async with running(CONFIG, kubelet=False) as cluster:
        name = (await provisioned(cluster))["metadata"]["name"]
        await cluster.client.delete(PERSISTENT_VOLUME_CLAIMS, "data", "default")

        async def asked() -> bool:
            return await removals(cluster) == {name: local_path.WANTED}

        await cluster.until(asked)
        await says(cluster, name, "the disk is broken")

        failed = await cluster.until_status(PERSISTENT_VOLUMES, name, phase="Failed")
        assert failed["status"]["message"] == "the disk is broken"
        await cluster.until(asked)


async def test_the_volume_of_a_node_that_is_gone_goes_with_its_claim() -> None:
    async with running(CONFIG, kubelet=False) as cluster:
        await cluster.create(NODES, node("n2"))
        await provisioned(cluster, on="n2")
        await cluster.client.delete(NODES, "n2")
        await cluster.client.delete(PERSISTENT_VOLUME_CLAIMS, "data", "default")

        async def gone() -> bool:
            return not await cluster.list(PERSISTENT_VOLUMES)

        await cluster.until(gone)


async def test_a_simulated_node_has_nothing_to_wipe() -> None:
    async with running(CONFIG, kubelet=False) as cluster:
        made = node("n2")
        made["metadata"]["annotations"] = {"sim.navarch.dev/node": "true"}
        await cluster.create(NODES, made)
        await provisioned(cluster, on="n2")
        await cluster.client.delete(PERSISTENT_VOLUME_CLAIMS, "data", "default")

        async def gone() -> bool:
            return not await cluster.list(PERSISTENT_VOLUMES)

        await cluster.until(gone)
