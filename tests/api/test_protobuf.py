"""Protobuf bodies become the objects that JSON would state."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api import protobuf


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, value: Any) -> bytes:
    """One field: an int as varint, a float as fixed 64 bits, text and bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def body(api_version: str, kind: str, raw: bytes) -> bytes:
    return (
        protobuf.MAGIC + field(1, field(1, api_version) + field(2, kind)) + field(2, raw) + field(3, "") + field(4, "")
    )


def entry(key: str, value: Any) -> bytes:
    return field(1, key) + field(2, value)


def test_a_deployment() -> None:
    metadata = field(1, "web") + field(3, "default") + field(8, b"") + field(11, entry("app", "web"))
    container = field(1, "main") + field(2, "nginx") + field(18, 0) + field(8, field(1, entry("cpu", field(1, "10m"))))
    template = field(1, field(11, entry("app", "web"))) + field(2, field(2, container))
    selector = field(1, entry("app", "web"))
    rolling = field(1, field(1, 1) + field(2, 0) + field(3, "25%"))
    spec = field(1, 0) + field(2, selector) + field(3, template) + field(4, field(1, "") + field(2, rolling))

    decoded = protobuf.decode(body("apps/v1", "Deployment", field(1, metadata) + field(2, spec) + field(3, b"")))

    assert decoded == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "nginx", "resources": {"limits": {"cpu": "10m"}}}]},
            },
            "strategy": {"rollingUpdate": {"maxUnavailable": "25%"}},
        },
        "status": {},
    }


def test_bytes_become_base64_and_times_text() -> None:
    secret = protobuf.decode(body("v1", "Secret", field(1, field(1, "s")) + field(2, entry("k", b"\x00\x01"))))
    lease = protobuf.decode(
        body("coordination.k8s.io/v1", "Lease", field(2, field(4, field(1, 1700000000) + field(2, 5000))))
    )

    assert secret["data"] == {"k": "AAE="}
    assert lease["spec"]["renewTime"] == "2023-11-14T22:13:20.000005Z"


def test_delete_options_of_any_group() -> None:
    decoded = protobuf.decode(body("apps/v1", "DeleteOptions", field(1, 0) + field(4, "Foreground")))

    assert decoded["gracePeriodSeconds"] == 0
    assert decoded["propagationPolicy"] == "Foreground"


def test_negative_numbers_and_int_or_string() -> None:
    service = protobuf.decode(
        body("v1", "Service", field(2, field(1, field(3, 80) + field(4, field(1, 1) + field(3, "http")))))
    )
    priority = protobuf.decode(body("scheduling.k8s.io/v1", "PriorityClass", field(2, -5)))

    assert service["spec"]["ports"] == [{"port": 80, "targetPort": "http"}]
    assert priority["value"] == -5


def test_user_extra_is_a_map_of_lists() -> None:
    user = field(1, "jane") + field(4, entry("scopes", field(1, "a") + field(1, "b")))

    review = protobuf.decode(body("authentication.k8s.io/v1", "SelfSubjectReview", field(2, field(1, user))))

    assert review["status"]["userInfo"]["extra"] == {"scopes": ["a", "b"]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"k8s\x00\xff",
        b"{}",
        body("v1", "Nonsense", b""),
        body("v1", "Pod", b"\x0a\xff\x01"),
        body("v1", "Pod", field(1, field(1, b"\xff\xfe"))),
    ],
)
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        protobuf.decode(data)


@given(st.binary(max_size=200))
def test_random_bytes_never_do_worse_than_a_value_error(data: bytes) -> None:
    try:
        protobuf.decode(body("v1", "Pod", data))
    except ValueError:
        return


def test_every_message_that_the_table_names_is_in_the_table() -> None:
    for name in protobuf._lines():
        assert protobuf._message(name) is not None
