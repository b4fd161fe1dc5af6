"""The query of a list, a watch or a collection's deletion: read as Kubernetes reads `ListOptions`, and checked.

In: the pairs of a query.  Out: a `ListOptions`.  What is no number is refused first, then what does not go together;
selectors and versions are left as texts, since they are looked at later, each with its own refusal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from navarch.api.errors import FieldError, bad_request, forbidden_field, invalid, not_one_of
from navarch.apiserver.routes import is_true
from navarch.numbers import is_digits
from navarch.records import mutable

EXACT: Final = "Exact"
NOT_OLDER_THAN: Final = "NotOlderThan"
_NUMBER: Final = re.compile("[+-]?[0-9]+")
_SHOWN: Final = 64
_UINT64: Final = 2**64


@mutable
class ListOptions:
    """`send_initial` is None where the query leaves it open; `watching` says that it asks for a watch."""

    labels: str = ""
    fields: str = ""
    watching: bool = False
    bookmarks: bool = False
    version: str = ""
    match: str = ""
    timeout_s: int = 0
    limit: int = 0
    token: str = ""
    send_initial: bool | None = None


EVERYTHING: Final = ListOptions()


def list_options_of(query: Sequence[tuple[str, str]]) -> ListOptions:
    """Raises StatusError 400, 422."""
    # On every list's path, so nothing is called for what is not there. Of what is given twice the first counts.
    given = {
        "labelSelector": "",
        "fieldSelector": "",
        "resourceVersion": "",
        "resourceVersionMatch": "",
        "continue": "",
    }
    given |= query[::-1]
    timeout_s = whole_number(given["timeoutSeconds"]) if "timeoutSeconds" in given else 0
    limit = whole_number(given["limit"]) if "limit" in given else 0
    watching = "watch" in given and is_true(given["watch"])
    version = given["resourceVersion"]
    match = given["resourceVersionMatch"]
    send_initial = is_true(given["sendInitialEvents"]) if "sendInitialEvents" in given else None
    if watching and send_initial is None and not match and version in ("", "0"):
        # A watch from anywhere begins with what there is: it is a streamed list by another name.
        send_initial, match = True, NOT_OLDER_THAN
    options = ListOptions(
        given["labelSelector"],
        given["fieldSelector"],
        watching,
        "allowWatchBookmarks" in given and is_true(given["allowWatchBookmarks"]),
        version,
        match,
        timeout_s,
        limit if limit > 0 else 0,
        given["continue"],
        send_initial,
    )
    if match or send_initial is not None:
        errors = _wrong_for_watch(options) if watching else _wrong_for_list(options)
        if errors:
            raise invalid("ListOptions", "meta.k8s.io", "", errors)
    return options


def _wrong_for_list(options: ListOptions) -> list[FieldError]:
    errors = []
    field, match = "resourceVersionMatch", options.match
    if match:
        if not options.version:
            errors.append(forbidden_field(field, f"{field} is forbidden unless resourceVersion is provided"))
        if options.token:
            errors.append(forbidden_field(field, f"{field} is forbidden when continue is provided"))
        if match not in (EXACT, NOT_OLDER_THAN):
            errors.append(not_one_of(field, match, (EXACT, NOT_OLDER_THAN, "")))
        if match == EXACT and options.version == "0":
            errors.append(forbidden_field(field, f'{field} "exact" is forbidden for resourceVersion "0"'))
    if options.send_initial is not None:
        errors.append(forbidden_field("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    return errors


def _wrong_for_watch(options: ListOptions) -> list[FieldError]:
    errors = []
    field, match, asked = "resourceVersionMatch", options.match, options.send_initial is not None
    if asked and match != NOT_OLDER_THAN:
        errors.append(forbidden_field(field, f"sendInitialEvents requires setting {field} to {NOT_OLDER_THAN}"))
    if match:
        if not asked:
            why = f"{field} is forbidden for watch unless sendInitialEvents is provided"
            errors.append(forbidden_field(field, why))
        if match != NOT_OLDER_THAN:
            errors.append(not_one_of(field, match, (NOT_OLDER_THAN,)))
        if options.token:
            errors.append(forbidden_field(field, f"{field} is forbidden when continue is provided"))
    return errors


def whole_number(text: str) -> int:
    """A number of a query, as Go reads an int64.  Raises StatusError 400."""
    if not _NUMBER.fullmatch(text):
        raise bad_request(f'strconv.ParseInt: parsing "{text[:_SHOWN]}": invalid syntax')
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise bad_request(f'strconv.ParseInt: parsing "{text[:_SHOWN]}": value out of range')
    return int(text)


def why_no_revision(text: str) -> str:
    """What is wrong with a resource version, in the words of the parser; empty for a good one."""
    if not is_digits(text):
        return f'strconv.ParseUint: parsing "{text[:_SHOWN]}": invalid syntax'
    if len(text) > 20 or int(text) >= _UINT64:
        return f'strconv.ParseUint: parsing "{text[:_SHOWN]}": value out of range'
    return ""


def wrong_version(text: str) -> str:
    """The same as a mistake in the parameter `resourceVersion`."""
    why = why_no_revision(text)
    return f'resourceVersion: Invalid value: "{text[:_SHOWN]}": {why}' if why else ""
