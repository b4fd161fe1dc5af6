"""NodeRestriction: a kubelet changes its own node, its own lease and the pods bound to it, and nothing else.

Authorization lets a node write to these resources; here is held which objects of them, and which of their fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from navarch.api.meta import Obj, annotations_of, labels_of, owner_references_of
from navarch.apiserver.admission.base import Attributes, Plugin, Reader
from navarch.kinds.resources import PODS

_PREFIX: Final = "system:node:"
_GROUP: Final = "system:nodes"
_MIRROR: Final = "kubernetes.io/config.mirror"
_LEASE_NAMESPACE: Final = "kube-node-lease"
_KUBELET_LABELS: Final = frozenset(
    {
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "node.kubernetes.io/windows-build",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
    }
)


class NodeRestriction(Plugin):
    name = "NodeRestriction"
    resources = frozenset(
        {
            ("", "pods"),
            ("", "nodes"),
            ("", "persistentvolumeclaims"),
            ("", "serviceaccounts"),
            ("coordination.k8s.io", "leases"),
            ("storage.k8s.io", "csinodes"),
        }
    )
    operations = frozenset({"CREATE", "UPDATE", "DELETE"})

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def validate(self, attributes: Attributes) -> None:
        user = attributes.user
        if _GROUP not in user.groups or not user.name.startswith(_PREFIX):
            return
        node = user.name[len(_PREFIX) :]
        plural = attributes.kind.resource.plural
        if plural == "pods":
            self._check_pod(attributes, node)
        elif plural == "nodes":
            self._check_node(attributes, node)
        elif plural == "leases":
            self._check_lease(attributes, node)
        elif plural == "serviceaccounts":
            self._check_token(attributes, node)
        elif plural == "csinodes":
            if attributes.name != node:
                raise attributes.refused("cannot access CSINode with the same name as another node")
        elif attributes.subresource != "status":
            raise attributes.refused(f"may only update PVC status, node: {node}")

    def _check_pod(self, attributes: Attributes, node: str) -> None:
        if attributes.subresource == "eviction":
            pod = self._reader.get(PODS, attributes.namespace, attributes.name) or attributes.old
            if pod is not None and pod["spec"].get("nodeName") != node:
                raise attributes.refused(f'node "{node}" can only evict pods with spec.nodeName set to itself')
            return
        if attributes.operation == "CREATE":
            self._check_mirror(attributes, node)
        elif attributes.operation == "DELETE":
            if attributes.old is not None and attributes.old["spec"].get("nodeName") != node:
                raise attributes.refused(f'node "{node}" can only delete pods with spec.nodeName set to itself')
        elif attributes.subresource != "status":
            raise attributes.refused(f'unexpected operation "{attributes.operation}"')
        elif attributes.old is not None:
            if attributes.old["spec"].get("nodeName") != node:
                why = f'node "{node}" can only update pod status for pods with spec.nodeName set to itself'
                raise attributes.refused(why)
            if attributes.obj is not None and dict(labels_of(attributes.obj)) != dict(labels_of(attributes.old)):
                raise attributes.refused(f'node "{node}" cannot update labels through pod status')

    def _check_mirror(self, attributes: Attributes, node: str) -> None:
        pod = attributes.obj
        if pod is None:
            return
        if _MIRROR not in annotations_of(pod):
            raise attributes.refused(
                f'pod does not have "{_MIRROR}" annotation, node "{node}" can only create mirror pods'
            )
        if pod["spec"].get("nodeName") != node:
            raise attributes.refused(f'node "{node}" can only create pods with spec.nodeName set to itself')
        owners = owner_references_of(pod)
        if len(owners) != 1:
            raise attributes.refused(f'node "{node}" can only create pods with a single owner reference set to itself')
        if owners[0].get("kind") != "Node" or owners[0].get("name") != node:
            raise attributes.refused(f'node "{node}" can only create pods with an owner reference set to itself')
        spec = pod["spec"]
        if spec.get("serviceAccountName"):
            raise attributes.refused(f'node "{node}" can not create pods that reference a service account')
        for volume in spec.get("volumes") or ():
            for source, word in (("secret", "secrets"), ("configMap", "configmaps"), ("persistentVolumeClaim", "pvcs")):
                if volume.get(source) is not None:
                    raise attributes.refused(f'node "{node}" can not create pods that reference {word}')

    def _check_node(self, attributes: Attributes, node: str) -> None:
        name = attributes.name or (attributes.obj or {"metadata": {}})["metadata"].get("name", "")
        if name != node:
            raise attributes.refused(f'node "{node}" is not allowed to modify node "{name}"')
        obj, old = attributes.obj, attributes.old
        if obj is None:
            return
        new_labels = dict(labels_of(obj))
        old_labels = dict(labels_of(old)) if old is not None else {}
        if attributes.operation == "CREATE":
            if (obj["spec"].get("configSource")) is not None:
                raise attributes.refused(f'node "{node}" is not allowed to create pods with a non-nil configSource')
        elif old is not None:
            if (obj["spec"].get("taints") or []) != (old["spec"].get("taints") or []):
                raise attributes.refused(f'node "{node}" is not allowed to modify taints')
            if obj["metadata"].get("ownerReferences") != old["metadata"].get("ownerReferences"):
                raise attributes.refused(f'node "{node}" is not allowed to modify ownerReferences')
        changed = {key for key in {*new_labels, *old_labels} if new_labels.get(key) != old_labels.get(key)}
        forbidden = sorted(key for key in changed if _held_label(key))
        if forbidden:
            verb = "set" if attributes.operation == "CREATE" else "modify"
            raise attributes.refused(f'node "{node}" is not allowed to {verb} labels: {", ".join(forbidden)}')

    def _check_lease(self, attributes: Attributes, node: str) -> None:
        if attributes.namespace != _LEASE_NAMESPACE:
            raise attributes.refused(f'can only access leases in the "{_LEASE_NAMESPACE}" system namespace')
        name = attributes.name or (attributes.obj or {"metadata": {}})["metadata"].get("name", "")
        if name != node:
            raise attributes.refused("can only access node lease with the same name as the requesting node")

    def _check_token(self, attributes: Attributes, node: str) -> None:
        if attributes.operation != "CREATE" or attributes.subresource != "token" or attributes.obj is None:
            return
        bound = (attributes.obj.get("spec") or {}).get("boundObjectRef")
        if not bound:
            raise attributes.refused("node requested token not bound to a pod")
        if bound.get("kind") != "Pod" or bound.get("apiVersion") != "v1" or not bound.get("name"):
            raise attributes.refused("node requested token not bound to a pod")
        if not bound.get("uid"):
            raise attributes.refused("node requested token with a pod binding without a uid")
        pod: Obj | None = self._reader.get(PODS, attributes.namespace, bound["name"])
        if pod is None:
            raise attributes.refused("pod not found")
        if pod["metadata"].get("uid") != bound["uid"]:
            raise attributes.refused("the UID in the bound object reference does not match the UID in record")
        if pod["spec"].get("nodeName") != node:
            raise attributes.refused("node requested token bound to a pod scheduled on a different node")
        allowed = set(_audiences(pod))
        for audience in (attributes.obj.get("spec") or {}).get("audiences") or [""]:
            if audience and audience not in allowed:
                raise attributes.refused(f'audience "{audience}" not found in pod spec volume')


def _audiences(pod: Obj) -> Iterator[str]:
    """For whom the pod's volumes ask for tokens."""
    for volume in pod["spec"].get("volumes") or ():
        for source in (volume.get("projected") or {}).get("sources") or ():
            if source.get("serviceAccountToken"):
                yield source["serviceAccountToken"].get("audience") or ""


def _held_label(key: str) -> bool:
    """Labels that say something about a node's trust, which the node itself must not decide."""
    if key in _KUBELET_LABELS:
        return False
    domain = key.partition("/")[0] if "/" in key else ""
    if domain == "node-restriction.kubernetes.io" or domain.endswith(".node-restriction.kubernetes.io"):
        return True
    if domain in ("kubelet.kubernetes.io", "node.kubernetes.io") or domain.endswith(
        (".kubelet.kubernetes.io", ".node.kubernetes.io")
    ):
        return False
    official = ("kubernetes.io", "k8s.io")
    return domain in official or domain.endswith((".kubernetes.io", ".k8s.io"))
