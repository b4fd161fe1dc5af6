"""The schema of one version of a definition: what may be in it, and whether its defaults fit it.

In: the schema and the path to it.  Out: the errors, in Kubernetes' words and order. What was accepted once is not
refused by rules that came later: `SchemaRules` says which of them hold for the definition.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from navarch.api.errors import FieldError, forbidden_field, invalid_value, required
from navarch.api.formats import is_recognized
from navarch.api.meta import Obj
from navarch.api.structural_invariants import embedded
from navarch.api.structural_paths import field_path
from navarch.api.structural_pruning import Pruner, has_rules
from navarch.api.structural_values import Values
from navarch.kinds.apiextensions.go_form import shown_items, shown_schema
from navarch.kinds.apiextensions.structurality import PLAIN, places, structural_errors, unsupported
from navarch.records import frozen

if TYPE_CHECKING:
    from navarch.api.structural_rules import Verdict

TYPES: Final = ("array", "boolean", "integer", "number", "object", "string")
_UNKNOWN_FIELDS: Final = "must not have unknown fields"
_META: Final = ("apiVersion", "kind", "metadata")
_REASONS: Final = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
# What may stand at the root of a schema that has a status of its own, by its name in Go.
_AT_ROOT: Final = {
    "description": "Description",
    "type": "Type",
    "format": "Format",
    "title": "Title",
    "maximum": "Maximum",
    "exclusiveMaximum": "ExclusiveMaximum",
    "minimum": "Minimum",
    "exclusiveMinimum": "ExclusiveMinimum",
    "maxLength": "MaxLength",
    "minLength": "MinLength",
    "pattern": "Pattern",
    "maxItems": "MaxItems",
    "minItems": "MinItems",
    "uniqueItems": "UniqueItems",
    "multipleOf": "MultipleOf",
    "required": "Required",
    "items": "Items",
    "properties": "Properties",
    "externalDocs": "ExternalDocs",
    "example": "Example",
    "x-kubernetes-preserve-unknown-fields": "XPreserveUnknownFields",
    "x-kubernetes-validations": "XValidations",
}
_FORBIDDEN: Final = (
    ("id", "id is not supported"),
    ("additionalItems", "additionalItems is not supported"),
    ("patternProperties", "patternProperties is not supported"),
    ("definitions", "definitions is not supported"),
    ("dependencies", "dependencies is not supported"),
    ("$ref", "$ref is not supported"),
)


def not_supported(path: str, value: Any, supported: tuple[str, ...]) -> FieldError:
    """In the order in which Kubernetes names them."""
    choices = ", ".join(f'"{choice}"' for choice in supported)
    return FieldError("FieldValueNotSupported", path, f"supported values: {choices}", value)


@frozen
class SchemaRules:
    """Which rules hold for a definition: all for a new one."""

    structural: bool = True
    valid_types: bool = True
    pruned_defaults: bool = True
    atomic_sets: bool = True
    complete_keys: bool = True
    # Whether defaults are asked about by the rules (CEL) of what they are for.
    default_rules: bool = True


# What is wrong with a schema's rules (CEL), by the schema, its path, and the paths of places at which nobody looks at
# rules, because something else is wrong there or below.
RuleCheck = Callable[[Obj, str, Set[str]], Iterable[FieldError]]


def validation_errors(
    schema: Obj, path: str, *, has_status: bool, rules: SchemaRules, check_rules: RuleCheck
) -> list[FieldError]:
    """What is wrong with a version's schema; `path` is that of `openAPIV3Schema`."""
    found = list(_status_root(schema, path)) if has_status else []
    if schema.get("nullable"):
        found.append(forbidden_field(f"{path}.nullable", "nullable cannot be true at the root"))
    impossible = ""
    structural = False
    if rules.structural:
        impossible = unsupported(schema)
        if not impossible:
            wrong = structural_errors(schema, path) or list(default_errors(schema, path, rules))
            structural = not wrong
            found += wrong
    walk = _Walk(rules)
    found += walk.errors(schema, path, _Context(root=True))
    if structural:
        found += check_rules(schema, path, walk.wrong)
    if impossible and not found:
        found.append(invalid_value(path, "", impossible))
    return found


