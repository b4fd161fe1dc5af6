"""`/scale`: the replica counts of any scalable kind as an `autoscaling/v1` Scale."""

from __future__ import annotations

from typing import Any

import orjson

from navarch.api import apply as managed
from navarch.api.errors import (
    bad_request,
    internal,
    invalid,
    invalid_value,
    unroutable_media_type,
    unsupported_media_type,
)
from navarch.api.meta import Obj, Resource, get_path
from navarch.api.scale_fields import of_object, of_scale
from navarch.api.schema import Compiled, SchemaSet
from navarch.api.selectors import from_map, label_selector_of
from navarch.apiserver import decoding
from navarch.apiserver.applying import read_configuration, warn_of_duplicates
from navarch.apiserver.call import Call, warning_headers
from navarch.apiserver.codec import decode
from navarch.apiserver.core import Core
from navarch.apiserver.handlers.objects import PATCH_TYPES, Objects
from navarch.apiserver.negotiation import respond_obj
from navarch.apiserver.patch_requests import check_patched, read_patch
from navarch.apiserver.patching import patched
from navarch.apiserver.renderings import in_form, included
from navarch.apiserver.served import ServedKind
from navarch.apiserver.writes import How, Written
from navarch.client.transport import Response
from navarch.kinds import columns
from navarch.kinds.base import AGE, Column, Kind, ScaleSubresource
from navarch.records import frozen

_VERSION = "autoscaling/v1"
_SCALE = Resource("autoscaling", "v1", "scales", "Scale", True)
_DEFINITION = "io.k8s.api.autoscaling.v1.Scale"
_COLUMNS = (
    Column("Name", ".metadata.name"),
    Column("Desired", columns.count("spec.replicas"), type="integer"),
    Column("Available", columns.count("status.replicas"), type="integer"),
    AGE,
)


