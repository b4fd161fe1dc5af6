"""The registry: every kind that is served, with its names, verbs, subresources and strategy.

In: the table below, the resource names (`resources`), the strategies that the kind modules register on import, and
which versions are on (`enablement`).
Out: `Kind`s by URL path and by group, version and kind, groups in the order in which discovery lists them (`_GROUPS`),
the preferred version of a group first. All versions of a resource are stored in one of them, which may be one that is
off: it is there, then, but not served. Versions differ in nothing but their name unless functions convert them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from functools import cache, cached_property, partial
from typing import Any, Final, NamedTuple

from navarch.api.features import Features, gates_of
from navarch.api.meta import Obj, Resource
from navarch.api.schema import SchemaSet
from navarch.api.schema import load as load_schemas
from navarch.kinds import resources as r
from navarch.kinds.autoscaling import conversion as autoscaling
from navarch.kinds.base import Kind, ScaleSubresource, Strategy
from navarch.kinds.enablement import DEFAULT, RuntimeConfig
from navarch.kinds.events import conversion as events
from navarch.kinds.resource import conversion as devices
from navarch.kinds.strategies import lookup
from navarch.kinds.versions import age

# The packages whose modules register strategies.
_PACKAGES: Final = (
    "admissionregistration",
    "apiextensions",
    "apiregistration",
    "apiserverinternal",
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
    "resource",
    "scheduling",
    "storage",
    "storagemigration",
)
# As Kubernetes orders them, by precedence.
_GROUPS: Final = (
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "storagemigration.k8s.io",
)
_NO_COLLECTION: Final = ("create", "delete", "get", "list", "patch", "update", "watch")
_CREATE: Final = ("create",)
_WRITE: Final = ("get", "patch", "update")
_CONNECT: Final = ("create", "get")
_PROXY: Final = ("create", "delete", "get", "patch", "update")
_ALL: Final = ("all",)
# In versions of Kubernetes whose schema has it.
_STATUS_IF_STATED: Final[Mapping[str, Any]] = {"has_status": None}
_STATUS: Final[Mapping[str, Any]] = {"has_status": True}
_CONFIGURATION: Final[Mapping[str, Any]] = {"categories": ("api-extensions",)}
_WORKLOAD: Final[Mapping[str, Any]] = {"has_status": True, "categories": _ALL}
_SCALED: Final[Mapping[str, Any]] = {**_WORKLOAD, "scale": ScaleSubresource()}
_NO_TRAITS: Final[Mapping[str, Any]] = {}
_VIRTUAL: Final[Mapping[str, Any]] = {"virtual": True, "verbs": _CREATE}

# A resource in one version, with the fields of its `Kind`. `versions`: all that it has, the one first that objects are
# stored in, where the served Kubernetes has that, else the next. `shapes`: of versions that are shaped otherwise.
_Row = tuple[Resource, Mapping[str, Any]]


class _Shape(NamedTuple):
    """How objects of a version are made those of the shape that all others have, and back."""

    to_common: Callable[[Obj], Obj]
    from_common: Callable[[Obj], Obj]


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


def _versions(
    resource: Resource, versions: str, traits: Mapping[str, Any] = _NO_TRAITS, stored: str = ""
) -> Iterator[_Row]:
    """The rows of a resource that is served in several versions, the preferred one first; `stored`: those that objects
    may be stored in, the first choice first, where that is not the preferred one."""
    order = tuple((stored or versions).split())
    for version in versions.split():
        yield resource._replace(version=version), {**traits, "versions": order}


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
    yield from _versions(r.CLUSTER_TRUST_BUNDLES, "v1 v1beta1 v1alpha1")
    yield from _versions(r.POD_CERTIFICATE_REQUESTS, "v1 v1beta1", _STATUS)
    yield r.INGRESS_CLASSES, {}
    yield r.INGRESSES, {**_STATUS, **_short("ing")}
    yield from _versions(r.IP_ADDRESSES, "v1 v1beta1", _short("ip"))
    yield r.NETWORK_POLICIES, _short("netpol")
    yield from _versions(r.SERVICE_CIDRS, "v1 v1beta1", _STATUS)
    yield r.POD_DISRUPTION_BUDGETS, {**_STATUS, **_short("pdb")}
    yield r.CLUSTER_ROLE_BINDINGS, {}
    yield r.CLUSTER_ROLES, {}
    yield r.ROLE_BINDINGS, {}
    yield r.ROLES, {}
    yield r.CSI_DRIVERS, {}
    yield r.CSI_NODES, _STATUS_IF_STATED
    yield r.CSI_STORAGE_CAPACITIES, {}
    yield r.STORAGE_CLASSES, _short("sc")
    yield r.VOLUME_ATTACHMENTS, _STATUS
    yield from _versions(r.VOLUME_ATTRIBUTES_CLASSES, "v1 v1beta1", _short("vac"))
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
    yield from _versions(r.LEASE_CANDIDATES, "v1beta1 v1alpha2")
    yield r.RUNTIME_CLASSES, {}
    yield r.ENDPOINT_SLICES, {}
    yield r.FLOW_SCHEMAS, _STATUS
    yield r.PRIORITY_LEVEL_CONFIGURATIONS, _STATUS
    yield from _devices()
    yield r.STORAGE_VERSIONS, _STATUS
    yield from _versions(r.STORAGE_VERSION_MIGRATIONS, "v1 v1beta1", _STATUS)


def _devices() -> Iterator[_Row]:
    """What pods claim by structured parameters. v1beta2 is v1 by another name; v1beta1 is shaped otherwise."""
    versions = "v1 v1beta2 v1beta1"
    for resource, traits, shape in (
        (r.DEVICE_CLASSES, _NO_TRAITS, None),
        (r.RESOURCE_CLAIMS, _STATUS, _Shape(devices.claim_to_v1, devices.claim_from_v1)),
        (r.RESOURCE_CLAIM_TEMPLATES, _NO_TRAITS, _Shape(devices.template_to_v1, devices.template_from_v1)),
        (r.RESOURCE_SLICES, _NO_TRAITS, _Shape(devices.slice_to_v1, devices.slice_from_v1)),
    ):
        yield from _versions(resource, versions, {**traits, "shapes": {"v1beta1": shape}} if shape else traits)
    yield from _versions(r.DEVICE_TAINT_RULES, "v1 v1beta2 v1alpha3", _STATUS, stored="v1 v1alpha3 v1beta2")
    yield r.RESOURCE_POOL_STATUS_REQUESTS, _STATUS


# Groups whose types are not among those of k8s.io/api.
_PACKAGES_OF_GROUPS: Final[Mapping[str, str]] = {
    "apiregistration.k8s.io": "io.k8s.kube-aggregator.pkg.apis.apiregistration",
    "apiextensions.k8s.io": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
    "internal.apiserver.k8s.io": "io.k8s.api.apiserverinternal",
}


def definition_name(group: str, version: str, kind: str) -> str:
    """The OpenAPI definition of a built-in kind: `io.k8s.api.apps.v1.Deployment`."""
    if group == "meta.k8s.io":
        return f"io.k8s.apimachinery.pkg.apis.meta.{version}.{kind}"
    package = _PACKAGES_OF_GROUPS.get(group) or f"io.k8s.api.{group.partition('.')[0] or 'core'}"
    return f"{package}.{version}.{kind}"


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
        """The served versions of each group, preferred version first, groups in order of precedence: those of custom
        kinds alone come last, by name."""
        return self._versions

    @cached_property
    def _versions(self) -> dict[str, list[str]]:
        found: dict[str, dict[str, None]] = {}
        custom: dict[str, dict[str, None]] = {}
        for (group, version, _), kind in self._by_path.items():
            of = found if kind.own_schemas is None or group in found else custom
            of.setdefault(group, {})[version] = None
        ordered = {group: list(versions) for group, versions in found.items()}
        for group in sorted(custom):
            more = [version for version in sorted(custom[group], key=age) if version not in found.get(group, ())]
            ordered[group] = [*ordered.get(group, ()), *more]
        return ordered

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


def builtin(
    schemas: SchemaSet | None = None, config: RuntimeConfig = DEFAULT, features: Features | None = None
) -> Registry:
    """A registry of every built-in kind of a Kubernetes version in the versions that are on. Its feature gates are
    those of the version, unless others are said.  Raises ValueError where the configuration names what there is not."""
    _import_kind_modules()
    if schemas is None:
        schemas = load_schemas()
    if features is None:
        features = Features(gates_of(schemas.version))
    rows = [(resource, traits) for resource, traits in _table() if _definition_of(resource) in schemas]
    config.check((resource.group, resource.version) for resource, _ in rows)
    rows.sort(key=lambda row: _GROUPS.index(row[0].group))
    present: dict[tuple[str, str], dict[str, Resource]] = {}
    for resource, _ in rows:
        present.setdefault((resource.group, resource.plural), {})[resource.version] = resource
    kinds = (
        _kind(resource, traits, present[resource.group, resource.plural], schemas, config, features)
        for resource, traits in rows
    )
    return Registry(kind for kind in kinds if kind is not None)


def _kind(
    resource: Resource,
    traits: Mapping[str, Any],
    versions: Mapping[str, Resource],
    schemas: SchemaSet,
    config: RuntimeConfig,
    features: Features,
) -> Kind | None:
    """A row's kind; None where it is neither served nor what others that are served are stored as."""
    traits = dict(traits)
    order = [version for version in traits.pop("versions", (resource.version,)) if version in versions]
    shapes: Mapping[str, _Shape] = traits.pop("shapes", {})
    stored = versions[order[0]]
    served = config.enabled(resource.group, resource.version)
    if not served and (resource != stored or not any(config.enabled(resource.group, version) for version in order)):
        return None
    if resource != stored:
        traits["storage"] = stored
        if resource.version in shapes or stored.version in shapes:
            traits |= _converted(resource, stored, shapes)
    definition = _definition_of(resource)
    if "has_status" in traits and traits["has_status"] is None:
        traits["has_status"] = "status" in schemas.definition(definition)["properties"]
    return Kind(
        resource=resource,
        singular=resource.kind.lower(),
        # Hooks see objects as they are stored, whichever version they belong to.
        strategy=_strategy(resource, features),
        definition=definition,
        list_kind=f"{resource.kind}List",
        served=served,
        **traits,
    )