def _status_root(schema: Obj, path: str) -> Iterator[FieldError]:
    for name, value in schema.items():
        if not value and name not in ("default", "maximum", "minimum"):
            continue
        if name == "type":
            if value != "object":
                only = 'only "object" is allowed as the type at the root of the schema'
                why = f"{only} if the status subresource is enabled"
                yield invalid_value(f"{path}.type", value, why)
                return
        elif name not in _AT_ROOT:
            allowed = " ".join(_AT_ROOT.values())
            why = f"only [{allowed}] fields are allowed at the root of the schema if the status subresource is enabled"
            yield invalid_value(path, shown_schema(schema), why)
            return


# Defaults


def default_errors(schema: Obj, path: str, rules: SchemaRules) -> Iterator[FieldError]:
    """Defaults must be what the schema and its rules allow, and nothing that it does not know."""
    budget: int | None = None
    pending: list[tuple[str, Obj, bool]] = [(path, schema, False)]
    while pending:
        at, place, in_meta = pending.pop()
        resource = at == path or bool(place.get("x-kubernetes-embedded-resource"))
        if place.get("default") is not None:
            wrong = list(_default_of(place, f"{at}.default", in_meta=in_meta, rules=rules))
            if rules.default_rules and not _misfits(wrong) and has_rules(place):
                verdict = _by_rules(place, f"{at}.default", budget, resource=resource)
                wrong += verdict.errors
                budget = verdict.budget
            yield from wrong
            if budget is not None and budget < 0:
                return
        if PLAIN.issuperset(place):
            continue
        fields = (place.get("properties") or {}).items()
        inner = [
            (f"{at}.properties[{name}]", value, in_meta or (resource and name in _META))
            for name, value in sorted(fields)
        ]
        if isinstance(items := place.get("items"), dict):
            inner.insert(0, (f"{at}.items", items, in_meta))
        pending.extend(reversed(inner))


def _misfits(wrong: list[FieldError]) -> bool:
    return any(error.detail != _UNKNOWN_FIELDS for error in wrong)


def _by_rules(place: Obj, at: str, budget: int | None, *, resource: bool) -> Verdict:
    # With all of CEL, which clusters without rules need not load.
    from navarch.api.cel.rules import RUN_BUDGET
    from navarch.api.structural_rules import SchemaRules as Judge

    return Judge(place, resource=resource).judge_default(place["default"], at, RUN_BUDGET if budget is None else budget)


def _default_of(place: Obj, at: str, *, in_meta: bool, rules: SchemaRules) -> Iterator[FieldError]:
    default = place["default"]
    if rules.pruned_defaults and not in_meta:
        pruned = copy.deepcopy(default)
        unknown: list[str] = []
        Pruner(place).prune(pruned, "", unknown)
        if unknown:
            yield invalid_value(at, default, _UNKNOWN_FIELDS)
    found = list(check(default, "")) if (check := embedded(place)) is not None else []
    for error in found or Values(place).errors(default):
        inner = "" if error.field == "<nil>" else error.field
        where = f"{at}{inner}" if inner.startswith("[") or not inner else f"{at}.{inner}"
        yield FieldError(error.type, where, error.detail, error.value)


# The rest


@frozen
class _Context:
    """Where in the schema we are."""

    root: bool = False
    in_meta: bool = False
    # Why no default may be stated here; empty where one may.
    no_defaults: str = ""


