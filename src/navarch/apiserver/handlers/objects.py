"""The verbs that every stored kind has: get, list, watch, create, update, patch, delete, deletecollection; and /status.

In: a Call.  Out: a Response. What a verb does is in `reading`, `writing`, `deleting` and `watching`; here is how HTTP
asks for it and is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

import orjson

from navarch.api.errors import StatusError, bad_request, conflict, ending, unroutable_media_type, unsupported_media_type
from navarch.api.meta import Obj
from navarch.api.status_outcomes import StatusOutcomes
from navarch.api.table import INCLUDE_METADATA
from navarch.apiserver import answers, decoding, protobuf_forms
from navarch.apiserver.applying import Applying
from navarch.apiserver.auth.base import RequestAttributes
from navarch.apiserver.auth.refusal import refusal
from navarch.apiserver.call import Call, warning_headers
from navarch.apiserver.changes import Cached
from navarch.apiserver.codec import decode, revision_of
from navarch.apiserver.core import Core
from navarch.apiserver.deleting import DeleteOptions, Deleting, delete_options_of, success
from navarch.apiserver.encodings import Rendering, convert, is_long
from navarch.apiserver.negotiation import JSON, PLAIN, PROTOBUF, TABLE, respond, respond_obj, stream_form_of
from navarch.apiserver.patch_requests import Patch, check_patched, read_patch
from navarch.apiserver.patching import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, patched, remembered
from navarch.apiserver.reading import Listed, Reading, list_metadata
from navarch.apiserver.renderings import (
    check_form,
    enclosed,
    heading,
    in_row_order,
    included,
    list_body,
    list_of_blocks,
    rendering_of,
    untyped,
)
from navarch.apiserver.served import ServedKind
from navarch.apiserver.watching import Lines, Watching, watch_options_of
from navarch.apiserver.writes import Origin, Written, how_of
from navarch.apiserver.writing import Writing
from navarch.client.transport import Response

PATCH_TYPES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, decoding.APPLY_YAML)
# Custom kinds state no patch strategies.
CUSTOM_PATCH_TYPES = (JSON_PATCH, MERGE_PATCH, decoding.APPLY_YAML)
_DELETE_AT_ONCE = 100
# Bytes of a body that is looked for among those like it.
_REMEMBERED = 8192
_NO_HEADERS: Mapping[str, str] = {}


class Objects:
    """Handlers of the standard verbs; also the in-process way to the pipelines for other handlers."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.reading = Reading(core.caches, core.work, core.encodings)
        self.writing = Writing(core)
        self.deleting = Deleting(core, self.writing)
        self.watching = Watching(core)
        self._outcomes = StatusOutcomes()

    # Reads

    async def get(self, call: Call) -> Response:
        kind, form = call.kind, call.form
        if form is PLAIN:
            # Which has no query.
            cached = await self.reading.get(kind, call.route.namespace, call.route.name)
            data = cached.data
            if not data.startswith(kind.head):
                data = await self.core.encodings.one(kind, cached)
            return Response(200, data, warning_headers(call.warnings) if call.warnings else _NO_HEADERS)
        version = call.request.arg("resourceVersion") if call.request.query else ""
        cached = await self.reading.get(kind, call.namespace, call.route.name, version)
        if form.protobuf:
            part = await self.core.encodings.one(kind, cached, protobuf_forms.rendering_of(kind, form))
            return Response(200, protobuf_forms.whole(kind, form, part), {}, PROTOBUF)
        data = cached.data
        if not data.startswith(kind.head):
            data = await self.core.encodings.one(kind, cached)
        if call.request.query and call.request.arg("watch"):
            # Nothing is watched by name; who waits for a line all the same gets one.
            data += b"\n"
        return await self.answer(call, data)

    async def list(self, call: Call) -> Response:
        return await self._listed(call, await self.reading.items(call.request, call.kind, call.namespace))

    async def _listed(self, call: Call, listed: Listed) -> Response:
        kind, form, items = call.kind, call.form, listed.items
        encodings, work = self.core.encodings, self.core.work
        if form.transform:
            check_form(kind, form, listed=True)
            items = in_row_order(kind, form, items)
        rendering = self._rendering(call)
        headers = warning_headers(call.warnings) if call.warnings else _NO_HEADERS
        head, name = heading(kind, form, list_metadata(listed))
        if rendering is not None and form.compact and is_long(items):
            blocks = await encodings.blocks(kind, items, rendering)
            return Response(200, list_of_blocks(work, head, name, blocks), headers)
        if form.protobuf:
            messages = await encodings.all(kind, items, rendering)
            body = protobuf_forms.listed(work, kind, form, list_metadata(listed), messages)
            return Response(200, body, headers, PROTOBUF)
        parts = await encodings.parts(kind, items, rendering)
        if form.pretty or form.media_type != JSON:
            return await answers.in_parts(work, form, head, name, untyped(kind, form, parts), headers)
        return Response(200, list_body(work, kind, form, head, name, parts), headers)

    async def watch(self, call: Call) -> Response:
        kind, form = call.kind, stream_form_of(call.form)
        options = watch_options_of(call.request, kind, call.namespace, call.route.name, self.core)
        if form.protobuf:
            frames = protobuf_forms.Frames(kind, self.core.encodings, form)
            stream = await self.watching.start(kind, options, frames)
            return Response(200, stream, warning_headers(call.warnings), protobuf_forms.WATCH_TYPE)
        lines = Lines(kind, self.core.encodings, lambda: self._rendering(call), form)
        stream = await self.watching.start(kind, options, lines)
        return Response(200, stream, warning_headers(call.warnings), JSON)

    def _rendering(self, call: Call) -> Rendering | None:
        if call.form.protobuf:
            return protobuf_forms.rendering_of(call.kind, call.form)
        if not call.form.transform:
            return None
        include = included(call.request.arg("includeObject")) if call.request.query else INCLUDE_METADATA
        return rendering_of(call.kind, call.form, include, self.core.now())

    async def _from_stored(self, kind: ServedKind, data: bytes) -> bytes:
        """What the pipeline wrote, as the kind's own version."""
        return data if data.startswith(kind.head) else await self.core.work.apart(len(data), convert, kind, data)

    def _to_stored(self, kind: ServedKind, obj: Obj) -> Obj:
        if kind.to_storage is None:
            return obj
        stored = kind.to_storage(obj)
        stored["apiVersion"], stored["kind"] = kind.stored_resource.api_version, kind.stored_resource.kind
        return stored

    async def modify(
        self,
        call: Call,
        wanted: Callable[[Obj], Obj],
        *,
        origin: Origin | None = None,
        manage: bool = True,
        patch: bool = False,
        missing: Callable[[], Awaitable[Obj]] | None = None,
    ) -> Written:
        """The write pipeline's `modify` for a call, whose `wanted` sees the object in the version that it asked for."""
        kind = call.kind
        stored = kind.pipeline_kind
        origin = origin or call.origin()

        def stored_wanted(old: Obj) -> Obj:
            if kind is not stored:
                old = decode(convert(kind, orjson.dumps(old)))
            return self._to_stored(kind, wanted(old))

        async def stored_missing() -> Obj:
            assert missing is not None
            return await self.core.work.apart(origin.size, self._to_stored, kind, await missing())

        written = await self.writing.modify(
            stored,
            call.namespace,
            call.route.name,
            stored_wanted,
            origin,
            how=how_of(call.route.subresource, manage, patch=patch),
            missing=None if missing is None else stored_missing,
        )
        if not written.data.startswith(kind.head):
            written.data = await self._from_stored(kind, written.data)
        return written

    async def answer(self, call: Call, data: bytes, status: int = 200) -> Response:
        """One object in the form asked for, with the warnings gathered on the way."""
        form = call.form
        if not form.transform and not form.pretty:
            return respond(form, data, status, warning_headers(call.warnings))
        return await self.core.work.apart(len(data), self._answer, call, data, status)

    def _answer(self, call: Call, data: bytes, status: int) -> Response:
        form = call.form
        headers = warning_headers(call.warnings)
        if not form.transform or (rendering := self._rendering(call)) is None:
            return respond(form, data, status, headers)
        check_form(call.kind, form, listed=False)
        part = rendering.make(data)
        if form.protobuf:
            return Response(status, protobuf_forms.whole(call.kind, form, part), headers, PROTOBUF)
        if form.transform == TABLE:
            part = enclosed(call.kind, form, part, revision_of(data), first=True)
        return respond(form, part, status, headers)

    # Writes

    async def create(self, call: Call) -> Response:
        kind, core = call.kind, self.core
        if kind.ending:
            raise ending(kind.resource.group, kind.resource.plural)
        origin = call.origin()
        templates = kind.templates if origin.size <= _REMEMBERED else None
        if templates is None:
            obj = await decoding.decode_body(core, kind, call.request, call.warnings)
        else:
            obj, origin.alike = decoding.decode_alike(kind, templates, call.request, call.warnings)
        decoding.check_namespace(obj, kind, call.namespace)
        if kind.to_storage is not None:
            obj = await core.work.apart(origin.size, self._to_stored, kind, obj)
        written = await self.writing.create(kind.pipeline_kind, obj, origin)
        data = written.data
        return await self.answer(call, data if data.startswith(kind.head) else await self._from_stored(kind, data), 201)

    async def update(self, call: Call) -> Response:
        kind, core, name = call.kind, self.core, call.route.name
        origin = call.origin()
        obj = await decoding.decode_body(core, kind, call.request, call.warnings)
        decoding.check_namespace(obj, kind, call.namespace)
        decoding.check_name(obj, name)
        first = [obj]

        def stated() -> Obj:
            # The pipeline owns what it is given; who needs the object once more reads the body once more.
            if first:
                return first.pop()
            again = decoding.decode_object(core, kind, call.request, [])
            decoding.check_namespace(again, kind, call.namespace)
            return again

        def wanted(old: Obj) -> Obj:
            return stated()

        async def missing() -> Obj:
            await self._authorize_create(call)
            new = await core.work.apart(origin.size, stated)
            for name in ("resourceVersion", "uid"):
                new["metadata"].pop(name, None)
            return new

        may_create = kind.strategy.allow_create_on_update and not call.route.subresource
        written = await self.modify(call, wanted, origin=origin, missing=missing if may_create else None)
        return await self.answer(call, written.data, 201 if written.created else 200)

    async def patch(self, call: Call) -> Response:
        media_type = decoding.media_type_of(call.request)
        offered = PATCH_TYPES if call.kind.own_schemas is None else CUSTOM_PATCH_TYPES
        if media_type not in offered:
            raise unroutable_media_type() if call.kind.own_schemas is None else unsupported_media_type(offered)
        origin = call.origin()
        if media_type == decoding.APPLY_YAML:
            written = await self._apply(call, origin)
        else:
            patch = await self.core.work.apart(len(call.request.body), read_patch, call, media_type)
            written = await self.modify(call, self._patched(call, patch, origin), origin=origin, patch=True)
        return await self.answer(call, written.data, 201 if written.created else 200)

    def _patched(self, call: Call, patch: Patch, origin: Origin) -> Callable[[Obj], Obj]:
        kind, sharing = call.kind, call.route.subresource == "status"
        alike = sharing and kind.strategy.status_alone and kind.to_storage is None and not patch.problems

        def wanted(old: Obj) -> Obj:
            if alike and (compiled := kind.compiled) is not None:
                found = remembered(self._outcomes, old, patch.body, patch.media_type, compiled)
                if found is not None:
                    obj, origin.outcome = found
                    return obj
                origin.outcome = None
            obj, touched = patched(old, patch.body, patch.media_type, call.kind.compiled, sharing=sharing)
            self._check_patched(call, old, patch, obj, touched)
            return obj

        return wanted

    def _check_patched(self, call: Call, old: Obj, patch: Patch, obj: Obj, touched: Iterable[str]) -> None:
        """What a patch made must still be an object of its kind and name."""
        check_patched(call, call.kind, old, patch, obj, touched)
        decoding.check_name(obj, call.route.name)
        metadata = obj["metadata"]
        if call.namespace and metadata.get("namespace", call.namespace) != call.namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")

    async def _apply(self, call: Call, origin: Origin) -> Written:
        kind, core = call.kind, self.core
        applying = Applying(call, core.now_text)
        compiled = kind.compiled
        if compiled is None:
            raise unsupported_media_type((JSON_PATCH, MERGE_PATCH))
        await core.work.apart(len(call.request.body), applying.read)

        async def created() -> Obj:
            new = await core.work.apart(origin.size, applying.applied, None)
            if uid := new["metadata"].get("uid"):
                why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                raise conflict(kind.resource.plural, kind.resource.group, call.route.name, why)
            await self._authorize_create(call)
            new["metadata"].pop("resourceVersion", None)
            return new

        origin.manager = ""
        return await self.modify(
            call,
            applying.applied,
            origin=origin,
            manage=False,
            patch=True,
            missing=None if call.route.subresource else created,
        )

    async def _authorize_create(self, call: Call) -> None:
        """Who may update or patch may not therefore create.  Raises StatusError 403."""
        route = call.route
        asked = RequestAttributes("create", route.group, route.version, route.plural, "", route.namespace, route.name)
        decision = await self.core.decide(call.user, asked)
        if not decision.allowed:
            raise refusal(call.user, asked, decision.reason)

    async def delete(self, call: Call) -> Response:
        options = await self._delete_options(call)
        origin = self._delete_origin(call, options)
        stored = call.kind.pipeline_kind
        deleted = await self.deleting.delete(stored, call.namespace, call.route.name, options, origin)
        headers = warning_headers(call.warnings)
        status = 202 if not deleted.gone and options.accepted else 200
        if deleted.gone and not call.kind.strategy.returns_deleted:
            return respond_obj(call.form, success(call.kind, deleted), status, headers)
        data = await self.core.work.apart(deleted.size, orjson.dumps, deleted.obj)
        return await self.answer(call, await self._from_stored(call.kind, data), status)

    async def _delete_options(self, call: Call) -> DeleteOptions:
        body = call.request.body
        if not body:
            return delete_options_of(call.request)
        return await self.core.work.apart(len(body), delete_options_of, call.request)

    def _delete_origin(self, call: Call, options: DeleteOptions) -> Origin:
        if not options.propagation:
            call.warnings.extend(call.kind.strategy.delete_warnings())
        shown = {**options.raw, "kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"}
        return Origin(call.user, "", options.dry_run, shown, call.warnings, requested=call.requested_kind)

    async def delete_collection(self, call: Call) -> Response:
        options = await self._delete_options(call)
        origin = self._delete_origin(call, options)
        listed = await self.reading.items(call.request, call.kind, call.namespace)
        stored = call.kind.pipeline_kind
        failed: list[StatusError] = []

        async def one(cached: Cached) -> None:
            try:
                await self.deleting.delete(stored, cached.namespace, cached.name, options, origin)
            except StatusError as error:
                if error.code != 404:
                    failed.append(error)

        for start in range(0, len(listed.items), _DELETE_AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for cached in listed.items[start : start + _DELETE_AT_ONCE]:
                    group.create_task(one(cached))
            if failed:
                # As in Kubernetes, the answer is the first mistake; what is deleted by then is deleted.
                raise failed[0]
        # What was there, as it was before it was deleted.
        return await self._listed(call, listed)
