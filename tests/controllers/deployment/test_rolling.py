"""The rolling update's sizes: never below what must be available, never above the surge, and always to an end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from navarch.api.meta import Obj, name_of
from navarch.controllers.deployment.revisions import replicas, surge_and_unavailable
from navarch.controllers.deployment.rolling import new_size, old_sizes
from navarch.controllers.deployment.scaling import proportional_sizes
from tests.controllers.objects import deployment, replica_set

_amounts = st.one_of(st.integers(0, 10), st.integers(0, 100).map(lambda n: f"{n}%"))


def rolling(total: int, surge: object, unavailable: object) -> Obj:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    return deployment(replicas=total, strategy=strategy)


@given(total=st.integers(1, 40), surge=_amounts, unavailable=_amounts, data=st.data())
def test_a_rollout_ends_within_its_limits(total: int, surge: object, unavailable: object, data: st.DataObject) -> None:
    made = rolling(total, surge, unavailable)
    max_surge, max_unavailable = surge_and_unavailable(made)
    new, old = replica_set("new", 0), replica_set("old", total)
    for _ in range(20 * total + 20):
        size = new_size(made, new, [new, old])
        if size != replicas(new):
            new["spec"]["replicas"] = size
        else:
            for name, smaller in old_sizes(made, new, [old]).items():
                assert name == "old"
                old["spec"]["replicas"] = smaller
                old["status"]["availableReplicas"] = min(old["status"]["availableReplicas"], smaller)
        assert replicas(new) + replicas(old) <= total + max_surge
        assert new["status"]["availableReplicas"] + old["status"]["availableReplicas"] >= total - max_unavailable
        if (replicas(new), replicas(old)) == (total, 0):
            break
        if waiting := replicas(new) - new["status"]["availableReplicas"]:
            new["status"]["availableReplicas"] += data.draw(st.integers(1, waiting))
    assert (replicas(new), replicas(old)) == (total, 0)


def test_pods_that_never_become_ready_stop_the_rollout() -> None:
    made = rolling(10, "25%", "25%")
    new, old = replica_set("new", 5, available=0), replica_set("old", 8)

    assert old_sizes(made, new, [old]) == {}
    assert new_size(made, new, [new, old]) == 5


def test_broken_old_pods_go_first() -> None:
    made = rolling(10, 0, 2)
    new = replica_set("new", 0)
    broken, healthy = replica_set("broken", 4, available=2), replica_set("healthy", 6)

    assert old_sizes(made, new, [broken, healthy]) == {"broken": 2}


@given(total=st.integers(0, 60), sizes=st.lists(st.integers(1, 20), min_size=2, max_size=4))
def test_scaling_in_the_middle_of_a_rollout_gives_the_whole_size(total: int, sizes: list[int]) -> None:
    made = rolling(total, 3, 0)
    noted = {"deployment.kubernetes.io/max-replicas": str(sum(sizes))}
    sets = [replica_set(f"rs{n}", size, annotations=noted) for n, size in enumerate(sizes)]

    result = proportional_sizes(made, sets)

    assert set(result) == {name_of(rs) for rs in sets}
    assert all(size >= 0 for size in result.values())
    assert sum(result.values()) == (total + 3 if total else 0)
