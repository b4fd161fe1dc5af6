"""Names of revisions are those that Kubernetes gives."""

from __future__ import annotations

from navarch.controllers.hash import data_hash


def test_a_revision_of_a_stateful_set_has_the_hash_that_kubernetes_gives_it() -> None:
    container = {
        "name": "c",
        "image": "i",
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "Always",
    }
    spec = {
        "containers": [container],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "none",
    }
    template = {"metadata": {"labels": {"app": "x"}}, "spec": spec, "$patch": "replace"}

    assert data_hash({"spec": {"template": template}}) == "687844dcf6"


def test_hashes_differ_after_a_collision() -> None:
    assert data_hash({"a": "<"}, 0) != data_hash({"a": "<"}, 1)
