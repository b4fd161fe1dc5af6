"""From the devices that a search has chosen to what is written into claims: `status.allocation`.

In: the choices of one search.  Out: an AllocationResult for each claim: devices, configuration for their drivers, and
the nodes from which all of them can be used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from navarch.api import quantity
from navarch.api.meta import Obj, name_of
from navarch.scheduler.devices.allocator import Choice
from navarch.scheduler.devices.requests import Alternative, Wanted


def allocations(
    wanted: Sequence[Wanted], chosen: Sequence[Choice], node_name: str, new_uid: Callable[[], str]
) -> list[Obj]:
    """In the order of the claims."""
    results = []
    for index, each in enumerate(wanted):
        mine = [choice for choice in chosen if choice.claim == index]
        devices: Obj = {"results": [_result(choice, new_uid) for choice in mine]}
        if config := _configuration(each, mine):
            devices["config"] = config
        allocation: Obj = {"devices": devices}
        if (selector := _node_selector(mine, node_name)) is not None:
            allocation["nodeSelector"] = selector
        results.append(allocation)
    return results


def _result(choice: Choice, new_uid: Callable[[], str]) -> Obj:
    device, alternative = choice.device, choice.alternative
    result: Obj = {
        "request": alternative.name,
        "driver": device.id.driver,
        "pool": device.id.pool,
        "device": device.id.name,
    }
    if alternative.admin_access:
        result["adminAccess"] = True
    if alternative.tolerations:
        result["tolerations"] = list(alternative.tolerations)
    for name in ("bindingConditions", "bindingFailureConditions"):
        if device.spec.get(name):
            result[name] = device.spec[name]
    if choice.consumed is not None:
        result["shareID"] = new_uid()
        if choice.consumed:
            result["consumedCapacity"] = {
                device.capacity_names[full]: quantity.render(amount, _form(device.capacity[full]))
                for full, amount in choice.consumed.items()
            }
    return result


def _form(capacity: Obj) -> str:
    return quantity.form_of(capacity["value"])


def _configuration(wanted: Wanted, chosen: Sequence[Choice]) -> list[Obj]:
    """The class's before the claim's, so that drivers let the claim's have the last word."""
    picked: dict[str, Alternative] = {}
    for choice in chosen:
        picked.setdefault(choice.alternative.request, choice.alternative)
    of_classes: dict[str, list[Obj]] = {}
    for alternative in picked.values():
        name = name_of(alternative.device_class)
        if name in of_classes:
            for entry in of_classes[name]:
                entry["requests"].append(alternative.name)
            continue
        stated = (alternative.device_class.get("spec") or {}).get("config") or ()
        of_classes[name] = [{"source": "FromClass", "requests": [alternative.name], **config} for config in stated]
    entries = [entry for several in of_classes.values() for entry in several]
    for config in (wanted.claim["spec"].get("devices") or {}).get("config") or ():
        named = config.get("requests") or []
        if not named:
            entries.append({"source": "FromClaim", **config})
            continue
        for request, alternative in picked.items():
            if request in named or alternative.name in named:
                entries.append({"source": "FromClaim", **config, "requests": list(named)})
    for entry in entries:
        # For every request is what naming none means.
        if len(entry.get("requests") or ()) == len(wanted.requests):
            entry.pop("requests", None)
    return entries


def _node_selector(chosen: Sequence[Choice], node_name: str) -> Obj | None:
    fields: list[Obj] = []
    expressions: list[Obj] = []
    for choice in chosen:
        place = choice.device.place
        if place.node_name or choice.device.spec.get("bindsToNode"):
            # One device that is on the node keeps all of the claim there.
            field = {"key": "metadata.name", "operator": "In", "values": [node_name]}
            return {"nodeSelectorTerms": [{"matchFields": [field]}]}
        for term in (place.selector or {}).get("nodeSelectorTerms") or ():
            fields += [each for each in term.get("matchFields") or () if each not in fields]
            expressions += [each for each in term.get("matchExpressions") or () if each not in expressions]
    term = {name: each for name, each in (("matchExpressions", expressions), ("matchFields", fields)) if each}
    return {"nodeSelectorTerms": [term]} if term else None
