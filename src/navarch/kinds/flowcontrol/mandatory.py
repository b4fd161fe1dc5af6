"""The flow schemas and priority levels that are what they are: nobody may change their specs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from navarch.api.meta import Obj


def _rules(*groups: str) -> list[Obj]:
    """Whatever these groups ask for."""
    everything = ["*"]
    return [
        {
            "subjects": [{"kind": "Group", "group": {"name": group}} for group in groups],
            "resourceRules": [
                {
                    "verbs": everything,
                    "apiGroups": everything,
                    "resources": everything,
                    "clusterScope": True,
                    "namespaces": everything,
                }
            ],
            "nonResourceRules": [{"verbs": everything, "nonResourceURLs": everything}],
        }
    ]


SCHEMAS: Final[Mapping[str, Obj]] = {
    "exempt": {
        "priorityLevelConfiguration": {"name": "exempt"},
        "matchingPrecedence": 1,
        "rules": _rules("system:masters"),
    },
    "catch-all": {
        "priorityLevelConfiguration": {"name": "catch-all"},
        "matchingPrecedence": 10000,
        "distinguisherMethod": {"type": "ByUser"},
        "rules": _rules("system:unauthenticated", "system:authenticated"),
    },
}
LEVELS: Final[Mapping[str, Obj]] = {
    "exempt": {"type": "Exempt"},
    "catch-all": {
        "type": "Limited",
        "limited": {"nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}, "lendablePercent": 0},
    },
}