class Scaling:
    def __init__(self, core: Core, objects: Objects) -> None:
        self._core = core
        self._objects = objects
        self._target = _Target(core.schemas.compile(_DEFINITION), core.schemas)

    async def get(self, call: Call) -> Response:
        kind = call.kind
        cached = await self._objects.reading.get(kind, call.namespace, call.route.name)
        obj = await self._core.encodings.obj(kind, cached)
        if kind.own_schemas is not None and kind.scale is not None and get_path(obj, kind.scale.replicas) is None:
            raise internal(f'the spec replicas field ".{kind.scale.replicas}" does not exist')
        return self._answer(call, scale_of(kind, obj))

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
        return await self._write(call, lambda current: self._managed(call, current, scale), patch=False)

    async def patch(self, call: Call) -> Response:
        media_type = decoding.media_type_of(call.request)
        if media_type not in PATCH_TYPES:
            raise unroutable_media_type() if call.kind.own_schemas is None else unsupported_media_type(PATCH_TYPES)
        call.check_options()
        if media_type == decoding.APPLY_YAML:
            config = read_configuration(call)
            return await self._write(call, lambda current: self._applied(call, current, config), patch=True)
        patch = read_patch(call, media_type)

        def patched_scale(current: Obj) -> Obj:
            scale, touched = patched(current, patch.body, media_type, self._target.compiled)
            check_patched(call, self._target, current, patch, scale, touched)
            self._check(scale)
            decoding.check_name(scale, call.route.name)
            return _unless_stated(self._managed(call, current, scale), current)

        return await self._write(call, patched_scale, patch=True)

    def _applied(self, call: Call, current: Obj, config: Obj) -> Obj:
        scale = managed.apply(
            current,
            config,
            self._target.compiled.root,
            manager=call.manager,
            force=call.force,
            api_version=_VERSION,
            kind="Scale",
            subresource="scale",
            now=self._core.now_text(),
        )
        warn_of_duplicates(call)
        self._check(scale)
        decoding.check_name(scale, call.route.name)
        return _unless_stated(scale, current)

    def _managed(self, call: Call, current: Obj, scale: Obj) -> Obj:
        """The Scale with its managed fields as who changes it so leaves them."""
        managed.update_managed_fields(
            current,
            scale,
            self._target.compiled.root,
            manager=call.manager,
            api_version=_VERSION,
            subresource="scale",
            now=self._core.now_text(),
        )
        return scale

    def _check(self, scale: Obj) -> None:
        self._target.compiled.decode(scale)
        scale.setdefault("metadata", {})
        spec = scale.setdefault("spec", {})
        replicas = spec.get("replicas") or 0
        if not replicas:
            # None are not stated: nobody comes to own that.
            spec.pop("replicas", None)
        if replicas < 0:
            name = scale["metadata"].get("name", "")
            error = invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
            raise invalid("Scale", "autoscaling", name, [error])

    async def _write(self, call: Call, wanted: Any, *, patch: bool) -> Response:
        paths = call.kind.scale
        assert paths is not None
        by_version = _replicas_paths(call.kind)

        def scaled(old: Obj) -> Obj:
            obj = decode(orjson.dumps(old))
            metadata = obj["metadata"]
            entries = metadata.pop("managedFields", None) or []
            current = scale_of(call.kind, old)
            if owners := of_scale(entries, by_version):
                current["metadata"]["managedFields"] = owners
            scale = wanted(current)
            metadata.pop("resourceVersion", None)
            for name in ("resourceVersion", "uid"):
                if stated := scale["metadata"].get(name):
                    metadata[name] = stated
            _set(obj, paths.replicas, (scale.get("spec") or {}).get("replicas") or 0)
            owners = scale["metadata"].get("managedFields") or []
            if entries := of_object(entries, owners, call.kind.resource.api_version, by_version):
                metadata["managedFields"] = entries
            return obj

        written: Written = await self._objects.writing.modify(
            call.kind.pipeline_kind,
            call.namespace,
            call.route.name,
            scaled,
            call.origin(),
            how=How("scale", manage=False, patch=patch, view=_ScaleView(call.kind)),
        )
        obj = await self._core.work.apart(len(written.data), written.obj)
        return self._answer(call, scale_of(call.kind, obj))

    def _answer(self, call: Call, scale: Obj) -> Response:
        if call.form.transform and not call.form.protobuf:
            include = included(call.request.arg("includeObject"))
            scale = in_form(call.form, scale, _COLUMNS, include, self._core.now())
        return respond_obj(call.form, scale, 200, warning_headers(call.warnings))


@frozen
class _Target:
    """A Scale as what a patch is of."""

    compiled: Compiled
    schemas: SchemaSet
    resource: Resource = _SCALE
    versions: tuple[str, ...] = ()


def _replicas_paths(kind: ServedKind) -> dict[str, str]:
    """Where the replicas are, by every version in which somebody may own them; empty for one without a Scale."""
    group = kind.resource.group
    before = [f"{group}/{version}" for version in ("v1beta1", "v1beta2")] if kind.own_schemas is None and group else []
    paths = kind.scale or ScaleSubresource()
    stated = {version: each.scale.replicas if each.scale else "" for version, each in kind.versions.items()}
    return {**dict.fromkeys(before, paths.replicas), **stated}


def _unless_stated(scale: Obj, current: Obj) -> Obj:
    """Without a version that the patch did not state: a change of the object meanwhile is no conflict then, the patch
    is applied again."""
    if scale["metadata"].get("resourceVersion") == current["metadata"].get("resourceVersion"):
        scale["metadata"].pop("resourceVersion", None)
    return scale


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
    elif selector and kind.own_schemas is None:
        is_map = all(isinstance(value, str) for value in selector.values())
        scale["status"]["selector"] = str(from_map(selector) if is_map else label_selector_of(selector))
    return scale


def _set(obj: Obj, path: str, value: Any) -> None:
    """Raises StatusError where something on the way is no object."""
    *parents, last = path.split(".")
    for depth, parent in enumerate(parents, 1):
        obj = obj.setdefault(parent, {})
        if not isinstance(obj, dict):
            at = ".".join(parents[:depth])
            raise internal(f"value cannot be set because .{at} is not a map[string]interface {{}}")
    obj[last] = value
