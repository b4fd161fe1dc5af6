"""Templates of claims: what may not change, as the error shows it."""

from __future__ import annotations

from navarch.api.meta import Obj
from navarch.kinds.resource.resourceclaimtemplate import ResourceClaimTemplateStrategy

STRATEGY = ResourceClaimTemplateStrategy()


def template(device_class: str) -> Obj:
    requests = [{"name": "gpu", "exactly": {"deviceClassName": device_class}}]
    obj: Obj = {
        "metadata": {"name": "t"},
        "spec": {"metadata": {"labels": {"a": "b"}}, "spec": {"devices": {"requests": requests}}},
    }
    STRATEGY.defaults(obj)
    return obj


def test_a_template_stays_as_it_is() -> None:
    assert list(STRATEGY.validate(template("small"), template("small"))) == []

    (error,) = STRATEGY.validate(template("big"), template("small"))

    shown = (
        '{"labels":{"a":"b"},"Spec":{"Devices":{"Requests":[{"Name":"gpu","Exactly":{"DeviceClassName":"big",'
        '"Selectors":null,"AllocationMode":"ExactCount","Count":1,"AdminAccess":null,"Tolerations":null,'
        '"Capacity":null},"FirstAvailable":null}],"Constraints":null,"Config":null}}}'
    )
    assert str(error) == f"spec: Invalid value: {shown}: field is immutable"
