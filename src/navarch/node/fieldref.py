"""`fieldRef` and `resourceFieldRef`: what a pod's containers may learn of the pod itself, for variables and files.
Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from navarch.api import quantity
from navarch.api.meta import Obj, annotations_of, labels_of
from navarch.kinds.core.resource_lists import requests_of
from navarch.node import podspec
from navarch.node.podspec import ConfigError
from navarch.node.resources.amounts import milli_cpu, whole

_SUBSCRIPT: Final = re.compile(r"^metadata\.(labels|annotations)\['(.*)'\]$")


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What is known of a pod beyond its object: its addresses, its node's, and what the node can give."""

    pod_ips: tuple[str, ...] = ()
    host_ips: tuple[str, ...] = ()
    allocatable: Mapping[str, Any] | None = None


def field_value(pod: Obj, path: str, facts: PodFacts) -> str:
    """The value at a `fieldPath`.  Raises ConfigError for a path that is not supported."""
    subscript = _SUBSCRIPT.match(path)
    if subscript:
        source = labels_of(pod) if subscript[1] == "labels" else annotations_of(pod)
        return source.get(subscript[2], "")
    metadata, spec = pod["metadata"], pod["spec"]
    if path in ("metadata.labels", "metadata.annotations"):
        return _lines(labels_of(pod) if path.endswith("labels") else annotations_of(pod))
    simple: dict[str, Callable[[], Any]] = {
        "metadata.name": lambda: metadata["name"],
        "metadata.namespace": lambda: metadata.get("namespace", ""),
        "metadata.uid": lambda: metadata.get("uid", ""),
        "spec.nodeName": lambda: spec.get("nodeName", ""),
        "spec.serviceAccountName": lambda: spec.get("serviceAccountName", ""),
        "status.hostIP": lambda: next(iter(facts.host_ips), ""),
        "status.hostIPs": lambda: ",".join(facts.host_ips),
        "status.podIP": lambda: next(iter(facts.pod_ips), ""),
        "status.podIPs": lambda: ",".join(facts.pod_ips),
    }
    if path not in simple:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(simple[path]())


def _lines(items: Mapping[str, str]) -> str:
    """`key="value"` a line, keys in order, values quoted as Go quotes them."""
    return "\n".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in sorted(items.items()))


def resource_value(pod: Obj, container: Obj, reference: Obj, facts: PodFacts) -> str:
    """The value of a `resourceFieldRef`: in units of its divisor, rounded up; a limit that is not set is what the
    node can give."""
    name = reference.get("containerName") or container["name"]
    target = podspec.find_container(pod, name)
    if target is None:
        raise ConfigError(f"container {name} not found")
    kind, _, resource = reference["resource"].partition(".")
    if kind not in ("limits", "requests") or not resource:
        raise ConfigError(f"unsupported container resource : {reference['resource']}")
    stated = ((target.get("resources") or {}).get("limits") or {}) if kind == "limits" else requests_of(target)
    amount = stated.get(resource)
    if amount is None or milli_cpu(amount) == 0:
        amount = (facts.allocatable or {}).get(resource, 0) if kind == "limits" else 0
    divisor = reference.get("divisor") or "1"
    if milli_cpu(divisor) == 0:
        divisor = "1"
    if resource == "cpu":
        return str(math.ceil(Fraction(milli_cpu(amount), milli_cpu(divisor))))
    return str(math.ceil(Fraction(whole(amount), 1) / Fraction(quantity.parse(divisor))))


_REFERENCE: Final = re.compile(r"\$(?:\$|\(([^()]*)\))")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by its value; `$$` is a dollar sign; names that are not known stay as they are."""

    def one(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "$"
        return variables.get(name, match[0])

    return _REFERENCE.sub(one, text)
