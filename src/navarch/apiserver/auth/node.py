"""Node authorization: a kubelet reads and writes what belongs to its own node: the Node, its lease, the pods bound to
it, and what these refer to (https://kubernetes.io/docs/reference/access-authn-authz/node/).

Which object is one that a pod of the node refers to is the graph's knowledge (`auth/node_graph.py`); here is what may
be done with it. Writes are held to the node's own objects by admission (`admission/node_restriction.py`).
"""

from __future__ import annotations

from typing import Final, Protocol

from navarch.apiserver.auth.base import Decision, RequestAttributes
from navarch.apiserver.routes import field_in
from navarch.apiserver.user import User

INGRESS: Final = "navarch:ingress"
"""The Ingress controller of a node: of Secrets it sees those that Ingresses name, and no others."""
_PREFIX: Final = "system:node:"
_GROUP: Final = "system:nodes"
_READ: Final = frozenset({"get", "list", "watch"})
_GET: Final = frozenset({"get"})
_WRITE_STATUS: Final = frozenset({"update", "patch"})
_NO_OPINION: Final = Decision(False)
_YES: Final = Decision(True)

# (group, resource, subresource) -> verbs that any node may use on any object; NodeRestriction (admission) holds writes
# to what is the node's own.
_ALWAYS: Final[dict[tuple[str, str, str], frozenset[str]]] = {
    ("authentication.k8s.io", "tokenreviews", ""): frozenset({"create"}),
    ("authorization.k8s.io", "subjectaccessreviews", ""): frozenset({"create"}),
    ("authorization.k8s.io", "localsubjectaccessreviews", ""): frozenset({"create"}),
    ("certificates.k8s.io", "certificatesigningrequests", ""): frozenset({"create", "get", "list", "watch"}),
    ("certificates.k8s.io", "podcertificaterequests", ""): frozenset({"create"}),
    ("", "services", ""): _READ,
    ("", "nodes", ""): frozenset({"create", "update", "patch"}),
    ("", "nodes", "status"): _WRITE_STATUS,
    ("", "events", ""): frozenset({"create", "update", "patch"}),
    ("events.k8s.io", "events", ""): frozenset({"create", "update", "patch"}),
    ("", "pods", ""): frozenset({"create", "delete"}),
    ("", "pods", "status"): _WRITE_STATUS,
    ("", "pods", "eviction"): frozenset({"create"}),
    ("", "endpoints", ""): _GET,
    ("storage.k8s.io", "csidrivers", ""): _READ,
    ("node.k8s.io", "runtimeclasses", ""): _READ,
    ("certificates.k8s.io", "clustertrustbundles", ""): _READ,
    ("resource.k8s.io", "resourceslices", ""): frozenset({"create"}),
}
# The same for objects that a pod of the node refers to, or that name the node.
_RELATED: Final[dict[tuple[str, str, str], frozenset[str]]] = {
    ("", "secrets", ""): _READ,
    ("", "configmaps", ""): _READ,
    ("", "serviceaccounts", ""): _GET,
    ("", "serviceaccounts", "token"): frozenset({"create"}),
    ("", "persistentvolumeclaims", ""): _GET,
    # Of a claim a node writes the status alone: how far it has grown.
    ("", "persistentvolumeclaims", "status"): _WRITE_STATUS,
    ("", "persistentvolumes", ""): _GET,
    ("resource.k8s.io", "resourceclaims", ""): _GET,
    ("storage.k8s.io", "volumeattachments", ""): _GET,
    ("certificates.k8s.io", "podcertificaterequests", ""): _GET,
    ("resource.k8s.io", "resourceslices", ""): frozenset({"get", "update", "patch", "delete"}),
}
# Named like the node itself.
_NAMESAKES: Final = frozenset({("coordination.k8s.io", "leases", ""), ("storage.k8s.io", "csinodes", "")})
_LEASE_NAMESPACE: Final = "kube-node-lease"
_OWN_VERBS: Final = frozenset({"create", "get", "update", "patch", "delete"})


class Graph(Protocol):
    """What leads to a node (`node_graph.NodeGraph`)."""

    def has_pod(self, node: str, namespace: str, name: str) -> bool: ...

    def needs(self, node: str, resource: str, namespace: str, name: str) -> bool: ...

    def is_shown(self, namespace: str, secret: str) -> bool: ...


def node_of(user: User) -> str | None:
    """The node whose kubelet this is: empty for one that does not say which, None for anybody else."""
    if _GROUP not in user.groups or not user.name.startswith(_PREFIX):
        return None
    return user.name[len(_PREFIX) :]


class NodeAuthorizer:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def authorize(self, user: User, attributes: RequestAttributes) -> Decision:
        node = node_of(user)
        if not node:
            return _YES if user.name == INGRESS and self._is_shown(attributes) else _NO_OPINION
        asked = (attributes.group, attributes.resource, attributes.subresource)
        if attributes.verb in _ALWAYS.get(asked, ()) or self._is_own(node, asked, attributes):
            return _YES
        if attributes.verb in _RELATED.get(asked, ()) and attributes.name:
            namespace = attributes.namespace
            if self._graph.needs(node, attributes.resource, namespace, attributes.name):
                return _YES
        return _NO_OPINION

    def _is_shown(self, attributes: RequestAttributes) -> bool:
        """Whether this reads a Secret whose certificate an Ingress wants shown."""
        asked = (attributes.group, attributes.resource, attributes.subresource)
        if asked != ("", "secrets", "") or attributes.verb not in _READ or not attributes.name:
            return False
        return self._graph.is_shown(attributes.namespace, attributes.name)

    def _is_own(self, node: str, asked: tuple[str, str, str], attributes: RequestAttributes) -> bool:
        """Whether this is about what has the node's name, or about what is bound to it."""
        verb, name = attributes.verb, attributes.name
        if asked == ("", "nodes", ""):
            return verb in _READ and name == node
        if asked == ("", "pods", ""):
            if verb not in _READ:
                return False
            if verb != "get" and field_in(attributes.fields, "spec.nodeName") == node:
                return True
            return bool(name) and self._graph.has_pod(node, attributes.namespace, name)
        if asked == ("certificates.k8s.io", "podcertificaterequests", ""):
            return verb in ("list", "watch") and field_in(attributes.fields, "spec.nodeName") == node
        if asked == ("resource.k8s.io", "resourceslices", ""):
            of_node = field_in(attributes.fields, "spec.nodeName") == node
            return of_node and verb in ("list", "watch", "deletecollection")
        if asked not in _NAMESAKES or (asked[1] == "leases" and attributes.namespace != _LEASE_NAMESPACE):
            return False
        # What is to be created has no name in the request; admission looks at the object's.
        return verb in _OWN_VERBS and (name == node or (verb == "create" and not name))
