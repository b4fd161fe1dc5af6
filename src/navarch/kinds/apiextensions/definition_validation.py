"""What a CustomResourceDefinition may say, beyond its schemas: names, versions, columns, subresources, conversion.

In: a definition, and for an update the one before.  Out: the errors, in Kubernetes' words and order. Kubernetes moves
what all versions say alike to the definition itself before it looks, and shows paths accordingly: `spec.validation`,
`spec.subresources`, `spec.additionalPrinterColumns`, `spec.selectableFields`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import field
from typing import Any, Final

from navarch.api.errors import FieldError, duplicate, forbidden_field, immutable, invalid_value, required
from navarch.api.meta import Obj
from navarch.api.structural_paths import field_path
from navarch.api.structural_values import too_many
from navarch.api.validation import dns_label_1035_problems, dns_subdomain_problems
from navarch.kinds.apiextensions.approval import approval_of, is_protected
from navarch.kinds.apiextensions.ca_bundle import bundle_problem, conversion_bundle
from navarch.kinds.apiextensions.conditions import is_true
from navarch.kinds.apiextensions.go_form import shown_versions
from navarch.kinds.apiextensions.schema_validation import (
    TYPES,
    RuleCheck,
    SchemaRules,
    default_errors,
    incomplete_keys,
    not_atomic,
    not_supported,
    validation_errors,
)
from navarch.kinds.apiextensions.structurality import places, structural_errors, unsupported
from navarch.kinds.webhooks import validate_client_config
from navarch.records import frozen

_COLUMN_TYPES: Final = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS: Final = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_SCOPES: Final = ("Cluster", "Namespaced")
_SELECTABLE_MAX: Final = 8
_REVIEW_VERSIONS: Final = ("v1", "v1beta1")
_PER_VERSION: Final = ("schema", "subresources", "additionalPrinterColumns", "selectableFields")
_MIXED_CASE: Final = "may have mixed case, but should otherwise match: "


def no_rules(schema: Obj, path: str, wrong: Set[str]) -> Iterable[FieldError]:
    return ()


@frozen
class Rules:
    """Which rules hold: all for a new definition; for a change those that what is stored keeps."""

    schema: SchemaRules = field(default_factory=SchemaRules)
    needs_schema: bool = True
    recognized_review: bool = True
    fixed_names: bool = False
    any_ca: bool = True
    # Versions that may go on having too many selectable fields.
    many_fields: frozenset[str] = frozenset()
    check_rules: RuleCheck = field(default=no_rules)


def definition_errors(crd: Obj, check_rules: RuleCheck = no_rules) -> Iterator[FieldError]:
    """What is wrong with a new definition, beyond its metadata."""
    yield from _name_errors(crd)
    yield from _spec_errors(_hoisted(crd.get("spec") or {}), Rules(check_rules=check_rules))
    yield from _names_errors((crd.get("status") or {}).get("acceptedNames") or {}, "status.acceptedNames")
    yield from _stored_errors(crd)
    yield from _approval_errors(crd, None)
    yield from _preserving_errors(crd, None)


def update_errors(crd: Obj, old: Obj, check_rules: RuleCheck = no_rules) -> Iterator[FieldError]:
    """What is wrong with a change of one."""
    rules = _rules_for(crd, old, check_rules)
    spec, was = crd.get("spec") or {}, old.get("spec") or {}
    yield from _spec_errors(_hoisted(spec), rules)
    names, old_names = spec.get("names") or {}, was.get("names") or {}
    fixed = [("spec.group", spec.get("group", ""), was.get("group", ""))]
    fixed.append(("spec.names.plural", names.get("plural", ""), old_names.get("plural", "")))
    if rules.fixed_names:
        kind = ("spec.names.kind", names.get("kind", ""), old_names.get("kind", ""))
        fixed = [("spec.scope", spec.get("scope", ""), was.get("scope", "")), kind, *fixed]
    for path, new, before in fixed:
        if new != before:
            yield immutable(path, new)
    yield from _names_errors((crd.get("status") or {}).get("acceptedNames") or {}, "status.acceptedNames")
    yield from _stored_errors(crd)
    yield from _approval_errors(crd, old)
    yield from _preserving_errors(crd, old)


def status_errors(crd: Obj) -> Iterator[FieldError]:
    yield from _names_errors((crd.get("status") or {}).get("acceptedNames") or {}, "status.acceptedNames")


# Old definitions


def _schemas(spec: Obj) -> Iterator[Obj]:
    for version in spec.get("versions") or ():
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is not None:
            yield schema


def _rules_for(crd: Obj, old: Obj, check_rules: RuleCheck) -> Rules:
    """Rules that what is stored breaks already do not hold for it."""
    spec = old.get("spec") or {}
    schemas = list(_schemas(spec))
    established = is_true(old, "Established")

    def all_places(fine: Callable[[Obj], bool]) -> bool:
        return all(fine(place) for schema in schemas for place in places(schema))

    structural = all(not unsupported(schema) and not structural_errors(schema, "") for schema in schemas)
    conversion = spec.get("conversion") or {}
    review = (conversion.get("webhook") or {}).get("conversionReviewVersions") or ()
    bundle = conversion_bundle(old)
    return Rules(
        SchemaRules(
            structural=structural,
            valid_types=all_places(lambda place: not place.get("type") or place["type"] in TYPES),
            pruned_defaults=not structural or not any(_unpruned(schema) for schema in schemas),
            atomic_sets=all_places(_set_is_atomic),
            complete_keys=all_places(lambda place: next(incomplete_keys(place, ""), None) is None),
        ),
        needs_schema=len(schemas) == len(spec.get("versions") or ()),
        recognized_review=not review or any(version in _REVIEW_VERSIONS for version in review),
        fixed_names=established,
        any_ca=not established or bool(bundle and bundle_problem(bundle)),
        many_fields=_with_many_fields(crd, old),
        check_rules=check_rules,
    )


def _unpruned(schema: Obj) -> bool:
    wrong = default_errors(schema, "", SchemaRules(default_rules=False))
    return any(error.detail == "must not have unknown fields" for error in wrong)


def _set_is_atomic(place: Obj) -> bool:
    items = place.get("items")
    return place.get("x-kubernetes-list-type") != "set" or not isinstance(items, dict) or not_atomic(items) is None


def _with_many_fields(crd: Obj, old: Obj) -> frozenset[str]:
    before = {version.get("name"): version for version in (old.get("spec") or {}).get("versions") or ()}
    found = []
    for version in (crd.get("spec") or {}).get("versions") or ():
        fields = version.get("selectableFields") or []
        was = before.get(version.get("name"), {}).get("selectableFields") or []
        if len(was) > _SELECTABLE_MAX and fields == was:
            found.append(version["name"])
    return frozenset(found)


# The specification


def _hoisted(spec: Obj) -> Obj:
    """The specification as Kubernetes looks at it: what all versions say alike is said once."""
    versions = [dict(version) for version in spec.get("versions") or ()]
    found = {name: value for name, value in spec.items() if name != "versions"}
    if versions:
        found["version"] = versions[0].get("name", "")
        for name in _PER_VERSION:
            first = versions[0].get(name)
            if all(version.get(name) == first for version in versions):
                found[name] = first
                for version in versions:
                    version.pop(name, None)
    found["versions"] = versions if spec.get("versions") is not None else None
    return found


def _name_errors(crd: Obj) -> Iterator[FieldError]:
    spec, name = crd.get("spec") or {}, crd["metadata"].get("name") or ""
    wanted = f"{(spec.get('names') or {}).get('plural', '')}.{spec.get('group', '')}"
    if name and name != wanted:
        yield invalid_value("metadata.name", name, 'must be spec.names.plural+"."+spec.group')


def _spec_errors(spec: Obj, rules: Rules) -> Iterator[FieldError]:
    yield from _group_and_scope(spec)
    versions = spec["versions"] or []
    if not (spec.get("schema") or {}).get("openAPIV3Schema"):
        for index, version in enumerate(versions):
            lacking = not (version.get("schema") or {}).get("openAPIV3Schema")
            if lacking and rules.needs_schema:
                yield required(f"spec.versions[{index}].schema.openAPIV3Schema")
            elif lacking and version.get("served") and not spec.get("preserveUnknownFields"):
                yield required(
                    f"spec.versions[{index}].schema.openAPIV3Schema", "because otherwise all fields are pruned"
                )
    if spec.get("preserveUnknownFields") and _has_defaults(spec):
        why = "must be false in order to use defaults in the schema"
        yield invalid_value("spec.preserveUnknownFields", True, why)
    for index, version in enumerate(versions):
        yield from _version_errors(spec, version, f"spec.versions[{index}]", rules)
    yield from _version_list_errors(spec)
    names = spec.get("names") or {}
    for name in ("plural", "singular", "kind", "listKind"):
        if not names.get(name):
            yield required(f"spec.names.{name}")
    yield from _names_errors(names, "spec.names")
    has_status = any(_has_status(each.get("subresources")) for each in (spec, *versions))
    yield from _shared_errors(spec, "spec", "validation", has_status, rules, "")
    yield from _conversion_errors(spec, rules)


def _has_defaults(spec: Obj) -> bool:
    schemas = [(said.get("schema") or {}).get("openAPIV3Schema") for said in (spec, *(spec["versions"] or ()))]
    return any(place.get("default") is not None for schema in schemas if schema for place in places(schema))


def _group_and_scope(spec: Obj) -> Iterator[FieldError]:
    group, scope = spec.get("group", ""), spec.get("scope", "")
    if not group:
        yield required("spec.group")
    elif problems := dns_subdomain_problems(group):
        yield invalid_value("spec.group", group, ",".join(problems))
    elif "." not in group:
        yield invalid_value("spec.group", group, "should be a domain with at least one dot")
    if not scope:
        yield required("spec.scope")
    elif scope not in _SCOPES:
        yield not_supported("spec.scope", scope, _SCOPES)


def _has_status(subresources: Obj | None) -> bool:
    return (subresources or {}).get("status") is not None


def _version_errors(spec: Obj, version: Obj, path: str, rules: Rules) -> Iterator[FieldError]:
    name = version.get("name", "")
    if problems := dns_label_1035_problems(name):
        yield invalid_value(f"{path}.name", name, ",".join(problems))
    warning = version.get("deprecationWarning")
    for problem in _warning_problems(warning, deprecated=bool(version.get("deprecated"))):
        yield invalid_value(f"{path}.deprecationWarning", warning, problem)
    per_version = any(each.get("subresources") is not None for each in spec["versions"])
    subresources = version.get("subresources") if per_version else spec.get("subresources")
    yield from _shared_errors(version, path, "schema", _has_status(subresources), rules, name)


def _warning_problems(warning: str | None, *, deprecated: bool) -> Iterator[str]:
    if warning is None:
        return
    if not deprecated:
        yield "can only be set for deprecated versions"
        return
    if len(warning.encode()) > 256:
        yield "must be <= 256 characters long"
    if not warning:
        yield "must not be an empty string"
    at = 0
    for character in warning:
        if not (character == " " or character.isprintable()):
            yield f"must only contain printable UTF-8 characters; non-printable character found at index {at}"
            break
        at += len(character.encode())


def _shared_errors(
    said: Obj, path: str, schema_name: str, has_status: bool, rules: Rules, version: str
) -> Iterator[FieldError]:
    """What a version says, or the definition for all of them: schema, subresources, columns, selectable fields."""
    stated = (said.get("schema") or {}).get("openAPIV3Schema")
    at = f"{path}.{schema_name}.openAPIV3Schema"
    if stated is not None:
        yield from validation_errors(
            stated, at, has_status=has_status, rules=rules.schema, check_rules=rules.check_rules
        )
    yield from _subresource_errors(said.get("subresources"), f"{path}.subresources")
    for index, column in enumerate(said.get("additionalPrinterColumns") or ()):
        yield from _column_errors(column, f"{path}.additionalPrinterColumns[{index}]")
    fields = said.get("selectableFields") or []
    if fields and stated is None:
        why = (
            "may only be set when `version.schema.openAPIV3Schema` is not included"
            if version
            else "may only be set when validations.schema is included"
        )
        yield invalid_value(f"{path}.selectableFields", "", why)
    elif fields:
        many = version in rules.many_fields if version else bool(rules.many_fields)
        yield from _selectable_errors(fields, stated or {}, f"{path}.selectableFields", many=many)


def _selectable_errors(fields: Sequence[Obj], schema: Obj, path: str, *, many: bool) -> Iterator[FieldError]:
    seen: set[str] = set()
    for index, stated in enumerate(fields):
        at, text = f"{path}[{index}].jsonPath", stated.get("jsonPath", "")
        if not text:
            yield required(at)
            continue
        try:
            shown, place = field_path(text, schema, brackets=False)
        except ValueError as error:
            yield invalid_value(at, text, f"is an invalid path: {error}")
            continue
        if shown.split(".")[0] == "metadata":
            yield invalid_value(at, text, "must not point to fields in metadata")
        if place.get("type") not in ("string", "boolean", "integer"):
            why = (
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats "
                "are allowed."
            )
            yield invalid_value(at, text, why)
        if shown in seen:
            yield duplicate(at, text)
        seen.add(shown)
    if len(seen) > _SELECTABLE_MAX and not many:
        yield too_many(path, len(seen), _SELECTABLE_MAX)


def _column_errors(column: Obj, path: str) -> Iterator[FieldError]:
    type_, form, json_path = column.get("type", ""), column.get("format", ""), column.get("jsonPath", "")
    if not column.get("name"):
        yield required(f"{path}.name")
    types = f"must be one of {','.join(_COLUMN_TYPES)}"
    if not type_:
        yield required(f"{path}.type", types)
    elif type_ not in _COLUMN_TYPES:
        yield invalid_value(f"{path}.type", type_, types)
    if form and form not in _COLUMN_FORMATS:
        yield invalid_value(f"{path}.format", form, f"must be one of {','.join(_COLUMN_FORMATS)}")
    if not json_path:
        yield required(f"{path}.JSONPath")
    else:
        yield from _simple_path(json_path, f"{path}.JSONPath")


def _simple_path(text: str, path: str) -> Iterator[FieldError]:
    if text[0] != ".":
        yield invalid_value(path, text, "must be a simple json path starting with .")


def _subresource_errors(subresources: Obj | None, path: str) -> Iterator[FieldError]:
    scale = (subresources or {}).get("scale")
    if scale is None:
        return
    for name, below in (("specReplicasPath", "spec"), ("statusReplicasPath", "status")):
        text, at = scale.get(name, ""), f"{path}.scale.{name}"
        if not text:
            yield required(at)
        elif text[0] != ".":
            yield from _simple_path(text, at)
        elif not text.startswith(f".{below}."):
            yield invalid_value(at, text, f"should be a json path under .{below}")
    text, at = scale.get("labelSelectorPath") or "", f"{path}.scale.labelSelectorPath"
    if text and text[0] != ".":
        yield from _simple_path(text, at)
    elif text and not text.startswith((".spec.", ".status.")):
        yield invalid_value(at, text, "should be a json path under either .spec or .status")


def _version_list_errors(spec: Obj) -> Iterator[FieldError]:
    versions = spec["versions"] or []
    names = [version.get("name", "") for version in versions]
    if len(set(names)) != len(names):
        yield invalid_value("spec.versions", shown_versions(spec["versions"]), "must contain unique version names")
    if sum(bool(version.get("storage")) for version in versions) != 1:
        why = "must have exactly one version marked as storage version"
        yield invalid_value("spec.versions", shown_versions(spec["versions"]), why)
    first = spec.get("version", "")
    if first and (problems := dns_label_1035_problems(first)):
        yield invalid_value("spec.version", first, ",".join(problems))


def _names_errors(names: Obj, path: str) -> Iterator[FieldError]:
    for name in ("plural", "singular"):
        text = names.get(name) or ""
        if text and (problems := dns_label_1035_problems(text)):
            yield invalid_value(f"{path}.{name}", text, ",".join(problems))
    for name in ("kind", "listKind"):
        text = names.get(name) or ""
        if text and (problems := dns_label_1035_problems(text.lower())):
            yield invalid_value(f"{path}.{name}", text, _MIXED_CASE + ",".join(problems))
    for index, text in enumerate(names.get("shortNames") or ()):
        if problems := dns_label_1035_problems(text):
            yield invalid_value(f"{path}.shortNames[{index}]", text, ",".join(problems))
    kind, list_kind = names.get("kind") or "", names.get("listKind") or ""
    if kind and kind == list_kind:
        yield invalid_value(f"{path}.listKind", list_kind, "kind and listKind may not be the same")
    for index, text in enumerate(names.get("categories") or ()):
        if problems := dns_label_1035_problems(text):
            yield invalid_value(f"{path}.categories[{index}]", text, ",".join(problems))


# Conversion


def _conversion_errors(spec: Obj, rules: Rules) -> Iterator[FieldError]:
    conversion: Mapping[str, Any] | None = spec.get("conversion")
    if conversion is None:
        return
    strategy, webhook = conversion.get("strategy", ""), conversion.get("webhook") or {}
    client, versions = webhook.get("clientConfig"), webhook.get("conversionReviewVersions") or []
    path = "spec.conversion"
    if strategy != "None" and spec.get("preserveUnknownFields"):
        yield invalid_value(f"{path}.strategy", strategy, "must be None if spec.preserveUnknownFields is true")
    if not strategy:
        yield required(f"{path}.strategy")
    elif strategy not in ("None", "Webhook"):
        yield not_supported(f"{path}.strategy", strategy, ("None", "Webhook"))
    if strategy != "Webhook":
        for name, stated in (("webhookClientConfig", client is not None), ("conversionReviewVersions", bool(versions))):
            if stated:
                yield forbidden_field(f"{path}.{name}", "should not be set when strategy is not set to Webhook")
        return
    if client is None:
        yield required(f"{path}.webhookClientConfig", "required when strategy is set to Webhook")
    else:
        yield from _client_errors(client, f"{path}.webhookClientConfig", rules)
    yield from _review_errors(versions, f"{path}.conversionReviewVersions", rules)


def _review_errors(versions: Sequence[str], path: str, rules: Rules) -> Iterator[FieldError]:
    if not versions:
        yield required(path)
        return
    seen: set[str] = set()
    for index, version in enumerate(versions):
        if version in seen:
            yield invalid_value(f"{path}[{index}]", version, "duplicate version")
            continue
        seen.add(version)
        for problem in dns_label_1035_problems(version):
            yield invalid_value(f"{path}[{index}]", version, problem)
    if rules.recognized_review and not seen & set(_REVIEW_VERSIONS):
        yield invalid_value(path, list(versions), f"must include at least one of {', '.join(_REVIEW_VERSIONS)}")


def _client_errors(client: Obj, path: str, rules: Rules) -> Iterator[FieldError]:
    yield from validate_client_config(client, path)
    bundle = client.get("caBundle") or ""
    if bundle and not rules.any_ca and (problem := bundle_problem(bundle)):
        yield invalid_value(f"{path}.caBundle", bundle, f"unable to load root certificates: {problem}")


# The status, and what belongs to the community


def _stored_errors(crd: Obj) -> Iterator[FieldError]:
    stored = (crd.get("status") or {}).get("storedVersions") or None
    path = "status.storedVersions"
    if not stored:
        yield invalid_value(path, stored, "must have at least one stored version")
        return
    names = {version.get("name"): version for version in (crd.get("spec") or {}).get("versions") or ()}
    for name, version in names.items():
        if version.get("storage") and name not in stored:
            yield invalid_value(path, stored, f"must have the storage version {name}")
    for index, name in enumerate(stored):
        if name not in names:
            why = (
                f"missing from spec.versions; {name} was previously a storage version, and must remain in "
                f"spec.versions until a storage migration ensures no data remains persisted in {name} and "
                f"removes {name} from status.storedVersions"
            )
            yield invalid_value(f"{path}[{index}]", name, why)


def _approval_errors(crd: Obj, old: Obj | None) -> Iterator[FieldError]:
    if not is_protected((crd.get("spec") or {}).get("group", "")):
        return
    approval = approval_of(crd)
    if old is not None and approval_of(old).state == approval.state:
        return
    path = "metadata.annotations[api-approved.kubernetes.io]"
    if approval.state == "missing":
        yield required(path, approval.reason)
    elif approval.state == "invalid":
        yield invalid_value(path, approval.annotation, approval.reason)


def _preserving_errors(crd: Obj, old: Obj | None) -> Iterator[FieldError]:
    if old is not None and (old.get("spec") or {}).get("preserveUnknownFields"):
        return
    if (crd.get("spec") or {}).get("preserveUnknownFields"):
        why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        yield invalid_value("spec.preserveUnknownFields", True, why)
