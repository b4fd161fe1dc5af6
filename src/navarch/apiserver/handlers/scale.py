"""`/scale`: the replica counts of any scalable kind as an `autoscaling/v1` Scale."""

from __future__ import annotations

from typing import Any

import orjson

from navarch.api.apply import apply
from navarch.api.errors import bad_request, internal, invalid, invalid_value, required, unsupported_media_type
from navarch.api.meta import Obj, get_path
from navarch.api.patch import json_patch, merge_patch
from navarch.api.selectors import from_map, label_selector_of
from navarch.apiserver import decoding
from navarch.apiserver.call import Call, warning_headers
from navarch.apiserver.codec import decode
from navarch.apiserver.core import Core
from navarch.apiserver.handlers.objects import PATCH_TYPES, Objects
from navarch.apiserver.negotiation import respond_obj
from navarch.apiserver.patching import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH
from navarch.apiserver.writing import How, Written
from navarch.client.transport import Response
from navarch.kinds.base import Kind, ScaleSubresource

_DEFINITION = "io.k8s.api.autoscaling.v1.Scale"


class Scaling:
    def __init__(self, core: Core, objects: Objects) -> None:
        self._core = core
        self._objects = objects

    async def get(self, call: Call) -> Response:
        kind = call.kind
        cached = await self._objects.reading.get(kind, call.namespace, call.route.name)
        obj = await self._core.encodings.obj(kind, cached)
        if kind.own_schemas is not None and kind.scale is not None and get_path(obj, kind.scale.replicas) is None:
            raise internal(f'the spec replicas field ".{kind.scale.replicas}" does not exist')
        return respond_obj(call.form, scale_of(kind, obj))

    async def update(self, call: Call) -> Response:
        scale = decoding.parse_body(call.request, "Scale")
        group, _, version = str(scale.get("apiVersion") or "autoscaling/v1").rpartition("/")
        kind = scale.get("kind") or "Scale"
        if (group, kind) != ("autoscaling", "Scale"):
            stated = f"{group}/{version}" if group else version
            why = f'no kind "{kind}" is registered for version "{stated}" in scheme "pkg/api/legacyscheme/scheme.go:30"'
            raise bad_request(f'{kind} in version "{version}" cannot be handled as a Scale: {why}')
        self._check(scale)
        decoding.check_name(scale, call.route.name)
        return await self._write(call, lambda current: scale, patch=False)

    async def patch(self, call: Call) -> Response:
        media_type = decoding.media_type_of(call.request)
        body = decoding.parse_patch(call.request)

        def patched(current: Obj) -> Obj:
            if media_type == JSON_PATCH:
                scale = json_patch(current, body)
            elif media_type in (MERGE_PATCH, STRATEGIC_PATCH):
                # A Scale has no lists to merge: a strategic patch is a merge patch.
                scale = merge_patch(current, body)
            elif media_type == decoding.APPLY_YAML:
                scale = self._applied(call, current, body)
            else:
                raise unsupported_media_type(PATCH_TYPES)
            self._check(scale)
            if scale["metadata"].get("resourceVersion") == current["metadata"].get("resourceVersion"):
                # Not stated by the patch: a change of the object meanwhile is no conflict, the patch is applied again.
                scale["metadata"].pop("resourceVersion", None)
            return scale

        return await self._write(call, patched, patch=True)

    def _applied(self, call: Call, current: Obj, body: Any) -> Obj:
        if not isinstance(body, dict):
            raise bad_request("error decoding YAML: the configuration to apply must be an object")
        if not call.request.arg("fieldManager"):
            raise invalid("PatchOptions", "meta.k8s.io", "", [required("fieldManager", "is required for apply patch")])
        compiled = self._core.schemas.compile(_DEFINITION)
        unknown = compiled.decode(body)
        if unknown:
            shown = ", ".join(f".{path}: field not declared in schema" for path in unknown)
            raise bad_request(f"failed to create typed patch object (autoscaling/v1, Kind=Scale): {shown}")
        root = compiled.root
        return apply(
            current,
            body,
            root,
            manager=call.manager,
            force=call.force,
            api_version="autoscaling/v1",
            subresource="",
            now=self._core.now_text(),
        )

    def _check(self, scale: Obj) -> None:
        self._core.schemas.compile(_DEFINITION).decode(scale)
        scale.setdefault("metadata", {})
        replicas = (scale.get("spec") or {}).get("replicas") or 0
        if replicas < 0:
            name = scale["metadata"].get("name", "")
            error = invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
            raise invalid("Scale", "autoscaling", name, [error])

    async def _write(self, call: Call, wanted: Any, *, patch: bool) -> Response:
        paths = call.kind.scale
        assert paths is not None

        def scaled(old: Obj) -> Obj:
            scale = wanted(scale_of(call.kind, old))
            obj = decode(orjson.dumps(old))
            obj["metadata"].pop("resourceVersion", None)
            for name in ("resourceVersion", "uid"):
                if stated := scale["metadata"].get(name):
                    obj["metadata"][name] = stated
            _set(obj, paths.replicas, (scale.get("spec") or {}).get("replicas") or 0)
            return obj

        written: Written = await self._objects.writing.modify(
            call.kind.pipeline_kind,
            call.namespace,
            call.route.name,
            scaled,
            call.origin(),
            how=How("scale", patch=patch, view=_ScaleView(call.kind)),
        )
        return respond_obj(call.form, scale_of(call.kind, written.obj()), 200, warning_headers(call.warnings))


class _ScaleView:
    """A scalable object as admission sees a change of its scale."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def of(self, obj: Obj) -> Obj:
        return scale_of(self._kind, obj)

    def put(self, obj: Obj, shown: Obj) -> None:
        paths = self._kind.scale
        assert paths is not None
        _set(obj, paths.replicas, (shown.get("spec") or {}).get("replicas") or 0)


def scale_of(kind: Kind, obj: Obj) -> Obj:
    """The object's Scale."""
    paths = kind.scale or ScaleSubresource()
    metadata = obj["metadata"]
    shown = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    scale: Obj = {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: metadata[name] for name in shown if name in metadata},
        "spec": {},
        "status": {"replicas": get_path(obj, paths.status_replicas, 0)},
    }
    replicas = get_path(obj, paths.replicas, 0)
    if replicas:
        scale["spec"]["replicas"] = replicas
    selector = get_path(obj, paths.selector) if paths.selector else None
    if selector and isinstance(selector, str):
        scale["status"]["selector"] = selector
    elif selector:
        is_map = all(isinstance(value, str) for value in selector.values())
        scale["status"]["selector"] = str(from_map(selector) if is_map else label_selector_of(selector))
    return scale


def _set(obj: Obj, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        obj = obj.setdefault(parent, {})
    obj[last] = value
