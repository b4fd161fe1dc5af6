"""`metrics.k8s.io/v1beta1`, served by this server itself, as metrics-server serves it.

In: a GET of nodes or pods, one or many, by namespace, labels and name.  Out: what they use, as objects, Tables or
metadata. Its APIService is made where there is none, and names no Service; who installs metrics-server makes it name
one, and is asked from then on. That it can be taken over by Helm is written on it: the chart's release `metrics-server`
in `kube-system`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import orjson

from navarch.api.errors import PathNotFound, bad_request, method_not_allowed, not_found
from navarch.api.meta import Obj, Resource
from navarch.api.selectors import FieldSelector, LabelSelector, parse_field_selector, parse_label_selector
from navarch.apiserver.answers import in_form
from navarch.apiserver.changes import Cached
from navarch.apiserver.core import Core
from navarch.apiserver.negotiation import TABLE, Form, form_of, partial_metadata, respond_obj
from navarch.apiserver.renderings import included
from navarch.apiserver.routes import Route, is_true
from navarch.apiserver.usage.collector import Collector
from navarch.apiserver.usage.figures import Figures
from navarch.apiserver.usage.objects import API_VERSION, node_metrics, pod_metrics, table
from navarch.client.transport import Request, Response
from navarch.kinds.resources import NODES, PODS

GROUP: Final = "metrics.k8s.io"
VERSION: Final = "v1beta1"
_PRIORITY: Final = 100
_KINDS: Final = {"nodes": "NodeMetrics", "pods": "PodMetrics"}
_FIELDS: Final = ("metadata.name", "metadata.namespace")


class ResourceMetrics:
    """`core.Embedded`."""

    group: Final = GROUP
    version: Final = VERSION

    def __init__(self, core: Core, figures: Figures, collector: Collector | None) -> None:
        self._core = core
        self._figures = figures
        self._collector = collector

    async def start(self) -> None:
        if self._collector is not None:
            self._collector.start()

    async def stop(self) -> None:
        if self._collector is not None:
            await self._collector.stop()

    # What is shown of it

    @property
    def resources(self) -> tuple[Obj, ...]:
        """As aggregated discovery has them."""
        return tuple(
            {
                "resource": plural,
                "responseKind": {"group": GROUP, "version": VERSION, "kind": kind},
                "scope": "Namespaced" if plural == "pods" else "Cluster",
                "singularResource": "",
                "verbs": ["get", "list"],
            }
            for plural, kind in _KINDS.items()
        )

    @property
    def api_service(self) -> Obj:
        """The APIService, where nobody has made one."""
        labels = {"app.kubernetes.io/managed-by": "Helm", "k8s-app": "metrics-server"}
        release = {"meta.helm.sh/release-name": "metrics-server", "meta.helm.sh/release-namespace": "kube-system"}
        spec = {
            "group": GROUP,
            "version": VERSION,
            "groupPriorityMinimum": _PRIORITY,
            "versionPriority": _PRIORITY,
        }
        return {"metadata": {"name": f"{VERSION}.{GROUP}", "labels": labels, "annotations": release}, "spec": spec}

    # Requests

    async def handle(self, request: Request, route: Route) -> Response:
        """Raises StatusError."""
        if not route.plural:
            return Response(200, orjson.dumps(self._listed()))
        shape = route.shape
        known = route.plural in _KINDS and not (route.odd or shape.subresource or shape.tail)
        whole = route.plural == "pods" and not shape.inside and not shape.named
        if not known or (shape.inside != (route.plural == "pods") and not whole):
            raise PathNotFound()
        watching = shape.watching or is_true(request.arg("watch", "0"))
        if request.method not in ("GET", "HEAD") or watching:
            raise method_not_allowed()
        form = form_of(request, messages=False)
        if route.plural == "nodes":
            found = await self._nodes(request, route)
        else:
            found = await self._pods(request, route)
        return await in_form(self._core.work, form, respond_obj(form, _shown(found, request, route, form)))

    def _listed(self) -> Obj:
        resources = [
            {"name": plural, "singularName": "", "namespaced": plural == "pods", "kind": kind, "verbs": ["get", "list"]}
            for plural, kind in _KINDS.items()
        ]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION, "resources": resources}

    async def _nodes(self, request: Request, route: Route) -> list[Obj]:
        wanted = {cached.name: cached for cached in self._wanted(NODES, request, route)}
        used = await self._figures.nodes(wanted)
        if route.name and route.name not in used:
            raise not_found("nodemetrics", GROUP, route.name)
        now = self._core.now_text()
        return [node_metrics(cached, used[name], now) for name, cached in wanted.items() if name in used]

    async def _pods(self, request: Request, route: Route) -> list[Obj]:
        now, found = self._core.now_text(), list[Obj]()

        def steps() -> Iterable[None]:
            for cached in self._wanted(PODS, request, route):
                if used := self._figures.pod(cached):
                    found.append(pod_metrics(cached, used, now))
                yield

        await self._core.work.do(iter(steps()))
        if route.name and not found:
            raise not_found("podmetrics", GROUP, f"{route.namespace}/{route.name}")
        return found

    def _wanted(self, resource: Resource, request: Request, route: Route) -> Sequence[Cached]:
        """Raises StatusError 400, 404."""
        cache = self._core.caches.of(resource)
        namespace = route.namespace if resource.namespaced else ""
        if route.name:
            cached = cache.get(namespace, route.name)
            if cached is None:
                raise not_found(resource.plural, "", f"{namespace}/{route.name}" if namespace else route.name)
            return (cached,)
        labels = parse_label_selector(request.arg("labelSelector"))
        fields = _fields(request.arg("fieldSelector"))
        name = None if fields is None else fields.required("metadata.name")
        if name and namespace:
            cached = cache.get(namespace, name)
            candidates = [] if cached is None else [cached]
        else:
            candidates = cache.items(namespace)
        return [cached for cached in candidates if _fits(cached, labels, fields)]


def _fields(text: str) -> FieldSelector | None:
    """Raises StatusError 400."""
    if not text:
        return None
    selector = parse_field_selector(text)
    for term in selector.terms:
        if term.field not in _FIELDS:
            known = ", ".join(f'"{field}"' for field in _FIELDS)
            raise bad_request(f'"{term.field}" is not a known field selector: only {known}')
    return selector


def _fits(cached: Cached, labels: LabelSelector, fields: FieldSelector | None) -> bool:
    return labels.matches(cached.labels) and (fields is None or bool(fields.matches(cached.field)))


def _shown(found: list[Obj], request: Request, route: Route, form: Form) -> Mapping[str, object]:
    """The objects in the form that was asked for.  Raises StatusError 400."""
    kind = _KINDS[route.plural]
    typed = [{"kind": kind, "apiVersion": API_VERSION, **obj} for obj in found] if route.name else found
    if form.transform == TABLE:
        return table(typed, included(request.arg("includeObject")), form.version)
    if form.transform:
        partial = [partial_metadata(obj, form.version) for obj in found]
        if route.name:
            return partial[0]
        version = f"meta.k8s.io/{form.version}"
        return {"kind": "PartialObjectMetadataList", "apiVersion": version, "metadata": {}, "items": partial}
    if route.name:
        return typed[0]
    return {"kind": f"{kind}List", "apiVersion": API_VERSION, "metadata": {}, "items": found}
