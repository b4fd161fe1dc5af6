"""Acting as somebody else: the `Impersonate-*` headers, each of which the authorizer must allow.

In: the request's headers and who really makes it.  Out: the user that the request counts as.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from navarch.api.errors import StatusError, bad_request, forbidden
from navarch.apiserver.auth.base import Decide, RequestAttributes
from navarch.apiserver.user import User
from navarch.client.transport import Request

PREFIX = "impersonate-"
# Headers that name somebody: here, and where a front proxy speaks for others. They are no concern of those behind.
NAMING = (PREFIX, "x-remote-")
# Between the values of such a header that was sent more than once.
BETWEEN = "\n"
_EXTRA = "impersonate-extra-"
_SERVICE_ACCOUNT = "system:serviceaccount:"


async def impersonated(request: Request, user: User, decide: Decide) -> User:
    """Raises StatusError 400, 403."""
    headers = request.headers
    name = headers.get("impersonate-user", "")
    groups = [group for group in headers.get("impersonate-group", "").split(BETWEEN) if group]
    uid = headers.get("impersonate-uid", "")
    extra = {
        unquote(header[len(_EXTRA) :]).lower(): tuple(value.split(BETWEEN))
        for header, value in headers.items()
        if header.startswith(_EXTRA)
    }
    if not name:
        raise _without_user(groups, uid, extra)
    await _check_user(user, name, decide)
    for group in groups:
        await _check(user, RequestAttributes("impersonate", "", "v1", "groups", "", "", group), decide)
    if uid:
        await _check(user, RequestAttributes("impersonate", "authentication.k8s.io", "v1", "uids", "", "", uid), decide)
    for key, values in extra.items():
        for value in values:
            attributes = RequestAttributes("impersonate", "authentication.k8s.io", "v1", "userextras", key, "", value)
            await _check(user, attributes, decide)
    return User(name, tuple(_with_implied(name, groups)), uid, extra)


def _without_user(groups: list[str], uid: str, extra: Mapping[str, tuple[str, ...]]) -> StatusError:
    """400, which shows what was understood of the request as Go does."""
    pairs = ", ".join(f"{_quoted(key)}:{_strings(values)}" for key, values in sorted(extra.items()))
    shown = f"map[string][]string{{{pairs}}}" if extra else "map[string][]string(nil)"
    info = f'&user.DefaultInfo{{Name:"", UID:{_quoted(uid)}, Groups:{_strings(groups)}, Extra:{shown}}}'
    return bad_request(f"requested {info} without impersonating a user name")


def _strings(values: Sequence[str]) -> str:
    return f"[]string{{{', '.join(map(_quoted, values))}}}" if values else "[]string(nil)"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


async def _check_user(user: User, name: str, decide: Decide) -> None:
    if name.startswith(_SERVICE_ACCOUNT) and name.count(":") == 3:
        _, _, namespace, account = name.split(":")
        attributes = RequestAttributes("impersonate", "", "v1", "serviceaccounts", "", namespace, account)
    else:
        attributes = RequestAttributes("impersonate", "", "v1", "users", "", "", name)
    await _check(user, attributes, decide)


def _with_implied(name: str, groups: list[str]) -> list[str]:
    """The groups that the user would be in by itself."""
    implied = list(groups)
    if name.startswith(_SERVICE_ACCOUNT) and not groups:
        implied += ["system:serviceaccounts", f"system:serviceaccounts:{name.split(':')[2]}"]
    everyone = "system:unauthenticated" if name == "system:anonymous" else "system:authenticated"
    if everyone not in implied:
        implied.append(everyone)
    return implied


async def _check(user: User, attributes: RequestAttributes, decide: Decide) -> None:
    decision = await decide(user, attributes)
    if decision.allowed:
        return
    resource = attributes.resource + (f"/{attributes.subresource}" if attributes.subresource else "")
    why = f'User "{user.name}" cannot impersonate resource "{resource}" in API group "{attributes.group}"'
    why += f' in the namespace "{attributes.namespace}"' if attributes.namespace else " at the cluster scope"
    error: StatusError = forbidden(attributes.resource, attributes.group, attributes.name, why)
    raise error
