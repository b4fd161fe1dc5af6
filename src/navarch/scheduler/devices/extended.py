"""Extended resources that devices stand for: what containers request by a plain name becomes a claim of the pod's own.

In: a pod, and the resources that its node can give by devices only.  Out: the claim, and which container uses which
of its requests. Init containers share what they need beyond what later containers bring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from navarch.api import quantity
from navarch.api.meta import Obj, controller_reference, name_of, namespace_of, uid_of
from navarch.kinds.core.pod_state import is_sidecar
from navarch.scheduler.devices.inventory import EXTENDED

IN_MEMORY: Final = "<extended-resources>"


def claim_for(pod: Obj, resources: Iterable[str], class_of: Callable[[str], Obj | None]) -> tuple[Obj, list[Obj]]:
    """A claim that is not there yet, and the mappings for `status.extendedResourceClaimStatus`."""
    init = pod["spec"].get("initContainers") or []
    containers = [*init, *pod["spec"]["containers"]]
    short = [index for index, container in enumerate(init) if not is_sidecar(container)]
    requests: list[Obj] = []
    mappings: list[Obj] = []
    for resource in sorted(resources):
        device_class = class_of(resource)
        if device_class is None:
            continue
        class_name = name_of(device_class)
        lasting: list[Obj | None] = [None] * len(containers)
        of_lasting: list[Obj] = []
        for index, container in enumerate(containers):
            if index not in short:
                lasting[index], used = _request(index, container, resource, class_name, ())
                of_lasting += used
        largest: Obj | None = None
        passing: list[str] = []
        of_short: list[Obj] = []
        for index in short:
            request, used = _request(index, containers[index], resource, class_name, lasting[index:])
            of_short += used
            if request is not None:
                passing.append(request["name"])
                if largest is None or largest["exactly"]["count"] < request["exactly"]["count"]:
                    largest = request
        if largest is not None:
            for mapping in of_short:
                if mapping["requestName"] in passing:
                    mapping["requestName"] = largest["name"]
            requests.append(largest)
        requests += [request for request in lasting if request is not None]
        mappings += [*of_lasting, *of_short]
    return _claim(pod, sorted(requests, key=name_in)), mappings


def name_in(request: Obj) -> str:
    return str(request["name"])


def _request(
    index: int, container: Obj, resource: str, class_name: str, reusable: Iterable[Obj | None]
) -> tuple[Obj | None, list[Obj]]:
    """What the container needs beyond the requests that it can use before their own containers do."""
    stated = (container.get("resources") or {}).get("requests") or {}
    wanted = quantity.value(stated.get(resource, "0"))
    if not wanted:
        return None, []
    mappings = []
    have = 0
    for other in reusable:
        if other is not None:
            have += other["exactly"]["count"]
            mappings.append(_mapping(container, resource, other["name"]))
            if have >= wanted:
                return None, mappings
    name = f"container-{index}-request-{sorted(stated).index(resource)}"
    exactly = {"deviceClassName": class_name, "allocationMode": "ExactCount", "count": wanted - have}
    return {"name": name, "exactly": exactly}, [*mappings, _mapping(container, resource, name)]


def _mapping(container: Obj, resource: str, request: str) -> Obj:
    return {"containerName": container["name"], "resourceName": resource, "requestName": request}


def _claim(pod: Obj, requests: list[Obj]) -> Obj:
    owner = controller_reference({**pod, "apiVersion": "v1", "kind": "Pod"})
    owner.pop("blockOwnerDeletion", None)
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {
            "namespace": namespace_of(pod),
            "name": IN_MEMORY,
            "uid": f"{IN_MEMORY} {uid_of(pod)}",
            "generateName": f"{name_of(pod)}-extended-resources-",
            "annotations": {EXTENDED: "true"},
            "ownerReferences": [owner],
        },
        "spec": {"devices": {"requests": requests}},
    }
