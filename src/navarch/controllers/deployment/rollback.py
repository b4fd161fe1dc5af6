"""Rollback by the deprecated annotation of apps/v1beta1 (`kubectl rollout undo` of today patches the template itself).

Pure: gives the Deployment to write and the event to tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from navarch.api.meta import Obj, annotations_of, name_of
from navarch.controllers.deployment.revisions import (
    ROLLBACK_TO,
    own_annotations,
    revision,
    same_template,
    without_hash,
)
from navarch.numbers import integer_or


class Rollback(NamedTuple):
    """`deployment` without the annotation, rolled back where that was possible; `event` is (type, reason, message)."""

    deployment: Obj
    event: tuple[str, str, str]


def wanted(deployment: Obj) -> bool:
    """Whether there is a revision to roll back to; what is no number is left alone."""
    return integer_or(annotations_of(deployment).get(ROLLBACK_TO, ""), None) is not None


def roll_back(deployment: Obj, sets: Sequence[Obj]) -> Rollback:
    """To the revision that the annotation names; 0 is the one before the current."""
    text = annotations_of(deployment).get(ROLLBACK_TO, "0")
    target = integer_or(text, 0)
    if target == 0:
        numbers = sorted({revision(rs) for rs in sets}, reverse=True)
        target = numbers[1] if len(numbers) > 1 else 0
    annotations = {k: v for k, v in annotations_of(deployment).items() if k != ROLLBACK_TO}
    cleared = {**deployment, "metadata": {**deployment["metadata"], "annotations": annotations}}
    if target == 0:
        event = ("Warning", "DeploymentRollbackRevisionNotFound", "Unable to find last revision.")
        return Rollback(cleared, event)
    found = next((rs for rs in sets if revision(rs) == target), None)
    if found is None:
        message = "Unable to find the revision to rollback to."
        return Rollback(cleared, ("Warning", "DeploymentRollbackRevisionNotFound", message))
    template = without_hash(found["spec"]["template"])
    if same_template(template, deployment["spec"]["template"]):
        message = f'The rollback revision contains the same template as current deployment "{name_of(deployment)}"'
        return Rollback(cleared, ("Warning", "DeploymentRollbackTemplateUnchanged", message))
    cleared["spec"] = {**deployment["spec"], "template": template}
    # The Deployment's own are those of the revision that it leaves, and would be copied to the one that it goes to.
    cleared["metadata"]["annotations"] = own_annotations(annotations, found)
    message = f'Rolled back deployment "{name_of(deployment)}" to revision {target}'
    return Rollback(cleared, ("Normal", "DeploymentRollback", message))
