"""What informers share between pods of one template: nothing of what a pod says changes, and what is equal is one."""

from __future__ import annotations

import asyncio
import copy
from itertools import pairwise
from typing import Any

import pytest

from navarch.api.meta import Obj
from navarch.client.base import Client
from navarch.client.informer import Informers
from navarch.client.resources import PODS
from navarch.client.sharing import AlikePods, without_managed_fields
from tests.untouched import informers_untouched

from .fake import ScriptedTransport, list_of, pod


def _pod(name: str, *, owner: str = "web", image: str = "web:1", node: str = "", phase: str = "Pending") -> Obj:
    token = f"token-of-{name}"
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "default",
        "labels": {"app": owner},
        "ownerReferences": [{"kind": "ReplicaSet", "name": owner, "uid": f"uid-{owner}", "controller": True}],
        "managedFields": [{"manager": "kubelet", "operation": "Update"}],
    }
    container = {
        "name": "web",
        "image": image,
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
        "env": [{"name": "GREETING", "value": "hello"}],
        "volumeMounts": [{"name": token, "mountPath": "/token", "readOnly": True}],
    }
    spec: dict[str, Any] = {
        "containers": [container],
        "tolerations": [{"key": "lost", "operator": "Exists", "tolerationSeconds": 300}],
        "volumes": [{"name": token, "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
    }
    if node:
        spec["nodeName"] = node
    condition = {"type": "Ready", "status": "True" if node else "False", "lastProbeTime": None}
    return {"metadata": metadata, "spec": spec, "status": {"phase": phase, "conditions": [condition]}}


def _many() -> list[Obj]:
    pods = [_pod(f"{owner}-{index}", owner=owner) for index in range(4) for owner in ("web", "db")]
    pods += [_pod(f"web-{index}", node=f"node-{index}", phase="Running") for index in range(4)]
    pods += [_pod("web-5", image="web:2"), {"metadata": {"name": "bare"}}, {**_pod("odd"), "status": None}]
    pods[-1]["spec"]["volumes"] = None
    return pods


def test_every_pod_says_what_it_said_but_for_managed_fields() -> None:
    given = _many()
    said = [without_managed_fields(copy.deepcopy(pod)) for pod in given]
    alike = AlikePods()

    held = [alike(pod) for pod in given]

    # Once all are there, as what is shared with a later pod must not have changed an earlier one.
    assert held == said


def test_what_pods_of_a_template_have_in_common_is_there_once() -> None:
    alike = AlikePods()
    pods = [alike(_pod(f"web-{index}", node=f"node-{index}")) for index in range(5)]

    for one, other in pairwise(pods):
        assert one["metadata"]["labels"] is other["metadata"]["labels"]
        assert one["metadata"]["ownerReferences"] is other["metadata"]["ownerReferences"]
        assert one["spec"]["tolerations"] is other["spec"]["tolerations"]
        assert one["spec"]["containers"][0]["resources"] is other["spec"]["containers"][0]["resources"]
        assert one["spec"]["volumes"][0]["projected"] is other["spec"]["volumes"][0]["projected"]
        assert one["status"]["conditions"] is other["status"]["conditions"]
        assert one["spec"]["volumes"][0]["name"] != other["spec"]["volumes"][0]["name"]


def test_templates_in_turns_are_kept_apart() -> None:
    alike = AlikePods()
    first, _, second = [alike(_pod(f"pod-{index}", owner=owner)) for index, owner in enumerate(("web", "db", "web"))]

    assert first["metadata"]["labels"] is second["metadata"]["labels"]


def test_it_remembers_so_many_templates_and_those_in_use_last() -> None:
    alike = AlikePods()
    first = alike(_pod("a", owner="often"))
    for index in range(2000):
        alike(_pod(f"b-{index}", owner=f"once-{index}"))
        last = alike(_pod(f"a-{index}", owner="often"))

    assert last["metadata"]["labels"] is first["metadata"]["labels"]
    assert len(alike._last) <= 512


async def test_who_changes_what_a_shared_informer_holds_is_found_out() -> None:
    listed = pod("a", 4)
    listed["metadata"]["managedFields"] = [{"manager": "kubelet"}]
    informers = Informers(Client(ScriptedTransport([list_of(5, listed)], [])))

    async def tamper() -> None:
        with informers_untouched():
            informer = informers.get(PODS)
            running = asyncio.create_task(informers.run())
            await informers.synced()
            running.cancel()
            held = informer.get("default", "a")
            assert held is not None
            assert "managedFields" not in held["metadata"]
            held["metadata"]["labels"]["changed"] = "yes"

    with pytest.raises(AssertionError, match="1 objects of informers were changed"):
        await tamper()
