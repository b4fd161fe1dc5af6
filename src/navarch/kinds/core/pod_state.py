"""What everybody asks about a pod: its phase, whether it has ended, is ready, is active; which containers are sidecars.

Answered here for the API server, the controllers, the scheduler and the nodes alike. Pure.
"""

from __future__ import annotations

from typing import Final

from navarch.api.meta import Obj, is_deleting

ENDED: Final = ("Succeeded", "Failed")
"""Phases that a pod does not leave."""


def phase_of(pod: Obj) -> str:
    return str((pod.get("status") or {}).get("phase") or "")


def is_finished(pod: Obj) -> bool:
    """Whether the pod has ended for good."""
    return phase_of(pod) in ENDED


def is_active(pod: Obj) -> bool:
    """Neither ended nor being deleted."""
    return not is_finished(pod) and not is_deleting(pod)


def condition_of(obj: Obj, type: str) -> Obj | None:
    """The status condition of one type."""
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition.get("type") == type:
            return dict(condition)
    return None


def is_ready(obj: Obj) -> bool:
    """Whether the condition Ready, of a pod or a node, is True."""
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Ready":
            return bool(condition.get("status") == "True")
    return False


def is_sidecar(container: Obj) -> bool:
    """Of an init container: restartable, it runs on beside the main ones."""
    return container.get("restartPolicy") == "Always"


WHOLE: Final = "RestartAllContainers"
"""The action of a restart rule that starts all of the pod over."""


def restart_rule(container: Obj, exit_code: int) -> str:
    """The action of the first of a container's restart rules that its exit code matches; empty where none does."""
    for rule in container.get("restartPolicyRules") or ():
        codes = rule.get("exitCodes") or {}
        if (exit_code in (codes.get("values") or ())) == (codes.get("operator") == "In"):
            return str(rule.get("action") or "")
    return ""


def restarts_whole(spec: Obj) -> bool:
    """Whether a container of the pod may end in a way that starts all of the pod over."""
    return any(
        rule.get("action") == WHOLE
        for field in ("initContainers", "containers")
        for container in spec.get(field) or ()
        for rule in container.get("restartPolicyRules") or ()
    )
