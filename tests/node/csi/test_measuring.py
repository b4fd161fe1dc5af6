"""How full claims are, and what drivers find wrong with them."""

from __future__ import annotations

from navarch.api.meta import Obj
from navarch.node.server.stats import Statistics
from tests.csi_driver import NAME

from .conftest import Storage
from .test_volumes import claimed, gone


def statistics(storage: Storage) -> Statistics:
    kubelet = storage.node.kubelet
    return Statistics(kubelet.parts, kubelet.pods)


async def volumes(storage: Storage, pod: str) -> list[Obj]:
    """What the summary says of a pod's volumes of claims, without when that was."""
    summary = await statistics(storage).summary()
    found = next(one for one in summary["pods"] if one["podRef"]["name"] == pod)
    return [
        {key: value for key, value in one.items() if key != "time"} for one in found["volume"] if one["name"] == "v"
    ]


async def metrics(storage: Storage) -> dict[str, float]:
    lines = (await statistics(storage).metrics()).splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("kubelet_volume_stats_"))
    return {name.removeprefix("kubelet_volume_stats_"): float(value) for name, value in pairs}


def of_claim(name: str, **figures: float) -> dict[str, float]:
    labels = f'{{namespace="default",persistentvolumeclaim="{name}"}}'
    return {f"{metric}{labels}": value for metric, value in figures.items()}


async def test_a_driver_tells_how_full_its_volume_is(storage: Storage) -> None:
    await storage.describe()
    await storage.claim("data")
    async with storage.serving() as driver:
        for name in ("one", "two"):
            await storage.node.pod(name, **claimed("data"))
            await storage.node.running(name)
        told = await volumes(storage, "one")
        counted = await metrics(storage)

    total, inodes = 1 << 30, {"inodes": 100, "inodesFree": 99, "inodesUsed": 1}
    bytes_ = {"capacityBytes": total, "usedBytes": 4096, "availableBytes": total - 4096}
    about = {"pvcRef": {"name": "data", "namespace": "default"}, "volumeHealthStats": {"abnormal": False}}
    assert told == [{"name": "v", **bytes_, **inodes, **about}]
    assert counted == of_claim(
        "data",
        capacity_bytes=total,
        available_bytes=total - 4096,
        used_bytes=4096,
        inodes=100,
        inodes_free=99,
        inodes_used=1,
        health_status_abnormal=0,
    )
    assert driver.name == NAME


async def test_what_a_driver_finds_wrong_is_told_once(storage: Storage) -> None:
    await storage.describe()
    await storage.claim("data")
    async with storage.serving() as driver:
        driver.abnormal = "the disk is loud"
        await storage.node.pod("p", **claimed("data"))
        await storage.node.running("p")
        server = statistics(storage)
        for _ in range(2):
            await server.metrics()

        assert (await metrics(storage))['health_status_abnormal{namespace="default",persistentvolumeclaim="data"}'] == 1
        told = await storage.node.until(lambda: events(storage, "VolumeConditionAbnormal"))
        assert told == ["Volume v: the disk is loud"]


def events(storage: Storage, reason: str) -> list[str]:
    return [one["message"] for one in storage.node.api.events() if one["reason"] == reason]


async def test_a_directory_of_the_node_is_as_full_as_its_file_system(storage: Storage) -> None:
    place = storage.place / "local"
    place.mkdir()
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}
    affinity = {"required": {"nodeSelectorTerms": [term]}}
    await storage.claim("data", local={"path": str(place)}, nodeAffinity=affinity)
    await storage.claim("other", hostPath={"path": str(place)})
    for name in ("data", "other"):
        await storage.node.pod(name, **claimed(name))
        await storage.node.running(name)

    told = await volumes(storage, "data")

    assert [one["pvcRef"]["name"] for one in told] == ["data"]
    assert told[0]["capacityBytes"] >= told[0]["usedBytes"] > 0
    assert "volumeHealthStats" not in told[0]
    assert await volumes(storage, "other") == []


async def test_a_pod_that_has_gone_is_not_measured(storage: Storage) -> None:
    await storage.describe()
    await storage.claim("data")
    async with storage.serving():
        await storage.node.pod("p", **claimed("data"))
        await storage.node.running("p")
        assert await metrics(storage)

        await gone(storage, "p")

        assert await metrics(storage) == {}
