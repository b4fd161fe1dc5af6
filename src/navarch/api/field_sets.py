"""What can be done with sets of fields: joined, taken from each other, compared.

In and out: sets in the form of `FieldsV1`, plain nested dictionaries as `metadata.managedFields[].fieldsV1` has them:
`f:NAME` a field, `k:{…}` an item of a list with keys, `v:…` an item of a set. A child that is empty is a member; one
with a `.` is a member that has members below it; one without is only on the way.

Sets may share parts with each other, so none is ever changed once it is made: what is equal is handed on as it is.
"""

from __future__ import annotations

from typing import Any, Final

FieldSet = dict[str, Any]
LEAF: Final[FieldSet] = {}
DOT: Final = "."


def union(left: FieldSet, right: FieldSet) -> FieldSet:
    if not right or left is right:
        return left
    if not left:
        return right
    out = dict(left)
    for key, child in right.items():
        if key == DOT or key not in left:
            out[key] = child
        elif left[key] is not child:
            out[key] = _join(is_member(left[key]) or is_member(child), union(_below(left[key]), _below(child)))
    return out


def union_of(sets: list[FieldSet]) -> FieldSet:
    """All of them, joined in pairs: one after another, each step would copy what all before it had."""
    while len(sets) > 1:
        sets = [union(sets[at], sets[at + 1]) if at + 1 < len(sets) else sets[at] for at in range(0, len(sets), 2)]
    return sets[0] if sets else {}


def difference(left: FieldSet, right: FieldSet) -> FieldSet:
    """The members of `left` that are not members of `right`."""
    if not right or not left:
        return left
    out: FieldSet = {}
    for key, child in left.items():
        other = right.get(key)
        if key == DOT or other is None:
            out[key] = child
            continue
        member = is_member(child) and not is_member(other)
        below = difference(_below(child), _below(other))
        if member or below:
            out[key] = _join(member, below)
    return out


def recursive_difference(left: FieldSet, right: FieldSet) -> FieldSet:
    """The members of `left` that are not members of `right`, nor below one."""
    out: FieldSet = {}
    for key, child in left.items():
        other = right.get(key)
        if key == DOT or other is None:
            out[key] = child
        elif not is_member(other):
            below = recursive_difference(_below(child), other)
            if below or is_member(child):
                out[key] = _join(is_member(child), below)
    return out


def overlaps(left: FieldSet, right: FieldSet) -> bool:
    """Whether `difference` could take anything away: a cheap answer for the many sets that a change does not touch."""
    return any(
        key in left
        and key != DOT
        and (not right[key] or not left[key] or DOT in left[key] or overlaps(left[key], right[key]))
        for key in right
    )


def intersection(left: FieldSet, right: FieldSet) -> FieldSet:
    if not left or not right:
        return LEAF
    out: FieldSet = {}
    for key, child in left.items():
        other = right.get(key)
        if key == DOT or other is None:
            continue
        member = is_member(child) and is_member(other)
        below = intersection(_below(child), _below(other))
        if member or below:
            out[key] = _join(member, below)
    return out


def is_member(child: FieldSet) -> bool:
    """Whether a child of a set is a member itself, not only on the way to members."""
    return not child or DOT in child


def normal(child: FieldSet) -> FieldSet:
    """A member without members below it is written as an empty child."""
    return LEAF if len(child) == 1 and DOT in child else child


def _below(child: FieldSet) -> FieldSet:
    return {key: inner for key, inner in child.items() if key != DOT} if DOT in child else child


def _join(member: bool, below: FieldSet) -> FieldSet:
    return {DOT: LEAF, **below} if member and below else below
