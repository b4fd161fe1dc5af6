"""EndpointSlice."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kinds.writing import created, refused, row, updated

GROUP, KIND = "discovery.k8s.io", "EndpointSlice"


def endpoint_slice(*addresses: str, kind: str = "IPv4", **more: Any) -> Any:
    return {"addressType": kind, "endpoints": [{"addresses": list(addresses)}], **more}


@pytest.mark.parametrize(
    ("obj", "error"),
    [
        ({"endpoints": []}, "addressType: Required value"),
        (endpoint_slice(), "endpoints[0].addresses: Required value: must contain at least 1 address"),
        (endpoint_slice("::5"), 'endpoints[0].addresses: Invalid value: "::5": must be an IPv4 address'),
        (
            endpoint_slice("127.0.0.1"),
            'endpoints[0].addresses[0]: Invalid value: "127.0.0.1": '
            "may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ),
        (endpoint_slice("10.0.0.1", ports=[{"port": 1}, {"port": 2}]), 'ports[1].name: Duplicate value: ""'),
    ],
)
def test_what_is_refused(obj: Any, error: str) -> None:
    assert error in refused(GROUP, KIND, obj)


def test_defaults_and_table() -> None:
    addresses = [f"10.0.0.{number}" for number in range(1, 6)]
    obj, errors = created(GROUP, KIND, endpoint_slice(*addresses, ports=[{"port": 80}]))
    obj["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    assert errors == []
    assert obj["ports"] == [{"port": 80, "name": "", "protocol": "TCP"}]
    assert row(GROUP, KIND, obj) == ["web", "IPv4", "80", "10.0.0.1,10.0.0.2,10.0.0.3 + 2 more...", "24h"]
    obj["ports"], obj["endpoints"] = [], []
    assert row(GROUP, KIND, obj)[2:4] == ["<unset>", "<unset>"]


def test_the_address_type_is_immutable() -> None:
    old = created(GROUP, KIND, endpoint_slice("10.0.0.1"))[0]
    new = endpoint_slice("fd00::1", kind="IPv6") | {"metadata": old["metadata"]}
    assert updated(GROUP, KIND, old, new)[1] == ['addressType: Invalid value: "IPv6": field is immutable']
