"""Volumes that are places on the node: emptyDir, hostPath, claims; sub-paths, read-only mounts, sharing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .batch import Batch, container_status
from .conftest import Cluster
from .objects import BUSYBOX

pytestmark = [pytest.mark.e2e, pytest.mark.containers]
BATCH = Batch()
FOREVER = "trap exit TERM; while :; do sleep 0.1; done"
# Of this run alone, as several may share a machine.
PLACE = Path(f"/tmp/navarch-e2e-volumes-{os.getpid()}")


@pytest.fixture(scope="module")
def batch(containers: Cluster) -> Iterator[Batch]:
    PLACE.mkdir()
    (PLACE / "file").write_text("from the host")
    (PLACE / "directory").mkdir()
    try:
        yield from BATCH.run(containers)
    finally:
        import shutil

        shutil.rmtree(PLACE)


def volume(name: str, script: str, source: dict[str, Any], *, mount: Any = None, **fields: Any) -> str:
    """A pod with one volume at `/v`."""
    mounts = [{"name": "v", "mountPath": "/v", **(mount or {})}]
    return BATCH.pod(name, script, volumes=[{"name": "v", **source}], container={"volumeMounts": mounts}, **fields)


# emptyDir.

STATE = (
    "stat -c '%a %u %g' /v; grep ' /v ' /proc/mounts | cut -d' ' -f3; echo hi > /v/f; stat -c '%a %u %g' /v/f; cat /v/f"
)
volume("empty", STATE, {"emptyDir": {}})
volume("memory", STATE, {"emptyDir": {"medium": "Memory"}})
volume("empty-user", STATE, {"emptyDir": {}}, securityContext={"runAsUser": 1001})
volume("memory-user", STATE, {"emptyDir": {"medium": "Memory"}}, securityContext={"runAsUser": 1001})
volume("empty-group", STATE, {"emptyDir": {}}, securityContext={"runAsUser": 1001, "fsGroup": 123})
volume(
    "memory-size",
    "df -k /v | tail -1 | awk '{print $2}'; dd if=/dev/zero of=/v/big bs=1M count=8 2>/dev/null || echo full",
    {"emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}},
)
BATCH.pod(
    "memory-of-pod",
    "df -k /v /w | awk 'NR > 1 {print $2}'",
    volumes=[
        {"name": "v", "emptyDir": {"medium": "Memory"}},
        {"name": "w", "emptyDir": {"medium": "Memory", "sizeLimit": "100Mi"}},
    ],
    container={
        "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "w", "mountPath": "/w"}],
        "resources": {"limits": {"memory": "64Mi"}},
    },
)
BATCH.pod(
    "shared",
    volumes=[{"name": "v", "emptyDir": {}}],
    containers=[
        {
            "name": name,
            "image": BUSYBOX,
            "command": ["sh", "-c", script],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        }
        for name, script in (
            ("main", "while [ ! -e /v/f ]; do sleep 0.1; done; cat /v/f"),
            ("other", "echo shared > /v/f"),
        )
    ],
)
BATCH.pod(
    "survivor",
    "cat /v/f 2>/dev/null && exit 0; echo kept > /v/f; exit 1",
    restartPolicy="OnFailure",
    volumes=[{"name": "v", "emptyDir": {}}],
    container={"volumeMounts": [{"name": "v", "mountPath": "/v"}]},
)


@pytest.mark.parametrize(
    ("name", "owner", "directory", "memory"),
    [
        ("empty", "0 0", "777 0 0", False),
        ("memory", "0 0", "777 0 0", True),
        ("empty-user", "1001 0", "777 0 0", False),
        ("memory-user", "1001 0", "777 0 0", True),
        ("empty-group", "1001 123", "2777 0 123", False),
    ],
)
def test_an_empty_directory_is_for_everyone(batch: Batch, name: str, owner: str, directory: str, memory: bool) -> None:
    seen, kind, file, text = batch.said(name).splitlines()

    assert (seen, file, text) == (directory, f"644 {owner}", "hi")
    # The node's own disk may be in memory, too, as /tmp is on Debian 13.
    assert kind == "tmpfs" or not memory


def test_memory_is_limited_in_size(batch: Batch) -> None:
    assert batch.said("memory-size").split() == ["4096", "full"]
    assert batch.said("memory-of-pod").split() == ["65536", "65536"]


def test_containers_share_a_volume_and_it_outlives_them(batch: Batch) -> None:
    assert batch.said("shared") == "shared\n"
    assert batch.said("survivor") == "kept\n"


# hostPath.

for _kind, _path in (
    ("", "directory"),
    ("Directory", "directory"),
    ("DirectoryOrCreate", "made"),
    ("File", "file"),
    ("FileOrCreate", "made-file"),
    ("Directory", "absent"),
    ("File", "directory"),
    ("Socket", "file"),
):
    volume(
        f"host-{_kind.lower() or 'any'}-{_path}",
        "ls -ld /v | cut -c1",
        {"hostPath": {"path": str(PLACE / _path), "type": _kind}},
    )
volume("host-device", "ls -ld /v | cut -c1", {"hostPath": {"path": "/dev/null", "type": "CharDevice"}})
volume("host-write", "echo out > /v/out", {"hostPath": {"path": str(PLACE), "type": "Directory"}})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("host-any-directory", "d"),
        ("host-directory-directory", "d"),
        ("host-directoryorcreate-made", "d"),
        ("host-file-file", "-"),
        ("host-fileorcreate-made-file", "-"),
        ("host-device", "c"),
    ],
)
def test_a_path_of_the_host_is_of_its_type(batch: Batch, name: str, kind: str) -> None:
    assert batch.said(name).strip() == kind


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("host-directory-absent", "absent is not a directory"),
        ("host-file-directory", "directory is not a file"),
        ("host-socket-file", "file is not a socket"),
    ],
)
def test_a_path_of_another_type_is_refused(batch: Batch, name: str, complaint: str) -> None:
    batch.until(name, lambda _: any(reason == "FailedMount" for reason, _ in batch.events(name)))

    message = next(message for reason, message in batch.events(name) if reason == "FailedMount")
    assert "hostPath type check failed" in message
    assert complaint in message


def test_what_is_written_to_the_host_stays(batch: Batch) -> None:
    batch.ended("host-write")

    assert (PLACE / "out").read_text() == "out\n"


# Sub-paths and read-only mounts.

BATCH.need("ConfigMap", "map", data={"one": "1", "two": "2"})
MAP = {"configMap": {"name": "map"}}
volume("sub-key", "cat /etc/one", MAP, mount={"mountPath": "/etc/one", "subPath": "one"})
volume(
    "sub-directory",
    "echo x > /v/f; ls /all",
    {"emptyDir": {}},
    mount={"subPath": "a/b"},
)
BATCH.pods[-1]["spec"]["containers"][0]["volumeMounts"].append({"name": "v", "mountPath": "/all"})
BATCH.pod(
    "sub-expression",
    "echo x > /v/f; ls /all/sub-expression",
    volumes=[{"name": "v", "emptyDir": {}}],
    container={
        "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "volumeMounts": [
            {"name": "v", "mountPath": "/v", "subPathExpr": "$(POD)/$(POD)"},
            {"name": "v", "mountPath": "/all"},
        ],
    },
)
BATCH.pod(
    "sub-escape",
    "cat /v",
    volumes=[{"name": "v", "emptyDir": {}}],
    initContainers=[
        {
            "name": "link",
            "image": BUSYBOX,
            "command": ["ln", "-s", "/etc/passwd", "/v/link"],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        }
    ],
    container={"volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "link"}]},
)
volume("sub-missing-expression", "true", {"emptyDir": {}}, mount={"subPathExpr": "$(NOPE)"})
volume("read-only", "touch /v/x 2>&1 || true", {"emptyDir": {}}, mount={"readOnly": True})
volume("unknown-type", "true", {"iscsi": {"targetPortal": "192.0.2.1", "iqn": "iqn.2001-04.com.example:x", "lun": 0}})


def test_a_part_of_a_volume_can_be_mounted(batch: Batch) -> None:
    assert batch.said("sub-key") == "1"
    assert batch.said("sub-directory") == "a\n"
    assert batch.said("sub-expression") == "sub-expression\n"


@pytest.mark.parametrize("name", ["sub-escape", "sub-missing-expression"])
def test_a_part_that_is_not_of_the_volume_is_refused(batch: Batch, name: str) -> None:
    pod = batch.until(name, lambda pod: "message" in container_status(pod)["state"].get("waiting", {}))

    assert container_status(pod)["state"]["waiting"]["reason"] == "CreateContainerConfigError"


def test_a_read_only_mount_cannot_be_written(batch: Batch) -> None:
    assert "Read-only file system" in batch.said("read-only")


# Claims.

BATCH.need(
    "PersistentVolumeClaim",
    "claim",
    spec={
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "",
        "volumeName": "navarch-e2e",
        "resources": {"requests": {"storage": "1Mi"}},
    },
)
volume("claims", "echo lasting > /v/f", {"persistentVolumeClaim": {"claimName": "claim"}})
volume("claims-none", "true", {"persistentVolumeClaim": {"claimName": "none"}})


def test_a_claim_gives_its_volume(batch: Batch) -> None:
    persistent = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "navarch-e2e"},
        "spec": {
            "capacity": {"storage": "1Mi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": str(PLACE / "directory")},
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"name": "claim", "namespace": batch.namespace},
        },
    }
    batch.cluster.apply(persistent)
    try:
        assert batch.ended("claims", 40)["status"]["phase"] == "Succeeded"
        assert (PLACE / "directory" / "f").read_text() == "lasting\n"
        assert batch.get("pvc", "claim")["status"]["phase"] == "Bound"
    finally:
        batch.cluster.kubectl("delete", "pv", "navarch-e2e", "--wait=false")


# The default class.

BATCH.need(
    "PersistentVolumeClaim",
    "directory",
    spec={"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
)
volume(
    "default-class",
    "id -g; echo lasting > /v/f; stat -c %g /v/f",
    {"persistentVolumeClaim": {"claimName": "directory"}},
    securityContext={"runAsUser": 1001, "runAsGroup": 1002, "fsGroup": 1003},
)


def test_the_default_class_gives_a_directory_of_the_node_and_takes_it_away_again(batch: Batch) -> None:
    cluster = batch.cluster
    assert batch.ended("default-class", 60)["status"]["phase"] == "Succeeded"
    assert batch.said("default-class").split() == ["1002", "1003"]
    name = batch.get("pvc", "directory")["spec"]["volumeName"]
    place = next(cluster.home.rglob(f"local-path/{name}"))
    assert (place / "f").read_text() == "lasting\n"

    batch.kubectl("delete", "pod", "default-class")
    batch.kubectl("delete", "pvc", "directory", "--wait=false")

    cluster.wait_until(lambda: cluster.try_kubectl("get", "pv", name).returncode != 0, 60, "the volume gone")
    assert not place.exists()


def test_a_claim_that_does_not_exist_keeps_the_pod_from_being_scheduled(batch: Batch) -> None:
    batch.until(
        "claims-none",
        lambda _: any(
            'persistentvolumeclaim "none" not found' in message for _, message in batch.events("claims-none")
        ),
    )


def test_a_volume_of_a_type_that_is_not_supported_is_told(batch: Batch) -> None:
    batch.until("unknown-type", lambda _: any(reason == "FailedMount" for reason, _ in batch.events("unknown-type")))
