"""Warnings about pods: what is allowed but surely not meant; shown by kubectl, for pods and for templates.

In: a pod spec and its path.  Out: texts for `Warning` headers, in Kubernetes' words.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from navarch.api.meta import Obj
from navarch.kinds.core.pod_validation_resources import read_amount

_DEPRECATED_NODE_LABELS: Final = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
}


def pod_spec_warnings(spec: Obj, path: str = "spec") -> Iterator[str]:
    """What a careful reader would say about a pod's spec."""
    for key in spec.get("nodeSelector") or ():
        if key in _DEPRECATED_NODE_LABELS:
            yield f"{path}.nodeSelector[{key}]: {_DEPRECATED_NODE_LABELS[key]}"
    seconds = spec.get("terminationGracePeriodSeconds")
    if seconds is not None and seconds < 0:
        yield (
            f"{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        )
    for index, secret in enumerate(spec.get("imagePullSecrets") or ()):
        if not secret.get("name"):
            yield f'{path}.imagePullSecrets[{index}].name: invalid empty name ""'
    yield from _repeated(spec.get("hostAliases") or (), "ip", f"{path}.hostAliases", "may be ignored")
    for index, volume in enumerate(spec.get("volumes") or ()):
        if "gitRepo" in volume:
            yield f"{path}.volumes[{index}].gitRepo: deprecated in v1.11, and disabled by default in v1.33+"
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or ()):
            yield from _container_warnings(container, f"{path}.{field}[{index}]")


def _repeated(items: object, key: str, path: str, consequence: str) -> Iterator[str]:
    seen: set[str] = set()
    assert isinstance(items, list | tuple)
    for index, item in enumerate(items):
        value = item.get(key)
        if value in seen:
            yield f'{path}[{index}].{key}: duplicate {key} "{value}"; {consequence}'
        seen.add(value)


def _container_warnings(container: Obj, path: str) -> Iterator[str]:
    seen: set[str] = set()
    for index, variable in enumerate(container.get("env") or ()):
        name = variable.get("name")
        if name in seen:
            text = f'hides previous definition of "{name}", which may be dropped when using apply'
            yield f"{path}.env[{index}]: {text}"
        seen.add(name)
    yield from _port_warnings(container, path)
    resources = container.get("resources") or {}
    for kind in ("limits", "requests"):
        for name in ("memory", "ephemeral-storage"):
            value = (resources.get(kind) or {}).get(name)
            amount = read_amount(value) if value is not None else None
            if amount is not None and amount.denominator != 1:
                text = f'fractional byte value "{value}" is invalid, must be an integer'
                yield f"{path}.resources.{kind}[{name}]: {text}"


def _port_warnings(container: Obj, path: str) -> Iterator[str]:
    seen: dict[tuple[object, ...], int] = {}
    for index, port in enumerate(container.get("ports") or ()):
        key = (port.get("containerPort"), port.get("protocol"), port.get("hostIP"), port.get("hostPort"))
        if key in seen:
            yield f"{path}.ports[{index}]: duplicate port definition with {path}.ports[{seen[key]}]"
        seen.setdefault(key, index)
