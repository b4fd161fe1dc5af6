"""What claims ask for, taken apart: for each request its alternatives, in order of preference, and the constraints that
hold devices of several requests together.

In: a ResourceClaim and the DeviceClasses.  Out: `Wanted`.  A claim that names a class which is not there, or asks in
a way that is not known here, cannot be read (`ClaimError`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from navarch.api.meta import Obj, name_of, namespace_of
from navarch.records import frozen
from navarch.scheduler.devices.pools import Device
from navarch.scheduler.devices.selectors import SelectorError, selects

MOST_RESULTS: Final = 32
Classes = Callable[[str], Obj | None]


class ClaimError(Exception):
    """A claim that cannot be allocated as it is, on no node."""


@frozen(eq=False)
class Alternative:
    """One way to satisfy a request: so many devices of a class, or all there are."""

    name: str
    """As it is told in results: the request's, with the alternative's after a slash where it has several."""
    request: str
    claim: str
    device_class: Obj
    selectors: Sequence[str]
    count: int | None
    """None for all."""
    admin_access: bool
    tolerations: Sequence[Obj]
    capacity: Mapping[str, str]

    def selects(self, device: Device) -> bool:
        """Raises ClaimError where an expression fails."""
        of_class = (self.device_class.get("spec") or {}).get("selectors") or ()
        for index, selector in enumerate(of_class):
            if not _ask(selector["cel"]["expression"], device, f"class {name_of(self.device_class)}", index):
                return False
        for index, expression in enumerate(self.selectors):
            if not _ask(expression, device, f"claim {self.claim}", index):
                return False
        return True


@frozen
class Constraint:
    """Devices of these requests (of all, where none is named) have one value of an attribute, or all different ones."""

    attribute: str
    requests: frozenset[str]
    distinct: bool

    def concerns(self, alternative: Alternative) -> bool:
        names = self.requests
        return not names or alternative.name in names or alternative.request in names


@frozen(eq=False)
class Wanted:
    """One claim."""

    claim: Obj
    requests: Sequence[Sequence[Alternative]]
    constraints: Sequence[Constraint]

    @property
    def shown(self) -> str:
        return shown(self.claim)


def _ask(expression: str, device: Device, whose: str, index: int) -> bool:
    try:
        return selects(expression, device)
    except SelectorError as error:
        raise ClaimError(f"{whose}: selector #{index}{error}") from None


def shown(claim: Obj) -> str:
    return f"{namespace_of(claim)}/{name_of(claim)}"


def read_claim(claim: Obj, classes: Classes) -> Wanted:
    """Raises ClaimError."""
    devices = (claim.get("spec") or {}).get("devices") or {}
    requests = []
    for request in devices.get("requests") or ():
        name = request["name"]
        if request.get("exactly") is not None:
            requests.append([_alternative(request["exactly"], name, name, claim, classes)])
        elif request.get("firstAvailable"):
            several = request["firstAvailable"]
            requests.append([_alternative(each, f"{name}/{each['name']}", name, claim, classes) for each in several])
        else:
            raise ClaimError(f"request {name}: unsupported request type")
    constraints = []
    for index, constraint in enumerate(devices.get("constraints") or ()):
        names = frozenset(constraint.get("requests") or ())
        if constraint.get("matchAttribute") is not None:
            constraints.append(Constraint(constraint["matchAttribute"], names, distinct=False))
        elif constraint.get("distinctAttribute") is not None:
            constraints.append(Constraint(constraint["distinctAttribute"], names, distinct=True))
        else:
            what = "empty constraint (unsupported constraint type?)"
            raise ClaimError(f"claim {shown(claim)}, constraint #{index}: {what}")
    return Wanted(claim, requests, constraints)


def _alternative(stated: Obj, name: str, request: str, claim: Obj, classes: Classes) -> Alternative:
    class_name = stated.get("deviceClassName") or ""
    if not class_name:
        raise ClaimError(f"request {name}: unsupported request type")
    device_class = classes(class_name)
    if device_class is None:
        raise ClaimError(f"request {name}: device class {class_name} does not exist")
    for index, selector in enumerate(stated.get("selectors") or ()):
        if selector.get("cel") is None:
            what = "CEL expression empty (unsupported selector type?)"
            raise ClaimError(f"claim {shown(claim)}, request {name}, selector #{index}: {what}")
    mode = stated.get("allocationMode") or "ExactCount"
    if mode not in ("ExactCount", "All"):
        raise ClaimError(f"claim {shown(claim)}, request {name}: unsupported count mode {mode}")
    return Alternative(
        name=name,
        request=request,
        claim=shown(claim),
        device_class=device_class,
        selectors=[selector["cel"]["expression"] for selector in stated.get("selectors") or ()],
        count=None if mode == "All" else stated.get("count") or 1,
        admin_access=bool(stated.get("adminAccess")),
        tolerations=stated.get("tolerations") or (),
        capacity=(stated.get("capacity") or {}).get("requests") or {},
    )
