"""An API server of the kind that Kubernetes' sample one is, as a process: `python sample_apiserver.py SETTINGS`.

It does what `k8s.io/sample-apiserver` does when it starts and when it is asked, with nothing but the standard library:
reads from `extension-apiserver-authentication` whom to believe, lists and watches what its admission wants to know,
takes the identity from a front proxy's headers or has a token reviewed, has the cluster decide (SubjectAccessReview),
and keeps `flunders` of its own, watched as well as read. In: a JSON file with the cluster's URL, its CA, a service
account's token, and the certificate to serve with.  Out: the port, on standard output.
"""

from __future__ import annotations

import json
import queue
import ssl
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

GROUP, VERSION = "wardle.example.com", "v1alpha1"
ROOT = f"/apis/{GROUP}/{VERSION}"
AUTHENTICATION = "/api/v1/namespaces/kube-system/configmaps"
# What the generic API server's informers follow: admission's kinds, flow control's.
FOLLOWED = (
    "/api/v1/namespaces",
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
    "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
    "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations",
)


class Cluster:
    """The API server that this one is behind."""

    def __init__(self, told: dict[str, str]) -> None:
        self._url, self._token = told["server"], told["token"]
        self._tls = ssl.create_default_context(cafile=told["ca"])

    def ask(self, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self._url + path, data, headers)
        return urllib.request.urlopen(request, context=self._tls, timeout=30)

    def get(self, path: str) -> Any:
        with self.ask(path) as answer:
            return json.load(answer)

    def review(self, path: str, kind: str, spec: Any) -> Any:
        group = path.split("/")[2]
        with self.ask(path, {"apiVersion": f"{group}/v1", "kind": kind, "spec": spec}) as answer:
            return json.load(answer)["status"]


