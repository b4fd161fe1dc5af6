"""Deployment: roll a template out as ReplicaSets, one per revision of the template.

`sync` is the controller and walks one Deployment through the others: `revisions` finds or names its new ReplicaSet,
`rolling` and `recreate` decide sizes, `scaling` spreads a change of `replicas` over a rollout under way, `progress`
writes the status and its conditions, `rollback` serves the deprecated rollback annotation.
"""

from navarch.controllers.deployment.sync import DeploymentController

__all__ = ["DeploymentController"]
