"""HTTPS requests to a cluster, as plain as they come: what client libraries would hide is what the tests look at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes import client as official
from kubernetes import config as official_config

from .conftest import Cluster

JSON = "application/json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


class Rest:
    """Requests with the administrator's certificate, over the official client's connections."""

    def __init__(self, cluster: Cluster) -> None:
        self.client: official.ApiClient = official_config.new_client_from_config(str(cluster.config.admin_kubeconfig))
        self._host = self.client.configuration.host
        self._pool: urllib3.PoolManager = self.client.rest_client.pool_manager

    def send(
        self, method: str, path: str, body: Any = None, *, content_type: str = JSON, accept: str = JSON, **query: Any
    ) -> tuple[int, Any]:
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        headers = {"Accept": accept, "Content-Type": content_type}
        url = f"{self._host}{path}"
        if query:
            url += "?" + urlencode(query)
        response = self._pool.request(method, url, body=data, headers=headers, timeout=30)
        return response.status, json.loads(response.data) if response.data else None

    def ok(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """The answer's object; raises AssertionError with what the server said where it refused."""
        status, answer = self.send(method, path, body, **options)
        assert status < 300, (method, path, status, answer)
        return answer

    def refused(self, code: int, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """The Status of a request that must fail with `code`."""
        status, answer = self.send(method, path, body, **options)
        assert status == code, (method, path, status, answer)
        assert (answer["kind"], answer["status"], answer["code"]) == ("Status", "Failure", code)
        return answer

    def watch(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Events until the server ends the watch."""
        url = f"{self._host}{path}?" + urlencode({"watch": "true", "timeoutSeconds": 10, **query})
        response = self._pool.request("GET", url, preload_content=False, timeout=30)
        try:
            buffered = b""
            for chunk in response.stream(65536):
                buffered += chunk
                *lines, buffered = buffered.split(b"\n")
                yield from map(json.loads, lines)
        finally:
            response.close()
