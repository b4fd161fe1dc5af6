"""LimitRanger: a namespace's limit ranges give containers their defaults and refuse what is too small or too large.

In: pods and claims on their way in.  Out: pods with default requests and limits; 403 with every bound that is broken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any, Final

from navarch.api.meta import Obj
from navarch.apiserver.admission.base import Attributes, Plugin, Reader
from navarch.kinds.core.pod_state import is_sidecar
from navarch.kinds.core.resource_lists import amount_of, format_amount
from navarch.kinds.resources import LIMIT_RANGES

_ANNOTATION: Final = "kubernetes.io/limit-ranger"
Amounts = Mapping[str, Any]


class LimitRanger(Plugin):
    name = "LimitRanger"
    leaves_whole = True
    resources = frozenset({("", "pods"), ("", "persistentvolumeclaims")})
    subresources = frozenset({"", "resize"})
    # The amounts of containers that are there are refused, not changed.
    mutated = frozenset({"CREATE"})

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def _items(self, attributes: Attributes) -> list[Obj]:
        """The limits that hold in the namespace."""
        if attributes.operation == "UPDATE" and not attributes.subresource:
            if attributes.kind.resource.plural == "pods":
                return []  # a pod's amounts change through `resize` only
        found = self._reader.list(LIMIT_RANGES, attributes.namespace)
        return [item for each in found for item in (each.get("spec") or {}).get("limits") or ()]

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.kind.resource.plural != "pods" or attributes.obj is None:
            return
        limits: dict[str, str] = {}
        requests: dict[str, str] = {}
        for item in self._items(attributes):
            if item.get("type") == "Container":
                limits.update(item.get("default") or {})
                requests.update(item.get("defaultRequest") or {})
        if limits or requests:
            await attributes.apart(_fill, attributes.obj, limits, requests)

    async def validate(self, attributes: Attributes) -> None:
        obj = attributes.obj
        if obj is None:
            return
        items = self._items(attributes)
        if not items:
            return
        check = _pod_problems if attributes.kind.resource.plural == "pods" else _claim_problems
        problems = await attributes.apart(
            lambda: list(dict.fromkeys(problem for item in items for problem in check(item, obj)))
        )
        if problems:
            raise attributes.refused(problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")


def _fill(pod: Obj, limits: Amounts, requests: Amounts) -> None:
    """Give each container what it does not say itself, and note it in an annotation."""
    notes: list[str] = []
    for field, word in (("containers", "container"), ("initContainers", "init container")):
        for container in pod["spec"].get(field) or ():
            resources = container.setdefault("resources", {})
            for kind, defaults in (("requests", requests), ("limits", limits)):
                own = resources.get(kind) or {}
                missing = {name: value for name, value in defaults.items() if name not in own}
                if missing:
                    resources[kind] = {**own, **missing}
                    names = ", ".join(sorted(missing))
                    notes.append(f"{names} {kind[:-1]} for {word} {container.get('name')}")
    if notes:
        text = "LimitRanger plugin set: " + "; ".join(notes)
        metadata = pod["metadata"]
        metadata["annotations"] = {**(metadata.get("annotations") or {}), _ANNOTATION: text}


def _amounts(resources: Obj | None, kind: str) -> dict[str, Fraction]:
    return {name: amount_of(value) for name, value in ((resources or {}).get(kind) or {}).items()}


def _pod_problems(item: Obj, pod: Obj) -> Iterator[str]:
    spec = pod["spec"]
    inits, containers = spec.get("initContainers") or [], spec.get("containers") or []
    if item.get("type") == "Container":
        for container in (*containers, *inits):
            resources = container.get("resources")
            yield from _bounds(item, _amounts(resources, "requests"), _amounts(resources, "limits"), "Container")
    elif item.get("type") == "Pod":
        totals = []
        for kind in ("requests", "limits"):
            own = _amounts(spec.get("resources"), kind)
            totals.append({**_pod_total(containers, inits, kind), **own})
        yield from _bounds(item, totals[0], totals[1], "Pod")


def _pod_total(containers: Iterable[Obj], inits: Iterable[Obj], kind: str) -> dict[str, Fraction]:
    """What the pod has in all; a resource that a main container says nothing of is not bounded at all."""
    total: dict[str, Fraction] = {}
    for container in (*containers, *(each for each in inits if is_sidecar(each))):
        for name, amount in _amounts(container.get("resources"), kind).items():
            total[name] = total.get(name, Fraction(0)) + amount
    for container in inits:
        if not is_sidecar(container):
            for name, amount in _amounts(container.get("resources"), kind).items():
                total[name] = max(total.get(name, Fraction(0)), amount)
    return total


def _bounds(item: Obj, requests: Mapping[str, Fraction], limits: Mapping[str, Fraction], kind: str) -> Iterator[str]:
    """Of what is wrong with a bound, the first is told."""
    for name, bound in (item.get("min") or {}).items():
        what = f"minimum {name} usage per {kind} is {bound}"
        lowest = amount_of(bound)
        if name not in requests:
            yield f"{what}.  No request is specified"
        elif requests[name] < lowest:
            yield f"{what}, but request is {format_amount(requests[name], str(bound))}"
        elif name in limits and limits[name] < lowest:
            yield f"{what}, but limit is {format_amount(limits[name], str(bound))}"
    for name, bound in (item.get("max") or {}).items():
        what = f"maximum {name} usage per {kind} is {bound}"
        highest = amount_of(bound)
        if name not in limits:
            yield f"{what}.  No limit is specified"
        elif limits[name] > highest:
            yield f"{what}, but limit is {format_amount(limits[name], str(bound))}"
        elif name in requests and requests[name] > highest:
            yield f"{what}, but request is {format_amount(requests[name], str(bound))}"
    for name, ratio in (item.get("maxLimitRequestRatio") or {}).items():
        yield from _ratio(name, ratio, requests, limits, kind)


def _ratio(
    name: str, ratio: Any, requests: Mapping[str, Fraction], limits: Mapping[str, Fraction], kind: str
) -> Iterator[str]:
    what = f"{name} max limit to request ratio per {kind} is {ratio}"
    if not requests.get(name):
        yield f"{what}, but no request is specified or request is 0"
        return
    if not limits.get(name):
        yield f"{what}, but no limit is specified or limit is 0"
        return
    observed = limits[name] / requests[name]
    if observed > amount_of(ratio):
        yield f"{what}, but provided ratio is {float(observed):f}"


def _claim_problems(item: Obj, claim: Obj) -> Iterator[str]:
    if item.get("type") != "PersistentVolumeClaim":
        return
    requests = _amounts(claim["spec"].get("resources"), "requests")
    for name, bound in (item.get("min") or {}).items():
        what = f"minimum {name} usage per PersistentVolumeClaim is {bound}"
        if name not in requests:
            yield f"{what}.  No request is specified"
        elif requests[name] < amount_of(bound):
            yield f"{what}, but request is {format_amount(requests[name], str(bound))}"
    for name, bound in (item.get("max") or {}).items():
        what = f"maximum {name} usage per PersistentVolumeClaim is {bound}"
        if name not in requests:
            yield f"{what}.  No request is specified"
        elif requests[name] > amount_of(bound):
            yield f"{what}, but request is {format_amount(requests[name], str(bound))}"
