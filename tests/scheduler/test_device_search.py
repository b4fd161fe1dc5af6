"""Which devices a claim gets: selectors, alternatives, constraints, taints, capacity, counters; and that the search
finds what an enumeration of all possibilities finds."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch.api.meta import Obj
from navarch.kinds.resource.taints import tolerates
from navarch.scheduler.devices.allocator import NotHere, Search, SearchTooLong
from navarch.scheduler.devices.pools import Pool, PoolId, Reach, read_slice
from navarch.scheduler.devices.requests import ClaimError, read_claim
from navarch.scheduler.devices.results import allocations
from navarch.scheduler.devices.taken import Taken
from tests.scheduler.device_objects import DRIVER, asked, device, device_claim, device_class, device_slice, exactly

NODE: Obj = {"metadata": {"name": "n", "labels": {"zone": "a"}}}
MODEL = f'device.attributes["{DRIVER}"].model == '
CLASSES = {"gpu": device_class()}


def pools(*slices: Obj, rules: Sequence[Obj] = ()) -> list[Reach]:
    found: dict[PoolId, list[Any]] = {}
    for each in slices:
        id, parsed = read_slice(each, rules)
        found.setdefault(id, []).append(parsed)
    reaches = (Pool(id, members).reach(NODE) for id, members in found.items())
    return [reach for reach in reaches if reach is not None]


def search(claims: Sequence[Obj], reaches: list[Reach], taken: Taken | None = None) -> Search:
    done = Search([read_claim(claim, CLASSES.get) for claim in claims], reaches, taken or Taken())
    for _ in done.run():
        pass
    return done


def found(claims: Sequence[Obj], reaches: list[Reach], taken: Taken | None = None) -> list[str] | None:
    done = search(claims, reaches, taken)
    return None if done.solution is None else [choice.device.id.name for choice in done.solution]


def allocated(claims: Sequence[Obj], reaches: list[Reach], taken: Taken | None = None) -> list[Obj]:
    done = search(claims, reaches, taken)
    assert done.solution is not None
    wanted = [read_claim(claim, CLASSES.get) for claim in claims]
    return allocations(wanted, done.solution, "n", lambda: "a-share")


def on_node(*devices: Obj, **more: Any) -> list[Reach]:
    return pools(device_slice("n", list(devices), **more))


# What is asked for


def test_what_was_found_outlives_the_search() -> None:
    done = search([device_claim("c", exactly("r", count=2))], on_node(device("a"), device("b")))
    solution = done.solution
    del done
    gc.collect()

    assert solution is not None
    assert [choice.device.id.name for choice in solution] == ["a", "b"]


def test_a_request_gets_devices_that_class_and_claim_select() -> None:
    reaches = on_node(device("a", attributes={"model": "small"}), device("b", attributes={"model": "big"}))

    assert found([device_claim("c", exactly("r", MODEL + '"big"'))], reaches) == ["b"]
    assert found([device_claim("c", exactly("r", MODEL + '"huge"'))], reaches) is None


def test_a_domain_that_a_device_lacks_is_an_empty_map() -> None:
    expression = '!has(device.attributes["other.example.com"].x) && !("other.example.com" in device.attributes)'

    assert found([device_claim("c", exactly("r", expression))], on_node(device("a"))) == ["a"]


def test_versions_and_capacities_compare_as_such() -> None:
    one = device("a", capacity={"memory": {"value": "40Gi"}})
    one["attributes"] = {"driverVersion": {"version": "1.10.0"}}
    newer = f'device.attributes["{DRIVER}"].driverVersion.isGreaterThan(semver("1.9.0"))'
    large = f'device.capacity["{DRIVER}"].memory.compareTo(quantity("32Gi")) > 0'

    assert found([device_claim("c", exactly("r", newer, large))], on_node(one)) == ["a"]


def test_an_expression_that_fails_names_the_claim_and_the_device() -> None:
    with pytest.raises(
        ClaimError, match=r"claim default/c: selector #0 on device .*/n/a: CEL runtime error: no such key"
    ):
        found([device_claim("c", exactly("r", MODEL + '"x"'))], on_node(device("a")))


def test_the_first_alternative_that_can_be_had_is_taken() -> None:
    several = {
        "name": "r",
        "firstAvailable": [
            {"name": "big", **asked(MODEL + '"big"')},
            {"name": "two-small", **asked(MODEL + '"small"', count=2)},
        ],
    }
    small = [device(name, attributes={"model": "small"}) for name in ("a", "b")]
    big = device("c", attributes={"model": "big"})

    assert found([device_claim("c", several)], on_node(*small)) == ["a", "b"]
    (allocation,) = allocated([device_claim("c", several)], on_node(*small, big))
    assert [(each["request"], each["device"]) for each in allocation["devices"]["results"]] == [("r/big", "c")]


def test_all_means_every_device_that_is_selected() -> None:
    claim = device_claim("c", exactly("r", MODEL + '"x"', allocationMode="All"))
    devices = [
        device("a", attributes={"model": "x"}),
        device("b", attributes={"model": "y"}),
        device("c", attributes={"model": "x"}),
    ]

    assert found([claim], on_node(*devices)) == ["a", "c"]
    assert found([claim], on_node(devices[1])) is None


def test_all_waits_for_pools_that_are_being_updated() -> None:
    claim = device_claim("c", exactly("r", allocationMode="All"))

    with pytest.raises(NotHere, match=f"asks for all devices, but resource pool {DRIVER}/n is currently being updated"):
        found([claim], on_node(device("a"), count=2))


def test_more_devices_than_a_claim_can_hold_are_refused() -> None:
    with pytest.raises(ClaimError, match="number of requested devices 33 exceeds the claim limit of 32"):
        found([device_claim("c", exactly("r", count=33))], on_node(*(device(f"d{i}") for i in range(40))))


# Pools


def test_of_a_pool_only_the_newest_generation_counts_and_only_whole() -> None:
    old = device_slice("n", [device("old")], generation=1)
    new = device_slice("n", [device("new")], generation=2, count=2)
    new["metadata"]["name"] = "new"
    rest = device_slice("n", [device("rest")], generation=2, count=2)
    rest["metadata"]["name"] = "rest"

    assert found([device_claim("c")], pools(old)) == ["old"]
    assert found([device_claim("c")], pools(old, new)) is None
    assert found([device_claim("c")], pools(old, new, rest)) == ["new"]


def test_nothing_is_taken_from_a_pool_with_two_devices_of_one_name() -> None:
    with pytest.raises(NotHere, match="invalid resource pools were encountered"):
        found([device_claim("c")], on_node(device("a"), device("a")))


def test_devices_are_reached_from_the_nodes_that_their_slice_says() -> None:
    zone = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}
    (allocation,) = allocated([device_claim("c")], pools(device_slice("z", [device("a")], nodeSelector=zone)))
    assert allocation["nodeSelector"] == zone

    (everywhere,) = allocated([device_claim("c")], pools(device_slice("z", [device("a")], allNodes=True)))
    assert "nodeSelector" not in everywhere

    here = {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]}
    each = [device("far", nodeName="m"), device("near", nodeName="n")]
    (own,) = allocated([device_claim("c")], pools(device_slice("z", each, perDeviceNodeSelection=True)))
    assert own["nodeSelector"] == here
    assert own["devices"]["results"][0]["device"] == "near"


# Constraints


def test_devices_that_must_match_are_found_by_going_back() -> None:
    devices = [
        device("a", attributes={"numa": 0}),
        device("b", attributes={"numa": 1}),
        device("c", attributes={"numa": 1}),
    ]
    together = {"requests": ["x", "y"], "matchAttribute": f"{DRIVER}/numa"}
    claim = device_claim("c", exactly("x"), exactly("y"), constraints=[together])

    assert found([claim], on_node(*devices)) == ["b", "c"]
    apart = {"distinctAttribute": f"{DRIVER}/numa"}
    assert found([device_claim("c", exactly("x", count=2), constraints=[apart])], on_node(*devices)) == ["a", "b"]


# Taken, shared, tainted


def test_a_device_serves_one_claim_but_administrators_too() -> None:
    reaches = on_node(device("a"))
    taken = Taken()
    taken.add({"devices": {"results": [{"driver": DRIVER, "pool": "n", "device": "a"}]}})

    assert found([device_claim("c")], reaches, taken) is None
    (allocation,) = allocated([device_claim("c", exactly("r", adminAccess=True))], reaches, taken)
    assert allocation["devices"]["results"][0]["adminAccess"] is True
    taken.remove({"devices": {"results": [{"driver": DRIVER, "pool": "n", "device": "a"}]}})
    assert found([device_claim("c")], reaches, taken) == ["a"]


def test_a_tainted_device_is_for_those_who_tolerate_it() -> None:
    taint = {"key": "broken", "value": "yes", "effect": "NoSchedule"}
    rule = {"deviceSelector": {"pool": "n"}, "taint": taint}
    toleration = {"key": "broken", "operator": "Exists"}
    reaches = pools(device_slice("n", [device("a")]), rules=[rule])

    assert found([device_claim("c")], on_node(device("a", taints=[taint]))) is None
    assert found([device_claim("c")], reaches) is None
    assert found([device_claim("c", exactly("r", tolerations=[toleration]))], reaches) == ["a"]
    assert found([device_claim("c")], on_node(device("a", taints=[{**taint, "effect": "None"}]))) == ["a"]


def test_several_claims_share_what_a_device_can_give() -> None:
    limits = {"default": "1Gi", "validRange": {"min": "1Gi", "max": "8Gi", "step": "1Gi"}}
    shared = device("a", allowMultipleAllocations=True, capacity={"memory": {"value": "10Gi", "requestPolicy": limits}})
    reaches = on_node(shared)

    def wanting(amount: str) -> Obj:
        return device_claim("c", exactly("r", capacity={"requests": {"memory": amount}}))

    (allocation,) = allocated([wanting("5500Mi")], reaches)
    result = allocation["devices"]["results"][0]
    assert result["consumedCapacity"] == {"memory": "6Gi"}
    assert result["shareID"] == "a-share"
    taken = Taken()
    taken.add(allocation)
    assert found([wanting("4Gi")], reaches, taken) == ["a"]
    assert found([wanting("5Gi")], reaches, taken) is None
    assert found([wanting("9Gi")], reaches) is None
    assert found([wanting("4Gi"), wanting("4Gi"), wanting("4Gi")], reaches) is None
    assert found([device_claim("c", exactly("r", capacity={"requests": {"bandwidth": "1"}}))], reaches) is None


def test_partitions_of_one_card_draw_on_its_counters() -> None:
    def part(name: str, amount: str) -> Obj:
        return device(name, consumesCounters=[{"counterSet": "card", "counters": {"memory": {"value": amount}}}])

    counters = device_slice(
        "c",
        pool="n",
        count=2,
        nodeName="n",
        sharedCounters=[{"name": "card", "counters": {"memory": {"value": "10Gi"}}}],
    )
    reaches = pools(
        counters, device_slice("n", [part("half", "5Gi"), part("most", "8Gi"), part("rest", "5Gi")], count=2)
    )

    assert found([device_claim("c", exactly("r", count=2))], reaches) == ["half", "rest"]
    taken = Taken()
    taken.add({"devices": {"results": [{"driver": DRIVER, "pool": "n", "device": "half"}]}})
    assert found([device_claim("c")], reaches, taken) == ["rest"]
    assert found([device_claim("c", exactly("r", count=2))], reaches, taken) is None


def test_what_classes_and_claims_configure_reaches_the_driver() -> None:
    def opaque(value: int) -> Obj:
        return {"opaque": {"driver": DRIVER, "parameters": {"value": value}}}

    CLASSES["set"] = device_class("set", config=[opaque(1)])
    try:
        claim = device_claim(
            "c", exactly("x", deviceClassName="set"), exactly("y"), config=[{"requests": ["y"], **opaque(2)}, opaque(3)]
        )
        (allocation,) = allocated([claim], on_node(device("a"), device("b")))
    finally:
        del CLASSES["set"]

    assert allocation["devices"]["config"] == [
        {"source": "FromClass", "requests": ["x"], **opaque(1)},
        {"source": "FromClaim", "requests": ["y"], **opaque(2)},
        {"source": "FromClaim", **opaque(3)},
    ]


def test_a_search_without_end_is_given_up() -> None:
    devices = [device(f"d{i}", attributes={"x": i}) for i in range(30)]
    impossible = {"matchAttribute": f"{DRIVER}/x", "requests": ["last"]}
    claim = device_claim(
        "c", *(exactly(f"r{i}", count=6) for i in range(4)), exactly("last", count=2), constraints=[impossible]
    )
    tried = Search([read_claim(claim, CLASSES.get)], on_node(*devices), Taken())

    with pytest.raises(SearchTooLong):
        for _ in tried.run(20_000):
            pass


# Against an enumeration of everything

values = st.sampled_from(["p", "q", None])
alternatives = st.fixed_dictionaries(
    {
        "model": st.sampled_from([None, "p", "q"]),
        "count": st.sampled_from([1, 1, 2, None]),
        "admin": st.sampled_from([False, False, False, True]),
    }
)
claims = st.lists(
    st.tuples(
        st.lists(st.lists(alternatives, min_size=1, max_size=2), min_size=1, max_size=2),
        st.sampled_from([None, "match", "distinct"]),
    ),
    min_size=1,
    max_size=2,
)
devices_ = st.lists(
    st.fixed_dictionaries(
        {"model": values, "amount": st.integers(0, 3), "tainted": st.booleans(), "taken": st.booleans()}
    ),
    max_size=5,
)


@settings(max_examples=300, deadline=None)
@given(claims, devices_)
def test_the_search_finds_what_trying_everything_finds(wanted: list[Any], stated: list[Any]) -> None:
    objects, taken = [], Taken()
    for index, each in enumerate(stated):
        obj = device(f"d{index}", attributes={"model": each["model"]} if each["model"] else {})
        if each["amount"]:
            obj["consumesCounters"] = [{"counterSet": "s", "counters": {"k": {"value": str(each["amount"])}}}]
        if each["tainted"]:
            obj["taints"] = [{"key": "t", "effect": "NoSchedule"}]
        if each["taken"]:
            taken.add({"devices": {"results": [{"driver": DRIVER, "pool": "n", "device": f"d{index}"}]}})
        objects.append(obj)
    counters = device_slice(
        "c", pool="n", count=2, nodeName="n", sharedCounters=[{"name": "s", "counters": {"k": {"value": "4"}}}]
    )
    reaches = pools(counters, device_slice("n", objects, count=2))

    done = search([_claim(index, *each) for index, each in enumerate(wanted)], reaches, taken)

    expected = next(_everything(wanted, stated), None)
    chosen = None if done.solution is None else list(done.solution)
    assert chosen is None or [(c.claim, c.alternative.name, c.device.id.name) for c in chosen] == expected
    assert (chosen is None) == (expected is None)


def _claim(index: int, requests: list[Any], constraint: str | None) -> Obj:
    listed = []
    for r, several in enumerate(requests):
        each = [
            {
                "name": f"a{a}",
                **asked(
                    *(
                        [f'device.attributes["{DRIVER}"].?model.orValue("") == "{one["model"]}"']
                        if one["model"]
                        else []
                    ),
                    **({"allocationMode": "All"} if one["count"] is None else {"count": one["count"]}),
                    **({"adminAccess": True} if one["admin"] else {}),
                ),
            }
            for a, one in enumerate(several)
        ]
        listed.append({"name": f"r{r}", "firstAvailable": each})
    kinds = {"match": "matchAttribute", "distinct": "distinctAttribute"}
    more = {"constraints": [{kinds[constraint]: f"{DRIVER}/model"}]} if constraint else {}
    return device_claim(f"c{index}", *listed, **more)


Picked = tuple[int, str, str]


def _everything(wanted: list[Any], stated: list[Any]) -> Iterator[list[Picked]]:
    """Every allocation that is allowed, in order of preference: nothing is ruled out before it is complete."""

    def pick(flat: list[tuple[int, int, list[Any]]]) -> Iterator[list[tuple[int, int, int, int]]]:
        if not flat:
            yield []
            return
        (c, r, several), *rest = flat
        for a, one in enumerate(several):
            fitting = [i for i, each in enumerate(stated) if one["model"] in (None, each["model"])]
            sets = combinations(range(len(stated)), one["count"]) if one["count"] else [tuple(fitting)]
            for chosen in sets:
                if chosen and set(chosen) <= set(fitting):
                    for others in pick(rest):
                        yield [*((c, r, a, i) for i in chosen), *others]

    flat = [(c, r, several) for c, (requests, _) in enumerate(wanted) for r, several in enumerate(requests)]
    for picked in pick(flat):
        if _is_allowed(picked, wanted, stated):
            yield [(c, f"r{r}/a{a}", f"d{i}") for c, r, a, i in picked]


def _is_allowed(picked: list[tuple[int, int, int, int]], wanted: list[Any], stated: list[Any]) -> bool:
    if any(stated[i]["tainted"] for *_, i in picked):
        return False
    for index, (c, r, a, i) in enumerate(picked):
        admin = wanted[c][0][r][a]["admin"]
        earlier = [each for each in picked[:index] if each[3] == i]
        if admin and any(each[0] == c for each in earlier):
            return False
        if not admin and (earlier or stated[i]["taken"]):
            return False
    used = sum(each["amount"] for each in stated if each["taken"])
    asked_of = sum(stated[i]["amount"] for *_, i in picked)
    if asked_of and used + asked_of > 4:
        # A device that needs nothing of the counters is there even where they are overdrawn.
        return False
    for c, (_, constraint) in enumerate(wanted):
        models = [stated[i]["model"] for each, _, _, i in picked if each == c]
        if constraint and None in models:
            return False
        if constraint == "match" and len(set(models)) > 1:
            return False
        if constraint == "distinct" and len(set(models)) < len(models):
            return False
    return True


@pytest.mark.parametrize(
    ("toleration", "taint", "expected"),
    [
        ({"operator": "Exists"}, {"key": "a", "effect": "NoExecute"}, True),
        ({"key": "a", "operator": "Equal", "value": "1"}, {"key": "a", "value": "1", "effect": "NoSchedule"}, True),
        ({"key": "a", "operator": "Equal"}, {"key": "a", "value": "1", "effect": "NoSchedule"}, False),
        ({"key": "a", "operator": "Exists", "effect": "NoSchedule"}, {"key": "a", "effect": "NoExecute"}, False),
    ],
)
def test_tolerations_of_devices_are_those_of_nodes(toleration: Obj, taint: Obj, expected: bool) -> None:
    assert tolerates(toleration, taint) is expected