def _strategy(resource: Resource, features: Features) -> Strategy:
    """The kind's, with the gates that are on here: servers of several versions may share a process."""
    found = lookup(resource.group, resource.kind)
    if on := frozenset(filter(features.on, found.gates)):
        found = copy(found)
        found.on = on
    return found


def _converted(resource: Resource, stored: Resource, shapes: Mapping[str, _Shape]) -> Mapping[str, Any]:
    """The functions between a version and the stored one, where either is of another shape than the common one."""
    ours, theirs = shapes.get(resource.version), shapes.get(stored.version)
    into = [*([ours.to_common] if ours else ()), *([theirs.from_common] if theirs else ())]
    out_of = [*([theirs.to_common] if theirs else ()), *([ours.from_common] if ours else ())]
    return {
        "to_storage": partial(_reshaped, steps=into, api_version=stored.api_version),
        "from_storage": partial(_reshaped, steps=out_of, api_version=resource.api_version),
    }


def _reshaped(obj: Obj, *, steps: Iterable[Callable[[Obj], Obj]], api_version: str) -> Obj:
    for step in steps:
        obj = step(obj)
    return {**obj, "apiVersion": api_version}


def _definition_of(resource: Resource) -> str:
    return definition_name(resource.group, resource.version, resource.kind)
