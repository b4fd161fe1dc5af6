"""OpenAPI documents, both versions of the format: how operations and definitions are written down.

In: `Operation`s (what a path does) and the documented definitions of a `SchemaSet`.  Out: the `paths`, `components` or
`definitions` of a document.  Which operations there are is for `navarch.kinds.openapi` to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, Final, Literal

from navarch.api.meta import Obj
from navarch.records import frozen

Version = Literal[2, 3]

_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."
_QUANTITY: Final = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_INT_OR_STRING: Final = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
PATCH_DEFINITION: Final = _META + "Patch"
DELETE_OPTIONS: Final = _META + "DeleteOptions"
STATUS: Final = _META + "Status"
WATCH_EVENT: Final = _META + "WatchEvent"

JSON: Final = "application/json"
YAML: Final = "application/yaml"
STREAM: Final = "application/json;stream=watch"
PATCH_TYPES: Final = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)

# Custom kinds state no patch strategies.
CUSTOM_PATCH_TYPES: Final = tuple(media for media in PATCH_TYPES if "strategic" not in media)

_DESCRIPTIONS: Final[Mapping[str, str]] = {
    _QUANTITY: "A number with an optional decimal (m, k, M …) or binary (Ki, Mi, Gi …) suffix, such as 250m or 1Gi.",
    _INT_OR_STRING: "A number or a string, for example a percentage or the name of a port.",
}


@frozen
class Parameter:
    """A query or path parameter; `type` is string, integer or boolean."""

    name: str
    description: str
    type: str = "string"
    where: str = "query"
    required: bool = False

    def render(self, version: Version) -> Obj:
        head: Obj = {"name": self.name, "in": self.where, "description": self.description}
        if self.required:
            head["required"] = True
        kind: Obj = {"type": self.type, "uniqueItems": True}
        return {**head, **kind} if version == 2 else {**head, "schema": kind}


@frozen
class Operation:
    """One method of one path. `body` and the values of `responses` are definition names; an empty one is a plain
    string."""

    id: str
    tag: str
    description: str
    action: str
    group: str
    version: str
    kind: str
    parameters: tuple[Parameter, ...] = ()
    body: str = ""
    body_required: bool = True
    consumes: tuple[str, ...] = ("*/*",)
    produces: tuple[str, ...] = (JSON, YAML)
    responses: Mapping[int, str] = field(default_factory=dict)

    def render(self, version: Version) -> Obj:
        """The operation object of the given version of the format."""
        parameters = [parameter.render(version) for parameter in self.parameters]
        rendered: Obj = {
            "description": self.description,
            "operationId": self.id,
            "tags": [self.tag],
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": {"group": self.group, "kind": self.kind, "version": self.version},
        }
        if version == 2:
            if self.body:
                body: Obj = {"name": "body", "in": "body", "schema": _ref(self.body, version)}
                parameters.append({**body, "required": True} if self.body_required else body)
            rendered["consumes"], rendered["produces"] = list(self.consumes), list(self.produces)
            rendered["schemes"] = ["https"]
        elif self.body:
            content = {media: {"schema": _ref(self.body, version)} for media in self.consumes}
            rendered["requestBody"] = {"content": content}
            if self.body_required:
                rendered["requestBody"]["required"] = True
        if parameters:
            rendered["parameters"] = parameters
        rendered["responses"] = {
            str(code): self._response(code, name, version) for code, name in self.responses.items()
        }
        return rendered

    def _response(self, code: int, name: str, version: Version) -> Obj:
        description = _RESPONSES.get(code, "")
        schema = _ref(name, version) if name else {"type": "string"}
        if version == 2:
            return {"description": description, "schema": schema}
        return {"description": description, "content": {media: {"schema": schema} for media in self.produces}}


_RESPONSES: Final = {200: "OK", 201: "Created", 202: "Accepted", 401: "Unauthorized"}


def _ref(name: str, version: Version) -> Obj:
    return {"$ref": f"#/{'definitions' if version == 2 else 'components/schemas'}/{name}"}


def reachable(definitions: Mapping[str, Obj], names: Iterable[str]) -> list[str]:
    """The named definitions and all that they refer to, by name."""
    found: set[str] = set()
    pending: list[Any] = [name for name in names if name in definitions]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            if item not in found:
                found.add(item)
                pending.append(definitions[item])
        elif isinstance(item, dict):
            if isinstance(ref := item.get("$ref"), str):
                pending.append(ref)
            pending.extend(value for value in item.values() if isinstance(value, (dict, list)))
        else:
            pending.extend(value for value in item if isinstance(value, (dict, list)))
    return sorted(found)


def render_definition(name: str, definition: Obj, version: Version, defaults: Mapping[str, Any]) -> Obj:
    """A definition as the document shows it; `defaults` are those that its schema states, by field."""
    if name == _QUANTITY:
        either: Obj = {"type": "string"} if version == 2 else {"oneOf": [{"type": "string"}, {"type": "number"}]}
        return {"description": _DESCRIPTIONS[name], **either}
    if name == _INT_OR_STRING:
        either = {"type": "string"} if version == 2 else {"oneOf": [{"type": "integer"}, {"type": "string"}]}
        return {"description": _DESCRIPTIONS[name], "format": "int-or-string", **either}
    shown: Obj = rendered(definition, version)
    if version == 3:
        for field_name, value in defaults.items():
            shown["properties"][field_name]["default"] = value
    return shown


def rendered(schema: Any, version: Version) -> Any:
    """A schema with its references in the version's form."""
    if isinstance(schema, list):
        return [rendered(item, version) for item in schema]
    if not isinstance(schema, dict):
        return schema
    ref = schema.get("$ref")
    if isinstance(ref, str):
        target = _ref(ref, version)
        others = {key: value for key, value in schema.items() if key != "$ref"}
        # In version 3 nothing may stand beside a $ref.
        if version == 2 or not others:
            return {**others, **target}
        return {**others, "allOf": [target]}
    return {key: rendered(value, version) for key, value in schema.items()}
