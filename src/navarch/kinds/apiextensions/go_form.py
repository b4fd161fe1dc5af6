"""Parts of a definition as Kubernetes' messages show them: the fields of its own types, by their names in Go, all of
them, also those that nobody set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from navarch.api.meta import Obj

_Field = tuple[str, str, Any]

_SCHEMA: Final[Sequence[_Field]] = (
    ("ID", "id", ""),
    ("Schema", "$schema", ""),
    ("Ref", "$ref", None),
    ("Description", "description", ""),
    ("Type", "type", ""),
    ("Nullable", "nullable", False),
    ("Format", "format", ""),
    ("Title", "title", ""),
    ("Default", "default", None),
    ("Maximum", "maximum", None),
    ("ExclusiveMaximum", "exclusiveMaximum", False),
    ("Minimum", "minimum", None),
    ("ExclusiveMinimum", "exclusiveMinimum", False),
    ("MaxLength", "maxLength", None),
    ("MinLength", "minLength", None),
    ("Pattern", "pattern", ""),
    ("MaxItems", "maxItems", None),
    ("MinItems", "minItems", None),
    ("UniqueItems", "uniqueItems", False),
    ("MultipleOf", "multipleOf", None),
    ("Enum", "enum", None),
    ("MaxProperties", "maxProperties", None),
    ("MinProperties", "minProperties", None),
    ("Required", "required", None),
    ("Items", "items", None),
    ("AllOf", "allOf", None),
    ("OneOf", "oneOf", None),
    ("AnyOf", "anyOf", None),
    ("Not", "not", None),
    ("Properties", "properties", None),
    ("AdditionalProperties", "additionalProperties", None),
    ("PatternProperties", "patternProperties", None),
    ("Dependencies", "dependencies", None),
    ("AdditionalItems", "additionalItems", None),
    ("Definitions", "definitions", None),
    ("ExternalDocs", "externalDocs", None),
    ("Example", "example", None),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields", None),
    ("XEmbeddedResource", "x-kubernetes-embedded-resource", False),
    ("XIntOrString", "x-kubernetes-int-or-string", False),
    ("XListMapKeys", "x-kubernetes-list-map-keys", None),
    ("XListType", "x-kubernetes-list-type", None),
    ("XMapType", "x-kubernetes-map-type", None),
    ("XValidations", "x-kubernetes-validations", None),
)
_RULE: Final[Sequence[_Field]] = (
    ("Rule", "rule", ""),
    ("Message", "message", ""),
    ("MessageExpression", "messageExpression", ""),
    ("Reason", "reason", None),
    ("FieldPath", "fieldPath", ""),
    ("OptionalOldSelf", "optionalOldSelf", None),
)
_VERSION: Final[Sequence[_Field]] = (
    ("Name", "name", ""),
    ("Served", "served", False),
    ("Storage", "storage", False),
    ("Deprecated", "deprecated", False),
    ("DeprecationWarning", "deprecationWarning", None),
    ("Schema", "schema", None),
    ("Subresources", "subresources", None),
    ("AdditionalPrinterColumns", "additionalPrinterColumns", None),
    ("SelectableFields", "selectableFields", None),
)
_COLUMN: Final[Sequence[_Field]] = (
    ("Name", "name", ""),
    ("Type", "type", ""),
    ("Format", "format", ""),
    ("Description", "description", ""),
    ("Priority", "priority", 0),
    ("JSONPath", "jsonPath", ""),
)
_SCALE: Final[Sequence[_Field]] = (
    ("SpecReplicasPath", "specReplicasPath", ""),
    ("StatusReplicasPath", "statusReplicasPath", ""),
    ("LabelSelectorPath", "labelSelectorPath", None),
)


def _shown(value: Obj, fields: Sequence[_Field]) -> Obj:
    return {
        go: fallback if value.get(name) is None else _FORMS.get(go, _same)(value[name]) for go, name, fallback in fields
    }


def _same(value: Any) -> Any:
    return value


def shown_schema(schema: Obj) -> Obj:
    return _shown(schema, _SCHEMA)


def shown_rule(rule: Obj) -> Obj:
    return _shown(rule, _RULE)


def shown_versions(versions: Sequence[Obj] | None) -> list[Obj] | None:
    """None is how Go shows a list that is not there."""
    return None if versions is None else [_shown(version, _VERSION) for version in versions]


def _schemas(value: Any) -> Any:
    return [shown_schema(each) for each in value]


def _named_schemas(value: Any) -> Any:
    return {name: shown_schema(each) for name, each in sorted(value.items())}


def shown_items(value: Any) -> Obj:
    if isinstance(value, list):
        return {"Schema": None, "JSONSchemas": _schemas(value)}
    return {"Schema": shown_schema(value), "JSONSchemas": None}


def _schema_or_bool(value: Any) -> Obj:
    if isinstance(value, bool):
        return {"Allows": value, "Schema": None}
    return {"Allows": True, "Schema": shown_schema(value)}


def _dependencies(value: Any) -> Any:
    return {
        name: {"Schema": None, "Property": each} if isinstance(each, list) else {"Schema": shown_schema(each)}
        for name, each in sorted(value.items())
    }


def _subresources(value: Any) -> Obj:
    scale = value.get("scale")
    return {"Status": value.get("status"), "Scale": None if scale is None else _shown(scale, _SCALE)}


_FORMS: Final[dict[str, Callable[[Any], Any]]] = {
    "Items": shown_items,
    "AllOf": _schemas,
    "OneOf": _schemas,
    "AnyOf": _schemas,
    "Not": shown_schema,
    "Properties": _named_schemas,
    "PatternProperties": _named_schemas,
    "Definitions": _named_schemas,
    "AdditionalProperties": _schema_or_bool,
    "AdditionalItems": _schema_or_bool,
    "Dependencies": _dependencies,
    "ExternalDocs": lambda value: {"Description": value.get("description", ""), "URL": value.get("url", "")},
    "XValidations": lambda value: [shown_rule(each) for each in value],
    "Schema": lambda value: (
        value
        if isinstance(value, str)
        else (
            {
                "OpenAPIV3Schema": None
                if value.get("openAPIV3Schema") is None
                else shown_schema(value["openAPIV3Schema"])
            }
        )
    ),
    "Subresources": _subresources,
    "AdditionalPrinterColumns": lambda value: [_shown(each, _COLUMN) for each in value],
    "SelectableFields": lambda value: [{"JSONPath": each.get("jsonPath", "")} for each in value],
}
