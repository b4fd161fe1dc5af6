"""resource.k8s.io/v1beta1, in which requests state what is asked for beside their name, and devices what they are below
`basic`. v1 and v1beta2 have both in their place.

All functions take and give whole objects, change none, and share what they do not change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from navarch.api.meta import Obj

_OWN: Final = ("name", "firstAvailable")


def claim_to_v1(obj: Obj) -> Obj:
    return _with_requests(obj, ("spec", "devices"), _nested)


def claim_from_v1(obj: Obj) -> Obj:
    return _with_requests(obj, ("spec", "devices"), _flattened)


def template_to_v1(obj: Obj) -> Obj:
    return _with_requests(obj, ("spec", "spec", "devices"), _nested)


def template_from_v1(obj: Obj) -> Obj:
    return _with_requests(obj, ("spec", "spec", "devices"), _flattened)


def slice_to_v1(obj: Obj) -> Obj:
    return _with_devices(obj, lambda device: {"name": device.get("name", ""), **(device.get("basic") or {})})


def slice_from_v1(obj: Obj) -> Obj:
    def below_basic(device: Obj) -> Obj:
        rest = {name: value for name, value in device.items() if name != "name"}
        return {"name": device.get("name", ""), "basic": rest}

    return _with_devices(obj, below_basic)


def _nested(request: Obj) -> Obj:
    own: Obj = {name: request[name] for name in _OWN if name in request}
    asked = {name: value for name, value in request.items() if name not in _OWN}
    # Without alternatives it asks for one thing, however little it says of it.
    return own if request.get("firstAvailable") and not asked else {**own, "exactly": asked}


def _flattened(request: Obj) -> Obj:
    own = {name: value for name, value in request.items() if name != "exactly"}
    return {**own, **(request.get("exactly") or {})}


def _with_requests(obj: Obj, path: tuple[str, ...], change: Callable[[Obj], Obj]) -> Obj:
    return _changed(obj, (*path, "requests"), change)


def _with_devices(obj: Obj, change: Callable[[Obj], Obj]) -> Obj:
    return _changed(obj, ("spec", "devices"), change)


def _changed(obj: Obj, path: tuple[str, ...], change: Callable[[Obj], Obj]) -> Obj:
    """The object with every item of the list at a path changed."""
    name, rest = path[0], path[1:]
    inner = obj.get(name)
    if not inner:
        return obj
    return {**obj, name: _changed(inner, rest, change) if rest else [change(item) for item in inner]}
