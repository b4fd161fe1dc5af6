"""What certificate requests may be about: what their signers can sign, and what needs no person to approve it.

In: a request as it was made and as it reads. Out: why it cannot be signed, or which right of the requester would do for
its approval. Pure. Invariant: nothing is approved that would let a node be another node, or a person.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from navarch.api.meta import Obj, name_of

if TYPE_CHECKING:
    # Imported where it is used: requests are rare, and the library is among the largest that there are.
    from cryptography import x509

KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
API_CLIENT = "kubernetes.io/kube-apiserver-client"
LEGACY = "kubernetes.io/legacy-unknown"
# The proxy, the DNS and the Ingress controller that every node has.
NODE_COMPONENTS = ("system:kube-proxy", "system:kube-dns", "navarch:ingress")
SIGNERS = (KUBELET_CLIENT, KUBELET_SERVING, API_CLIENT, LEGACY)
_CLIENT_USAGES = ({"digital signature", "client auth"}, {"key encipherment", "digital signature", "client auth"})
_SERVING_USAGES = ({"digital signature", "server auth"}, {"key encipherment", "digital signature", "server auth"})


def problem_of(signer: str, request: x509.CertificateSigningRequest, usages: set[str], user: str) -> str:
    """Why a signer may not sign the request; empty if it may."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    common_name = next((str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)), "")
    organizations = [str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = None
    if signer == API_CLIENT:
        return "" if "client auth" in usages and "server auth" not in usages else "usages did not match"
    if signer == LEGACY:
        return ""
    if organizations != ["system:nodes"]:
        return "subject organization is not system:nodes"
    if not common_name.startswith("system:node:"):
        return "subject common name does not begin with system:node: "
    if signer == KUBELET_CLIENT:
        if names is not None:
            return "DNS, email, IP and URI SANs not allowed"
        return "" if usages in _CLIENT_USAGES else "usages did not match"
    if common_name != user:
        return "subject common name is not the requesting node"
    if names is None or not (names.get_values_for_type(x509.DNSName) or names.get_values_for_type(x509.IPAddress)):
        return "at least one DNS Name or IP Address SAN is required"
    if names.get_values_for_type(x509.RFC822Name) or names.get_values_for_type(x509.UniformResourceIdentifier):
        return "email and URI SANs not allowed"
    return "" if usages in _SERVING_USAGES else "usages did not match"


def node_of(user: str) -> str:
    """The node whose kubelet a user is; empty for anybody else."""
    prefix = "system:node:"
    return user[len(prefix) :] if user.startswith(prefix) else ""


def rights_for(spec: Obj, request: x509.CertificateSigningRequest, node: Obj | None) -> Iterator[tuple[str, str]]:
    """Which rights to subresources of certificatesigningrequests would do, and what for. The request is one that its
    signer can sign; `node` is the requester's, for a serving certificate."""
    from cryptography.x509.oid import NameOID

    signer, user = spec["signerName"], spec.get("username") or ""
    common_name = next((str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)), "")
    if signer == KUBELET_CLIENT:
        if common_name == user:
            yield "selfnodeclient", "selfnodeclient CSR after SubjectAccessReview."
        yield "nodeclient", "kubelet client certificate after SubjectAccessReview."
    elif signer == KUBELET_SERVING:
        if node is not None and _is_known_as(node, request):
            yield "selfnodeserver", "kubelet serving certificate after SubjectAccessReview."
    elif signer == API_CLIENT and node_of(user) and "system:nodes" in (spec.get("groups") or ()):
        # No organization: groups would be given with it.
        if common_name in NODE_COMPONENTS and len(list(request.subject)) == 1:
            yield "nodecomponent", "client certificate of a node's component after SubjectAccessReview."


def _is_known_as(node: Obj, request: x509.CertificateSigningRequest) -> bool:
    """Whether all names and addresses of the request are those that the node has said it has."""
    from cryptography import x509

    said = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    asked = {*said.get_values_for_type(x509.DNSName), *map(str, said.get_values_for_type(x509.IPAddress))}
    listed = (node.get("status") or {}).get("addresses") or ()
    return asked <= {name_of(node), *(str(entry.get("address") or "") for entry in listed)}
