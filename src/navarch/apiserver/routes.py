"""What a request asks for: its path taken apart, and the verb that authorization knows it by.

`/apis/apps/v1/namespaces/default/deployments/web/scale` is group, version, namespace, plural, name and subresource;
what is no resource path (`/healthz`, discovery) stays a path. `parse` knows no kinds: which of the paths that it takes
apart lead anywhere, and which methods they take, is said by one table per kind (`methods_of`), where a path has its
`shape`: a cluster-scoped resource inside a namespace is no path of its kind, whoever asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import unquote

from navarch.api.memo import memo
from navarch.apiserver.auth.base import RequestAttributes
from navarch.client.transport import Request
from navarch.kinds.base import Kind
from navarch.kinds.discovery_docs import subresources_of

_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "GET": "get", "HEAD": "get", "DELETE": "delete"}
_COLLECTION_VERBS: Final = {"get": "list", "delete": "deletecollection"}
# Subresources of a Namespace; any other word behind /namespaces/<name>/ is a resource in it.
_NAMESPACE_SUBRESOURCES: Final = frozenset({"status", "finalize"})
_ROUTES_KEPT: Final = 4096
# Slashes of a path that may decide where it leads (`/apis/g/v/watch/namespaces/n/plural/name/subresource/`): what is
# behind them stays one piece, however long it is.
_SLASHES: Final = 10
# What is escaped and longer is no name of anything, and is left as it is.
_ESCAPED_MOST: Final = 16 << 10


class Shape(NamedTuple):
    """The form of a resource's path: what is decided by it, whatever the names in it are. `inside` a namespace;
    `named`: an object of it; `watching`: under the old `/watch/`; `tail`: something follows the subresource."""

    inside: bool
    named: bool
    subresource: str
    watching: bool
    tail: bool


_NO_SHAPE: Final = Shape(False, False, "", False, False)
_NAMED: Final = Shape(False, True, "", False, False)
_NAMED_INSIDE: Final = Shape(True, True, "", False, False)
# What follows these, or no resource at all, need not be a name.
_SOMETHING_ELSE: Final = frozenset({"", "namespaces", "watch"})


class Route(NamedTuple):
    """`plural` is empty for a path that names no resource; `rest` is what follows a subresource (`/proxy/…`). `odd`
    paths (with an empty segment, or a slash inside of one) lead nowhere."""

    path: str
    group: str = ""
    version: str = ""
    namespace: str = ""
    plural: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""
    shape: Shape = _NO_SHAPE
    odd: bool = False
    # Group, version and plural; and with the subresource, as metrics call it. Made once for all look-ups.
    key: tuple[str, str, str] = ("", "", "")
    label: tuple[str, str, str, str] = ("", "", "", "")


@memo(_ROUTES_KEPT)
def parse(path: str) -> Route:
    """Never fails; a path that is no resource's gives a Route without `plural`."""
    # Most new paths are an object's in a collection that is known: only the name is new.
    collection, _, name = path.rpartition("/")
    if name and "%" not in name:
        known = _of_collection(collection)
        shape = known.shape
        if not (known.plural in _SOMETHING_ELSE or known.name or known.odd or shape.watching or collection[-1] == "/"):
            return Route(
                path,
                known.group,
                known.version,
                known.namespace,
                known.plural,
                name,
                "",
                "",
                _NAMED_INSIDE if shape.inside else _NAMED,
                False,
                known.key,
                known.label,
            )
    return taken_apart(path)


def taken_apart(path: str) -> Route:
    """The same, whatever is known of other paths."""
    parts = path.split("/", _SLASHES)
    if len(parts) > _SLASHES and not parts[-1].strip("/"):
        parts[-1] = ""
    if "%" in path:
        parts[:_SLASHES] = map(_unescaped, parts[:_SLASHES])
    if len(parts) > 3 and parts[1] == "api":
        group, version, at = "", parts[2], 3
    elif len(parts) > 4 and parts[1] == "apis":
        group, version, at = parts[2], parts[3], 4
    else:
        return Route(path)
    rest = parts[at:]
    watching = rest[0] == "watch" and len(rest) > 1
    if watching:
        rest, at = rest[1:], at + 1
    while rest and rest[-1] == "" and "proxy" not in rest:
        rest.pop()
    if not rest:
        return Route(path)
    namespace, inside = "", False
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in _NAMESPACE_SUBRESOURCES:
            inside = True
            rest, at = rest[2:], at + 2
    plural = rest[0]
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    tail = len(rest) > 3
    odd = (inside and not _is_segment(namespace)) or not all(map(_is_segment, rest[:3]))
    return Route(
        path,
        group,
        version,
        namespace,
        plural,
        name,
        subresource,
        path.split("/", at + 3)[-1] if tail else "",
        Shape(inside, bool(name), subresource, watching, tail),
        odd,
        (group, version, plural),
        (group, version, plural, subresource),
    )


