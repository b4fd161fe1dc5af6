"""Claims for devices: where they may ask for devices that others use, and who may say what of their status.

In: a ResourceClaim, or a template of some, on its way to the store.  Out: the same, or 422. Administrative access
(`adminAccess`) is for namespaces that carry the label for it. Beyond `resourceclaims/status`, who changes what was
allocated or reserved needs `resourceclaims/binding`, and who changes what a driver reports needs
`resourceclaims/driver` under the driver's name: for the claims of its own node, or of any. Neither subresource is
served; there is but the permission
(https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from navarch.api.errors import FieldError, forbidden_field, invalid
from navarch.api.meta import Obj, labels_of
from navarch.apiserver.admission.base import Attributes, Plugin, Reader
from navarch.apiserver.auth.base import Decide, RequestAttributes
from navarch.apiserver.auth.refusal import refusal
from navarch.apiserver.user import User
from navarch.kinds.resources import NAMESPACES

_GROUP: Final = "resource.k8s.io"
_CLAIMS: Final = "resourceclaims"
_TEMPLATES: Final = "resourceclaimtemplates"
_LABEL: Final = "resource.kubernetes.io/admin-access"
_NODE_OF_TOKEN: Final = "authentication.kubernetes.io/node-name"
_OF_BINDING: Final = ("allocation", "reservedFor")


class DeviceAdminAccess(Plugin):
    """Nobody looks again at a claim that is there: what it asks for does not change, nor what was allocated for it."""

    name = "DeviceAdminAccess"
    resources = frozenset({(_GROUP, _CLAIMS), (_GROUP, _TEMPLATES)})
    subresources = frozenset({"", "status"})

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def validate(self, attributes: Attributes) -> None:
        obj, old = attributes.obj, attributes.old
        if obj is None:
            return
        if attributes.subresource:
            if old is None or _asks(_results(old)) is not None:
                return
            index = _asks(_results(obj))
            path = f"status.allocation.devices.results[{index}].adminAccess"
        elif attributes.operation == "CREATE":
            # A template's requests are told of by the path that they have in a claim.
            spec = obj.get("spec") or {}
            spec = (spec.get("spec") or {}) if attributes.kind.resource.plural == _TEMPLATES else spec
            requests = (spec.get("devices") or {}).get("requests") or ()
            index = _asks([request.get("exactly") or {} for request in requests])
            path = f"spec.devices.requests[{index}].adminAccess"
        else:
            return
        if index is None:
            return
        namespace = self._reader.get(NAMESPACES, "", attributes.namespace)
        if namespace is None or labels_of(namespace).get(_LABEL) != "true":
            detail = f"admin access to devices requires the `{_LABEL}: true` label on the containing namespace"
            raise _invalid(attributes, [forbidden_field(path, detail)])


class DeviceStatusAuthorization(Plugin):
    """Asked of the authorizer in addition to the verb on `resourceclaims/status`."""

    name = "DRAResourceClaimGranularStatusAuthorization"
    resources = frozenset({(_GROUP, _CLAIMS)})
    operations = frozenset({"UPDATE"})
    subresources = frozenset({"status"})

    def __init__(self, authorize: Decide) -> None:
        self._authorize = authorize

    async def validate(self, attributes: Attributes) -> None:
        if attributes.obj is None or attributes.old is None:
            return
        new, old = attributes.obj.get("status") or {}, attributes.old.get("status") or {}
        if new == old:
            return
        errors: list[FieldError] = []
        if any((new.get(name) or None) != (old.get(name) or None) for name in _OF_BINDING):
            asked = _asked(attributes, "binding", _verb(attributes))
            if why := await self._refused(attributes.user, [asked]):
                needs = f'requires resource="resourceclaims/binding", verb="{asked.verb}" permission: {why}'
                errors.append(forbidden_field("status", f"changing status.allocation or status.reservedFor {needs}"))
        drivers = sorted(set(_drivers_of_changes(new, old)))
        if drivers:
            verbs = _driver_verbs(attributes.user, _node_of(new.get("allocation") or {}), _verb(attributes))
            for driver in drivers:
                among = [_asked(attributes, "driver", verb, attributes.namespace, driver) for verb in verbs]
                if why := await self._refused(attributes.user, among):
                    needs = f'requires resource="resourceclaims/driver", verb="[{" ".join(verbs)}]" permission: {why}'
                    errors.append(forbidden_field("status.devices", f"changing status.devices {needs}"))
        if errors:
            raise _invalid(attributes, errors)

    async def _refused(self, user: User, among: Sequence[RequestAttributes]) -> str:
        """Why none of these is allowed, in the words about the first; empty where one is."""
        words = ""
        for asked in among:
            decision = await self._authorize(user, asked)
            if decision.allowed:
                return ""
            words = words or refusal(user, asked, decision.reason).message
        return words


def _invalid(attributes: Attributes, errors: list[FieldError]) -> Exception:
    resource = attributes.kind.resource
    name = attributes.name or str((attributes.obj or {})["metadata"].get("name") or "")
    return invalid(resource.kind, resource.group, name, errors)


def _results(claim: Obj) -> list[Obj]:
    allocation = (claim.get("status") or {}).get("allocation") or {}
    found: list[Obj] = (allocation.get("devices") or {}).get("results") or []
    return found


def _asks(parts: Sequence[Obj]) -> int | None:
    """The first that is about administrative access."""
    return next((index for index, part in enumerate(parts) if part.get("adminAccess")), None)


def _verb(attributes: Attributes) -> str:
    return "patch" if attributes.options.get("kind") == "PatchOptions" else "update"


def _asked(
    attributes: Attributes, subresource: str, verb: str, namespace: str = "", name: str = ""
) -> RequestAttributes:
    version = attributes.asked.resource.version
    asked = RequestAttributes(verb, _GROUP, version, _CLAIMS, subresource)
    return asked._replace(namespace=namespace, name=name)


def _drivers_of_changes(new: Obj, old: Obj) -> Iterator[str]:
    """The drivers of devices whose state came, went or changed."""
    before = {_identity(device): device for device in old.get("devices") or ()}
    for device in new.get("devices") or ():
        if _told(before.pop(_identity(device), {})) != _told(device):
            yield str(device.get("driver") or "")
    for device in before.values():
        yield str(device.get("driver") or "")


def _identity(device: Obj) -> tuple[Any, ...]:
    return tuple(device.get(name) or "" for name in ("driver", "pool", "device", "shareID"))


def _told(device: Obj) -> Obj:
    """No conditions are as many as none."""
    return {name: value for name, value in device.items() if value not in (None, [], {})}


def _node_of(allocation: Obj) -> str:
    """The node whose devices were allocated, where they are those of one node."""
    terms: list[Obj] = (allocation.get("nodeSelector") or {}).get("nodeSelectorTerms") or []
    if len(terms) != 1 or terms[0].get("matchExpressions") or len(terms[0].get("matchFields") or []) != 1:
        return ""
    (field,) = terms[0]["matchFields"]
    values: list[str] = field.get("values") or []
    named = field.get("key") == "metadata.name" and field.get("operator") == "In" and len(values) == 1
    return str(values[0]) if named else ""


def _driver_verbs(user: User, node: str, verb: str) -> list[str]:
    """What lets a driver write, one of which is enough: what is for its own node counts only for who has a token that
    is bound to a pod there."""
    own = bool(node) and user.name.startswith("system:serviceaccount:") and user.extra.get(_NODE_OF_TOKEN) == (node,)
    return [*([f"associated-node:{verb}"] if own else []), f"arbitrary-node:{verb}"]
