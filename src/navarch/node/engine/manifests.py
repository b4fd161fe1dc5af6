"""Manifests of static pods: what of them becomes the pod that a node runs, without an API server having seen it. Pure.

The pod is the one that Kubernetes' kubelet would make: checked against the schema, defaults filled in, validated, named
after the node, with a uid that is the hash of what the manifest says, so that a changed manifest is another pod.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.api.time import format_time
from navarch.kinds.core.references import first_of_mirror
from navarch.node.podspec import CONFIG_HASH, CONFIG_SEEN, CONFIG_SOURCE

if TYPE_CHECKING:
    from navarch.api.schema import Compiled

_UNMOVED: Final = {"operator": "Exists", "effect": "NoExecute"}
_MOST_SHOWN: Final = 5


class ManifestError(ValueError):
    """A manifest is not that of a pod that could run here."""


def static_pod(document: Any, *, source: str, origin: str, node_name: str, now: datetime) -> Obj:
    """The pod that a manifest's document states on this node; `source` is `file` or `http`, `origin` the path or URL.

    Raises ManifestError."""
    if not isinstance(document, dict) or document.get("kind") != "Pod" or document.get("apiVersion") != "v1":
        raise ManifestError("the manifest is not that of a v1 Pod")
    stated = json.dumps(document, sort_keys=True, separators=(",", ":"))
    digest = hashlib.md5(f"{node_name}\0{origin}\0{stated}".encode(), usedforsecurity=False).hexdigest()
    pod: Obj = json.loads(stated)
    pod.pop("status", None)
    _check_types(pod)
    metadata, spec = pod.setdefault("metadata", {}), pod.setdefault("spec", {})
    if not metadata.get("name"):
        raise ManifestError("the pod has no name")
    # One that the manifest states would outlive what it says.
    metadata["uid"] = digest
    metadata["name"] = f"{metadata['name']}-{node_name.lower()}"
    metadata["namespace"] = metadata.get("namespace") or "default"
    metadata.setdefault("annotations", {}).update(
        {CONFIG_HASH: digest, CONFIG_SEEN: format_time(now), CONFIG_SOURCE: source}
    )
    spec["nodeName"] = node_name
    # Nothing but its manifest moves it from here.
    spec.setdefault("tolerations", []).append(dict(_UNMOVED))
    _complete(pod)
    reference = first_of_mirror(pod)
    if reference:
        raise ManifestError(f"static pods can not reference {reference}")
    pod["status"] = {"phase": "Pending"}
    return pod


@cache
def _pod_schema() -> Compiled:
    # The schemas take a while to load, and most nodes have no static pods.
    from navarch.api import schema
    from navarch.kinds.registry import definition_name

    return schema.load().compile(definition_name("", "v1", "Pod"))


def _check_types(pod: Obj) -> None:
    """Raises ManifestError."""
    try:
        _pod_schema().decode(pod)
    except StatusError as error:
        raise ManifestError(error.message) from None


def _complete(pod: Obj) -> None:
    """Fill in a pod's defaults, in place.  Raises ManifestError for what is no valid pod."""
    from navarch.kinds.core.pod import PodStrategy

    strategy = PodStrategy()
    _pod_schema().default(pod)
    strategy.defaults(pod)
    problems = [str(problem) for problem in strategy.validate(pod, None)]
    if problems:
        raise ManifestError("; ".join(problems[:_MOST_SHOWN]))
