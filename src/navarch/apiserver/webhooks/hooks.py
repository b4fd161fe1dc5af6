"""The webhooks that are configured, taken apart once, and which of them a write is for.

In: configuration objects.  Out: `Hook`s in Kubernetes' order, by the names of their configurations; and for a kind,
an operation and a subresource the `Invocation`s of those whose rules name it, with the kind in whose version each is
shown the object. What rules say does not depend on the object, so that this is worked out once; selectors and
conditions are looked at for each write.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, Resource
from navarch.api.selectors import LabelSelector, label_selector_of
from navarch.apiserver.policies.conditions import Conditions, conditions_of
from navarch.apiserver.served import ServedKind
from navarch.apiserver.webhooks.client import CallError, ClientConfig, client_config
from navarch.apiserver.webhooks.reviews import VERSIONS
from navarch.kinds.base import Kind
from navarch.records import frozen

_GROUP: Final = "admissionregistration.k8s.io"
# What decides over admission is not itself decided by it: nobody could mend a mistake.
_EXEMPT: Final = frozenset(
    {
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
        "mutatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "validatingwebhookconfigurations",
    }
)

# Who somebody is and what they may do is asked with these: who comes between can lock everybody out.
_REVIEWS: Final = frozenset(
    {
        ("authentication.k8s.io", "selfsubjectreviews"),
        ("authentication.k8s.io", "tokenreviews"),
        ("authorization.k8s.io", "localsubjectaccessreviews"),
        ("authorization.k8s.io", "selfsubjectaccessreviews"),
        ("authorization.k8s.io", "selfsubjectrulesreviews"),
        ("authorization.k8s.io", "subjectaccessreviews"),
    }
)


@frozen
class Rule:
    """Which requests a webhook is for, by what their path says."""

    operations: frozenset[str]
    groups: frozenset[str]
    versions: frozenset[str]
    resources: tuple[tuple[str, str], ...]
    scope: str

    def matches(self, resource: Resource, operation: str, subresource: str) -> bool:
        return (
            _named(operation, self.operations)
            and _named(resource.group, self.groups)
            and _named(resource.version, self.versions)
            and any(plural in ("*", resource.plural) and sub in ("*", subresource) for plural, sub in self.resources)
            and (self.scope == "*" or (self.scope == "Namespaced") is resource.namespaced)
        )


def _named(value: str, among: frozenset[str]) -> bool:
    return "*" in among or value in among


@frozen(eq=False)
class Hook:
    """One webhook of a configuration. `wrong` says why it cannot be called at all."""

    configuration: str
    name: str
    index: int
    rules: tuple[Rule, ...]
    equivalent: bool
    namespaces: LabelSelector
    objects: LabelSelector
    conditions: Conditions
    closed: bool
    reinvocable: bool
    may_run_dry: bool
    timeout_s: int
    version: str
    client: ClientConfig | None
    wrong: str = ""


@frozen(eq=False)
class Invocation:
    """A webhook to be asked about a write, and the kind in whose version it sees the object."""

    hook: Hook
    kind: Kind


def hooks_of(configurations: Iterable[Obj]) -> list[Hook]:
    """Every webhook, in the order in which they are called."""
    ordered = sorted(configurations, key=lambda obj: str(obj["metadata"]["name"]))
    return [
        _hook(configuration["metadata"]["name"], index, webhook)
        for configuration in ordered
        for index, webhook in enumerate(configuration.get("webhooks") or ())
    ]


def _hook(configuration: str, index: int, webhook: Obj) -> Hook:
    wrong, client = "", None
    try:
        client = client_config(webhook.get("clientConfig") or {})
    except CallError as error:
        wrong = f"could not get REST client: {error}"
    version = next((version for version in webhook.get("admissionReviewVersions") or () if version in VERSIONS), "")
    if not version:
        wrong = (
            "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)"
        )
    return Hook(
        configuration,
        str(webhook.get("name") or ""),
        index,
        tuple(rule_of(rule) for rule in webhook.get("rules") or ()),
        webhook.get("matchPolicy") != "Exact",
        selector_of(webhook.get("namespaceSelector")),
        selector_of(webhook.get("objectSelector")),
        conditions_of(webhook.get("matchConditions") or ()),
        webhook.get("failurePolicy") != "Ignore",
        webhook.get("reinvocationPolicy") == "IfNeeded",
        webhook.get("sideEffects") in ("None", "NoneOnDryRun"),
        int(webhook.get("timeoutSeconds") or 10),
        version,
        client,
        wrong,
    )


def selector_of(stated: Obj | None) -> LabelSelector:
    """A label selector as an object states it; none selects everything."""
    try:
        return label_selector_of(stated or {})
    except StatusError:
        # Stored before it was looked at as closely: for nothing.
        return LabelSelector(nothing=True)


def rule_of(rule: Obj) -> Rule:
    """A rule as an object states it."""
    resources = [str(text).partition("/") for text in rule.get("resources") or ()]
    return Rule(
        frozenset(rule.get("operations") or ()),
        frozenset(rule.get("apiGroups") or ()),
        frozenset(rule.get("apiVersions") or ()),
        tuple((plural, subresource) for plural, _, subresource in resources),
        rule.get("scope") or "*",
    )


def is_exempt(resource: Resource) -> bool:
    """Whether no webhook is ever asked about this."""
    return resource.group == _GROUP and resource.plural in _EXEMPT


def is_review(resource: Resource) -> bool:
    """Whether no policy is ever for this, and from Kubernetes 1.37 on no webhook."""
    return (resource.group, resource.plural) in _REVIEWS


def ineffective(rule: Obj) -> list[str]:
    """The reviews that a rule names in so many words: in vain, where webhooks are not asked about them."""
    groups, plurals = rule.get("apiGroups") or (), rule.get("resources") or ()
    if any("*" in each for each in (groups, plurals, rule.get("apiVersions") or ())):
        return []
    named = ((group, plural) for group in groups for plural in plurals)
    return list(dict.fromkeys(f"{plural}.{group}" for group, plural in named if (group, plural) in _REVIEWS))


def invocations(hooks: Sequence[Hook], kind: Kind, operation: str, subresource: str) -> list[Invocation]:
    """Those whose rules name this kind as it was asked for, or, where they say that equivalents will do, the same
    objects by another version or group: earlier rules first."""
    if is_exempt(kind.resource):
        return []
    found: list[Invocation] = []
    others = [other for other in relatives(kind) if other.resource != kind.resource]
    for hook in hooks:
        if any(rule.matches(kind.resource, operation, subresource) for rule in hook.rules):
            found.append(Invocation(hook, kind))
        elif hook.equivalent:
            equivalent = next(
                (
                    other
                    for rule in hook.rules
                    for other in others
                    if rule.matches(other.resource, operation, subresource)
                ),
                None,
            )
            if equivalent is not None:
                found.append(Invocation(hook, equivalent))
    return found


def relatives(kind: Kind) -> list[Kind]:
    """The kind and all others whose objects are the same."""
    if not isinstance(kind, ServedKind):
        return [kind]
    return [other for other in kind.versions.values() if other.served]
