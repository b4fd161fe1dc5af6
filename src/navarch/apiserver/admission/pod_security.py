"""PodSecurity: a namespace's labels say which security level its pods must, should or are recorded to keep.

In: pods, and workloads with pod templates.  Out: 403 for a pod below the `enforce` level; warnings for `warn`, for
templates too; audit annotations are the audit log's business. The checks themselves are in `pod_security_checks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from navarch.api.errors import invalid, invalid_value
from navarch.api.meta import Obj, labels_of, name_of
from navarch.apiserver.admission.base import Attributes, Plugin, Reader
from navarch.apiserver.admission.configuration import PodSecurityConfig
from navarch.apiserver.admission.namespace_lifecycle import request_namespace
from navarch.apiserver.admission.pod_security_checks import violations
from navarch.kinds.resources import PODS
from navarch.numbers import is_digits

_PREFIX: Final = "pod-security.kubernetes.io/"
_LEVELS: Final = ("privileged", "baseline", "restricted")
_MODES: Final = ("enforce", "audit", "warn")
_TEMPLATES: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("apps", "deployments"): ("spec", "template"),
    ("apps", "replicasets"): ("spec", "template"),
    ("apps", "statefulsets"): ("spec", "template"),
    ("apps", "daemonsets"): ("spec", "template"),
    ("batch", "jobs"): ("spec", "template"),
    ("batch", "cronjobs"): ("spec", "jobTemplate", "spec", "template"),
    ("", "replicationcontrollers"): ("spec", "template"),
    ("", "podtemplates"): ("template",),
}
_MOST_PODS: Final = 3000


class PodSecurity(Plugin):
    name = "PodSecurity"
    resources = frozenset({("", "pods"), ("", "namespaces"), *_TEMPLATES})
    subresources = frozenset({"", "ephemeralcontainers"})

    def __init__(self, reader: Reader, config: PodSecurityConfig | None = None) -> None:
        self._reader = reader
        self._config = config or PodSecurityConfig()

    async def validate(self, attributes: Attributes) -> None:
        obj = attributes.obj
        if obj is None:
            return
        resource = attributes.kind.resource
        if resource.plural == "namespaces":
            self._check_namespace(attributes, obj)
        elif attributes.namespace in self._config.namespaces or attributes.user.name in self._config.users:
            return
        elif resource.plural == "pods":
            # What an update of the pod itself can change says nothing of its security.
            if attributes.operation == "CREATE" or attributes.subresource:
                await self._check_pod(attributes, obj)
        else:
            await self._check_template(attributes, obj, _TEMPLATES[resource.group, resource.plural])

    def _policy(self, attributes: Attributes) -> dict[str, tuple[str, str]]:
        """Level and version by mode, for the modes that ask for something."""
        namespace = request_namespace(self._reader, attributes)
        return self._policy_of(namespace) if namespace is not None else {}

    def _policy_of(self, namespace: Obj) -> dict[str, tuple[str, str]]:
        """What the labels say, and where they say nothing the configuration."""
        defaults = self._config.defaults
        if not defaults:
            return _policy_of(namespace)
        labels = labels_of(namespace)
        silent = {mode: wanted for mode, wanted in defaults.items() if _PREFIX + mode not in labels}
        return {**silent, **_policy_of(namespace)}

    async def _check_pod(self, attributes: Attributes, pod: Obj) -> None:
        if pod["spec"].get("runtimeClassName") in self._config.runtime_classes:
            return
        policy = self._policy(attributes)
        if "enforce" in policy:
            level, version = policy["enforce"]
            found = await attributes.apart(violations, level, pod)
            if found:
                raise attributes.refused(f'violates PodSecurity "{level}:{version}": {", ".join(found)}')
        if "warn" in policy and policy["warn"] != policy.get("enforce"):
            await self._warn(attributes, pod, policy["warn"])

    async def _check_template(self, attributes: Attributes, obj: Obj, path: tuple[str, ...]) -> None:
        policy = self._policy(attributes)
        if "warn" not in policy:
            return
        template: Obj = obj
        for step in path:
            template = template.get(step) or {}
        await self._warn(attributes, template, policy["warn"])

    async def _warn(self, attributes: Attributes, pod: Obj, wanted: tuple[str, str]) -> None:
        level, version = wanted
        found = await attributes.apart(violations, level, pod)
        if found:
            attributes.warnings.append(f'would violate PodSecurity "{level}:{version}": {", ".join(found)}')

    def _check_namespace(self, attributes: Attributes, namespace: Obj) -> None:
        labels = labels_of(namespace)
        if not any(key.startswith(_PREFIX) for key in labels):
            return
        errors = []
        for mode in _MODES:
            level = labels.get(_PREFIX + mode)
            if level is not None and level not in _LEVELS:
                detail = f"must be one of {', '.join(_LEVELS)}"
                errors.append(invalid_value(f"metadata.labels[{_PREFIX}{mode}]", level, detail))
            version = labels.get(f"{_PREFIX}{mode}-version")
            if version is not None and version != "latest" and not _is_version(version):
                detail = 'must be "latest" or "v1.x"'
                errors.append(invalid_value(f"metadata.labels[{_PREFIX}{mode}-version]", version, detail))
        if errors:
            raise invalid("Namespace", "", attributes.name, errors)
        if attributes.old is not None:
            self._warn_of_existing(attributes, self._policy_of(attributes.old), self._policy_of(namespace))

    def _warn_of_existing(
        self, attributes: Attributes, old: dict[str, tuple[str, str]], new: dict[str, tuple[str, str]]
    ) -> None:
        """Who raises the level hears which pods would not get in any more."""
        if "enforce" not in new or new["enforce"] == old.get("enforce"):
            return
        level, version = new["enforce"]
        by_reason: dict[str, list[str]] = {}
        for number, pod in enumerate(self._reader.list(PODS, attributes.name)):
            if number == _MOST_PODS:
                break
            found = violations(level, pod)
            if found:
                by_reason.setdefault(", ".join(reason.partition(" (")[0] for reason in found), []).append(name_of(pod))
        if not by_reason:
            return
        attributes.warnings.append(
            f'existing pods in namespace "{attributes.name}" violate the new PodSecurity enforce level '
            f'"{level}:{version}"'
        )
        for reason, names in sorted(by_reason.items(), key=lambda item: item[1][0]):
            others = len(names) - 1
            more = f" (and {others} other pod{'s' if others > 1 else ''})" if others else ""
            attributes.warnings.append(f"{names[0]}{more}: {reason}")


def _is_version(text: str) -> bool:
    major, _, minor = text.partition(".")
    return major == "v1" and is_digits(minor)


def _policy_of(namespace: Obj) -> dict[str, tuple[str, str]]:
    labels = labels_of(namespace)
    policy: dict[str, tuple[str, str]] = {}
    for mode in _MODES:
        level = labels.get(_PREFIX + mode)
        if level in ("baseline", "restricted"):
            policy[mode] = (level, labels.get(f"{_PREFIX}{mode}-version") or "latest")
    return policy
