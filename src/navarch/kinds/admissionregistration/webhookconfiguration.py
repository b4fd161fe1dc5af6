"""MutatingWebhookConfiguration and ValidatingWebhookConfiguration: who else is asked before something is written.

What is new must be sound; what an object said before it was looked at as closely may be said again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import ClassVar, Final

from navarch.api.errors import FieldError, duplicate, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import dns_label_1035_problems, dns_subdomain_problems, validate_label_selector
from navarch.kinds.admissionregistration.match_conditions import validate_match_conditions
from navarch.kinds.admissionregistration.rules import default_rule, validate_rule
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.strategies import strategy
from navarch.kinds.webhooks import default_client_config, validate_client_config

REVIEW_VERSIONS: Final = ("v1", "v1beta1")
_GROUP: Final = "admissionregistration.k8s.io"
_DEFAULT_TIMEOUT_S: Final = 10
_LONGEST_TIMEOUT_S: Final = 30
_FAILURE_POLICIES: Final = ("Fail", "Ignore")
_MATCH_POLICIES: Final = ("Equivalent", "Exact")
_REINVOCATION_POLICIES: Final = ("IfNeeded", "Never")
_SELECTORS: Final = ("namespaceSelector", "objectSelector")
# Of a requirement: what the path of a value has in it.
_SELECTED_VALUE: Final = ".values["
_NO_SIDE_EFFECTS: Final = ("None", "NoneOnDryRun")
_SIDE_EFFECTS: Final = ("None", "NoneOnDryRun", "Some", "Unknown")


def _webhooks_cell(obj: Obj, now: datetime) -> int:
    return len(obj.get("webhooks") or ())


class WebhookConfigurationStrategy(Strategy):
    """What both have in common."""

    has_generation = True
    finalizers_have_domains = False
    allow_unconditional_update = False
    mutating: ClassVar[bool]
    columns = (
        NAME,
        Column("Webhooks", _webhooks_cell, type="integer", description="How many webhooks the configuration has."),
        AGE,
    )

    def defaults(self, obj: Obj) -> None:
        for webhook in obj.get("webhooks") or ():
            for name, value in (
                ("failurePolicy", "Fail"),
                ("matchPolicy", "Equivalent"),
                ("timeoutSeconds", _DEFAULT_TIMEOUT_S),
            ):
                if webhook.get(name) is None:
                    webhook[name] = value
            for name in _SELECTORS:
                if webhook.get(name) is None:
                    webhook[name] = {}
            if self.mutating and webhook.get("reinvocationPolicy") is None:
                webhook["reinvocationPolicy"] = "Never"
            for rule in webhook.get("rules") or ():
                default_rule(rule)
            default_client_config(webhook.get("clientConfig") or {})

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        webhooks = obj.get("webhooks") or []
        was: Sequence[Obj] | None = None if old is None else old.get("webhooks") or []
        side_effects = _NO_SIDE_EFFECTS if was is None or _have_no_side_effects(was) else _SIDE_EFFECTS
        known_versions = was is None or _have_known_versions(was)
        unique_names = was is None or len({hook.get("name") for hook in was}) == len(was)
        same_conditions = was is not None and _conditions(was) == _conditions(webhooks)
        any_values = was is not None and any(True for hook in was for _ in _selector_errors(hook, ""))
        seen: set[str] = set()
        for index, webhook in enumerate(webhooks):
            path = f"webhooks[{index}]"
            for error in self._validate_webhook(webhook, path, side_effects, same_conditions=same_conditions):
                if not (any_values and _SELECTED_VALUE in error.field):
                    yield error
            yield from _validate_versions(webhook.get("admissionReviewVersions") or (), path, known=known_versions)
            name = webhook.get("name") or ""
            if unique_names and name in seen:
                yield duplicate(f"{path}.name", name)
            if name:
                seen.add(name)

    def _validate_webhook(
        self, webhook: Obj, path: str, side_effects: Sequence[str], *, same_conditions: bool
    ) -> Iterator[FieldError]:
        yield from _validate_name(webhook.get("name") or "", f"{path}.name")
        for index, rule in enumerate(webhook.get("rules") or ()):
            yield from validate_rule(rule, f"{path}.rules[{index}]")
        yield from _validate_policies(webhook, path, side_effects)
        yield from _selector_errors(webhook, path)
        policy = webhook.get("reinvocationPolicy")
        if self.mutating and policy not in _REINVOCATION_POLICIES:
            yield not_supported(f"{path}.reinvocationPolicy", policy, _REINVOCATION_POLICIES)
        yield from validate_client_config(webhook.get("clientConfig") or {}, f"{path}.clientConfig")
        if not same_conditions:
            yield from validate_match_conditions(webhook.get("matchConditions") or (), f"{path}.matchConditions")


def _validate_policies(webhook: Obj, path: str, side_effects: Sequence[str]) -> Iterator[FieldError]:
    for name, choices in (("failurePolicy", _FAILURE_POLICIES), ("matchPolicy", _MATCH_POLICIES)):
        if webhook.get(name) not in choices:
            yield not_supported(f"{path}.{name}", webhook.get(name), choices)
    stated = webhook.get("sideEffects")
    if stated is None:
        yield required(f"{path}.sideEffects", f"must specify one of {', '.join(side_effects)}")
    elif stated not in side_effects:
        yield not_supported(f"{path}.sideEffects", stated, side_effects)
    timeout_s = webhook.get("timeoutSeconds")
    if timeout_s is not None and not 1 <= timeout_s <= _LONGEST_TIMEOUT_S:
        detail = f"the timeout value must be between 1 and {_LONGEST_TIMEOUT_S} seconds"
        yield invalid_value(f"{path}.timeoutSeconds", timeout_s, detail)


@strategy(_GROUP, "MutatingWebhookConfiguration")
class MutatingWebhookConfigurationStrategy(WebhookConfigurationStrategy):
    """Webhooks that may change what is written."""

    mutating = True


@strategy(_GROUP, "ValidatingWebhookConfiguration")
class ValidatingWebhookConfigurationStrategy(WebhookConfigurationStrategy):
    """Webhooks that may refuse what is written."""

    mutating = False


def _validate_name(name: str, path: str) -> Iterator[FieldError]:
    if not name:
        yield required(path)
    elif problems := dns_subdomain_problems(name):
        yield invalid_value(path, name, ",".join(problems))
    elif name.count(".") < 2:
        yield invalid_value(path, name, "should be a domain with at least three segments separated by dots")


def _validate_versions(versions: Sequence[str], path: str, *, known: bool) -> Iterator[FieldError]:
    path = f"{path}.admissionReviewVersions"
    shown = ", ".join(REVIEW_VERSIONS)
    if not versions:
        yield required(path, f"must specify one of {shown}")
        return
    seen: set[str] = set()
    for index, version in enumerate(versions):
        if version in seen:
            yield invalid_value(f"{path}[{index}]", version, "duplicate version")
            continue
        seen.add(version)
        for problem in dns_label_1035_problems(version):
            yield invalid_value(f"{path}[{index}]", version, problem)
    if known and seen.isdisjoint(REVIEW_VERSIONS):
        yield invalid_value(path, list(versions), f"must include at least one of {shown}")


def _selector_errors(webhook: Obj, path: str) -> Iterator[FieldError]:
    for name in _SELECTORS:
        yield from validate_label_selector(webhook.get(name), f"{path}.{name}")


def _have_no_side_effects(webhooks: Sequence[Obj]) -> bool:
    return all(webhook.get("sideEffects") in _NO_SIDE_EFFECTS for webhook in webhooks)


def _have_known_versions(webhooks: Sequence[Obj]) -> bool:
    return all(
        not (versions := webhook.get("admissionReviewVersions")) or not set(versions).isdisjoint(REVIEW_VERSIONS)
        for webhook in webhooks
    )


def _conditions(webhooks: Sequence[Obj]) -> list[list[Obj]]:
    return [webhook.get("matchConditions") or [] for webhook in webhooks]
