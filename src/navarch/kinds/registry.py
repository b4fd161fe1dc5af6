"""The registry: every kind that is served, with its names, verbs, subresources and strategy.

In: the table below, the resource names (`resources`), and the strategies that the kind modules register on import.
Out: `Kind`s by URL path and by group, version and kind. The order of the table is the order in which discovery lists
groups; within a group the preferred version comes first.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final

from navarch.api.meta import Resource
from navarch.kinds import resources as r
from navarch.kinds.autoscaling import conversion as autoscaling
from navarch.kinds.base import Kind, ScaleSubresource
from navarch.kinds.events import conversion as events
from navarch.kinds.strategies import lookup

# The packages whose modules register strategies.
_PACKAGES: Final = (
    "admissionregistration",
    "apiextensions",
    "apiregistration",
    "apps",
    "authentication",
    "authorization",
    "autoscaling",
    "batch",
    "certificates",
    "coordination",
    "core",
    "discovery",
    "events",
    "flowcontrol",
    "networking",
    "node",
    "policy",
    "rbac",
    "scheduling",
    "storage",
)
_NO_COLLECTION: Final = ("create", "delete", "get", "list", "patch", "update", "watch")
_CREATE: Final = ("create",)
_WRITE: Final = ("get", "patch", "update")
_CONNECT: Final = ("create", "get")
_PROXY: Final = ("create", "delete", "get", "patch", "update")
_ALL: Final = ("all",)
_STATUS: Final[Mapping[str, Any]] = {"has_status": True}
_CONFIGURATION: Final[Mapping[str, Any]] = {"categories": ("api-extensions",)}
_WORKLOAD: Final[Mapping[str, Any]] = {"has_status": True, "categories": _ALL}
_SCALED: Final[Mapping[str, Any]] = {**_WORKLOAD, "scale": ScaleSubresource()}
_VIRTUAL: Final[Mapping[str, Any]] = {"virtual": True, "verbs": _CREATE}

_Row = tuple[Resource, Mapping[str, Any]]

_POD_SUBRESOURCES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "attach": ("PodAttachOptions", _CONNECT),
    "binding": ("Binding", _CREATE),
    "ephemeralcontainers": ("Pod", _WRITE),
    "eviction": ("policy/v1/Eviction", _CREATE),
    "exec": ("PodExecOptions", _CONNECT),
    "log": ("Pod", ("get",)),
    "portforward": ("PodPortForwardOptions", _CONNECT),
    "proxy": ("PodProxyOptions", _PROXY),
    "resize": ("Pod", _WRITE),
}


def _short(*names: str) -> Mapping[str, Any]:
    return {"short_names": names}


def _table() -> Iterator[_Row]:
    """Each resource with what sets it apart from a plain stored kind."""
    yield from _core()
    yield from _workloads()
    yield from _reviews()
    yield from _autoscaling_and_batch()
    yield from _platform()


def _core() -> Iterator[_Row]:
    yield r.BINDINGS, _VIRTUAL
    yield r.COMPONENT_STATUSES, {"virtual": True, "verbs": ("get", "list"), **_short("cs")}
    yield r.CONFIG_MAPS, _short("cm")
    yield r.ENDPOINTS, _short("ep")
    yield r.EVENTS, _short("ev")
    yield r.LIMIT_RANGES, _short("limits")
    yield (
        r.NAMESPACES,
        {
            **_STATUS,
            **_short("ns"),
            "verbs": _NO_COLLECTION,
            "subresources": {"finalize": ("Namespace", ("update",))},
        },
    )
    yield r.NODES, {**_STATUS, **_short("no"), "subresources": {"proxy": ("NodeProxyOptions", _PROXY)}}
    yield r.PERSISTENT_VOLUME_CLAIMS, {**_STATUS, **_short("pvc")}
    yield r.PERSISTENT_VOLUMES, {**_STATUS, **_short("pv")}
    yield r.PODS, {**_WORKLOAD, **_short("po"), "subresources": _POD_SUBRESOURCES}
    yield r.POD_TEMPLATES, {}
    yield r.REPLICATION_CONTROLLERS, {**_SCALED, **_short("rc")}
    yield r.RESOURCE_QUOTAS, {**_STATUS, **_short("quota")}
    yield r.SECRETS, {}
    yield (
        r.SERVICE_ACCOUNTS,
        {**_short("sa"), "subresources": {"token": ("authentication.k8s.io/v1/TokenRequest", _CREATE)}},
    )
    yield r.SERVICES, {**_WORKLOAD, **_short("svc"), "subresources": {"proxy": ("ServiceProxyOptions", _PROXY)}}
    yield r.API_SERVICES, {**_STATUS, "categories": ("api-extensions",)}


def _workloads() -> Iterator[_Row]:
    yield r.CONTROLLER_REVISIONS, {}
    yield r.DAEMON_SETS, {**_WORKLOAD, **_short("ds")}
    yield r.DEPLOYMENTS, {**_SCALED, **_short("deploy")}
    yield r.REPLICA_SETS, {**_SCALED, **_short("rs")}
    yield r.STATEFUL_SETS, {**_SCALED, **_short("sts")}


def _reviews() -> Iterator[_Row]:
    """Events of their own group, and the virtual kinds by which access is asked about."""
    to_core = {"storage": r.EVENTS, "to_storage": events.to_core, "from_storage": events.from_core}
    yield r.EVENTS_V1, {**_short("ev"), **to_core}
    yield r.SELF_SUBJECT_REVIEWS, _VIRTUAL
    yield r.TOKEN_REVIEWS, _VIRTUAL
    yield r.LOCAL_SUBJECT_ACCESS_REVIEWS, _VIRTUAL
    yield r.SELF_SUBJECT_ACCESS_REVIEWS, _VIRTUAL
    yield r.SELF_SUBJECT_RULES_REVIEWS, _VIRTUAL
    yield r.SUBJECT_ACCESS_REVIEWS, _VIRTUAL


def _autoscaling_and_batch() -> Iterator[_Row]:
    yield r.HORIZONTAL_POD_AUTOSCALERS, {**_WORKLOAD, **_short("hpa")}
    to_v2 = {
        "storage": r.HORIZONTAL_POD_AUTOSCALERS,
        "to_storage": autoscaling.to_v2,
        "from_storage": autoscaling.from_v2,
    }
    yield r.HORIZONTAL_POD_AUTOSCALERS_V1, {**_WORKLOAD, **_short("hpa"), **to_v2}
    yield r.CRON_JOBS, {**_WORKLOAD, **_short("cj")}
    yield r.JOBS, _WORKLOAD


def _platform() -> Iterator[_Row]:
    """The groups by which a cluster is run."""
    yield (
        r.CERTIFICATE_SIGNING_REQUESTS,
        {**_STATUS, **_short("csr"), "subresources": {"approval": ("CertificateSigningRequest", _WRITE)}},
    )
    yield r.CLUSTER_TRUST_BUNDLES, {}
    yield r.POD_CERTIFICATE_REQUESTS, _STATUS
    yield r.INGRESS_CLASSES, {}
    yield r.INGRESSES, {**_STATUS, **_short("ing")}
    yield r.IP_ADDRESSES, _short("ip")
    yield r.NETWORK_POLICIES, _short("netpol")
    yield r.SERVICE_CIDRS, _STATUS
    yield r.POD_DISRUPTION_BUDGETS, {**_STATUS, **_short("pdb")}
    yield r.CLUSTER_ROLE_BINDINGS, {}
    yield r.CLUSTER_ROLES, {}
    yield r.ROLE_BINDINGS, {}
    yield r.ROLES, {}
    yield r.CSI_DRIVERS, {}
    yield r.CSI_NODES, _STATUS
    yield r.CSI_STORAGE_CAPACITIES, {}
    yield r.STORAGE_CLASSES, _short("sc")
    yield r.VOLUME_ATTACHMENTS, _STATUS
    yield r.VOLUME_ATTRIBUTES_CLASSES, _short("vac")
    yield r.MUTATING_ADMISSION_POLICIES, _CONFIGURATION
    yield r.MUTATING_ADMISSION_POLICY_BINDINGS, _CONFIGURATION
    yield r.VALIDATING_ADMISSION_POLICIES, {**_CONFIGURATION, "has_status": True}
    yield r.VALIDATING_ADMISSION_POLICY_BINDINGS, _CONFIGURATION
    yield r.MUTATING_WEBHOOK_CONFIGURATIONS, _CONFIGURATION
    yield r.VALIDATING_WEBHOOK_CONFIGURATIONS, _CONFIGURATION
    yield (
        r.CUSTOM_RESOURCE_DEFINITIONS,
        {**_STATUS, **_short("crd", "crds"), "categories": ("api-extensions",)},
    )
    yield r.PRIORITY_CLASSES, _short("pc")
    yield r.LEASES, {}
    yield r.RUNTIME_CLASSES, {}
    yield r.ENDPOINT_SLICES, {}
    yield r.FLOW_SCHEMAS, _STATUS
    yield r.PRIORITY_LEVEL_CONFIGURATIONS, _STATUS


# Groups whose types are not among those of k8s.io/api.
_PACKAGES_OF_GROUPS: Final[Mapping[str, str]] = {
    "apiregistration.k8s.io": "io.k8s.kube-aggregator.pkg.apis.apiregistration",
    "apiextensions.k8s.io": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
}


def definition_name(group: str, version: str, kind: str) -> str:
    """The OpenAPI definition of a built-in kind: `io.k8s.api.apps.v1.Deployment`."""
    if group == "meta.k8s.io":
        return f"io.k8s.apimachinery.pkg.apis.meta.{version}.{kind}"
    return f"{_PACKAGES_OF_GROUPS.get(group) or 'io.k8s.api.' + (group.partition('.')[0] or 'core')}.{version}.{kind}"


class Registry:
    """Kinds by path and by name, in the order in which they were given; never changed. Of two with the same group,
    version and plural the later one counts."""

    def __init__(self, kinds: Iterable[Kind] = ()) -> None:
        self._by_path: dict[tuple[str, str, str], Kind] = {}
        self._by_kind: dict[tuple[str, str, str], Kind] = {}
        for kind in kinds:
            resource = kind.resource
            self._by_path[resource.group, resource.version, resource.plural] = kind
            self._by_kind[resource.group, resource.version, resource.kind] = kind

    def replaced(self, kinds: Iterable[Kind]) -> Registry:
        """A registry in which these kinds are all that there is of their resources, in the place of what was."""
        kinds = list(kinds)
        names = {(kind.resource.group, kind.resource.plural) for kind in kinds}
        first: list[Kind] = []
        later: list[Kind] = []
        found = first
        for kind in self.kinds():
            if (kind.resource.group, kind.resource.plural) in names:
                found = later
            else:
                found.append(kind)
        return Registry([*first, *kinds, *later])

    def without(self, group: str, plural: str) -> Registry:
        """A registry that does not have the resource, in any version."""
        return Registry(kind for kind in self.kinds() if (kind.resource.group, kind.resource.plural) != (group, plural))

    def kinds(self) -> list[Kind]:
        return list(self._by_path.values())

    def by_path(self, group: str, version: str, plural: str) -> Kind | None:
        return self._by_path.get((group, version, plural))

    def by_kind(self, group: str, version: str, kind: str) -> Kind | None:
        return self._by_kind.get((group, version, kind))

    def versions(self) -> dict[str, list[str]]:
        """The served versions of each group, preferred version first, groups in order of precedence."""
        found: dict[str, list[str]] = {}
        for group, version, _ in self._by_path:
            versions = found.setdefault(group, [])
            if version not in versions:
                versions.append(version)
        return found

    def of_version(self, group: str, version: str) -> list[Kind]:
        """The kinds of one group and version by plural name."""
        kinds = [kind for (g, v, _), kind in self._by_path.items() if g == group and v == version]
        return sorted(kinds, key=lambda kind: kind.resource.plural)


@cache
def _import_kind_modules() -> None:
    """Import every kind module, so that their strategies are registered."""
    for name in _PACKAGES:
        package = importlib.import_module(f"navarch.kinds.{name}")
        for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda module: module.name):
            importlib.import_module(f"navarch.kinds.{name}.{module.name}")


def builtin(definitions: Container[str] | None = None) -> Registry:
    """A registry of every built-in kind; given the definitions of a Kubernetes version, of those that it has."""
    _import_kind_modules()
    kinds: list[Kind] = []
    for resource, traits in _table():
        group, version, _, kind, _ = resource
        if definitions is not None and definition_name(group, version, kind) not in definitions:
            continue
        kinds.append(
            Kind(
                resource=resource,
                singular=kind.lower(),
                # Hooks see objects as they are stored, whichever version they belong to.
                strategy=lookup(group, kind),
                definition=definition_name(group, version, kind),
                list_kind=f"{kind}List",
                **traits,
            )
        )
    return Registry(kinds)
