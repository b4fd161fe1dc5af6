"""Which pods go first when the node is short of something, and what is said of them."""

from __future__ import annotations

from typing import Any

from navarch.node.engine.ranking import low_on, over_limit, rank
from navarch.node.resources.usage import ContainerUse, PodUse, Use
from navarch.node.thresholds import IMAGE_DISK, MEMORY, NODE_DISK, NODE_INODES, PIDS
from tests.node.objects import Obj
from tests.node.objects import pod as bare

MI = 1 << 20


def pod(name: str, *, requests: Obj | None = None, limits: Obj | None = None, priority: int = 0, **spec: Any) -> Obj:
    container = {"name": "c", "resources": {"requests": requests or {}, "limits": limits or {}}}
    made = bare(container, priority=priority, **spec)
    made["metadata"] = {"name": name, "namespace": "ns", "uid": name}
    return made


def using(memory: int = 0, layer: int = 0, log: int = 0, processes: int = 0, **volumes: int) -> PodUse:
    own = ContainerUse(memory, Use(layer, 10), Use(log, 1))
    return PodUse({"c": own}, {name: Use(size, size) for name, size in volumes.items()}, processes)


def order(signal: str, uses: dict[str, PodUse], *pods: Obj, separate_images: bool = False) -> list[str]:
    return [one["metadata"]["name"] for one in rank(pods, signal, uses, separate_images=separate_images)]


def test_pods_that_use_more_than_they_requested_go_first_then_lower_priority_then_who_exceeds_by_most() -> None:
    pods = [
        pod("modest", requests={"memory": "100Mi"}),
        pod("important", priority=10),
        pod("greedy"),
        pod("greedier"),
    ]
    uses = {"modest": using(90 * MI), "important": using(900 * MI), "greedy": using(5 * MI), "greedier": using(6 * MI)}

    assert order(MEMORY, uses, *pods) == ["greedier", "greedy", "important", "modest"]


def test_a_pod_of_which_nothing_is_known_goes_before_all_others() -> None:
    assert order(MEMORY, {"a": using(5)}, pod("a"), pod("b")) == ["b", "a"]


def test_process_ids_are_ranked_by_priority_and_number() -> None:
    uses = {"a": using(processes=5), "b": using(processes=9), "c": using(processes=99)}

    assert order(PIDS, uses, pod("a"), pod("b"), pod("c", priority=1)) == ["b", "a", "c"]


def test_where_images_have_their_own_disk_layers_count_there_and_logs_and_volumes_on_the_nodes() -> None:
    uses = {"writes": using(layer=50), "logs": using(log=30), "keeps": using(v=40)}
    pods = [pod(name) for name in uses]

    assert order(NODE_DISK, uses, *pods) == ["writes", "keeps", "logs"]
    assert order(NODE_DISK, uses, *pods, separate_images=True) == ["keeps", "logs", "writes"]
    assert order(IMAGE_DISK, uses, *pods, separate_images=True)[0] == "writes"
    assert order(NODE_INODES, uses, *pods)[0] == "keeps"


def test_a_pod_is_told_the_threshold_and_what_its_containers_used() -> None:
    words = low_on("memory", pod("a", requests={"memory": "10Mi"}), using(20 * MI), (100 * MI, 30 * MI))

    assert words.message == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 30Mi. "
        "Container c was using 20Mi, request is 10Mi, has larger consumption of memory. "
    )
    assert words.annotations == {
        "offending_containers": "c",
        "offending_containers_usage": "20Mi",
        "starved_resource": "memory",
    }


def test_a_volume_a_pod_and_a_container_have_limits_of_their_own() -> None:
    volume = {"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}
    bounded = pod("a", limits={"ephemeral-storage": "2Mi"}, volumes=[volume])

    assert over_limit(bounded, using(v=MI)) == ""
    assert over_limit(bounded, using(v=MI + 1)) == 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '
    assert over_limit(bounded, using(v=MI, log=MI, layer=1)) == (
        "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "
    )
    alone = pod("b", limits={"ephemeral-storage": "2Mi"})
    other = {"name": "d", "image": "i", "resources": {"limits": {"ephemeral-storage": "9Mi"}}}
    alone["spec"]["containers"].append(other)
    assert over_limit(alone, using(log=3 * MI)) == 'Container c exceeded its local ephemeral storage limit "2Mi". '
    assert over_limit(pod("c"), using(log=99 * MI)) == ""
