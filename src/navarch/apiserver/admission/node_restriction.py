"""NodeRestriction: a kubelet changes its own node, its own lease and the pods bound to it, and nothing else.

Authorization lets a node write to these resources; here is held which objects of them, and which of their fields.
What a node creates names nothing that would then be the node's to read: mirror pods refer to no API object at all.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final

from navarch.api.errors import not_found
from navarch.api.meta import Obj, annotations_of, labels_of, owner_references_of
from navarch.apiserver.admission.base import Attributes, Plugin, Reader
from navarch.apiserver.auth.base import Decide, RequestAttributes
from navarch.apiserver.auth.node import node_of
from navarch.kinds.core.references import first_of_mirror
from navarch.kinds.resources import CSI_DRIVERS, NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS

_MIRROR: Final = "kubernetes.io/config.mirror"
_LEASE_NAMESPACE: Final = "kube-node-lease"
_CERTIFICATES: Final = "certificates.k8s.io"
_KUBELET_SIGNERS: Final = ("kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet")
# What a node may change of a claim: how far its volume has grown.
_CLAIM_STATUS: Final = frozenset({"capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"})
_KUBELET_LABELS: Final = frozenset(
    {
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
    }
)
_KUBELET_DOMAINS: Final = ("kubelet.kubernetes.io", "node.kubernetes.io")
_OFFICIAL_DOMAINS: Final = ("kubernetes.io", "k8s.io")
_TRUST_DOMAIN: Final = "node-restriction.kubernetes.io"


class NodeRestriction(Plugin):
    name = "NodeRestriction"
    leaves_whole = True
    operations = frozenset({"CREATE", "UPDATE", "DELETE"})
    subresources = None

    def __init__(self, reader: Reader, authorize: Decide | None = None, *, audiences: bool = True) -> None:
        """`audiences`: whether it matters for whom a node asks for tokens."""
        self._reader = reader
        self._restricts_audiences = audiences
        self._authorize = authorize
        self._checks: dict[tuple[str, str], Callable[[Attributes, str], Awaitable[None] | None]] = {
            ("", "pods"): self._check_pod,
            ("", "nodes"): self._check_node,
            ("", "persistentvolumeclaims"): self._check_claim,
            ("", "serviceaccounts"): self._check_token,
            ("coordination.k8s.io", "leases"): self._check_lease,
            ("storage.k8s.io", "csinodes"): self._check_csi_node,
            (_CERTIFICATES, "certificatesigningrequests"): self._check_signing_request,
            (_CERTIFICATES, "podcertificaterequests"): self._check_pod_certificate,
            ("resource.k8s.io", "resourceslices"): self._check_slice,
        }
        self.resources = frozenset(self._checks)

    async def mutate(self, attributes: Attributes) -> None:
        """Refuse before validation, as Kubernetes does: a node learns nothing of what it may not write anyway."""
        node = node_of(attributes.user)
        if node is None:
            return
        if not node:
            raise attributes.refused(f'could not determine node from user "{attributes.user.name}"')
        resource = attributes.kind.resource
        asking = self._checks[resource.group, resource.plural](attributes, node)
        if asking is not None:
            await asking

    # ----------------------------------------------------------------------------------------------------------- pods

    def _check_pod(self, attributes: Attributes, node: str) -> None:
        subresource, operation = attributes.subresource, attributes.operation
        if subresource == "status":
            self._check_pod_status(attributes, node)
        elif subresource == "eviction":
            if self._pod(attributes, attributes.name)["spec"].get("nodeName") != node:
                raise attributes.refused(f"node {node} can only evict pods with spec.nodeName set to itself")
        elif subresource:
            why = f"unexpected pod subresource \"{subresource}\", only 'status' and 'eviction' are allowed"
            raise attributes.refused(why)
        elif operation == "CREATE":
            self._check_mirror(attributes, node)
        elif operation == "DELETE":
            if self._pod(attributes, attributes.name)["spec"].get("nodeName") != node:
                raise attributes.refused(f'node "{node}" can only delete pods with spec.nodeName set to itself')
        else:
            why = f'unexpected operation "{operation}", node "{node}" can only create and delete mirror pods'
            raise attributes.refused(why)

    def _pod(self, attributes: Attributes, name: str) -> Obj:
        if attributes.old is not None and attributes.kind.resource == PODS:
            return attributes.old
        pod = self._reader.get(PODS, attributes.namespace, name)
        if pod is None:
            raise not_found("pods", "", name)
        return pod

    def _check_pod_status(self, attributes: Attributes, node: str) -> None:
        new, old = attributes.obj, attributes.old
        if attributes.operation != "UPDATE" or new is None or old is None:
            raise attributes.refused(f'unexpected operation "{attributes.operation}"')
        if old["spec"].get("nodeName") != node:
            why = f'node "{node}" can only update pod status for pods with spec.nodeName set to itself'
            raise attributes.refused(why)
        if dict(labels_of(new)) != dict(labels_of(old)):
            raise attributes.refused(f'node "{node}" cannot update labels through pod status')
        # What is said here would be the node's to read.
        new_status, old_status = new.get("status") or {}, old.get("status") or {}
        if _claim_names(new_status) != _claim_names(old_status):
            raise attributes.refused(f'node "{node}" cannot update resource claim statues')
        if new_status.get("extendedResourceClaimStatus") != old_status.get("extendedResourceClaimStatus"):
            raise attributes.refused(f'node "{node}" cannot update extended resource claim status')

    def _check_mirror(self, attributes: Attributes, node: str) -> None:
        pod = attributes.obj
        assert pod is not None
        if _MIRROR not in annotations_of(pod):
            raise attributes.refused(
                f'pod does not have "{_MIRROR}" annotation, node "{node}" can only create mirror pods'
            )
        if pod["spec"].get("nodeName") != node:
            raise attributes.refused(f'node "{node}" can only create pods with spec.nodeName set to itself')
        self._check_owner(attributes, node, pod)
        reference = first_of_mirror(pod)
        if reference:
            raise attributes.refused(f'node "{node}" can not create pods that reference {reference}')

    def _check_owner(self, attributes: Attributes, node: str, pod: Obj) -> None:
        owners = owner_references_of(pod)
        if len(owners) > 1:
            raise attributes.refused(f'node "{node}" can only create pods with a single owner reference set to itself')
        owner: Mapping[str, Any] = owners[0] if owners else {}
        if (owner.get("apiVersion"), owner.get("kind"), owner.get("name")) != ("v1", "Node", node):
            raise attributes.refused(f'node "{node}" can only create pods with an owner reference set to itself')
        if not owner.get("controller"):
            why = f'node "{node}" can only create pods with a controller owner reference set to itself'
            raise attributes.refused(why)
        if owner.get("blockOwnerDeletion"):
            raise attributes.refused(f'node "{node}" must not set blockOwnerDeletion on an owner reference')
        stored = self._reader.get(NODES, "", node)
        if stored is None:
            raise not_found("nodes", "", node)
        uid = stored["metadata"].get("uid") or ""
        if owner.get("uid") != uid:
            raise attributes.refused(f"node {node} UID mismatch: expected {owner.get('uid') or ''} got {uid}")

    # ------------------------------------------------------------------------------------------ what has a node's name

    def _check_node(self, attributes: Attributes, node: str) -> None:
        name = _name_of(attributes)
        if name != node:
            raise attributes.refused(f'node "{node}" is not allowed to modify node "{name}"')
        obj, old = attributes.obj, attributes.old
        if obj is None:
            return
        source, old_source = _spec(obj).get("configSource"), _spec(old).get("configSource")
        if attributes.operation == "CREATE":
            if source is not None:
                raise attributes.refused(f'node "{node}" is not allowed to create pods with a non-nil configSource')
        elif old is not None:
            if source is not None and source != old_source:
                why = f'node "{node}" is not allowed to update configSource to a new non-nil configSource'
                raise attributes.refused(why)
            if (_spec(obj).get("taints") or []) != (_spec(old).get("taints") or []):
                raise attributes.refused(f'node "{node}" is not allowed to modify taints')
            if list(owner_references_of(obj)) != list(owner_references_of(old)):
                raise attributes.refused(f'node "{node}" is not allowed to modify ownerReferences')
        forbidden = sorted(key for key in _changed_labels(obj, old) if _held_label(key))
        if forbidden:
            listed = ", ".join(forbidden)
            if attributes.operation == "CREATE":
                raise attributes.refused(f'node "{node}" is not allowed to set the following labels: {listed}')
            raise attributes.refused(f"is not allowed to modify labels: {listed}")

    def _check_lease(self, attributes: Attributes, node: str) -> None:
        if attributes.namespace != _LEASE_NAMESPACE:
            raise attributes.refused(f'can only access leases in the "{_LEASE_NAMESPACE}" system namespace')
        if _name_of(attributes) != node:
            raise attributes.refused("can only access node lease with the same name as the requesting node")

    def _check_csi_node(self, attributes: Attributes, node: str) -> None:
        if _name_of(attributes) != node:
            raise attributes.refused("can only access CSINode with the same name as the requesting node")

    def _check_slice(self, attributes: Attributes, node: str) -> None:
        """Others than its own a node does not reach by name; but what it makes has none yet, and what goes with many
        others is not named."""
        operation = attributes.operation
        looked_at = {"CREATE": attributes.obj, "DELETE": attributes.old}.get(operation)
        if looked_at is not None and _spec(looked_at).get("nodeName") != node:
            done = operation.lower()
            raise attributes.refused(f"can only {done} ResourceSlice with the same NodeName as the requesting node")

    # --------------------------------------------------------------------------------------------------------- claims

    def _check_claim(self, attributes: Attributes, node: str) -> None:
        if attributes.subresource != "status":
            raise attributes.refused("may only update PVC status")
        if attributes.operation != "UPDATE" or attributes.obj is None or attributes.old is None:
            raise attributes.refused(f'unexpected operation "{attributes.operation}"')
        if _beside_growth(attributes.obj) != _beside_growth(attributes.old):
            why = f'node "{node}" is not allowed to update fields other than status.quantity and status.conditions'
            raise attributes.refused(why)

    # --------------------------------------------------------------------------------------------------------- tokens

    async def _check_token(self, attributes: Attributes, node: str) -> None:
        if attributes.operation != "CREATE" or attributes.subresource != "token" or attributes.obj is None:
            return
        spec = _spec(attributes.obj)
        bound = spec.get("boundObjectRef") or {}
        if bound.get("kind") != "Pod" or bound.get("apiVersion") != "v1" or not bound.get("name"):
            raise attributes.refused("node requested token not bound to a pod")
        if not bound.get("uid"):
            raise attributes.refused("node requested token with a pod binding without a uid")
        pod = self._reader.get(PODS, attributes.namespace, bound["name"])
        if pod is None:
            raise not_found("pods", "", bound["name"])
        if pod["metadata"].get("uid") != bound["uid"]:
            raise attributes.refused(
                f"the UID in the bound object reference ({bound['uid']}) does not match the UID in record. "
                "The object might have been deleted and then recreated"
            )
        if pod["spec"].get("nodeName") != node:
            raise attributes.refused("node requested token bound to a pod scheduled on a different node")
        audiences = spec.get("audiences") or [""]
        if len(audiences) > 1:
            raise attributes.refused("node may only request 0 or 1 audiences")
        await self._check_audience(attributes, pod, audiences[0])

    async def _check_audience(self, attributes: Attributes, pod: Obj, audience: str) -> None:
        """A token is for whom the pod's volumes ask for tokens, unless the node has the right to ask for others."""
        if not self._restricts_audiences or audience in self._audiences(pod):
            return
        user, namespace = attributes.user, attributes.namespace
        asked = RequestAttributes(
            "request-serviceaccounts-token-audience", "", "", audience, "", namespace, attributes.name
        )
        if self._authorize is not None and audience and (await self._authorize(user, asked)).allowed:
            return
        raise attributes.refused(
            f'audience "{audience}" not found in pod spec volume, {user.name} is not authorized to request tokens '
            "for this audience"
        )

    def _audiences(self, pod: Obj) -> Iterator[str]:
        for volume in pod["spec"].get("volumes") or ():
            for source in (volume.get("projected") or {}).get("sources") or ():
                if source.get("serviceAccountToken") is not None:
                    yield source["serviceAccountToken"].get("audience") or ""
            driver = self._reader.get(CSI_DRIVERS, "", name) if (name := self._driver(pod, volume)) else None
            for request in _spec(driver).get("tokenRequests") or ():
                yield request.get("audience") or ""

    def _driver(self, pod: Obj, volume: Obj) -> str:
        """The CSI driver behind a pod's volume, directly or through a claim."""
        if volume.get("csi") is not None:
            return volume["csi"].get("driver") or ""
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if volume.get("ephemeral") is not None:
            claim = f"{pod['metadata']['name']}-{volume['name']}"
        if not claim:
            return ""
        namespace = pod["metadata"].get("namespace") or ""
        bound_to = _spec(self._reader.get(PERSISTENT_VOLUME_CLAIMS, namespace, claim)).get("volumeName")
        volume_spec = _spec(self._reader.get(PERSISTENT_VOLUMES, "", bound_to)) if bound_to else {}
        return (volume_spec.get("csi") or {}).get("driver") or ""

    # --------------------------------------------------------------------------------------------------- certificates

    def _check_signing_request(self, attributes: Attributes, node: str) -> None:
        """For kubelets' certificates a node asks in its own name."""
        if attributes.operation != "CREATE" or _spec(attributes.obj).get("signerName") not in _KUBELET_SIGNERS:
            return
        # Imported here: requests are rare, and the library is the slowest part of a start-up.
        from cryptography import x509
        from cryptography.x509.oid import NameOID

        try:
            request = x509.load_pem_x509_csr(base64.b64decode(_spec(attributes.obj).get("request") or ""))
        except (ValueError, binascii.Error) as error:
            raise attributes.refused(f"unable to parse csr: {error}") from None
        names = [each.value for each in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        if names[-1:] != [f"system:node:{node}"]:
            raise attributes.refused(f"can only create a node CSR with CN=system:node:{node}")

    def _check_pod_certificate(self, attributes: Attributes, node: str) -> None:
        """A node asks for certificates of the pods that it runs."""
        if attributes.operation != "CREATE":
            raise attributes.refused(f"unexpected operation {attributes.operation}")
        if attributes.subresource:
            raise attributes.refused(f"unexpected subresource {attributes.subresource}")
        spec = _spec(attributes.obj)
        if spec.get("nodeName") != node:
            stated = spec.get("nodeName") or ""
            raise attributes.refused(
                f'PodCertificateRequest.Spec.NodeName="{stated}", which is not the requesting node "{node}"'
            )
        name = spec.get("podName") or ""
        pod = self._reader.get(PODS, attributes.namespace, name)
        if pod is None:
            raise not_found("pods", "", name)
        if _MIRROR in annotations_of(pod):
            raise attributes.refused(f'pod "{name}" is a mirror pod')
        for field, stated, real in (
            ("pod UID", spec.get("podUID"), pod["metadata"].get("uid")),
            ("node name", spec.get("nodeName"), pod["spec"].get("nodeName")),
            ("serviceAccountName", spec.get("serviceAccountName"), pod["spec"].get("serviceAccountName")),
        ):
            if stated != real:
                raise attributes.refused(
                    f'PodCertificateRequest for pod "{name}" contains {field} ("{stated or ""}") which differs from '
                    f'running pod "{real or ""}"'
                )


def _name_of(attributes: Attributes) -> str:
    return attributes.name or (attributes.obj or {"metadata": {}})["metadata"].get("name") or ""


def _spec(obj: Obj | None) -> Mapping[str, Any]:
    return (obj or {}).get("spec") or {}


def _claim_names(status: Obj) -> list[tuple[str, str | None]]:
    return [(each.get("name"), each.get("resourceClaimName")) for each in status.get("resourceClaimStatuses") or ()]


def _beside_growth(claim: Obj) -> Obj:
    """A claim without what a node may write, and without what every write changes."""
    metadata = {
        name: value
        for name, value in claim["metadata"].items()
        if name not in ("resourceVersion", "managedFields", "generation")
    }
    status = {name: value for name, value in (claim.get("status") or {}).items() if name not in _CLAIM_STATUS}
    return {**claim, "metadata": metadata, "status": status}


def _changed_labels(obj: Obj, old: Obj | None) -> set[str]:
    new_labels, old_labels = labels_of(obj), labels_of(old) if old is not None else {}
    return {key for key in {*new_labels, *old_labels} if new_labels.get(key) != old_labels.get(key)}


def _held_label(key: str) -> bool:
    """Labels that say something about a node's trust, which the node itself must not decide."""
    domain = key.partition("/")[0] if "/" in key else ""
    if _within(domain, (_TRUST_DOMAIN,)):
        return True
    if key in _KUBELET_LABELS or _within(domain, _KUBELET_DOMAINS):
        return False
    return _within(domain, _OFFICIAL_DOMAINS)


def _within(domain: str, parents: tuple[str, ...]) -> bool:
    return any(domain == parent or domain.endswith("." + parent) for parent in parents)
