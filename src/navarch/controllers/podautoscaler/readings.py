"""What the metrics APIs say: of pods' resources, of pods, of any object, and of things outside of the cluster.

In: a metric's name and selectors.  Out: readings in thousandths, or `NoReadingError` in Kubernetes' words. The resource
metrics API is served by this cluster itself, or by whoever its APIService names; the other two exist where somebody
has registered them, the custom one in either of two versions, the newer of which is preferred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, cast

import orjson

from navarch.api import quantity
from navarch.api.duration import seconds_of
from navarch.api.errors import StatusError
from navarch.api.meta import Obj, Resource
from navarch.api.selectors import label_selector_of
from navarch.api.time import parse_time
from navarch.client.base import Client
from navarch.controllers.podautoscaler.replicas import Reading
from navarch.controllers.podautoscaler.target import Mapper

_POD_METRICS: Final = Resource("metrics.k8s.io", "v1beta1", "pods", "PodMetrics", True)
_CUSTOM: Final = "custom.metrics.k8s.io"
_CUSTOM_VERSIONS: Final = ("v1beta2", "v1beta1")
_EXTERNAL: Final = "/apis/external.metrics.k8s.io/v1beta1"
# Where the source does not say over which time it measured.
_WINDOW: Final = timedelta(minutes=1)
_PODS: Final = ("", "Pod")
_NAMESPACES: Final = ("", "Namespace")


class NoReadingError(Exception):
    """A metric could not be had; the message is for people."""


class Readings:
    """`mapper` tells the resource of a kind."""

    def __init__(self, client: Client, mapper: Mapper) -> None:
        self._client = client
        self._mapper = mapper

    async def of_resource(self, namespace: str, selector: str, resource: str, container: str) -> dict[str, Reading]:
        """What the selected pods, or one container of each, use of a resource.  Raises NoReadingError."""
        listed = await self._ask(
            "resource", _POD_METRICS.path(namespace), "pods.metrics.k8s.io", [("labelSelector", selector)]
        )
        if not (items := listed.get("items")):
            raise NoReadingError("no metrics returned from resource metrics API")
        if container:
            return _of_container(items, resource, container)
        return {item["metadata"]["name"]: found for item in items if (found := _of_pod(item, resource)) is not None}

    async def of_pods(self, namespace: str, selector: str, metric: Obj) -> dict[str, Reading]:
        """A metric of each selected pod.  Raises NoReadingError."""
        values = await self._custom(namespace, _PODS, "*", metric, selector)
        if not values:
            raise NoReadingError("no metrics returned from custom metrics API")
        return {
            value["describedObject"]["name"]: Reading(
                quantity.milli(value["value"]), parse_time(value["timestamp"]), _window_of(value)
            )
            for value in values
        }

    async def of_object(self, namespace: str, described: Obj, metric: Obj) -> int:
        """A metric of one object.  Raises NoReadingError."""
        group, _, _ = str(described.get("apiVersion") or "").rpartition("/")
        values = await self._custom(namespace, (group, described["kind"]), described["name"], metric)
        if len(values) != 1:
            words = f"the custom metrics API server returned {len(values)} results when we asked for exactly one"
            raise NoReadingError(f"unable to fetch metrics from custom metrics API: {words}")
        return quantity.milli(values[0]["value"])

    async def of_external(self, namespace: str, metric: Obj) -> list[int]:
        """All values of a metric of something outside.  Raises NoReadingError."""
        name = metric["name"]
        listed = await self._ask(
            "external",
            f"{_EXTERNAL}/namespaces/{namespace}/{name}",
            f"{name}.external.metrics.k8s.io",
            _selecting("labelSelector", metric),
        )
        if not (items := listed.get("items")):
            raise NoReadingError("no metrics returned from external metrics API")
        return [quantity.milli(item["value"]) for item in items]

    # The wire

    async def _custom(
        self, namespace: str, kind: tuple[str, str], name: str, metric: Obj, selector: str = ""
    ) -> Sequence[Obj]:
        """Raises NoReadingError."""
        version = await self._custom_version()
        if kind == _NAMESPACES:
            # An autoscaler's namespace, whatever it calls it: there is no way into another one.
            place = f"namespaces/{namespace}/metrics/{metric['name']}"
        else:
            found = await self._mapper.find(*kind)
            if not found:
                words = f'no matches for kind "{kind[1]}" in group "{kind[0]}"'
                raise NoReadingError(f"unable to fetch metrics from custom metrics API: {words}")
            place = f"namespaces/{namespace}/{found[0].group_resource}/{name}/{metric['name']}"
        query = [("labelSelector", selector)] if selector else []
        query += _selecting("metricLabelSelector", metric)
        asked = place.split("/")
        qualified = f"{asked[-3] if len(asked) > 4 else 'metrics'}.{_CUSTOM}"
        listed = await self._ask("custom", f"/apis/{_CUSTOM}/{version}/{place}", qualified, query, asked[-2])
        return listed.get("items") or ()

    async def _custom_version(self) -> str:
        """Raises NoReadingError."""
        try:
            path = f"/apis/{_CUSTOM}"
            group = cast(Obj, orjson.loads(await self._client.request("GET", path)))
        except (StatusError, OSError, ValueError):
            group = {}
        served = {version.get("version") for version in group.get("versions") or ()}
        for version in _CUSTOM_VERSIONS:
            if version in served:
                return version
        words = f"no custom metrics API ({_CUSTOM}) registered"
        raise NoReadingError(f"unable to fetch metrics from custom metrics API: {words}")

    async def _ask(
        self, api: str, path: str, qualified: str, query: Sequence[tuple[str, str]], name: str = ""
    ) -> Mapping[str, Any]:
        """Raises NoReadingError."""
        try:
            answer = orjson.loads(await self._client.request("GET", path, query=query))
        except StatusError as error:
            raise NoReadingError(
                f"unable to fetch metrics from {api} metrics API: {words_of(error, qualified, name)}"
            ) from error
        except ValueError as error:
            raise NoReadingError(f"unable to fetch metrics from {api} metrics API: {error}") from error
        return answer if isinstance(answer, dict) else {}


def words_of(error: StatusError, qualified: str, name: str = "") -> str:
    """What Kubernetes' client library makes of an answer: its own words where the server's are no Status."""
    asked = f"(get {qualified}{f' {name}' if name else ''})"
    if error.code == 404 and error.message in ("404 page not found", ""):
        return f"the server could not find the requested resource {asked}"
    if error.code == 503 and not error.reason:
        return f"the server is currently unable to handle the request {asked}"
    return error.message


def _selecting(parameter: str, metric: Obj) -> list[tuple[str, str]]:
    selector = metric.get("selector")
    text = str(label_selector_of(selector)) if selector is not None else ""
    return [(parameter, text)] if text else []


def _window_of(value: Obj) -> timedelta:
    seconds = value.get("windowSeconds")
    return _WINDOW if seconds is None else timedelta(seconds=seconds)


def _reading(item: Obj, milli: int) -> Reading:
    return Reading(milli, parse_time(item["timestamp"]), timedelta(seconds=seconds_of(item["window"])))


def _of_pod(item: Obj, resource: str) -> Reading | None:
    """All containers together; None where one of them does not say."""
    used = [(each.get("usage") or {}).get(resource) for each in item.get("containers") or ()]
    if not used or any(each is None for each in used):
        return None
    return _reading(item, sum(quantity.milli(each) for each in used if each is not None))


def _of_container(items: Sequence[Obj], resource: str, container: str) -> dict[str, Reading]:
    found: dict[str, Reading] = {}
    for item in items:
        metadata = item["metadata"]
        each = next((each for each in item.get("containers") or () if each.get("name") == container), None)
        if each is None:
            pod = f"{metadata.get('namespace', '')}/{metadata['name']}"
            words = f"container {container} not present in metrics for pod {pod}"
            raise NoReadingError(f"failed to get container metrics: {words}")
        if (used := (each.get("usage") or {}).get(resource)) is not None:
            found[metadata["name"]] = _reading(item, quantity.milli(used))
    return found
