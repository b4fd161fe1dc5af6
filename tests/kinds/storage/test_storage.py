"""Storage classes, CSI objects, attachments."""

from __future__ import annotations

from navarch.api.validation import dns_subdomain_problems
from tests.kinds.writing import created, refused, row, updated

GROUP = "storage.k8s.io"


def test_storage_class_defaults_and_table() -> None:
    mark = {"storageclass.kubernetes.io/is-default-class": "true"}
    metadata = {"name": "fast", "annotations": mark, "creationTimestamp": "2026-01-01T00:00:00Z"}
    obj, errors = created(GROUP, "StorageClass", {"metadata": metadata, "provisioner": "example.com/disk"})
    assert errors == []
    assert row(GROUP, "StorageClass", obj) == [
        "fast (default)",
        "example.com/disk",
        "Delete",
        "Immediate",
        False,
        "24h",
    ]


def test_a_storage_class_hardly_changes() -> None:
    old = created(GROUP, "StorageClass", {"provisioner": "a.b/c"})[0]
    new = {**old, "provisioner": "a.b/d", "parameters": {"x": "y"}, "volumeBindingMode": "WaitForFirstConsumer"}
    assert updated(GROUP, "StorageClass", old, new)[1] == [
        'parameters: Invalid value: {"x":"y"}: field is immutable',
        'provisioner: Invalid value: "a.b/d": field is immutable',
        'volumeBindingMode: Invalid value: "WaitForFirstConsumer": field is immutable',
    ]


def test_csi_driver_defaults_and_table() -> None:
    obj, errors = created(GROUP, "CSIDriver", {"spec": {}})
    assert errors == []
    assert row(GROUP, "CSIDriver", obj)[1:7] == [True, False, False, "<unset>", False, "Persistent"]


def test_csi_node_drivers_have_names_and_ids() -> None:
    errors = refused(GROUP, "CSINode", {"spec": {"drivers": [{"name": "a.b"}, {"name": "a.b", "nodeID": "n"}]}})
    assert errors == ["spec.drivers[0].nodeID: Required value", 'spec.drivers[1].name: Duplicate value: "a.b"']


def test_an_attachment_says_what_to_where_and_never_changes() -> None:
    assert refused(GROUP, "VolumeAttachment", {"spec": {}}) == [
        "spec.attacher: Required value",
        "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        *(f'spec.nodeName: Invalid value: "": {problem}' for problem in dns_subdomain_problems("")),
    ]
    spec = {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "pv"}}
    old = created(GROUP, "VolumeAttachment", {"spec": spec})[0]
    assert row(GROUP, "VolumeAttachment", old)[1:5] == ["a", "pv", "n", False]
    (error,) = updated(GROUP, "VolumeAttachment", old, {**old, "spec": {**spec, "nodeName": "m"}})[1]
    assert error.endswith("field is immutable")