class _Walk:
    """Looks at every schema in a schema."""

    def __init__(self, rules: SchemaRules) -> None:
        self._rules = rules
        # The paths of places with something wrong in them.
        self.wrong: set[str] = set()

    def errors(self, schema: Obj, path: str, context: _Context) -> list[FieldError]:
        found: list[FieldError] = []
        self._visit(schema, path, context, found)
        return found

    def _visit(self, schema: Obj, path: str, context: _Context, found: list[FieldError]) -> None:
        if not context.no_defaults and schema.get("type") in TYPES and PLAIN.issuperset(schema):
            return
        before = len(found)
        found.extend(self._own(schema, path, context))
        for inner, at, where in _below(schema, path, context):
            self._visit(inner, at, where, found)
        found.extend(self._extensions(schema, path))
        if len(found) > before:
            self.wrong.add(path)

    def _own(self, schema: Obj, path: str, context: _Context) -> Iterator[FieldError]:
        type_ = schema.get("type", "")
        if self._rules.valid_types and type_ and type_ not in TYPES:
            yield not_supported(f"{path}.type", type_, TYPES)
        if context.no_defaults and schema.get("default") is not None:
            yield forbidden_field(f"{path}.default", f"must not be set {context.no_defaults}")
        for name, why in _FORBIDDEN:
            stated = schema.get(name)
            if stated or (stated is not None and name in ("additionalItems", "dependencies")):
                yield forbidden_field(f"{path}.{name}", why)
        if type_ == "null":
            yield forbidden_field(f"{path}.type", "type cannot be set to null, use nullable as an alternative")
        if isinstance(schema.get("items"), list) and schema["items"]:
            yield forbidden_field(f"{path}.items", "items must be a schema object and not an array")
        if context.in_meta and schema.get("x-kubernetes-embedded-resource"):
            yield forbidden_field(f"{path}.x-kubernetes-embedded-resource", "must not be used inside of resource meta")
        if schema.get("uniqueItems"):
            why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
            yield forbidden_field(f"{path}.uniqueItems", why)
        values = schema.get("additionalProperties")
        if schema.get("properties") and (values is False or isinstance(values, dict)):
            why = "additionalProperties and properties are mutual exclusive"
            yield forbidden_field(f"{path}.additionalProperties", why)

    def _extensions(self, schema: Obj, path: str) -> Iterator[FieldError]:
        if schema.get("x-kubernetes-preserve-unknown-fields") is False:
            yield invalid_value(f"{path}.x-kubernetes-preserve-unknown-fields", False, "must be true or undefined")
        type_, map_type = schema.get("type", ""), schema.get("x-kubernetes-map-type")
        if map_type is not None:
            if type_ != "object":
                yield _wrong_type(f"{path}.type", type_, "must be object if x-kubernetes-map-type is specified")
            if map_type not in ("atomic", "granular"):
                yield not_supported(f"{path}.x-kubernetes-map-type", map_type, ("atomic", "granular"))
        yield from self._list_type(schema, path)
        yield from _keys(schema, path)
        if self._rules.complete_keys:
            yield from incomplete_keys(schema, path)
        for index, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
            yield from _rule_errors(schema, rule, f"{path}.x-kubernetes-validations[{index}]")

    def _list_type(self, schema: Obj, path: str) -> Iterator[FieldError]:
        list_type, type_ = schema.get("x-kubernetes-list-type"), schema.get("type", "")
        if list_type is None:
            return
        if type_ != "array":
            yield _wrong_type(f"{path}.type", type_, "must be array if x-kubernetes-list-type is specified")
        elif self._rules.atomic_sets and list_type == "set" and isinstance(items := schema.get("items"), dict):
            why = "must be atomic as item of a list with x-kubernetes-list-type=set"
            if (wrong := not_atomic(items)) is not None:
                name = "list" if items["type"] == "array" else "map"
                yield invalid_value(f"{path}.items.x-kubernetes-{name}-type", wrong[0], why)
        if list_type not in ("atomic", "set", "map"):
            yield not_supported(f"{path}.x-kubernetes-list-type", list_type, ("atomic", "set", "map"))


def _below(schema: Obj, path: str, context: _Context) -> Iterator[tuple[Obj, str, _Context]]:
    """Every schema directly inside, with its path and where that is, in the order in which Kubernetes goes down."""
    inside = replace(context, root=False) if context.root else context
    if isinstance(values := schema.get("additionalProperties"), dict):
        where = inside
        if context.in_meta:
            where = replace(inside, no_defaults="inside additionalProperties applying to object metadata")
        yield values, f"{path}.additionalProperties", where
    resource = context.root or bool(schema.get("x-kubernetes-embedded-resource"))
    for name, inner in (schema.get("properties") or {}).items():
        where = inside
        if resource and name in _META:
            where = replace(inside, in_meta=True)
            if context.root:
                where = replace(where, no_defaults=f"in top-level {name}")
        yield inner, f"{path}.properties[{name}]", where
    if isinstance(refused := schema.get("not"), dict):
        yield refused, f"{path}.not", inside
    for several in ("allOf", "oneOf", "anyOf"):
        for index, inner in enumerate(schema.get(several) or ()):
            yield inner, f"{path}.{several}[{index}]", inside
    if isinstance(items := schema.get("items"), dict):
        yield items, f"{path}.items", inside


def _wrong_type(path: str, type_: str, why: str) -> FieldError:
    return invalid_value(path, type_, why) if type_ else required(path, why)


def not_atomic(items: Obj) -> tuple[Any] | None:
    """What is stated of the items of a set where that is not atomic."""
    if items.get("type") == "array" and items.get("x-kubernetes-list-type") not in (None, "atomic"):
        return (items["x-kubernetes-list-type"],)
    if items.get("type") == "object" and items.get("x-kubernetes-map-type") != "atomic":
        return (items.get("x-kubernetes-list-type"),)
    return None


