"""AlwaysPullImages: whoever starts a container has to be able to pull its image; not on by default."""

from __future__ import annotations

from typing import Final

from navarch.api.errors import FieldError, invalid, not_supported
from navarch.api.meta import Obj
from navarch.apiserver.admission.base import Attributes, Plugin

_LISTS: Final = ("initContainers", "containers", "ephemeralContainers")
_POLICY: Final = "Always"


class AlwaysPullImages(Plugin):
    name = "AlwaysPullImages"
    resources = frozenset({("", "pods")})
    subresources = frozenset({"", "ephemeralcontainers"})

    async def mutate(self, attributes: Attributes) -> None:
        obj = attributes.obj
        if obj is None or not _has_new_images(obj, attributes.old):
            return
        spec = obj["spec"]
        for name in _LISTS:
            if spec.get(name):
                # New ones: the old may be shared with what the pod was made from.
                spec[name] = [{**container, "imagePullPolicy": _POLICY} for container in spec[name]]

    async def validate(self, attributes: Attributes) -> None:
        obj = attributes.obj
        if obj is None or not _has_new_images(obj, attributes.old):
            return
        errors: list[FieldError] = []
        for name in _LISTS:
            for index, container in enumerate(obj["spec"].get(name) or []):
                policy = container.get("imagePullPolicy") or ""
                if policy != _POLICY:
                    errors.append(not_supported(f"spec.{name}[{index}].imagePullPolicy", policy, (_POLICY,)))
        if errors:
            raise invalid("Pod", "", attributes.name, errors)


def _has_new_images(new: Obj, old: Obj | None) -> bool:
    return old is None or not _images(new) <= _images(old)


def _images(pod: Obj) -> set[str]:
    return {container.get("image") or "" for name in _LISTS for container in pod["spec"].get(name) or []}
