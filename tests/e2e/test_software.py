"""What widely used software is installed with is taken as it is: server-side and client-side, and its objects too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Cluster
from tests.e2e.software import big

FOLDER = Path(big.__file__).parent
# What Kubernetes says of them, too.
WARNINGS = {
    "mesh": {'Warning: unrecognized format "uint32"', 'Warning: unrecognized format "idn-hostname"'},
    "monitoring": {
        "Warning: spec.template.spec.containers[0].resources.requests[memory]: "
        'fractional byte value "161061273600m" is invalid, must be an integer'
    },
}


@pytest.fixture(params=["certificates", "mesh", "monitoring", "operators"])
def software(simulated: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    name: str = request.param
    yield name
    for file in (f"{name}-objects.yaml", f"{name}.yaml"):
        simulated.try_kubectl("delete", "--ignore-not-found", "--wait=false", "-f", str(FOLDER / file))


def apply(cluster: Cluster, name: str, *flags: str) -> set[str]:
    """Apply a file; the lines that were said beside what was done."""
    done = cluster.try_kubectl("apply", *flags, "-f", str(FOLDER / f"{name}.yaml"))
    assert done.returncode == 0, done.stderr
    # What another client has made is no matter of the server's.
    return {line for line in done.stderr.splitlines() if "kubectl.kubernetes.io/last-applied-configuration" not in line}


@pytest.mark.parametrize("way", ["--server-side", "--server-side=false"])
def test_software_is_installed_and_its_objects_are_taken(simulated: Cluster, software: str, way: str) -> None:
    assert apply(simulated, software, way) == WARNINGS.get(software, set())
    simulated.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")

    assert apply(simulated, f"{software}-objects", way) == set()

    # Applied again, nothing is different.
    for file in (software, f"{software}-objects"):
        again = simulated.kubectl("apply", way, "-f", str(FOLDER / f"{file}.yaml"), "-o", "json")
        revisions = [each["metadata"]["generation"] for each in items(again) if "generation" in each["metadata"]]
        assert set(revisions) == {1}, file


def items(text: str) -> list[Any]:
    document = json.loads(text)
    return document["items"] if document["kind"] == "List" else [document]


def test_a_definition_with_whole_pods_in_it_is_applied_and_replaced(simulated: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "definition.json"
    file.write_text(json.dumps(big.workflow()))
    assert file.stat().st_size > 700_000
    try:
        simulated.kubectl("apply", "--server-side", "-f", str(file))
        simulated.kubectl("wait", "--for=condition=Established", "crd/flows.flows.example.com", "--timeout=30s")
        # Client-side it is too large for an annotation, as in Kubernetes.
        refused = simulated.try_kubectl("apply", "-f", str(file))
        simulated.kubectl("replace", "-f", str(file))
        step = {"name": "a", "container": {"name": "c", "image": "c", "ports": [{"containerPort": 80}]}}
        flow = {"apiVersion": "flows.example.com/v1", "kind": "Flow", "metadata": {"name": "one"}}
        simulated.apply({**flow, "spec": {"steps": [step]}})
        stored = simulated.get("flow", "one")["spec"]
    finally:
        simulated.kubectl("delete", "--ignore-not-found", "crd/flows.flows.example.com")

    assert "metadata.annotations: Too long: may not be more than 262144 bytes" in refused.stderr
    assert stored["steps"][0]["container"]["ports"] == [{"containerPort": 80, "protocol": "TCP"}]


def test_rules_of_a_mesh_say_what_is_wrong(simulated: Cluster) -> None:
    simulated.kubectl("apply", "--server-side", "-f", str(FOLDER / "mesh.yaml"))
    try:
        simulated.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        balancer = {"simple": "RANDOM", "consistentHash": {}}
        spec = {
            "host": "a",
            "url": "ftp://x",
            "selector": {"matchLabels": {"a*": "*"}},
            "trafficPolicy": {"loadBalancer": balancer, "connectionPool": {"tcp": {"connectTimeout": "1us"}}},
        }
        rule = {
            "apiVersion": "mesh.example.com/v1",
            "kind": "DestinationRule",
            "metadata": {"name": "bad"},
            "spec": spec,
        }
        refused = simulated.try_kubectl("create", "-f", "-", stdin=json.dumps(rule)).stderr
    finally:
        simulated.kubectl("delete", "-f", str(FOLDER / "mesh.yaml"), "--wait=false")

    for words in (
        '"spec.trafficPolicy.loadBalancer" must validate one and only one schema (oneOf). Found 2 valid alternatives',
        "only one of selector or targetRef can be set",
        "wildcard not allowed in label key match",
        "wildcard is not supported in selector",
        "must be a valid duration greater than 1ms",
        "url must have scheme one of",
    ):
        assert words in refused