def _keys(schema: Obj, path: str) -> Iterator[FieldError]:
    keys, list_type = schema.get("x-kubernetes-list-map-keys") or [], schema.get("x-kubernetes-list-type")
    if keys and list_type != "map":
        why = "must be map if x-kubernetes-list-map-keys is non-empty"
        at = f"{path}.x-kubernetes-list-type"
        yield required(at, why) if list_type is None else invalid_value(at, list_type, why)
    if list_type != "map":
        return
    at = f"{path}.x-kubernetes-list-map-keys"
    if not keys:
        yield required(at, "must not be empty if x-kubernetes-list-type is map")
    items = schema.get("items")
    if items is None:
        yield required(f"{path}.items", "must have a schema if x-kubernetes-list-type is map")
    elif not isinstance(items, dict):
        why = "must only have a single schema if x-kubernetes-list-type is map"
        yield invalid_value(f"{path}.items", shown_items(items), why)
    elif items.get("type", "") != "object":
        why = "must be object if parent array's x-kubernetes-list-type is map"
        yield invalid_value(f"{path}.items.type", items.get("type", ""), why)
    else:
        fields = items.get("properties") or {}
        seen: set[str] = set()
        for key in keys:
            if key not in fields:
                yield invalid_value(at, keys, "entries must all be names of item properties")
            elif fields[key].get("type") in ("array", "object"):
                why = "must be a scalar type if parent array's x-kubernetes-list-type is map"
                yield invalid_value(f"{path}.items.properties[{key}].type", items["type"], why)
            if key in seen:
                yield invalid_value(at, keys, "must not contain duplicate entries")
            seen.add(key)


def incomplete_keys(schema: Obj, path: str) -> Iterator[FieldError]:
    """What would leave an item of a set or map list without a key."""
    items, list_type = schema.get("items"), schema.get("x-kubernetes-list-type")
    if not isinstance(items, dict) or list_type not in ("set", "map"):
        return
    if items.get("nullable"):
        why = f"cannot be nullable when x-kubernetes-list-type is {list_type}"
        yield forbidden_field(f"{path}.items.nullable", why)
    if list_type == "set":
        return
    needed = items.get("required") or ()
    for key in schema.get("x-kubernetes-list-map-keys") or ():
        field = (items.get("properties") or {}).get(key)
        if field is None:
            continue
        at = f"{path}.items.properties[{key}]"
        this = "this property is in x-kubernetes-list-map-keys, so it"
        if key not in needed and field.get("default") is None:
            yield required(f"{at}.default", f"{this} must have a default or be a required property")
        if field.get("nullable"):
            yield forbidden_field(f"{at}.nullable", f"{this} cannot be nullable")


def _rule_errors(schema: Obj, rule: Obj, path: str) -> Iterator[FieldError]:
    text, message = rule.get("rule", ""), rule.get("message", "")
    if not text.strip():
        yield required(f"{path}.rule", "rule is not specified")
    elif message and not message.strip():
        yield invalid_value(f"{path}.message", message, "must be non-empty if specified")
    elif _has_newlines(message.strip()):
        yield invalid_value(f"{path}.message", message, "must not contain line breaks")
    elif _has_newlines(text.strip()) and not message.strip():
        yield required(f"{path}.message", "message must be specified if rule contains line breaks")
    expression = rule.get("messageExpression", "")
    if expression and not expression.strip():
        yield required(f"{path}.messageExpression", "messageExpression must be non-empty if specified")
    reason = rule.get("reason")
    if reason is not None and reason not in _REASONS:
        yield not_supported(f"{path}.reason", reason, _REASONS)
    where = rule.get("fieldPath", "")
    if where and not where.strip():
        yield invalid_value(f"{path}.fieldPath", where, "must be non-empty if specified")
    if _has_newlines(where):
        yield invalid_value(f"{path}.fieldPath", where, "must not contain line breaks")
    if where:
        try:
            field_path(where, schema)
        except ValueError:
            yield invalid_value(f"{path}.fieldPath", where, "must be a valid path")


def _has_newlines(text: str) -> bool:
    return "\n" in text or "\r" in text


def unrecognized_formats(schema: Obj) -> Iterator[str]:
    """Formats that nobody will check."""
    for place in places(schema):
        form = place.get("format")
        if form and not is_recognized(form, place.get("type", "")):
            yield form
