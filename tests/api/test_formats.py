"""Formats that schemas of custom kinds may ask for: what is of which, as Kubernetes sees it."""

from __future__ import annotations

import pytest

from navarch.api import formats


@pytest.mark.parametrize(
    ("form", "right", "wrong"),
    [
        ("date", ["2024-02-29"], ["2023-02-29", "2024-2-1", "today"]),
        ("date-time", ["2024-01-01T10:00:00Z", "2024-01-01T10:00:00.5+02:00"], ["2024-01-01", "2024-01-01 10:00"]),
        ("duration", ["1h30m", "3 days", "1.5s"], ["soon", ""]),
        ("ipv4", ["10.0.0.1"], ["10.0.0.256", "::1"]),
        ("ipv6", ["::1", "2001:db8::1"], ["10.0.0.1", "zz::"]),
        ("cidr", ["10.0.0.0/8", "2001:db8::/32"], ["10.0.0.0", "10.0.0.0/33"]),
        ("uuid", ["a8098c1a-f86e-11da-bd1a-00112444be1e"], ["a8098c1a"]),
        ("uri", ["https://example.com/a?b=c"], ["example"]),
        ("email", ["a@example.com"], ["a at example.com"]),
        ("byte", ["aGVsbG8="], ["not base64!"]),
        ("mac", ["00:1a:2b:3c:4d:5e"], ["00:1a"]),
    ],
)
def test_a_format_is_what_kubernetes_takes_it_for(form: str, right: list[str], wrong: list[str]) -> None:
    test = formats.test_of(form)

    assert test is not None
    assert [text for text in right if not test(text)] == []
    assert [text for text in wrong if test(text)] == []


def test_a_format_that_is_not_known_asks_for_nothing() -> None:
    assert formats.test_of("phone-number") is None
    assert not formats.is_recognized("phone-number", "string")
    assert formats.is_recognized("int32", "integer")
    assert formats.is_recognized("datetime", "string")