class Delegation:
    """Who asks, and whether they may: both are the cluster's to say."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        selected = f"{AUTHENTICATION}?fieldSelector=metadata.name%3Dextension-apiserver-authentication"
        cluster.get(f"{AUTHENTICATION}/extension-apiserver-authentication")
        listed = cluster.get(f"{selected}&limit=500&resourceVersion=0")
        (map_,) = listed["items"]
        # The informer's watch, under the same role.
        version = listed["metadata"]["resourceVersion"]
        cluster.ask(
            f"{selected}&watch=true&allowWatchBookmarks=true&timeoutSeconds=1&resourceVersion={version}"
        ).close()
        data = map_["data"]
        self.authority = data["requestheader-client-ca-file"]
        self.clients = data["client-ca-file"]
        self._names = json.loads(data["requestheader-allowed-names"])
        self._user, self._groups = (json.loads(data[f"requestheader-{of}-headers"])[0] for of in ("username", "group"))
        self._extra = json.loads(data["requestheader-extra-headers-prefix"])[0]
        for path in FOLLOWED:
            found = cluster.get(f"{path}?limit=500&resourceVersion=0")
            version = found["metadata"]["resourceVersion"]
            cluster.ask(f"{path}?watch=true&timeoutSeconds=1&resourceVersion={version}").close()

    def user(self, headers: Any, certificate: dict[str, Any] | None) -> dict[str, Any] | None:
        names = [value for part in (certificate or {}).get("subject", ()) for key, value in part if key == "commonName"]
        if names and names[0] in self._names and headers.get(self._user):
            extra: dict[str, list[str]] = {}
            for name, value in headers.items():
                if name.lower().startswith(self._extra.lower()):
                    extra.setdefault(name[len(self._extra) :].lower(), []).append(value)
            return {"username": headers[self._user], "groups": headers.get_all(self._groups) or [], "extra": extra}
        token = (headers.get("Authorization") or "").removeprefix("Bearer ")
        if not token:
            return None
        status = self._cluster.review("/apis/authentication.k8s.io/v1/tokenreviews", "TokenReview", {"token": token})
        return status["user"] if status.get("authenticated") else None

    def may(self, user: dict[str, Any], verb: str, namespace: str, name: str) -> bool:
        attributes = {"group": GROUP, "version": VERSION, "resource": "flunders", "verb": verb}
        attributes |= {"namespace": namespace, "name": name}
        spec = {"user": user["username"], "groups": user.get("groups"), "resourceAttributes": attributes}
        spec["extra"] = user.get("extra")
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        return bool(self._cluster.review(path, "SubjectAccessReview", spec)["allowed"])


class Flunders:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._objects: dict[tuple[str, str], Any] = {}
        self._revision = 1
        self._watchers: list[queue.Queue[Any]] = []

    def put(self, namespace: str, flunder: Any) -> Any:
        with self._lock:
            self._revision += 1
            head = {"namespace": namespace, "resourceVersion": str(self._revision), "uid": f"u-{self._revision}"}
            made = {**flunder, "metadata": {**flunder["metadata"], **head}}
            made["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
            self._objects[namespace, flunder["metadata"]["name"]] = made
            for watcher in self._watchers:
                watcher.put({"type": "ADDED", "object": made})
            return made

    def delete(self, namespace: str, name: str) -> Any:
        with self._lock:
            return self._objects.pop((namespace, name), None)

    def get(self, namespace: str, name: str) -> Any:
        return self._objects.get((namespace, name))

    def list(self, namespace: str) -> Any:
        items = [each for (where, _), each in self._objects.items() if namespace in ("", where)]
        head = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "FlunderList"}
        return {**head, "metadata": {"resourceVersion": str(self._revision)}, "items": items}

    def watch(self) -> queue.Queue[Any]:
        watcher: queue.Queue[Any] = queue.Queue()
        with self._lock:
            for each in self._objects.values():
                watcher.put({"type": "ADDED", "object": each})
            # What was there has been told; clients that list by watching wait for this.
            metadata = {"resourceVersion": str(self._revision), "annotations": {"k8s.io/initial-events-end": "true"}}
            mark = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Flunder", "metadata": metadata}
            watcher.put({"type": "BOOKMARK", "object": mark})
            self._watchers.append(watcher)
        return watcher


_VERBS = ["create", "delete", "get", "list", "watch"]
_RESOURCE = {"name": "flunders", "singularName": "flunder", "namespaced": True, "kind": "Flunder", "verbs": _VERBS}
_KIND = {"group": GROUP, "version": VERSION, "kind": "Flunder"}
_OPENAPI = {
    "openapi": "3.0.0",
    "info": {"title": "wardle", "version": "v0.1"},
    "paths": {
        f"{ROOT}/namespaces/{{namespace}}/flunders/{{name}}": {
            "get": {"x-kubernetes-action": "get", "x-kubernetes-group-version-kind": _KIND, "responses": {}}
        }
    },
    "components": {
        "schemas": {
            "com.example.Flunder": {
                "type": "object",
                "properties": {"spec": {"type": "object", "properties": {"reference": {"type": "string"}}}},
                "x-kubernetes-group-version-kind": [_KIND],
            }
        }
    },
}
_HASHED = {"serverRelativeURL": f"/openapi/v3{ROOT}?hash=1"}
_GROUP_VERSION = {"groupVersion": f"{GROUP}/{VERSION}", "version": VERSION}
DOCUMENTS = {
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    f"/apis/{GROUP}": {"kind": "APIGroup", "apiVersion": "v1", "name": GROUP, "versions": [_GROUP_VERSION]},
    ROOT: {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{GROUP}/{VERSION}",
        "resources": [_RESOURCE],
    },
    "/openapi/v3": {"paths": {ROOT[1:]: _HASHED}},
    f"/openapi/v3{ROOT}": _OPENAPI,
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    delegation: Delegation
    flunders = Flunders()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path in DOCUMENTS or parts.path in ("/healthz", "/readyz"):
            self._say(200, DOCUMENTS.get(parts.path, {}))
            return
        namespace, name = self._place(parts.path)
        watching = parse_qs(parts.query).get("watch") in (["true"], ["1"])
        if not self._allowed("get" if name else "watch" if watching else "list", namespace, name):
            return
        if watching:
            self._watch()
        elif name:
            found = self.flunders.get(namespace, name)
            self._say(200, found) if found else self._refuse(404, "NotFound", f'flunders "{name}" not found')
        else:
            self._say(200, self.flunders.list(namespace))

    def do_POST(self) -> None:
        namespace, _ = self._place(urlsplit(self.path).path)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._allowed("create", namespace, ""):
            self._say(201, self.flunders.put(namespace, body))

    def do_DELETE(self) -> None:
        namespace, name = self._place(urlsplit(self.path).path)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self._allowed("delete", namespace, name):
            gone = self.flunders.delete(namespace, name)
            self._say(200, gone) if gone else self._refuse(404, "NotFound", f'flunders "{name}" not found')

    def _place(self, path: str) -> tuple[str, str]:
        words = path.removeprefix(ROOT).strip("/").split("/")
        if words[0] != "namespaces":
            return "", words[1] if len(words) > 1 else ""
        return words[1], words[3] if len(words) > 3 else ""

    def _allowed(self, verb: str, namespace: str, name: str) -> bool:
        certificate = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        user = self.delegation.user(self.headers, certificate)
        if user is None:
            self._refuse(401, "Unauthorized", "Unauthorized")
        elif not self.delegation.may(user, verb, namespace, name):
            who = user["username"]
            self._refuse(403, "Forbidden", f'flunders.{GROUP} is forbidden: User "{who}" cannot {verb} resource')
        else:
            return True
        return False

    def _watch(self) -> None:
        events = self.flunders.watch()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            while True:
                line = json.dumps(events.get()).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        except OSError:
            self.close_connection = True

    def _refuse(self, code: int, reason: str, message: str) -> None:
        head = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        self._say(code, {**head, "reason": reason, "code": code, "message": message})

    def _say(self, code: int, document: Any) -> None:
        data = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words: Any) -> None:
        pass


def main(settings: str) -> None:
    told = json.loads(Path(settings).read_text())
    Handler.delegation = Delegation(Cluster(told))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(told["certificate"], told["key"])
    # Asked for, not insisted on: who shows none may have a token.
    tls.verify_mode = ssl.CERT_OPTIONAL
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as authorities:
        authorities.write(Handler.delegation.authority + "\n" + Handler.delegation.clients)
        authorities.flush()
        tls.load_verify_locations(authorities.name)
    server = ThreadingHTTPServer((told["address"], 0), Handler)
    server.daemon_threads = True
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.url}: {error.code} {error.read().decode()}")
