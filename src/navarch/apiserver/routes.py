"""What a request asks for: its path taken apart, and the verb that authorization knows it by.

`/apis/apps/v1/namespaces/default/deployments/web/scale` is group, version, namespace, plural, name and subresource;
what is no resource path (`/healthz`, discovery) stays a path.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from navarch.apiserver.auth.base import RequestAttributes
from navarch.client.transport import Request

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "GET": "get", "HEAD": "get", "DELETE": "delete"}
_COLLECTION_VERBS = {"get": "list", "delete": "deletecollection"}
# Subresources of a Namespace; any other word behind /namespaces/<name>/ is a resource in it.
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})


@dataclass(frozen=True, slots=True)
class Route:
    """`plural` is empty for a path that names no resource; `rest` is what follows a subresource (`/proxy/…`)."""

    path: str
    group: str = ""
    version: str = ""
    namespace: str = ""
    plural: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""
    watch_prefix: bool = False


@lru_cache(maxsize=16_384)
def parse(path: str) -> Route:
    """Never fails; a path that is no resource's gives a Route without `plural`."""
    parts = [unquote(part) if "%" in part else part for part in path.split("/")]
    if len(parts) > 3 and parts[1] == "api":
        group, version, rest = "", parts[2], parts[3:]
    elif len(parts) > 4 and parts[1] == "apis":
        group, version, rest = parts[2], parts[3], parts[4:]
    else:
        return Route(path)
    watch_prefix = rest[0] == "watch" and len(rest) > 1
    if watch_prefix:
        rest = rest[1:]
    while rest and rest[-1] == "" and "proxy" not in rest:
        rest.pop()
    if not rest:
        return Route(path)
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and not (rest[2] in _NAMESPACE_SUBRESOURCES and len(rest) == 3):
            rest = rest[2:]
    plural = rest[0]
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    tail = "/".join(path.split("/")[-(len(rest) - 3) :]) if len(rest) > 3 else ""
    return Route(path, group, version, namespace, plural, name, subresource, tail, watch_prefix)


def is_true(text: str) -> bool:
    """A boolean of a query, as Kubernetes reads it: anything but `0` and `false`."""
    return text not in ("", "0") and text.lower() != "false"


def verb_of(request: Request, route: Route) -> str:
    """The verb as RBAC knows it."""
    verb = _VERBS.get(request.method, request.method.lower())
    if not route.plural or (route.name and not route.watch_prefix):
        if verb == "get" and route.plural and request.query and not route.subresource:
            return "watch" if is_true(request.arg("watch")) else "get"
        return verb
    verb = _COLLECTION_VERBS.get(verb, verb)
    if verb == "list" and (route.watch_prefix or (request.query and is_true(request.arg("watch")))):
        return "watch"
    return verb


def attributes_of(request: Request, route: Route, verb: str) -> RequestAttributes:
    """What the authorizer is asked. A list or watch of a single name counts as naming it."""
    if not route.plural:
        return RequestAttributes(request.method.lower(), path=route.path)
    name, fields = route.name, ""
    if not name and verb in ("list", "watch", "deletecollection") and request.query:
        fields = request.arg("fieldSelector")
        name = field_in(fields, "metadata.name")
    return RequestAttributes(
        verb, route.group, route.version, route.plural, route.subresource, route.namespace, name, "", fields
    )


def field_in(field_selector: str, field: str) -> str:
    """What a field selector asks a field to be; empty where it does not."""
    for term in field_selector.split(","):
        path, equals, value = term.partition("=")
        if equals and path == field:
            return value.removeprefix("=")
    return ""
