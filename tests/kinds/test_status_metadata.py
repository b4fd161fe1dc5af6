"""What a write to `/status` changes of the metadata: what Kubernetes' status strategies leave to it, kind by kind."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.kinds.writing import updated

WAS: dict[str, Any] = {
    "labels": {"a": "1"},
    "annotations": {"a": "1"},
    "finalizers": ["example.com/a"],
    "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "1"}],
}
SAYS: dict[str, Any] = {
    "labels": {"b": "2"},
    "annotations": {"b": "2"},
    "finalizers": [],
    "ownerReferences": [],
}
EVERYTHING = set(WAS)


@pytest.mark.parametrize(
    ("group", "kind", "kept"),
    [
        ("", "Pod", {"ownerReferences"}),
        ("apps", "Deployment", {"labels"}),
        ("apps", "ReplicaSet", set()),
        ("batch", "Job", set()),
        ("", "Node", set()),
        ("certificates.k8s.io", "PodCertificateRequest", EVERYTHING),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema", EVERYTHING),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration", EVERYTHING),
        ("networking.k8s.io", "ServiceCIDR", EVERYTHING),
        ("storage.k8s.io", "VolumeAttachment", EVERYTHING),
    ],
)
@pytest.mark.parametrize("had", [WAS, {}], ids=["changed", "added"])
def test_a_status_write_leaves_what_its_kind_keeps(group: str, kind: str, kept: set[str], had: Any) -> None:
    old = {"metadata": {"name": "a", "namespace": "default", **copy.deepcopy(had)}, "spec": {}, "status": {}}
    new = {**copy.deepcopy(old), "metadata": {**old["metadata"], **SAYS}}

    stored, _ = updated(group, kind, old, new, "status")

    for name, said in SAYS.items():
        assert stored["metadata"].get(name) == (had.get(name) if name in kept else said), name
