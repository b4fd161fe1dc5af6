"""Volumes made of the API's objects: configMap, secret, downwardAPI, projected; their modes, owners and updates."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.pod_signer import issued

from .batch import Batch, container_status
from .conftest import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.containers]
BATCH = Batch()
FOREVER = "trap exit TERM; while :; do sleep 0.1; done"


@pytest.fixture(scope="module")
def batch(containers: Cluster) -> Iterator[Batch]:
    yield from BATCH.run(containers)


def volume(name: str, script: str, source: dict[str, Any], *, path: str = "/v", **fields: Any) -> str:
    """A pod with one volume."""
    mount = {"name": "v", "mountPath": path, **fields.pop("mount", {})}
    return BATCH.pod(name, script, volumes=[{"name": "v", **source}], container={"volumeMounts": [mount]}, **fields)


def projected(*sources: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"projected": {"sources": list(sources), **fields}}


# What the files hold and how they may be used. The same is asked of each kind, alone and projected.

BATCH.need("ConfigMap", "map", data={"one": "1", "two": "2"}, binaryData={"raw": base64.b64encode(bytes(256)).decode()})
BATCH.need("Secret", "hush", stringData={"one": "1", "two": "2"})
ITEMS = {"items": [{"key": "two", "path": "deep/er/two", "mode": 0o400}, {"key": "one", "path": "uno"}]}
SHOW = """
cd /v
for f in $(find . -follow -type f | grep -v '/\\.\\.' | sort); do echo $(stat -L -c '%a %u %g' $f) $f; done
"""
USER = {"securityContext": {"runAsUser": 1000, "fsGroup": 1001}}
SOURCES: dict[str, Any] = {
    "map": lambda **more: {"configMap": {"name": "map", **more}},
    "hush": lambda **more: {"secret": {"secretName": "hush", **more}},
    "map-projected": lambda defaultMode=None, **more: projected(
        {"configMap": {"name": "map", **more}}, **({"defaultMode": defaultMode} if defaultMode else {})
    ),
    "hush-projected": lambda defaultMode=None, **more: projected(
        {"secret": {"name": "hush", **more}}, **({"defaultMode": defaultMode} if defaultMode else {})
    ),
}
for _kind, _source in SOURCES.items():
    volume(f"{_kind}-default", SHOW, _source())
    volume(f"{_kind}-mode", SHOW, _source(defaultMode=0o400))
    volume(f"{_kind}-items", SHOW, _source(**ITEMS))
    volume(f"{_kind}-user", f"{SHOW}cat one", _source(defaultMode=0o440), **USER)
KINDS = pytest.mark.parametrize("kind", SOURCES)


def _shown(text: str) -> dict[str, str]:
    return {line.rsplit(" ", 1)[1]: line.rsplit(" ", 1)[0] for line in text.splitlines() if " ./" in line}


@KINDS
def test_files_are_readable_by_default(batch: Batch, kind: str) -> None:
    raw = {"./raw": "644 0 0"} if kind.startswith("map") else {}

    assert _shown(batch.said(f"{kind}-default")) == {"./one": "644 0 0", "./two": "644 0 0", **raw}


@KINDS
def test_files_have_the_mode_of_the_volume(batch: Batch, kind: str) -> None:
    assert set(_shown(batch.said(f"{kind}-mode")).values()) == {"400 0 0"}


@KINDS
def test_items_choose_paths_and_modes(batch: Batch, kind: str) -> None:
    assert _shown(batch.said(f"{kind}-items")) == {"./deep/er/two": "400 0 0", "./uno": "644 0 0"}


@KINDS
def test_files_belong_to_the_group_of_the_pod(batch: Batch, kind: str) -> None:
    said = batch.said(f"{kind}-user")

    assert _shown(said)["./one"] == "440 0 1001"
    assert said.splitlines()[-1] == "1"


# Downward API.

DOWNWARD = {
    "items": [
        {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}, "mode": 0o400},
        {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}},
        {"path": "cpu-limit", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu"}},
        {
            "path": "memory-request",
            "resourceFieldRef": {"containerName": "main", "resource": "requests.memory", "divisor": "1Ki"},
        },
    ]
}
LIMITED = {"limits": {"cpu": "1250m"}, "requests": {"memory": "32Mi", "cpu": "10m"}}
ABOUT = {"labels": {"app": "downward", "b": "q"}, "annotations": {"note": 'a\n"b'}}
for _name, _source in (
    ("downward", {"downwardAPI": DOWNWARD}),
    ("downward-projected", projected({"downwardAPI": DOWNWARD})),
):
    BATCH.pod(
        _name,
        FOREVER,
        metadata=ABOUT,
        volumes=[{"name": "v", **_source}],
        container={"volumeMounts": [{"name": "v", "mountPath": "/v"}], "resources": LIMITED},
    )
volume(
    "downward-node",
    "cat /v/*",
    {
        "downwardAPI": {
            "items": [
                {"path": "1", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu"}},
                {
                    "path": "2",
                    "resourceFieldRef": {"containerName": "main", "resource": "limits.memory", "divisor": "1Ki"},
                },
            ]
        }
    },
)


@pytest.mark.parametrize("name", ["downward", "downward-projected"])
def test_a_pod_reads_of_itself_and_follows_changes(batch: Batch, name: str) -> None:
    batch.ready(name)

    said = batch.exec(name, "cd /v; for f in name labels annotations cpu-limit memory-request; do cat $f; echo; done")
    labels = ['app="downward"', 'b="q"']
    assert [line for line in said.splitlines() if not line.startswith("kubectl")] == [
        name,
        *labels,
        'note="a\\n\\"b"',
        "2",
        "32768",
    ]
    assert batch.exec(name, "stat -L -c %a /v/labels").strip() == "400"

    batch.kubectl("label", "pod", name, "c=new")
    batch.kubectl("annotate", "pod", name, "note=new", "--overwrite")

    batch.cluster.wait_until(lambda: 'c="new"' in batch.exec(name, "cat /v/labels"), 10)
    batch.cluster.wait_until(lambda: 'note="new"' in batch.exec(name, "cat /v/annotations"), 10)


def test_limits_that_are_not_set_read_as_what_the_node_can_give(batch: Batch) -> None:
    allocatable = batch.get("nodes")["items"][0]["status"]["allocatable"]

    assert batch.said("downward-node") == allocatable["cpu"] + allocatable["memory"].removesuffix("Ki")


# Updates.

for _kind in ("configMap", "secret"):
    for _which in ("updated", "deleted", "immutable"):
        _fields: dict[str, Any] = {"data": {"key": "b2xk"}} if _kind == "secret" else {"data": {"key": "old"}}
        if _which == "immutable":
            _fields["immutable"] = True
        BATCH.need(_kind[0].upper() + _kind[1:], f"{_which}-{_kind.lower()}", **_fields)


def _reference(kind: str, which: str, *, in_projection: bool) -> dict[str, Any]:
    named = "secretName" if kind == "secret" and not in_projection else "name"
    return {kind: {named: f"{which}-{kind.lower()}", "optional": True}}


def _following(kind: str, *, in_projection: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    volumes, mounts = [], []
    for which in ("updated", "deleted", "created", "immutable"):
        source = _reference(kind, which, in_projection=in_projection)
        name = f"{which}-{kind.lower()}"
        volumes.append({"name": name, **(projected(source) if in_projection else source)})
        mounts.append({"name": name, "mountPath": f"/{name}"})
    return volumes, mounts


for _name, _in_projection in (("following", False), ("following-projected", True)):
    _volumes, _mounts = [], []
    for _kind in ("configMap", "secret"):
        more = _following(_kind, in_projection=_in_projection)
        _volumes += more[0]
        _mounts += more[1]
    BATCH.pod(_name, FOREVER, volumes=_volumes, container={"volumeMounts": _mounts})


def test_files_follow_their_objects(batch: Batch) -> None:
    pods = ("following", "following-projected")
    for pod in pods:
        batch.ready(pod)
        said = batch.exec(pod, "cat /updated-configmap/key /deleted-secret/key; ls /created-configmap /created-secret")
        assert said.startswith("oldold")
        assert "key" not in said

    batch.kubectl("patch", "configmap", "updated-configmap", "-p", '{"data": {"key": "new", "more": "x"}}')
    batch.kubectl("patch", "secret", "updated-secret", "-p", '{"data": {"key": "bmV3"}}')
    batch.kubectl("delete", "configmap/deleted-configmap", "secret/deleted-secret")
    batch.kubectl("create", "configmap", "created-configmap", "--from-literal=key=made")
    batch.kubectl("create", "secret", "generic", "created-secret", "--from-literal=key=made")

    look = (
        "cat /updated-configmap/key /updated-configmap/more /updated-secret/key /created-configmap/key "
        "/created-secret/key; ls /deleted-configmap /deleted-secret | grep key; true"
    )
    for pod in pods:
        batch.cluster.wait_until(lambda pod=pod: _refreshed(batch, pod, look) == "newxnewmademade", 30, pod)
        assert batch.exec(pod, "cat /immutable-configmap/key /immutable-secret/key") == "oldold"


def _refreshed(batch: Batch, pod: str, script: str) -> str:
    """What the script says right after the pod's files were looked at again, which a change of the pod brings about."""
    batch.kubectl("annotate", "pod", pod, f"look={time.time()}", "--overwrite")
    return batch.exec(pod, script)


