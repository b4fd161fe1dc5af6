"""OpenAPI of what is no resource: discovery, the version, the keys of service accounts' tokens.

In: the groups and versions that are served.  Out: their paths, each with its one operation, for a document of its own
in version 3 of the format (`apis/apps`, `version` …) or among all others in version 2. The ids of operations are those
by which generated clients name their methods.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from navarch.api.meta import Obj
from navarch.api.openapi import JSON, YAML, Version
from navarch.kinds.registry import Registry

_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."
_PROTOBUF: Final = "application/vnd.kubernetes.protobuf"
_INFO: Final = "io.k8s.apimachinery.pkg.version.Info"


class Root(NamedTuple):
    """One path; `document` is what its own document is called, the path where that is a resource's group version."""

    path: str
    document: str
    operation_id: str
    tag: str
    description: str
    # What it answers; empty: a text.
    definition: str
    produces: tuple[str, ...] = (JSON, YAML, _PROTOBUF)


_OTHERS: Final = (
    Root("/version/", "version", "getCodeVersion", "version", "get the version of this server", _INFO, (JSON,)),
    Root(
        "/.well-known/openid-configuration/",
        ".well-known/openid-configuration",
        "getServiceAccountIssuerOpenIDConfiguration",
        "WellKnown",
        "get the OpenID configuration of the issuer of service accounts' tokens",
        "",
        (JSON,),
    ),
    Root(
        "/openid/v1/jwks/",
        "openid/v1/jwks",
        "getServiceAccountIssuerOpenIDKeyset",
        "openid",
        "get the public keys that service accounts' tokens are checked with",
        "",
        ("application/jwk-set+json",),
    ),
)


def camel(group: str) -> str:
    """`rbac.authorization.k8s.io` → `RbacAuthorization`; the core group is `Core`."""
    words = (group or "core").removesuffix(".k8s.io").replace("-", ".").split(".")
    return "".join(word[:1].upper() + word[1:] for word in words)


def roots(registry: Registry) -> Iterator[Root]:
    """All of them."""
    yield Root(
        "/api/", "api", "getCoreAPIVersions", "core", "get the versions of the core group", f"{_META}APIVersions"
    )
    yield Root("/apis/", "apis", "getAPIVersions", "apis", "get all groups but the core one", f"{_META}APIGroupList")
    for group, versions in registry.versions().items():
        name = camel(group)
        tag = name[:1].lower() + name[1:]
        if group:
            yield Root(
                f"/apis/{group}/",
                f"apis/{group}",
                f"get{name}APIGroup",
                tag,
                f"get what is known of the group {group}",
                f"{_META}APIGroup",
            )
        for version in versions:
            base = f"apis/{group}/{version}" if group else f"api/{version}"
            api = name + version[:1].upper() + version[1:]
            description = "get the resources of this version"
            definition = f"{_META}APIResourceList"
            yield Root(f"/{base}/", base, f"get{api}APIResources", f"{tag}_{version}", description, definition)
    yield from _OTHERS


def documents(registry: Registry) -> Mapping[str, list[Root]]:
    """Which documents there are, in the order of their names, with the paths that they have of these."""
    found: dict[str, list[Root]] = {}
    for root in sorted(roots(registry), key=lambda root: root.document):
        found.setdefault(root.document, []).append(root)
    return found


def render(root: Root, version: Version) -> Obj:
    """The path's item."""
    operation: Obj = {"description": root.description, "operationId": root.operation_id, "tags": [root.tag]}
    schema: Obj = {"type": "string"}
    if root.definition:
        place = "definitions" if version == 2 else "components/schemas"
        schema = {"$ref": f"#/{place}/{root.definition}"}
    answers: Obj = {"description": "OK"}
    if version == 2:
        operation |= {"consumes": list(root.produces), "produces": list(root.produces), "schemes": ["https"]}
        answers["schema"] = schema
    else:
        answers["content"] = {media: {"schema": schema} for media in root.produces}
    operation["responses"] = {"200": answers, "401": {"description": "Unauthorized"}}
    return {"get": operation}
