"""Node authorization: a kubelet reads and writes what belongs to its own node: the Node, its lease, the pods bound to
it, and the secrets, config maps, volumes and accounts of these pods
(https://kubernetes.io/docs/reference/access-authn-authz/node/).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from navarch.api.meta import Obj
from navarch.apiserver.auth.base import Decision, RequestAttributes
from navarch.apiserver.routes import field_in
from navarch.apiserver.user import User

_PREFIX = "system:node:"
_READ: Final = frozenset({"get", "list", "watch"})
_NO_OPINION: Final = Decision(False)
_YES: Final = Decision(True)

# (group, resource, subresource) -> verbs that any node may use on any object; NodeRestriction (admission) holds writes
# to what is the node's own.
_ALWAYS: Final[dict[tuple[str, str, str], frozenset[str]]] = {
    ("authentication.k8s.io", "tokenreviews", ""): frozenset({"create"}),
    ("authorization.k8s.io", "subjectaccessreviews", ""): frozenset({"create"}),
    ("authorization.k8s.io", "localsubjectaccessreviews", ""): frozenset({"create"}),
    ("certificates.k8s.io", "certificatesigningrequests", ""): frozenset({"create", "get", "list", "watch"}),
    ("", "services", ""): _READ,
    ("", "nodes", ""): frozenset({"create", "update", "patch"}),
    ("", "nodes", "status"): frozenset({"update", "patch"}),
    ("", "events", ""): frozenset({"create", "update", "patch"}),
    ("events.k8s.io", "events", ""): frozenset({"create", "update", "patch"}),
    ("", "pods", ""): frozenset({"create", "delete"}),
    ("", "pods", "status"): frozenset({"update", "patch"}),
    ("", "pods", "eviction"): frozenset({"create"}),
    ("", "endpoints", ""): frozenset({"get"}),
    ("storage.k8s.io", "csidrivers", ""): _READ,
    ("storage.k8s.io", "volumeattachments", ""): frozenset({"get"}),
    ("node.k8s.io", "runtimeclasses", ""): _READ,
    ("certificates.k8s.io", "clustertrustbundles", ""): _READ,
}
_OWN_VERBS: Final = frozenset({"create", "get", "update", "patch", "delete"})


class NodeAuthorizer:
    """`pods_on_node` lists the pods bound to a node; `claim_volume` names the volume that a claim is bound to."""

    def __init__(
        self, pods_on_node: Callable[[str], Iterable[Obj]], claim_volume: Callable[[str, str], str] | None = None
    ) -> None:
        self._pods_on_node = pods_on_node
        self._claim_volume = claim_volume or (lambda _namespace, _name: "")

    def authorize(self, user: User, attributes: RequestAttributes) -> Decision:
        if "system:nodes" not in user.groups or not user.name.startswith(_PREFIX):
            return _NO_OPINION
        node = user.name[len(_PREFIX) :]
        asked = (attributes.group, attributes.resource, attributes.subresource)
        if attributes.verb in _ALWAYS.get(asked, ()):
            return _YES
        if self._is_own(node, asked, attributes) or self._is_of_a_pod(node, attributes):
            return _YES
        return _NO_OPINION

    def _is_own(self, node: str, asked: tuple[str, str, str], attributes: RequestAttributes) -> bool:
        """Whether this is about what has the node's name, or about pods bound to it."""
        verb, name = attributes.verb, attributes.name
        if asked == ("", "nodes", ""):
            return verb in _READ and name == node
        if asked == ("", "pods", ""):
            if verb == "get":
                return any(
                    pod["metadata"]["name"] == name and pod["metadata"].get("namespace", "") == attributes.namespace
                    for pod in self._pods_on_node(node)
                )
            return verb in _READ and field_in(attributes.fields, "spec.nodeName") == node
        if asked == ("coordination.k8s.io", "leases", "") and attributes.namespace != "kube-node-lease":
            return False
        if asked in (("coordination.k8s.io", "leases", ""), ("storage.k8s.io", "csinodes", "")):
            # What is to be created has no name in the request; admission looks at the object's.
            return verb in _OWN_VERBS and (name == node or (verb == "create" and not name))
        return False

    def _is_of_a_pod(self, node: str, asked: RequestAttributes) -> bool:
        """Whether the object asked for is one that a pod on this node refers to."""
        if asked.group or not asked.name:
            return False
        if asked.resource == "serviceaccounts":
            wanted = (asked.verb == "create" and asked.subresource == "token") or (
                asked.verb == "get" and not asked.subresource
            )
        elif asked.resource == "persistentvolumes":
            wanted = asked.verb == "get" and not asked.subresource
        elif asked.resource == "persistentvolumeclaims":
            # Of a claim a node writes the status alone: how far it has grown.
            verbs = ("update", "patch") if asked.subresource == "status" else ("get",)
            wanted = asked.verb in verbs and asked.subresource in ("", "status")
        else:
            wanted = asked.verb in _READ and not asked.subresource
        if not wanted or asked.resource not in (
            "secrets",
            "configmaps",
            "serviceaccounts",
            "persistentvolumeclaims",
            "persistentvolumes",
        ):
            return False
        for pod in self._pods_on_node(node):
            namespace = pod["metadata"].get("namespace", "")
            if asked.resource == "persistentvolumes":
                claims = [name for kind, name in references(pod) if kind == "persistentvolumeclaims"]
                if any(self._claim_volume(namespace, claim) == asked.name for claim in claims):
                    return True
            elif namespace == asked.namespace and (asked.resource, asked.name) in references(pod):
                return True
        return False


def references(pod: Obj) -> Iterator[tuple[str, str]]:
    """The (resource, name) pairs of its own namespace that a pod refers to."""
    spec = pod.get("spec") or {}
    yield "serviceaccounts", spec.get("serviceAccountName") or "default"
    for secret in spec.get("imagePullSecrets") or ():
        yield "secrets", secret.get("name", "")
    for part in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(part) or ():
            yield from _of_environment(container)
    for volume in spec.get("volumes") or ():
        yield from _of_volume(pod, volume)


def _of_environment(container: Obj) -> Iterator[tuple[str, str]]:
    for source in container.get("envFrom") or ():
        if source.get("configMapRef"):
            yield "configmaps", source["configMapRef"].get("name", "")
        if source.get("secretRef"):
            yield "secrets", source["secretRef"].get("name", "")
    for variable in container.get("env") or ():
        source = variable.get("valueFrom") or {}
        if source.get("configMapKeyRef"):
            yield "configmaps", source["configMapKeyRef"].get("name", "")
        if source.get("secretKeyRef"):
            yield "secrets", source["secretKeyRef"].get("name", "")


def _of_volume(pod: Obj, volume: Obj) -> Iterator[tuple[str, str]]:
    if volume.get("configMap"):
        yield "configmaps", volume["configMap"].get("name", "")
    if volume.get("secret"):
        yield "secrets", volume["secret"].get("secretName", "")
    if volume.get("persistentVolumeClaim"):
        yield "persistentvolumeclaims", volume["persistentVolumeClaim"].get("claimName", "")
    if volume.get("ephemeral"):
        yield "persistentvolumeclaims", f"{pod['metadata']['name']}-{volume['name']}"
    for source in (volume.get("projected") or {}).get("sources") or ():
        if source.get("configMap"):
            yield "configmaps", source["configMap"].get("name", "")
        if source.get("secret"):
            yield "secrets", source["secret"].get("name", "")