@pytest.mark.parametrize("kind", ["configmap", "secret"])
def test_immutable_objects_cannot_change(batch: Batch, kind: str) -> None:
    name = f"immutable-{kind}"

    done = batch.cluster.try_kubectl("-n", batch.namespace, "patch", kind, name, "-p", '{"data": {"key": "eHg="}}')
    back = batch.cluster.try_kubectl("-n", batch.namespace, "patch", kind, name, "-p", '{"immutable": false}')

    assert "field is immutable when `immutable` is set" in done.stderr
    assert "field is immutable when `immutable` is set" in back.stderr
    batch.kubectl("label", kind, name, "may=change")


# Several at once, several times, and what is missing.

BATCH.pod(
    "twice",
    "cat /a/one /b/one /c/one; touch /a/x 2>/dev/null && echo written",
    volumes=[
        {"name": "map", "configMap": {"name": "map"}},
        {"name": "hush", "secret": {"secretName": "hush"}},
    ],
    container={
        "volumeMounts": [
            {"name": "map", "mountPath": "/a", "readOnly": True},
            {"name": "map", "mountPath": "/b"},
            {"name": "hush", "mountPath": "/c"},
        ]
    },
)
volume(
    "all-in-one",
    "cat /v/cm/one /v/hush /v/name",
    projected(
        {"configMap": {"name": "map", "items": [{"key": "one", "path": "cm/one"}]}},
        {"secret": {"name": "hush", "items": [{"key": "two", "path": "hush"}]}},
        {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ),
)
volume("no-map", "true", {"configMap": {"name": "absent"}})
volume("no-key", "true", {"secret": {"secretName": "hush", "items": [{"key": "nope", "path": "x"}]}})


def test_a_volume_can_be_mounted_more_than_once(batch: Batch) -> None:
    assert batch.said("twice") == "111"
    assert batch.said("all-in-one") == "12all-in-one"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-map", 'MountVolume.SetUp failed for volume "v" : configmap "absent" not found'),
        ("no-key", 'MountVolume.SetUp failed for volume "v" : references non-existent secret key: nope'),
    ],
)
def test_a_volume_that_cannot_be_made_holds_the_pod_back(batch: Batch, name: str, message: str) -> None:
    pod = batch.until(name, lambda _: any(reason == "FailedMount" for reason, _ in batch.events(name)))

    assert ("FailedMount", message) in batch.events(name)
    assert pod["status"]["phase"] == "Pending"
    assert container_status(pod)["state"]["waiting"]["reason"] == "ContainerCreating"


