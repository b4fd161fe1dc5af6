"""Whom a request says that it is made for."""

from __future__ import annotations

import pytest

from navarch.api.errors import StatusError
from navarch.apiserver.auth.base import Decision, RequestAttributes
from navarch.apiserver.impersonation import impersonated
from navarch.apiserver.plain_requests import plain_request
from navarch.apiserver.user import LOOPBACK, User
from navarch.client.transport import Request


async def everybody(user: User, asked: RequestAttributes) -> Decision:
    return Decision(True)


async def seen(*lines: bytes) -> User:
    """The user that a request with these header lines counts as."""
    read = plain_request(b"\r\n".join((b"GET /api/v1/pods HTTP/1.1", b"Host: x", *lines)))
    assert read is not None
    return await impersonated(read[0], LOOPBACK, everybody)


async def test_each_group_has_a_header_of_its_own_and_may_have_commas() -> None:
    user = await seen(b"Impersonate-User: jane", b"Impersonate-Group: a, b", b"Impersonate-Group: ,,,chameleon")

    assert user.groups == ("a, b", ",,,chameleon", "system:authenticated")


async def test_extra_values_are_kept_apart_in_the_same_way() -> None:
    user = await seen(b"Impersonate-User: jane", b"Impersonate-Extra-Scopes: a,b", b"Impersonate-Extra-Scopes: c")

    assert user.extra == {"scopes": ("a,b", "c")}


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        (
            {"impersonate-group": "system:masters"},
            'Name:"", UID:"", Groups:[]string{"system:masters"}, Extra:map[string][]string(nil)',
        ),
        (
            {"impersonate-uid": "u", "impersonate-extra-scopes": "s"},
            'Name:"", UID:"u", Groups:[]string(nil), Extra:map[string][]string{"scopes":[]string{"s"}}',
        ),
    ],
)
async def test_who_says_whose_groups_but_not_whose_is_told_what_was_understood(
    headers: dict[str, str], shown: str
) -> None:
    with pytest.raises(StatusError) as refused:
        await impersonated(Request("GET", "/api", headers=headers), LOOPBACK, everybody)

    message = f"requested &user.DefaultInfo{{{shown}}} without impersonating a user name"
    assert (refused.value.code, refused.value.message) == (400, message)