_of_collection = memo(512)(taken_apart)


def pieces(path: str) -> list[str]:
    """Of a path that names no resource; what is behind the first ten is the last."""
    return path.strip("/").split("/", _SLASHES)


def _unescaped(part: str) -> str:
    return unquote(part) if "%" in part and len(part) <= _ESCAPED_MOST else part


def _is_segment(part: str) -> bool:
    return bool(part) and "/" not in part


# What each path may be

Methods = Mapping[Shape, frozenset[str]]

_METHODS_OF_VERB: Final[Mapping[str, tuple[str, ...]]] = {
    "get": ("GET", "HEAD"),
    "list": ("GET", "HEAD"),
    "watch": ("GET", "HEAD"),
    "create": ("POST",),
    "update": ("PUT",),
    "patch": ("PATCH",),
    "delete": ("DELETE",),
    "deletecollection": ("DELETE",),
}
_ON_COLLECTION: Final = ("list", "create", "deletecollection")
_ON_OBJECT: Final = ("get", "update", "patch", "delete")
_PROXY_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def methods_of(kind: Kind) -> Methods:
    """Every shape that a path of this kind may have, with the methods that it takes there. What is not in it is 404;
    another method is 405."""
    inside = kind.resource.namespaced
    table = {
        Shape(inside, False, "", False, False): _taken(kind, _ON_COLLECTION),
        Shape(inside, True, "", False, False): _taken(kind, _ON_OBJECT),
        Shape(inside, False, "", True, False): _taken(kind, ("watch",)),
        Shape(inside, True, "", True, False): _taken(kind, ("watch",)),
    }
    if inside:
        # Everything of the kind, across namespaces, can be looked at.
        table[Shape(False, False, "", False, False)] = _taken(kind, ("list",))
        table[Shape(False, False, "", True, False)] = _taken(kind, ("watch",))
    for name, _, verbs in subresources_of(kind):
        methods = frozenset(method for verb in verbs for method in _METHODS_OF_VERB[verb])
        if "create" in verbs:
            # What is made or opened by it cannot be asked for without its answer.
            methods -= {"HEAD"}
        if name == "proxy":
            methods = _PROXY_METHODS
            table[Shape(inside, True, name, False, True)] = methods
        table[Shape(inside, True, name, False, False)] = methods
    return {shape: methods for shape, methods in table.items() if methods}


def _taken(kind: Kind, verbs: tuple[str, ...]) -> frozenset[str]:
    return frozenset(method for verb in verbs if verb in kind.verbs for method in _METHODS_OF_VERB[verb])


def is_true(text: str) -> bool:
    """A boolean of a query that is given, as Kubernetes reads it: anything but `0` and `false`."""
    return text != "0" and text.lower() != "false"


def verb_of(request: Request, route: Route) -> str:
    """The verb as RBAC knows it; empty for a method that stands for none, which only a rule for every verb allows."""
    if not route.plural:
        return _VERBS.get(request.method, "")
    if route.shape.watching:
        return "watch"
    verb = _VERBS.get(request.method, "")
    if route.name:
        return verb
    verb = _COLLECTION_VERBS.get(verb, verb)
    if verb == "list" and request.query and is_true(request.arg("watch", "0")):
        return "watch"
    return verb


def version_of(route: Route) -> tuple[str, str]:
    """The group and version that a path is in, be it a resource's or the version's own; empty for another path."""
    if route.plural:
        return route.group, route.version
    parts = route.path.rstrip("/").split("/", _SLASHES)
    if len(parts) == 4 and parts[1] == "apis":
        return parts[2], parts[3]
    return ("", parts[2]) if len(parts) == 3 and parts[1] == "api" else ("", "")


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
