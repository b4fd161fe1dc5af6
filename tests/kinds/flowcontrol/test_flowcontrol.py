"""Flow schemas and priority levels: defaults and what is refused."""

from __future__ import annotations

from typing import Any

from navarch.kinds.flowcontrol.flowschema import FlowSchemaStrategy
from navarch.kinds.flowcontrol.prioritylevelconfiguration import PriorityLevelConfigurationStrategy


def problems(strategy: Any, obj: dict[str, Any]) -> list[str]:
    strategy.defaults(obj)
    return [str(error) for error in strategy.validate(obj, None)]


def flow_schema(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "f"}, "spec": {"priorityLevelConfiguration": {"name": "workload-low"}, **spec}}


def test_a_flow_schema_gets_the_middle_precedence() -> None:
    obj = flow_schema()
    assert problems(FlowSchemaStrategy(), obj) == []
    assert obj["spec"]["matchingPrecedence"] == 1000


def test_a_flow_schema_names_its_level_and_subjects() -> None:
    obj = flow_schema(priorityLevelConfiguration={}, rules=[{}], matchingPrecedence=1)
    assert problems(FlowSchemaStrategy(), obj) == [
        "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
        "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
        "spec.rules[0].subjects: Required value: subjects must contain at least one value",
        "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
    ]


def test_a_limited_level_queues_by_default_sizes() -> None:
    obj = {"spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}}
    assert problems(PriorityLevelConfigurationStrategy(), obj) == []
    assert obj["spec"]["limited"] == {
        "limitResponse": {"type": "Queue", "queuing": {"queues": 64, "handSize": 8, "queueLengthLimit": 50}},
        "nominalConcurrencyShares": 30,
        "lendablePercent": 0,
    }


def test_the_type_decides_which_part_may_stand() -> None:
    level = PriorityLevelConfigurationStrategy()
    assert problems(level, {"spec": {"type": "Limited"}}) == [
        "spec.limited: Required value: must not be empty when type is Limited"
    ]
    assert problems(level, {"spec": {"type": "Odd"}}) == [
        'spec.type: Unsupported value: "Odd": supported values: "Exempt", "Limited"'
    ]
    queuing = {"type": "Queue", "queuing": {"queues": 2, "handSize": 3}}
    assert problems(level, {"spec": {"type": "Limited", "limited": {"limitResponse": queuing}}}) == [
        "spec.limited.limitResponse.queuing.handSize: Invalid value: 3: should not be greater than queues (2)"
    ]
