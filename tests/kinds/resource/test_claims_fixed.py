"""Claims: what may not change, as the error shows it."""

from __future__ import annotations

from navarch.api.meta import Obj
from navarch.kinds.resource.resourceclaim import ResourceClaimStrategy

STRATEGY = ResourceClaimStrategy()


def claim(**spec: object) -> Obj:
    return {"metadata": {"name": "c", "namespace": "default"}, "spec": {"devices": spec}}


def test_a_claim_is_shown_in_the_order_of_the_types_with_what_nobody_said() -> None:
    was = claim(requests=[{"name": "gpu", "exactly": {"deviceClassName": "small"}}])
    config = {"opaque": {"driver": "d.example.com"}, "requests": ["gpu"]}
    exactly = {"count": 2, "selectors": [{"cel": {"expression": "true"}}], "deviceClassName": "big"}
    now = claim(config=[config], requests=[{"exactly": exactly, "name": "gpu"}])

    (error,) = STRATEGY.validate(now, was)

    assert list(STRATEGY.validate(was, was)) == []
    assert str(error) == (
        'spec: Invalid value: {"devices":{"requests":[{"name":"gpu","exactly":{"deviceClassName":"big","selectors":'
        '[{"cel":{"expression":"true"}}],"count":2}}],"config":[{"requests":["gpu"],"opaque":{"driver":"d.example.com",'
        '"parameters":null}}]}}: field is immutable'
    )
