"""The server's OpenAPI documents, made from the registry and the schemas.

`openapi_v3_index` lists a document per group and version with a hash that changes when the document would;
`openapi_v3_group` is one of them; `openapi_v2` is everything in one. All return encoded JSON, for the caller to cache.
What kubectl looks for in them: the definitions, and on every operation `x-kubernetes-group-version-kind` and the
parameters (`fieldValidation`, `dryRun`) that tell what the server can do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import orjson

from navarch.api.meta import Obj
from navarch.api.openapi import (
    CUSTOM_PATCH_TYPES,
    DELETE_OPTIONS,
    JSON,
    PATCH_DEFINITION,
    PATCH_TYPES,
    STATUS,
    STREAM,
    WATCH_EVENT,
    YAML,
    Operation,
    Parameter,
    Version,
    reachable,
    render_definition,
)
from navarch.api.openapi_protobuf import encode_v2
from navarch.api.schema import SchemaSet
from navarch.api.structural import LIST_META, OBJECT_META
from navarch.kinds import openapi_roots
from navarch.kinds.base import Kind
from navarch.kinds.discovery_docs import subresources_of
from navarch.kinds.openapi_custom import published
from navarch.kinds.openapi_roots import Root
from navarch.kinds.registry import Registry, definition_name

_SECURITY: Final = {
    "BearerToken": {
        "type": "apiKey",
        "description": "Bearer Token authentication",
        "name": "authorization",
        "in": "header",
    }
}
_NAMESPACE: Final = Parameter("namespace", "the namespace of the object", "string", "path", True)
_NAME: Final = Parameter("name", "the name of the object", "string", "path", True)
_PATH: Final = Parameter("path", "the path below the proxied address", "string", "path", True)
_PRETTY: Final = Parameter("pretty", "If 'true', the output is indented.")
_DRY_RUN: Final = Parameter(
    "dryRun", "'All' runs every stage of the write but does not store its result; any other value is an error."
)
_FIELD_MANAGER: Final = Parameter(
    "fieldManager", "The name under which the fields that this write sets are owned; at most 128 printable characters."
)
_FIELD_VALIDATION: Final = Parameter(
    "fieldValidation",
    "What happens to unknown and duplicate fields: Ignore drops them, Warn drops them with a warning (the default), "
    "Strict refuses the request.",
)
_FORCE: Final = Parameter("force", "An apply takes over fields that other managers own.", "boolean")
_WRITE: Final = (_DRY_RUN, _FIELD_MANAGER, _FIELD_VALIDATION)
_LIST: Final = (
    Parameter("allowWatchBookmarks", "The watch may send BOOKMARK events.", "boolean"),
    Parameter("continue", "The token of the previous chunk's metadata.continue: where to go on."),
    Parameter("fieldSelector", "Restricts the list of returned objects by their fields."),
    Parameter("labelSelector", "Restricts the list of returned objects by their labels."),
    Parameter("limit", "The most objects to return; the rest is behind metadata.continue.", "integer"),
    Parameter("resourceVersion", "At which version to read; see resourceVersionMatch."),
    Parameter("resourceVersionMatch", "How resourceVersion applies to a list: Exact or NotOlderThan."),
    Parameter("sendInitialEvents", "The watch begins with the objects that there are, then a bookmark.", "boolean"),
    Parameter("timeoutSeconds", "How long a list or watch may take.", "integer"),
    Parameter("watch", "Watch for changes to the described resources instead of listing them.", "boolean"),
)
_DELETE: Final = (
    _DRY_RUN,
    Parameter("gracePeriodSeconds", "Seconds before the object is deleted; 0 deletes at once.", "integer"),
    Parameter("orphanDependents", "Deprecated: use propagationPolicy.", "boolean"),
    Parameter("propagationPolicy", "What becomes of dependents: Orphan, Background or Foreground."),
)
_CONNECT_PARAMETERS: Final[dict[str, tuple[Parameter, ...]]] = {
    "exec": (
        Parameter("command", "The command and its arguments, one parameter each."),
        Parameter("container", "The container; the pod's only one where left out."),
        Parameter("stderr", "Redirect standard error.", "boolean"),
        Parameter("stdin", "Redirect standard input.", "boolean"),
        Parameter("stdout", "Redirect standard output.", "boolean"),
        Parameter("tty", "Allocate a terminal.", "boolean"),
    ),
    "attach": (
        Parameter("container", "The container; the pod's only one where left out."),
        Parameter("stderr", "Redirect standard error.", "boolean"),
        Parameter("stdin", "Redirect standard input.", "boolean"),
        Parameter("stdout", "Redirect standard output.", "boolean"),
        Parameter("tty", "The container has a terminal.", "boolean"),
    ),
    "portforward": (Parameter("ports", "The ports to forward.", "integer"),),
    "proxy": (Parameter("path", "The path below the proxied address."),),
}
_LOG_PARAMETERS: Final = (
    Parameter("container", "The container; the pod's only one where left out."),
    Parameter("follow", "Keep the stream open for what is yet to be logged.", "boolean"),
    Parameter("insecureSkipTLSVerifyBackend", "Do not verify the kubelet's certificate.", "boolean"),
    Parameter("limitBytes", "The most bytes to return.", "integer"),
    Parameter("previous", "The log of the container's previous instance.", "boolean"),
    Parameter("sinceSeconds", "Only what was logged in the last so many seconds.", "integer"),
    Parameter("stream", "Which of the streams All, Stdout and Stderr."),
    Parameter("tailLines", "Only so many lines from the end.", "integer"),
    Parameter("timestamps", "Begin each line with its time.", "boolean"),
)
_METHODS: Final = {"create": "post", "delete": "delete", "get": "get", "patch": "patch", "update": "put"}
_CONNECT_KINDS: Final = ("exec", "attach", "portforward", "proxy")

Paths = dict[str, Obj]


def openapi_v3_index(registry: Registry, schemas: SchemaSet) -> bytes:
    """`/openapi/v3`: where the documents are."""
    paths = {}
    for relative in openapi_roots.documents(registry):
        digest = openapi_v3_hash(registry, schemas, relative)
        paths[relative] = {"serverRelativeURL": f"/openapi/v3/{relative}?hash={digest}"}
    return orjson.dumps({"paths": paths})


def _kinds_of(registry: Registry, relative: str) -> list[Kind]:
    """The kinds of a document, `apis/apps/v1`; none for one that has no resources, `apis/apps`."""
    first, *rest = relative.split("/")
    if first == "api" and len(rest) == 1:
        return registry.of_version("", rest[0])
    return registry.of_version(rest[0], rest[1]) if first == "apis" and len(rest) == 2 else []


def openapi_v3_hash(registry: Registry, schemas: SchemaSet, relative: str) -> str:
    """Changes whenever the document would; costs far less than the document."""
    digest = hashlib.sha512(schemas.version.encode())
    digest.update(relative.encode())
    for kind in _kinds_of(registry, relative):
        digest.update(repr((kind.resource, kind.definition, kind.verbs, list(subresources_of(kind)))).encode())
        if kind.own_schemas is not None:
            digest.update(kind.own_schemas.digest)
    return digest.hexdigest().upper()


def openapi_v3_group(registry: Registry, schemas: SchemaSet, relative: str) -> bytes | None:
    """`/openapi/v3/apis/<group>/<version>`, `/openapi/v3/api/v1`, or what there is beside resources (`apis/<group>`,
    `version` …); None where there is no such document."""
    roots = openapi_roots.documents(registry).get(relative)
    if roots is None:
        return None
    kinds = _kinds_of(registry, relative)
    paths = _paths(kinds, roots, 3)
    document = {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": f"v{schemas.version}.0"},
        "paths": paths,
        "components": {"schemas": _definitions(kinds, roots, schemas, 3), "securitySchemes": _SECURITY},
    }
    return orjson.dumps(document)


def openapi_v2_document(registry: Registry, schemas: SchemaSet) -> Obj:
    """The version-2 document as a JSON object; see `openapi_v2`."""
    kinds, roots = registry.kinds(), list(openapi_roots.roots(registry))
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": f"v{schemas.version}.0"},
        "paths": _paths(kinds, roots, 2),
        "definitions": _definitions(kinds, roots, schemas, 2),
        "securityDefinitions": _SECURITY,
        "security": [{"BearerToken": []}],
    }


def openapi_v2(registry: Registry, schemas: SchemaSet) -> bytes:
    """`/openapi/v2`: everything in one document."""
    return orjson.dumps(openapi_v2_document(registry, schemas))


def openapi_v2_protobuf(registry: Registry, schemas: SchemaSet) -> bytes:
    """`/openapi/v2` as client-go asks for it: `application/com.github.proto-openapi.spec.v2@v1.0+protobuf`."""
    return encode_v2(openapi_v2_document(registry, schemas))


def _definitions(kinds: list[Kind], roots: list[Root], schemas: SchemaSet, version: Version) -> Obj:
    documented = schemas.documented()
    custom: dict[str, Obj] = {}
    for kind in kinds:
        if kind.own_schemas is not None:
            custom |= published(kind, documented, version)
    wanted = {root.definition for root in roots if root.definition}
    if kinds:
        wanted |= {PATCH_DEFINITION, DELETE_OPTIONS, STATUS, WATCH_EVENT}
    for kind in kinds:
        if kind.definition is not None:
            wanted |= {kind.definition, _list_definition(kind)}
        wanted.update(definition_name(*response) for _, response, _ in subresources_of(kind))
    if custom:
        wanted |= {OBJECT_META, LIST_META}
    names = reachable(documented, wanted - custom.keys())
    shown = {name: render_definition(name, documented[name], version, schemas.stated_defaults(name)) for name in names}
    return dict(sorted((shown | custom).items()))


def _list_definition(kind: Kind) -> str:
    assert kind.definition is not None
    return kind.definition.rpartition(".")[0] + "." + kind.list_kind


def _paths(kinds: list[Kind], roots: list[Root], version: Version) -> Paths:
    paths: Paths = {root.path: openapi_roots.render(root, version) for root in roots}
    for kind in kinds:
        if kind.definition is None:
            continue
        for path, method, operation, parameters in _operations(kind):
            item = paths.setdefault(path, {"parameters": [parameter.render(version) for parameter in parameters]})
            item[method] = operation.render(version)
    return dict(sorted(paths.items()))


def _operations(kind: Kind) -> Iterator[tuple[str, str, Operation, tuple[Parameter, ...]]]:
    """Each operation with its path and method, and the parameters that all methods of the path share."""
    resource = kind.resource
    scope = (_NAMESPACE,) if resource.namespaced else ()
    base = resource.path("{namespace}")
    make = _Maker(kind)
    collection = {"list": "get", "create": "post", "deletecollection": "delete"}
    for verb, method in collection.items():
        if verb in kind.verbs:
            yield base, method, make.collection(verb), (*scope, _PRETTY)
    if resource.namespaced and "list" in kind.verbs:
        yield resource.path(), "get", make.list_everywhere(), (_PRETTY,)
    if "watch" in kind.verbs:
        # As old as the API, kept for who asks so.
        watched = base.replace(f"/{resource.version}/", f"/{resource.version}/watch/", 1)
        yield watched, "get", make.watch("List"), (*_LIST, *scope, _PRETTY)
        yield f"{watched}/{{name}}", "get", make.watch(""), (*_LIST, _NAME, *scope, _PRETTY)
        if resource.namespaced:
            everywhere = resource.path().replace(f"/{resource.version}/", f"/{resource.version}/watch/", 1)
            yield everywhere, "get", make.watch_everywhere(), (*_LIST, _PRETTY)
    for verb in ("get", "update", "delete", "patch"):
        if verb in kind.verbs:
            yield f"{base}/{{name}}", _METHODS[verb], make.single(verb), (_NAME, *scope, _PRETTY)
    for name, response, verbs in subresources_of(kind):
        path = f"{base}/{{name}}/{name}"
        if name in _CONNECT_KINDS:
            shared = (*_CONNECT_PARAMETERS[name], _NAME, *scope)
            for verb in verbs:
                yield path, _METHODS[verb], make.connect(name, response, verb), shared
                if name == "proxy":
                    operation = make.connect(name, response, verb, with_path=True)
                    yield f"{path}/{{path}}", _METHODS[verb], operation, (_NAME, *scope, _PATH)
            continue
        for verb in verbs:
            yield path, _METHODS[verb], make.subresource(name, response, verb), (_NAME, *scope, _PRETTY)


class _Maker:
    """Makes the operations of one kind; their ids are those by which generated clients name their methods."""

    def __init__(self, kind: Kind) -> None:
        resource = kind.resource
        assert kind.definition is not None
        camel = openapi_roots.camel(resource.group)
        self._kind = resource.kind
        self._gvk = (resource.group, resource.version, resource.kind)
        self._api = camel + resource.version[:1].upper() + resource.version[1:]
        self._tag = f"{camel[:1].lower()}{camel[1:]}_{resource.version}"
        self._scoped = ("Namespaced" if resource.namespaced else "") + resource.kind
        self._definition = kind.definition
        self._list = _list_definition(kind)
        # By this kubectl finds out how to patch: custom kinds have no strategic merge.
        self._patch_types = PATCH_TYPES if kind.own_schemas is None else CUSTOM_PATCH_TYPES

    def _operation(
        self,
        operation_id: str,
        action: str,
        description: str,
        gvk: tuple[str, str, str] | None = None,
        *,
        parameters: tuple[Parameter, ...] = (),
        body: str = "",
        body_required: bool = True,
        consumes: tuple[str, ...] = ("*/*",),
        produces: tuple[str, ...] = (JSON, YAML),
        responses: dict[int, str],
    ) -> Operation:
        group, version, kind = gvk or self._gvk
        return Operation(
            operation_id,
            self._tag,
            description,
            action,
            group,
            version,
            kind,
            parameters=parameters,
            body=body,
            body_required=body_required,
            consumes=consumes,
            produces=produces,
            responses={**responses, 401: ""},
        )

    def collection(self, verb: str) -> Operation:
        api, scoped, kind = self._api, self._scoped, self._kind
        if verb == "list":
            return self._operation(
                f"list{api}{scoped}",
                "list",
                f"list or watch objects of kind {kind}",
                parameters=_LIST,
                produces=(JSON, STREAM, YAML),
                responses={200: self._list},
            )
        if verb == "create":
            made = dict.fromkeys((200, 201, 202), self._definition)
            return self._operation(
                f"create{api}{scoped}",
                "post",
                f"create {_article(kind)} {kind}",
                parameters=_WRITE,
                body=self._definition,
                responses=made,
            )
        parameters = (*_DELETE, *(parameter for parameter in _LIST if parameter.name not in _WATCH_ONLY))
        return self._operation(
            f"delete{api}Collection{scoped}",
            "deletecollection",
            f"delete collection of {kind}",
            parameters=parameters,
            body=DELETE_OPTIONS,
            body_required=False,
            responses={200: STATUS},
        )

    def list_everywhere(self) -> Operation:
        return self._operation(
            f"list{self._api}{self._kind}ForAllNamespaces",
            "list",
            f"list or watch objects of kind {self._kind}",
            parameters=_LIST,
            produces=(JSON, STREAM, YAML),
            responses={200: self._list},
        )

    def watch(self, suffix: str) -> Operation:
        """Of one object, or (`List`) of many."""
        what = "a list" if suffix else "one object"
        return self._watch(
            f"watch{self._api}{self._scoped}{suffix}", f"watch changes to {what} of kind {self._kind}", suffix
        )

    def watch_everywhere(self) -> Operation:
        return self._watch(
            f"watch{self._api}{self._kind}ListForAllNamespaces", f"watch changes to a list of kind {self._kind}", "List"
        )

    def _watch(self, operation_id: str, description: str, suffix: str) -> Operation:
        return self._operation(
            operation_id,
            "watchlist" if suffix else "watch",
            f"{description}; deprecated, ask with the parameter `watch`",
            produces=(JSON, STREAM, YAML),
            responses={200: WATCH_EVENT},
        )

    def single(self, verb: str) -> Operation:
        api, scoped, kind = self._api, self._scoped, self._kind
        if verb == "delete":
            return self._operation(
                f"delete{api}{scoped}",
                "delete",
                f"delete {_article(kind)} {kind}",
                parameters=_DELETE,
                body=DELETE_OPTIONS,
                body_required=False,
                responses={200: STATUS, 202: STATUS},
            )
        return self._access(verb, self._gvk, self._definition, suffix="", of=f"the specified {kind}")

    def subresource(self, name: str, response: tuple[str, str, str], verb: str) -> Operation:
        suffix = "".join(word[:1].upper() + word[1:] for word in name.split("-"))
        of = f"{name} of the specified {self._kind}"
        if name == "log":
            return self._operation(
                f"read{self._api}{self._scoped}Log",
                "get",
                f"read {of}",
                response,
                parameters=_LOG_PARAMETERS,
                produces=("text/plain", JSON, YAML),
                responses={200: ""},
            )
        definition = definition_name(*response)
        if verb == "create":
            made = dict.fromkeys((200, 201, 202), definition)
            return self._operation(
                f"create{self._api}{self._scoped}{suffix}",
                "post",
                f"create {of}",
                response,
                parameters=_WRITE,
                body=definition,
                responses=made,
            )
        return self._access(verb, response, definition, suffix=suffix, of=of)

    def _access(self, verb: str, gvk: tuple[str, str, str], definition: str, *, suffix: str, of: str) -> Operation:
        """get, update and patch of an object or of a part of it."""
        name = f"{self._api}{self._scoped}{suffix}"
        if verb == "get":
            return self._operation(f"read{name}", "get", f"read {of}", gvk, responses={200: definition})
        written = dict.fromkeys((200, 201), definition)
        if verb == "update":
            return self._operation(
                f"replace{name}", "put", f"replace {of}", gvk, parameters=_WRITE, body=definition, responses=written
            )
        return self._operation(
            f"patch{name}",
            "patch",
            f"partially update {of}",
            gvk,
            parameters=(*_WRITE, _FORCE),
            body=PATCH_DEFINITION,
            consumes=self._patch_types,
            responses=written,
        )

    def connect(self, name: str, response: tuple[str, str, str], verb: str, *, with_path: bool = False) -> Operation:
        method = _METHODS[verb].capitalize()
        suffix = name.capitalize() + ("WithPath" if with_path else "")
        return self._operation(
            f"connect{self._api}{method}{self._scoped}{suffix}",
            "connect",
            f"connect {method.upper()} requests to {name} of {self._kind}",
            response,
            produces=("*/*",),
            responses={200: ""},
        )


_WATCH_ONLY: Final = ("allowWatchBookmarks", "watch")


def _article(kind: str) -> str:
    return "an" if kind[0] in "AEIOU" else "a"
