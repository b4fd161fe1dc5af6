"""Paths of printer columns, as Kubernetes reads them."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.api.jsonpath import PathError, compile_path

OBJ: dict[str, Any] = {
    "spec": {
        "replicas": 3,
        "foo": [{"bar": 1, "name": "a"}, {"bar": 2, "name": "b"}, {"name": "c"}],
        "a.b": "dotted",
        "versions": [{"name": "v1", "storage": True}, {"name": "v2", "storage": False}],
    },
    "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
    "metadata": {"annotations": {"example.com/x": "y"}},
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.replicas", [3]),
        ("spec.replicas", [3]),
        ("$.spec.replicas", [3]),
        ("{.spec.replicas}", [3]),
        (".spec.missing.deeper", []),
        (".spec.replicas.deeper", []),
        (".spec.foo[*].bar", [1, 2]),
        (".spec.foo[0].name", ["a"]),
        (".spec.foo[-1].name", ["c"]),
        (".spec.foo[7].name", []),
        (".spec.foo[0:2].name", ["a", "b"]),
        (".spec.foo[1:].name", ["b", "c"]),
        (".spec.foo[::2].name", ["a", "c"]),
        (".spec.foo[0,2].name", ["a", "c"]),
        (".spec['replicas','a.b']", [3, "dotted"]),
        (r".spec.a\.b", ["dotted"]),
        (".spec['a.b']", ["dotted"]),
        (r".metadata.annotations.example\.com/x", ["y"]),
        ('.metadata.annotations["example.com/x"]', ["y"]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".status.conditions[?(@.type == 'Other')].status", ["False"]),
        ('.status.conditions[?(@.type!="Ready")].type', ["Other"]),
        (".spec.foo[?(@.bar)].name", ["a", "b"]),
        (".spec.foo[?(@.bar > 1)].name", ["b"]),
        (".spec.foo[?(@.bar <= 1.5)].name", ["a"]),
        (".spec.foo[?(@.bar == '1')].name", []),
        (".spec.versions[?(@.storage==true)].name", ["v1"]),
        (".spec.versions[?(@.storage==1)].name", []),
        ("..name", ["a", "b", "c", "v1", "v2"]),
        (".status.*[0].type", ["Ready"]),
        (".", [OBJ]),
    ],
)
def test_what_a_path_finds(path: str, found: list[Any]) -> None:
    assert compile_path(path)(OBJ) == found


@pytest.mark.parametrize(
    "path", [".spec[", ".spec[?(@.a", ".spec[?(@.a ~ 1)]", ".a b", ".spec]", "..", ".x[::0]", ".x[?(a)]", "." * 5000]
)
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(PathError):
        compile_path(path)
