"""Which writes a policy or a binding is for: its rules, and its selectors.

In: `matchConstraints` or `matchResources`, and a kind, an operation and a subresource.  Out: `Candidates`, which is
worked out once; it leaves to each write only what differs from object to object: its name.
"""

from __future__ import annotations

from navarch.api.meta import Obj
from navarch.api.selectors import LabelSelector
from navarch.apiserver.webhooks.hooks import Rule, is_exempt, is_review, relatives, rule_of, selector_of
from navarch.kinds.base import Kind
from navarch.records import frozen


@frozen
class NamedRule:
    """A rule that may be for objects of some names only."""

    rule: Rule
    names: frozenset[str]

    def is_for(self, name: str) -> bool:
        return not self.names or name in self.names


@frozen
class Candidates:
    """What of a matcher names a kind: the rules, each with the kind in whose version the object is looked at, and those
    that except objects from them."""

    rules: tuple[tuple[NamedRule, Kind], ...]
    excluded: tuple[NamedRule, ...]

    def kind_for(self, name: str) -> Kind | None:
        """In whose version an object of that name is looked at; None where it is not."""
        if any(rule.is_for(name) for rule in self.excluded):
            return None
        return next((kind for rule, kind in self.rules if rule.is_for(name)), None)


@frozen(eq=False)
class Matcher:
    rules: tuple[NamedRule, ...]
    excluded: tuple[NamedRule, ...]
    equivalent: bool
    namespaces: LabelSelector
    objects: LabelSelector

    def candidates(self, kind: Kind, operation: str, subresource: str) -> Candidates | None:
        """None where no object of the kind is meant."""
        if is_exempt(kind.resource) or is_review(kind.resource):
            return None
        excluded = tuple(rule for rule, _ in self._naming(self.excluded, kind, operation, subresource))
        if not self.rules:
            # No rules at all: a binding that leaves the choice to its policy.
            return Candidates(((NamedRule(_EVERYTHING, frozenset()), kind),), excluded)
        rules = self._naming(self.rules, kind, operation, subresource)
        if not rules or any(not rule.names for rule in excluded):
            return None
        return Candidates(rules, excluded)

    def _naming(
        self, rules: tuple[NamedRule, ...], kind: Kind, operation: str, subresource: str
    ) -> tuple[tuple[NamedRule, Kind], ...]:
        """The kind as it was asked for comes before the other versions of its objects."""
        kinds = [kind, *(other for other in relatives(kind) if other.resource != kind.resource)]
        return tuple(
            (rule, each)
            for each in (kinds if self.equivalent else kinds[:1])
            for rule in rules
            if rule.rule.matches(each.resource, operation, subresource)
        )


_EVERYTHING = Rule(frozenset("*"), frozenset("*"), frozenset("*"), (("*", "*"),), "*")


def matcher_of(match: Obj) -> Matcher:
    return Matcher(
        tuple(_named(rule) for rule in match.get("resourceRules") or ()),
        tuple(_named(rule) for rule in match.get("excludeResourceRules") or ()),
        match.get("matchPolicy") != "Exact",
        selector_of(match.get("namespaceSelector")),
        selector_of(match.get("objectSelector")),
    )


def _named(rule: Obj) -> NamedRule:
    return NamedRule(rule_of(rule), frozenset(rule.get("resourceNames") or ()))
