"""Pods that tests of one module share: collected where the tests are written, started together, then looked at.

Starting a container takes a tenth of a second of the machine; waiting for one pod after the other would take the sum.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

from .conftest import Cluster
from .objects import BUSYBOX


class Batch:
    """Pods (and what they need) of a module; `add` them at import, `run` once in a module's fixture."""

    def __init__(self) -> None:
        self.cluster: Cluster
        self.namespace = ""
        self.objects: list[dict[str, Any]] = []
        self.pods: list[dict[str, Any]] = []

    def need(self, kind: str, name: str, *, version: str = "v1", **fields: Any) -> str:
        """An object that has to be there before the pods are."""
        self.objects.append({"apiVersion": version, "kind": kind, "metadata": {"name": name}, **fields})
        return name

    def pod(self, name: str, script: str = "", *, metadata: dict[str, Any] | None = None, **fields: Any) -> str:
        """A pod that runs a shell script once; `container` adds to its container, the rest to its specification."""
        container = {"name": "main", "image": BUSYBOX, **fields.pop("container", {})}
        if script:
            container["command"] = ["sh", "-c", script]
        spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container], **fields}
        head = {"name": name, "labels": {"app": name}, **(metadata or {})}
        self.pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": head, "spec": spec})
        return name

    def run(self, cluster: Cluster) -> Iterator[Batch]:
        """Everything applied in a namespace of its own, which goes at the end."""
        self.cluster = cluster
        self.namespace = f"b-{uuid.uuid4().hex[:8]}"
        cluster.kubectl("create", "namespace", self.namespace)
        try:
            if self.objects:
                cluster.apply(*self.objects, namespace=self.namespace)
            cluster.apply(*self.pods, namespace=self.namespace)
            yield self
        finally:
            cluster.kubectl("delete", "namespace", self.namespace, "--wait=false")

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, stdin=stdin)

    def get(self, *arguments: str) -> Any:
        return self.cluster.get("-n", self.namespace, *arguments)

    def ended(self, name: str, timeout_s: float = 30) -> dict[str, Any]:
        """The pod once it has succeeded or failed."""
        return self.until(name, lambda pod: pod["status"].get("phase") in ("Succeeded", "Failed"), timeout_s)

    def ready(self, name: str, timeout_s: float = 30) -> dict[str, Any]:
        """The pod once it is ready."""
        return self.until(name, is_ready, timeout_s)

    def until(self, name: str, condition: Any, timeout_s: float = 30) -> dict[str, Any]:
        """The pod once the condition holds for it."""
        seen: dict[str, Any] = {}

        def look() -> bool:
            seen.clear()
            seen.update(self.get("pod", name))
            return bool(condition(seen))

        try:
            self.cluster.wait_until(look, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{json.dumps(seen.get('status'))}\n{self.events(name)}") from None
        return seen

    def said(self, name: str, container: str = "main") -> str:
        """All that the pod's container wrote until the pod ended."""
        self.ended(name)
        return self.kubectl("logs", name, "-c", container)

    def said_by_name(self, name: str) -> dict[str, str]:
        """The `NAME=value` lines that the pod wrote."""
        return dict(line.split("=", 1) for line in self.said(name).splitlines() if "=" in line)

    def events(self, name: str) -> list[tuple[str, str]]:
        """Reason and message of every event about the pod."""
        items = self.get("events", f"--field-selector=involvedObject.name={name}")["items"]
        return [(event["reason"], event.get("message", "")) for event in items]

    def exec(self, name: str, script: str, container: str = "main") -> str:
        return self.kubectl("exec", name, "-c", container, "--", "sh", "-c", script)


def is_ready(pod: dict[str, Any]) -> bool:
    return condition(pod, "Ready") == "True"


def condition(pod: dict[str, Any], kind: str) -> str:
    """The status of one of the pod's conditions."""
    conditions = pod["status"].get("conditions") or []
    return next((str(one["status"]) for one in conditions if one["type"] == kind), "")


def container_status(pod: dict[str, Any], name: str = "main") -> dict[str, Any]:
    """The status of one of the pod's containers, of whatever sort; empty where there is none yet."""
    status = pod["status"]
    for field in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for one in status.get(field) or []:
            if one["name"] == name:
                return dict(one)
    return {"state": {}, "lastState": {}, "restartCount": 0}


def ids(text: str) -> dict[str, str]:
    """What `id` says: `uid=1 gid=2 groups=2,3`."""
    return dict(re.findall(r"(\w+)=([\d,]+)", re.sub(r"\(\w+\)", "", text)))
