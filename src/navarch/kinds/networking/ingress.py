"""Ingress and IngressClass: defaults, validation, columns."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from navarch.api.addresses import ip_problems
from navarch.api.errors import FieldError, forbidden_field, invalid_value, not_supported, required, too_long
from navarch.api.meta import Obj, get_path
from navarch.api.validation import (
    dns_subdomain_problems,
    validate_dns_label,
    validate_domain_prefixed_path,
    validate_immutable,
    validate_ip,
    validate_path_segment,
    validate_port,
    validate_port_name,
    wildcard_subdomain_problems,
)
from navarch.kinds import columns
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.strategies import strategy

_PATH_TYPES: Final = ("Exact", "ImplementationSpecific", "Prefix")
_ANNOTATION_CLASS: Final = "kubernetes.io/ingress.class"
_SEQUENCES: Final = ("//", "/./", "/../", "%2f", "%2F")
_ENDINGS: Final = ("/..", "/.")


def _hosts_cell(obj: Obj, now: datetime) -> str:
    """The first three hosts, and how many rules there are beyond three where some follow the third host."""
    rules = get_path(obj, "spec.rules") or ()
    hosts = [(number, rule["host"]) for number, rule in enumerate(rules, start=1) if rule.get("host")]
    shown = ",".join(host for _, host in hosts[: columns.LIST_LIMIT]) or "*"
    if len(hosts) >= columns.LIST_LIMIT and hosts[columns.LIST_LIMIT - 1][0] < len(rules):
        return f"{shown} + {len(rules) - columns.LIST_LIMIT} more..."
    return shown


@strategy("networking.k8s.io", "Ingress")
class IngressStrategy(Strategy):
    has_generation = True
    nulls_within = (
        "spec.defaultBackend.resource.apiGroup",
        "spec.rules.*.http.paths.*.backend.resource.apiGroup",
    )
    columns = (
        NAME,
        Column("Class", columns.text("spec.ingressClassName"), description="The name of the IngressClass resource."),
        Column("Hosts", _hosts_cell, description="Hosts that incoming requests are matched against before the rule."),
        Column("Address", columns.load_balancer(), description="Where the load balancer is reached."),
        Column("Ports", lambda obj, now: "80, 443" if get_path(obj, "spec.tls") else "80"),
        AGE,
    )

    def defaults(self, obj: Obj) -> None:
        obj.setdefault("spec", {})

    def prepare_create(self, obj: Obj) -> None:
        obj["status"] = {"loadBalancer": {}}

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        rules, backend = spec.get("rules") or [], spec.get("defaultBackend")
        annotated = (obj["metadata"].get("annotations") or {}).get(_ANNOTATION_CLASS)
        if not rules and backend is None:
            yield invalid_value("spec", None, "either `defaultBackend` or `rules` must be specified")
        if backend is not None:
            yield from _validate_backend(backend, "spec.defaultBackend")
        for index, rule in enumerate(rules):
            yield from _validate_rule(rule, f"spec.rules[{index}]")
        for index, tls in enumerate(spec.get("tls") or ()):
            for number, host in enumerate(tls.get("hosts") or ()):
                yield from _validate_host(host, f"spec.tls[{index}].hosts[{number}]")
            for problem in dns_subdomain_problems(tls["secretName"]) if tls.get("secretName") else ():
                yield invalid_value(f"spec.tls[{index}].secretName", tls["secretName"], problem)
        if (name := spec.get("ingressClassName")) is not None:
            for problem in dns_subdomain_problems(name):
                yield invalid_value("spec.ingressClassName", name, problem)
        if old is None and annotated is not None and name is not None and annotated != name:
            detail = "must match `ingressClassName` when both are specified"
            yield invalid_value(f"annotations.{_ANNOTATION_CLASS}", annotated, detail)

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        before = (get_path(old, "status.loadBalancer") or {}).get("ingress") or ()
        for index, entry in enumerate((get_path(obj, "status.loadBalancer") or {}).get("ingress") or ()):
            at = f"status.loadBalancer.ingress[{index}]"
            if (ip := entry.get("ip")) and not any(ip == each.get("ip") for each in before):
                yield from validate_ip(ip, f"{at}.ip")
            if hostname := entry.get("hostname"):
                for problem in dns_subdomain_problems(hostname):
                    yield invalid_value(f"{at}.hostname", hostname, problem)
                if not ip_problems(hostname):
                    yield invalid_value(f"{at}.hostname", hostname, "must be a DNS name, not an IP address")

    def warnings(self, obj: Obj, old: Obj | None) -> Iterator[str]:
        if old is None and _ANNOTATION_CLASS in (obj["metadata"].get("annotations") or {}):
            yield f"annotation \"{_ANNOTATION_CLASS}\" is deprecated, please use 'spec.ingressClassName' instead"


def _validate_host(host: str, path: str) -> Iterator[FieldError]:
    problems = wildcard_subdomain_problems(host) if "*" in host else dns_subdomain_problems(host)
    for problem in problems:
        yield invalid_value(path, host, problem)


def _validate_rule(rule: Obj, path: str) -> Iterator[FieldError]:
    if host := rule.get("host"):
        if not ip_problems(host):
            yield invalid_value(f"{path}.host", host, "must be a DNS name, not an IP address")
        yield from _validate_host(host, f"{path}.host")
    http = rule.get("http")
    if http is None:
        return
    if not http.get("paths"):
        yield required(f"{path}.http.paths")
    for index, entry in enumerate(http.get("paths") or ()):
        yield from _validate_path(entry, f"{path}.http.paths[{index}]")


def _validate_path(entry: Obj, path: str) -> Iterator[FieldError]:
    kind, value = entry.get("pathType"), entry.get("path") or ""
    if kind is None:
        yield required(f"{path}.pathType", "pathType must be specified")
        return
    if kind in ("Exact", "Prefix"):
        if not value.startswith("/"):
            yield invalid_value(f"{path}.path", value, "must be an absolute path")
        if value:
            for part in _SEQUENCES:
                if part in value:
                    yield invalid_value(f"{path}.path", value, f"must not contain '{part}'")
            for ending in _ENDINGS:
                if value.endswith(ending):
                    yield invalid_value(f"{path}.path", value, f"cannot end with '{ending}'")
    elif kind == "ImplementationSpecific":
        if value and not value.startswith("/"):
            yield invalid_value(f"{path}.path", value, "must be an absolute path")
    else:
        yield not_supported(f"{path}.pathType", kind, _PATH_TYPES)
    yield from _validate_backend(entry.get("backend") or {}, f"{path}.backend")


def _validate_backend(backend: Obj, path: str) -> Iterator[FieldError]:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        yield invalid_value(path, "", "cannot set both resource and service backends")
    elif resource is not None:
        yield from _validate_reference(resource, f"{path}.resource")
    elif service is None:
        yield invalid_value(path, "", "resource or service backend is required")
    else:
        yield from _validate_service_backend(service, path)


def _validate_reference(reference: Obj, path: str) -> Iterator[FieldError]:
    """An object of whatever type, in the same namespace or in none."""
    if (group := reference.get("apiGroup")) is not None:
        for problem in dns_subdomain_problems(group):
            yield invalid_value(f"{path}.apiGroup", group, problem)
    for name in ("kind", "name"):
        yield from validate_path_segment(reference.get(name) or "", f"{path}.{name}")


def _validate_service_backend(service: Obj, path: str) -> Iterator[FieldError]:
    name = service.get("name")
    if not name:
        yield required(f"{path}.service.name")
    else:
        yield from validate_dns_label(name, f"{path}.service.name")
    port = service.get("port") or {}
    number, port_name = port.get("number"), port.get("name")
    if number and port_name:
        yield invalid_value(path, "", "cannot set both port name & port number")
    elif port_name:
        yield from validate_port_name(port_name, f"{path}.service.port.name")
    elif number:
        yield from validate_port(number, f"{path}.service.port.number")
    else:
        yield required(path, "port name or number is required")


def _parameters_cell(obj: Obj, now: datetime) -> str:
    parameters = get_path(obj, "spec.parameters")
    if not parameters:
        return "<none>"
    group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") else ""
    return f"{parameters.get('kind', '')}{group}/{parameters.get('name', '')}"


@strategy("networking.k8s.io", "IngressClass")
class IngressClassStrategy(Strategy):
    has_generation = True
    columns = (
        NAME,
        Column("Controller", ".spec.controller", description="Controller that is responsible for handling this class"),
        Column("Parameters", _parameters_cell, description="A reference to a resource with additional parameters"),
        AGE,
    )

    def defaults(self, obj: Obj) -> None:
        parameters = (obj.get("spec") or {}).get("parameters")
        if parameters is not None:
            parameters.setdefault("scope", "Cluster")

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        controller = spec.get("controller") or ""
        if old is not None:
            before = (old.get("spec") or {}).get("controller") or ""
            yield from validate_immutable(controller, before, "spec.controller")
        if len(controller) > 250:
            yield too_long("spec.controller", 250)
        yield from validate_domain_prefixed_path(controller, "spec.controller")
        parameters = spec.get("parameters")
        if parameters is not None:
            yield from _validate_parameters(parameters, "spec.parameters")


def _validate_parameters(parameters: Obj, path: str) -> Iterator[FieldError]:
    yield from _validate_reference(parameters, path)
    scope, namespace = parameters.get("scope"), parameters.get("namespace")
    if scope not in ("Namespace", "Cluster"):
        yield not_supported(f"{path}.scope", scope or "", ["Cluster", "Namespace"])
    elif scope == "Namespace":
        if namespace is None:
            yield required(f"{path}.namespace", "`parameters.scope` is set to 'Namespace'")
        else:
            yield from validate_dns_label(namespace, f"{path}.namespace")
    elif namespace is not None:
        yield forbidden_field(f"{path}.namespace", "`parameters.scope` is set to 'Cluster'")
