"""What informers do not hold twice, or not at all: transforms, which make the objects of a process's informers small.

In: objects as they were decoded, which belong to the informer.  Out: the same objects, without managedFields, and where
pods are of one template with the very values of another pod wherever theirs are equal. What is shared like this is
nobody's to change, as is everything that an informer holds.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from navarch.api.meta import Obj, controller_of

_TEMPLATES_LIMIT: Final = 512

_Identity = tuple[str, str, str]


def without_managed_fields(obj: Obj) -> Obj:
    """Who set which field is half of an object and no controller's business. An update that does not say leaves it as
    it is on the server."""
    obj["metadata"].pop("managedFields", None)
    return obj


class AlikePods:
    """Gives each pod the values that it has in common with the last one of its template that was as far as it."""

    def __init__(self) -> None:
        self._last: OrderedDict[_Identity, Obj] = OrderedDict()

    def __call__(self, pod: Obj) -> Obj:
        without_managed_fields(pod)
        identity = _identity(pod)
        last = self._last.get(identity)
        self._last[identity] = pod
        if last is None:
            if len(self._last) > _TEMPLATES_LIMIT:
                self._last.popitem(last=False)
            return pod
        self._last.move_to_end(identity)
        for part in ("metadata", "spec", "status"):
            fresh, known = pod.get(part), last.get(part)
            if fresh and known:
                share(fresh, known)
        return pod


def _identity(pod: Obj) -> _Identity:
    """Pods for which this is the same are likely to be alike, and no more than that."""
    owner = controller_of(pod)
    containers = (pod.get("spec") or {}).get("containers")
    return (
        owner["uid"] if owner else pod["metadata"].get("namespace", ""),
        containers[0].get("image", "") if containers else "",
        (pod.get("status") or {}).get("phase", ""),
    )


def share(fresh: dict[str, Any], known: dict[str, Any]) -> None:
    """Have `fresh` hold the values of `known` wherever they are equal; of lists items at the same place are compared.
    For objects whose schema gives each field one type: to Python `True` equals `1`."""
    for name, value in fresh.items():
        other = known.get(name)
        if value == other:
            fresh[name] = other
        elif type(value) is list:
            if type(other) is list:
                _share_items(value, other)
        elif type(value) is dict and type(other) is dict:
            share(value, other)


def _share_items(fresh: list[Any], known: list[Any]) -> None:
    for index, (item, other) in enumerate(zip(fresh, known, strict=False)):
        if item == other:
            fresh[index] = other
        elif type(item) is dict and type(other) is dict:
            share(item, other)
