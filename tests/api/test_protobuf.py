"""Protobuf bodies become the objects that JSON would state."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api import protobuf, protobuf_fields, protobuf_messages, protobuf_scalars


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
    ("data", "why"),
    [
        (b"", "empty data"),
        (b"k8s\x00\xff", "malformed protobuf"),
        (b"{}", "provided data does not appear to be a protobuf message"),
        (body("v1", "Nonsense", b""), 'no kind "Nonsense" is registered for version "v1"'),
        (body("v1", "Pod", b"\x0a\xff\x01"), "malformed protobuf"),
        (body("v1", "Pod", field(1, field(1, b"\xff\xfe"))), "malformed protobuf"),
    ],
)
def test_what_is_no_object_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}"):
        protobuf.decode(data)


@given(st.binary(max_size=200))
def test_random_bytes_are_a_pod_or_a_value_error_that_says_why(data: bytes) -> None:
    found, why = None, ""
    try:
        found = protobuf.decode(body("v1", "Pod", data))
    except ValueError as error:
        why = str(error)

    assert why if found is None else (found["apiVersion"], found["kind"]) == ("v1", "Pod")


def test_every_message_that_the_table_names_can_be_made() -> None:
    names = list(protobuf_fields.names())
    assert len(names) > 500
    for name in names:
        assert protobuf_messages.message_class(name)() is not None


# Times


@pytest.mark.parametrize(
    ("seconds", "nanos", "time", "micro_time"),
    [
        (-62135596798, 0, "0001-01-01T00:00:02Z", "0001-01-01T00:00:02.000000Z"),
        (-30000000000, 0, "1019-05-04T18:40:00Z", "1019-05-04T18:40:00.000000Z"),
        (-1, 500_000_000, "1969-12-31T23:59:59Z", "1969-12-31T23:59:59.500000Z"),
        (0, 0, "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z"),
        (253402300799, 999_999_000, "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_times_of_all_ages(seconds: int, nanos: int, time: str, micro_time: str) -> None:
    stamp = field(1, seconds) + field(2, nanos)
    spec = field(4, stamp)
    lease = protobuf.decode(body("coordination.k8s.io/v1", "Lease", field(1, field(8, stamp)) + field(2, spec)))

    assert lease["metadata"] == {"creationTimestamp": time}
    assert lease["spec"] == {"renewTime": micro_time}
    again = protobuf.decode(protobuf.encode(lease))
    assert again == lease


# Both ways

SAMPLES = next(
    (found for up in Path(__file__).resolve().parents if (found := up / "shared" / "protobuf" / "samples").is_dir()),
    None,
)
NAMES = sorted(path.stem for path in SAMPLES.glob("*.json")) if SAMPLES is not None else []


@pytest.mark.skipif(SAMPLES is None, reason="Kubernetes' own samples are not beside this clone (shared/protobuf)")
@pytest.mark.parametrize("name", NAMES)
def test_kubernetes_own_samples_are_the_same_bytes_and_the_same_json(name: str) -> None:
    assert SAMPLES is not None
    obj = json.loads((SAMPLES / f"{name}.json").read_text())
    data = (SAMPLES / f"{name}.pb").read_bytes()
    if name == "core.v1.WatchEvent":
        # No object: it has neither version nor kind.
        assert protobuf.message("meta/v1.WatchEvent", obj) in data
        return

    assert protobuf.encode(obj) == data
    assert protobuf.decode(data) == obj


POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "creationTimestamp": "2024-01-02T03:04:05Z", "labels": {"b": "1", "a": "2"}},
    "spec": {
        "containers": [
            {
                "name": "c",
                "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "10m"}},
                "livenessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 3},
                "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            }
        ],
        "volumes": [{"name": "v", "projected": {"sources": [{"configMap": {"name": "x"}}]}}],
        "terminationGracePeriodSeconds": 0,
    },
    "status": {"conditions": [{"type": "Ready", "status": "True", "lastProbeTime": None}]},
}


def test_what_is_encoded_reads_back() -> None:
    decoded = protobuf.decode(protobuf.encode(POD))

    assert decoded["metadata"] == POD["metadata"]
    assert decoded["spec"] == POD["spec"]
    # Null and not there are one thing for a time.
    assert decoded["status"] == {"conditions": [{"type": "Ready", "status": "True"}]}


def test_fields_that_the_table_does_not_have_are_left_out() -> None:
    odd = {**POD, "what": 1, "metadata": {**POD["metadata"], "new": {"x": 1}}}  # type: ignore[dict-item]
    assert protobuf.encode(odd) == protobuf.encode(POD)


@pytest.mark.parametrize(
    "obj",
    [
        {"apiVersion": "v1", "kind": "Nonsense"},
        {"apiVersion": "v1", "kind": "Pod", "metadata": []},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": 3}},
        {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": {"a": 1}}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"generation": 2**70}},
    ],
)
def test_what_is_no_object_of_its_kind_is_not_encoded(obj: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^(core/v1\.Pod cannot be encoded: |no kind \"Nonsense\" is registered)"):
        protobuf.encode(obj)


@pytest.mark.parametrize(
    ("text", "nanos"), [("0s", 0), ("1h0m0s", 3600 * 10**9), ("1m30.5s", 90_500_000_000), ("-15ms", -15_000_000)]
)
def test_durations_are_written_as_go_writes_them(text: str, nanos: int) -> None:
    assert (
        protobuf_scalars._write_duration(text)
        == protobuf_messages.message_class("meta/v1.Duration")(Duration=nanos).SerializeToString()
    )
    message = protobuf_messages.message_class("meta/v1.Duration")(Duration=nanos)
    assert protobuf_scalars._read_duration(message) == text


@pytest.mark.parametrize("seconds", [-62135596801, 253402300800, 10**15, 2**62])
def test_times_of_no_year_are_refused_in_the_words_of_go(seconds: int) -> None:
    lease = protobuf_messages.message_class("coordination/v1.Lease")()
    lease.spec.renewTime.seconds = seconds
    sent = body("coordination.k8s.io/v1", "Lease", lease.SerializeToString())

    with pytest.raises(ValueError, match=r"^malformed protobuf: Time\.MarshalJSON: year outside of range \[0,9999\]$"):
        protobuf.decode(sent)


CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com", "creationTimestamp": "2024-01-02T03:04:05Z"},
    "spec": {
        "group": "example.com",
        "names": {"plural": "widgets", "kind": "Widget"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": False,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "any": {"x-kubernetes-preserve-unknown-fields": True, "default": {"a": [1, None]}},
                            "list": {"type": "array", "items": {"type": "string", "enum": ["a", "="]}},
                            "map": {"additionalProperties": {"x-kubernetes-int-or-string": True}},
                            "number": {"type": "number", "minimum": 0, "maximum": 1.5, "multipleOf": 2},
                            "open": {"additionalProperties": True, "$ref": "#/x", "$schema": "y"},
                        },
                        "dependencies": {"a": ["b"], "c": {"type": "object"}},
                        "x-kubernetes-validations": [{"rule": "true", "reason": "FieldValueInvalid"}],
                    }
                },
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".a", "statusReplicasPath": ".b"}},
            }
        ],
    },
    "status": {"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": []},
}


def test_schemas_of_custom_resources_read_back() -> None:
    decoded = protobuf.decode(protobuf.encode(CRD))

    assert decoded["spec"] == CRD["spec"]


# What Kubernetes writes though it is not stated


def test_an_empty_object_has_the_zeros_of_its_fields_that_are_no_pointers() -> None:
    metadata = b"".join(field(number, "") for number in range(1, 7)) + field(7, 0) + field(8, "")
    secret = field(1, metadata) + field(3, "")

    assert protobuf.encode({"apiVersion": "v1", "kind": "Secret"}) == body("v1", "Secret", secret)


def test_a_quantity_and_a_port_that_nobody_states_are_zero() -> None:
    selector = protobuf.message("core/v1.ResourceFieldSelector", {"resource": "limits.cpu"})
    action = protobuf.message("core/v1.TCPSocketAction", {})

    assert selector == field(1, "") + field(2, "limits.cpu") + field(3, field(1, "0"))
    assert action == field(1, field(1, 0) + field(2, 0) + field(3, "")) + field(2, "")


def test_what_is_null_in_a_list_or_a_map_is_there_and_empty() -> None:
    budget = protobuf.message("policy/v1.PodDisruptionBudgetStatus", {"disruptedPods": {"p": None}})
    labels = protobuf.message("meta/v1.LabelSelector", {"matchLabels": {"b": None, "a": "x"}})

    assert budget.startswith(field(1, 0) + field(2, entry("p", b"")))
    assert labels == field(1, entry("a", "x")) + field(1, entry("b", ""))
