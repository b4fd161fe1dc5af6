"""Decoding against the schema: what is refused and how, what is dropped, what is respelt."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api import schema
from navarch.api.errors import StatusError

POD = "io.k8s.api.core.v1.Pod"
DEPLOYMENT = "io.k8s.api.apps.v1.Deployment"


def decode(name: str, obj: Any) -> list[str]:
    return schema.load().compile(name).decode(obj)


def refusal(name: str, obj: Any) -> str:
    with pytest.raises(StatusError) as caught:
        decode(name, obj)
    assert (caught.value.code, caught.value.reason) == (400, "BadRequest")
    kind = name.rsplit(".", 1)[1]
    prefix = f'{kind} in version "v1" cannot be handled as a {kind}: '
    assert caught.value.message.startswith(prefix)
    return caught.value.message.removeprefix(prefix)


def container(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "c", **fields}]}}


def pod_template(**fields: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [fields]}}}}


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        ({"spec": {"replicas": "3"}}, "string into Go struct field DeploymentSpec.spec.replicas of type int32"),
        ({"spec": {"replicas": 3.5}}, "number 3.5 into Go struct field DeploymentSpec.spec.replicas of type int32"),
        (
            {"spec": {"replicas": 2**31}},
            "number 2147483648 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        ({"spec": {"replicas": True}}, "bool into Go struct field DeploymentSpec.spec.replicas of type int32"),
        ({"spec": {"paused": "true"}}, "string into Go struct field DeploymentSpec.spec.paused of type bool"),
        ({"spec": []}, "array into Go struct field Deployment.spec of type v1.DeploymentSpec"),
        ({"metadata": {"labels": {"a": 1}}}, "number into Go struct field ObjectMeta.metadata.labels of type string"),
        (
            {"metadata": {"labels": []}},
            "array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        ),
        (
            pod_template(image=5),
            "number into Go struct field Container.spec.template.spec.containers.image of type string",
        ),
        (
            {"spec": {"template": {"spec": {"containers": "x"}}}},
            "string into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            pod_template(command=["sh", 1]),
            "number into Go struct field Container.spec.template.spec.containers.command of type string",
        ),
        ("nothing", "string into Go value of type v1.Deployment"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_its_path(obj: Any, message: str) -> None:
    assert refusal(DEPLOYMENT, obj) == f"json: cannot unmarshal {message}"


TIME = 'as "2006-01-02T15:04:05Z07:00": cannot parse'
NUMBER = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


def created(moment: Any) -> dict[str, Any]:
    return {"metadata": {"creationTimestamp": moment}}


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (container(resources={"limits": {"cpu": "1kk"}}), "unable to parse quantity's suffix"),
        (container(resources={"limits": {"cpu": {}}}), NUMBER),
        (created("today"), f'parsing time "today" {TIME} "today" as "2006"'),
        (created("2020-13-01T00:00:00Z"), 'parsing time "2020-13-01T00:00:00Z": month out of range'),
        (created("2021-02-30T00:00:00Z"), 'parsing time "2021-02-30T00:00:00Z": day out of range'),
        (created("2020-01-01"), f'parsing time "2020-01-01" {TIME} "" as "T"'),
        (created(5), "json: cannot unmarshal number into Go value of type string"),
        (
            container(livenessProbe={"httpGet": {"port": []}}),
            "json: cannot unmarshal array into Go value of type int32",
        ),
    ],
)
def test_a_scalar_with_a_format_is_refused_in_the_words_of_its_parser(obj: Any, message: str) -> None:
    assert refusal(POD, obj) == message


def test_unknown_fields_are_pruned_and_named_wherever_they_stand() -> None:
    obj = container(imagee="x", env=[{"name": "A", "valueFrm": {}}])
    obj["spec"]["foo"] = None
    obj["spam"] = 1

    unknown = decode(POD, obj)

    assert sorted(unknown) == ["spam", "spec.containers[0].env[0].valueFrm", "spec.containers[0].imagee", "spec.foo"]
    assert obj == {"spec": {"containers": [{"name": "c", "env": [{"name": "A"}]}]}}


def test_nulls_and_optional_empty_collections_are_dropped_but_empty_structs_stay() -> None:
    obj = {
        "metadata": {"name": "p", "creationTimestamp": None, "labels": {}, "finalizers": []},
        "spec": {
            "containers": [],
            "securityContext": {},
            "nodeSelector": {},
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
        "status": {},
    }

    assert decode(POD, obj) == []

    assert obj == {
        "metadata": {"name": "p"},
        "spec": {"containers": [], "securityContext": {}, "volumes": [{"name": "v", "emptyDir": {}}]},
        "status": {},
    }


def test_quantities_and_times_are_spelt_canonically() -> None:
    obj = container(resources={"requests": {"cpu": 1.5, "memory": "1024Ki"}, "limits": {"cpu": "2000m"}})
    obj["metadata"] = {"creationTimestamp": "2024-05-01T12:00:00.25+02:00"}

    decode(POD, obj)

    assert obj["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "1500m", "memory": "1Mi"},
        "limits": {"cpu": "2"},
    }
    assert obj["metadata"]["creationTimestamp"] == "2024-05-01T10:00:00Z"


def test_a_micro_time_keeps_six_digits() -> None:
    definition, lease = "io.k8s.api.coordination.v1.Lease", {"spec": {"renewTime": "2024-05-01T14:00:00.123456+02:00"}}

    decode(definition, lease)

    assert lease["spec"] == {"renewTime": "2024-05-01T12:00:00.123456Z"}
    for text, found, wanted in (
        ("2024-05-01T12:00:00.1234567Z", "7Z", "Z07:00"),
        ("2024-05-01T12:00:00Z", "Z", ".000000"),
        ("yesterday", "yesterday", "2006"),
    ):
        refused = refusal(definition, {"spec": {"renewTime": text}})
        layout = "2006-01-02T15:04:05.000000Z07:00"
        assert refused == f'parsing time "{text}" as "{layout}": cannot parse "{found}" as "{wanted}"'


def test_secret_data_must_be_base64() -> None:
    secret = "io.k8s.api.core.v1.Secret"

    assert decode(secret, {"data": {"a": "aGVsbG8="}}) == []
    assert refusal(secret, {"data": {"a": "aGVsbG8!"}}) == "illegal base64 data at input byte 7"
    assert refusal(secret, {"data": {"a": "aGVsbG8"}}) == "illegal base64 data at input byte 4"


def test_what_has_no_schema_is_kept_as_it_is() -> None:
    raw = {"anything": [1, None, {"x": {}}]}
    revision = {"data": copy.deepcopy(raw), "revision": 1}
    pod = {"metadata": {"managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {".": {}}}}]}}

    assert decode("io.k8s.api.apps.v1.ControllerRevision", revision) == []
    assert decode(POD, pod) == []

    assert revision["data"] == raw
    assert pod["metadata"]["managedFields"][0]["fieldsV1"] == {"f:spec": {".": {}}}


def test_a_recursive_definition_decodes_at_any_depth() -> None:
    crd = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"
    obj = {"properties": {"spec": {"properties": {"size": {"type": "integer", "typo": 1}}}}}

    assert decode(crd, obj) == ["properties.spec.properties.size.typo"]


def test_stated_defaults_reach_ports_at_any_depth() -> None:
    obj = pod_template(name="c", ports=[{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}])

    schema.load().compile(DEPLOYMENT).default(obj)

    ports = obj["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert [port["protocol"] for port in ports] == ["TCP", "UDP"]


def test_nodes_say_how_lists_and_maps_merge() -> None:
    spec = schema.load().compile(POD).root.fields["spec"]
    containers = spec.fields["containers"]
    assert containers.items is not None
    ports = containers.items.fields["ports"]
    assert (containers.kind, containers.list_type, containers.list_map_keys) == ("array", "map", ("name",))
    assert (containers.patch_strategy, containers.patch_merge_key) == ("merge", "name")
    assert ports.list_map_keys == ("containerPort", "protocol")
    assert ports.items is not None
    assert ports.items.defaults == {"protocol": "TCP"}
    assert spec.fields["volumes"].patch_strategy == "merge,retainKeys"
    assert spec.fields["nodeSelector"].atomic
    assert spec.fields["nodeSelector"].kind == "map"
    resources = containers.items.fields["resources"].fields["limits"]
    assert (resources.kind, resources.items is not None and resources.items.kind) == ("map", "scalar")


@pytest.mark.parametrize("version", schema.versions())
def test_every_definition_of_every_packed_version_compiles(version: str) -> None:
    schemas = schema.load(version)
    names = list(schemas.names())
    assert len(names) > 500
    for name in names:
        compiled = schemas.compile(name)
        assert compiled.decode({}) == []
        assert compiled.root.kind in ("object", "map", "array", "scalar")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional={"metadata": JSON_VALUES, "spec": JSON_VALUES, "kind": JSON_VALUES}))
def test_any_json_is_either_decoded_or_refused_with_400(obj: dict[str, Any]) -> None:
    code = 400
    try:
        decode(POD, obj)
    except StatusError as error:
        code = error.code
    assert code == 400


SPEC_FIELDS = st.sampled_from(
    ["containers", "volumes", "nodeSelector", "affinity", "tolerations", "hostNetwork", "priority", "name", "overhead"]
)


@given(st.dictionaries(SPEC_FIELDS, JSON_VALUES, max_size=4))
def test_decoding_twice_changes_nothing_more(spec: dict[str, Any]) -> None:
    obj = {"spec": spec}
    try:
        decode(POD, obj)
    except StatusError as error:
        code = error.code
        assert code == 400
        return
    once = copy.deepcopy(obj)

    assert decode(POD, obj) == []
    assert obj == once