def test_a_pod_starts_when_what_it_waits_for_appears(batch: Batch) -> None:
    batch.until("no-map", lambda _: any(reason == "FailedMount" for reason, _ in batch.events("no-map")))

    batch.kubectl("create", "configmap", "absent")

    batch.ended("no-map")


# Tokens.

volume(
    "token",
    FOREVER,
    projected({"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}}),
)
volume(
    "token-user",
    "stat -L -c '%a %u' /v/token",
    projected({"serviceAccountToken": {"path": "token"}}),
    securityContext={"runAsUser": 1234},
)
BATCH.pod(
    "api",
    """
    cd /var/run/secrets/kubernetes.io/serviceaccount
    cat namespace; echo; grep -c BEGIN ca.crt; cat token; echo
    """,
)
BATCH.pod("no-token", "ls /var/run/secrets/kubernetes.io", automountServiceAccountToken=False)


def claims(token: str) -> dict[str, Any]:
    middle = token.strip().split(".")[1]
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    return decoded


def test_a_token_is_for_its_audience_and_its_pod(batch: Batch) -> None:
    pod = batch.ready("token")

    told = claims(batch.exec("token", "cat /v/token"))

    assert told["aud"] == ["vault"]
    assert told["sub"] == f"system:serviceaccount:{batch.namespace}:default"
    assert 590 <= told["exp"] - told["iat"] <= 610
    assert told["kubernetes.io"]["pod"] == {"name": "token", "uid": pod["metadata"]["uid"]}
    assert abs(told["iat"] - time.time()) < 120
    assert batch.said("token-user").strip() == "600 1234"


def test_every_pod_gets_what_it_needs_to_reach_the_api(batch: Batch) -> None:
    namespace, certificates, token = batch.said("api").split()

    assert (namespace, certificates) == (batch.namespace, "1")
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    told = json.loads(
        batch.cluster.kubectl("create", "--validate=false", "-f", "-", "-o", "json", stdin=json.dumps(review))
    )
    assert told["status"]["authenticated"] is True
    assert told["status"]["user"]["username"] == f"system:serviceaccount:{batch.namespace}:default"
    batch.ended("no-token")
    assert batch.get("pod", "no-token")["status"]["phase"] == "Failed"


# Certificates of the pod's own.

volume(
    "certificate",
    "cat /v/bundle; stat -L -c '%a %u' /v/bundle; cmp /v/key /v/bundle 2>&1; grep -c BEGIN /v/chain",
    projected(
        {
            "podCertificate": {
                "signerName": "example.com/pods",
                "keyType": "ED25519",
                "credentialBundlePath": "bundle",
                "keyPath": "key",
                "certificateChainPath": "chain",
            }
        }
    ),
    securityContext={"runAsUser": 1234},
)


def test_a_pod_waits_for_its_certificate(batch: Batch) -> None:
    requests: list[dict[str, Any]] = []

    def asked() -> bool:
        requests[:] = batch.get("podcertificaterequests")["items"]
        return bool(requests)

    batch.cluster.wait_until(asked, 30, "a request for a certificate")
    name, spec = requests[0]["metadata"]["name"], requests[0]["spec"]
    pod = batch.get("pod", "certificate")
    assert (spec["podUID"], spec["nodeName"]) == (pod["metadata"]["uid"], pod["spec"]["nodeName"])
    assert container_status(pod)["state"]["waiting"]["reason"] == "ContainerCreating"

    status = json.dumps({"status": issued(requests[0], datetime.now(UTC))})
    batch.kubectl("patch", "podcertificaterequest", name, "--subresource=status", "--type=merge", "-p", status)

    said = batch.said("certificate")
    assert said.startswith("-----BEGIN PRIVATE KEY-----\n")
    assert said.count("-----BEGIN CERTIFICATE-----") == 1
    assert said.splitlines()[-3] == "600 1234"
    assert said.splitlines()[-1] == "1"
