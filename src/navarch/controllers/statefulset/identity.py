"""What makes a pod the n-th of its StatefulSet: name, hostname, labels, volumes. Pure."""

from __future__ import annotations

import copy
import re

from navarch.api.meta import Obj, labels_of, name_of
from navarch.controllers.pod_control import pod_from_template

POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"
REVISION = "controller-revision-hash"
_NAME = re.compile(r"(.*)-([0-9]+)")


def ordinal_of(stateful_set: Obj, pod: Obj) -> int | None:
    """The pod's number, or None where its name is not of this set."""
    found = _NAME.fullmatch(name_of(pod))
    if found is None or found.group(1) != name_of(stateful_set):
        return None
    return int(found.group(2))


def first_ordinal(stateful_set: Obj) -> int:
    return int((stateful_set["spec"].get("ordinals") or {}).get("start") or 0)


def pod_name(stateful_set: Obj, ordinal: int) -> str:
    return f"{name_of(stateful_set)}-{ordinal}"


def claim_name(stateful_set: Obj, template: Obj, ordinal: int) -> str:
    return f"{name_of(template)}-{name_of(stateful_set)}-{ordinal}"


def make_pod(stateful_set: Obj, template: Obj, revision: str, ordinal: int) -> Obj:
    """The pod to create for one ordinal from one revision's template."""
    name = pod_name(stateful_set, ordinal)
    labels = {POD_NAME: name, POD_INDEX: str(ordinal), REVISION: revision}
    pod = pod_from_template(stateful_set, template, name=name, labels=labels)
    # As all pods made from a template have it, though their names are their own.
    pod["metadata"]["generateName"] = f"{name_of(stateful_set)}-"
    spec = copy.deepcopy(pod["spec"])
    spec["hostname"] = name
    spec["subdomain"] = stateful_set["spec"].get("serviceName") or ""
    spec["volumes"] = volumes(stateful_set, spec, ordinal)
    pod["spec"] = {field: value for field, value in spec.items() if value not in ("", [])}
    return pod


def missing_labels(stateful_set: Obj, pod: Obj) -> dict[str, str]:
    """The labels that make the pod the n-th and that it lacks, as one that was adopted may; services select by them."""
    ordinal = ordinal_of(stateful_set, pod)
    if ordinal is None or labels_of(pod).get(POD_NAME) == name_of(pod):
        return {}
    return {POD_NAME: name_of(pod), POD_INDEX: str(ordinal)}


def volumes(stateful_set: Obj, spec: Obj, ordinal: int) -> list[Obj]:
    """The template's volumes, with the ordinal's claims in the place of those of the same name."""
    claims: list[Obj] = [
        {
            "name": name_of(template),
            "persistentVolumeClaim": {"claimName": claim_name(stateful_set, template, ordinal)},
        }
        for template in stateful_set["spec"].get("volumeClaimTemplates") or ()
    ]
    names = {volume["name"] for volume in claims}
    return claims + [volume for volume in spec.get("volumes") or () if volume["name"] not in names]


def revision_of(pod: Obj) -> str:
    return labels_of(pod).get(REVISION, "")
