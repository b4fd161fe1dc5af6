"""What certificate requests may be about: what their signers can sign, and what needs no person to approve it.

In: a request as it was made and as it reads. Out: why it cannot be signed, or which right of the requester would do for
its approval. Pure. Invariant: nothing is approved that would let a node be another node, or a person.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from navarch.api.meta import Obj, name_of

if TYPE_CHECKING:
    # Imported where it is used: requests are rare, and the library is among the largest that there are.
    from cryptography import x509

_NODE: Final = "system:node:"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
API_CLIENT = "kubernetes.io/kube-apiserver-client"
LEGACY = "kubernetes.io/legacy-unknown"
# The proxy, the DNS and the Ingress controller that every node has.
NODE_COMPONENTS = ("system:kube-proxy", "system:kube-dns", "navarch:ingress")
SIGNERS = (KUBELET_CLIENT, KUBELET_SERVING, API_CLIENT, LEGACY)
_CLIENT_USAGES: Final = frozenset({"client auth", "digital signature", "key encipherment"})
_SERVING_USAGES: Final = frozenset({"digital signature", "key encipherment", "server auth"})
# What RSA keys alone are for.
_OF_RSA: Final = frozenset({"key encipherment"})


def problem_of(signer: str, request: x509.CertificateSigningRequest, usages: Sequence[str]) -> str:
    """Why a signer may not sign the request, in Kubernetes' order and words; empty if it may."""
    if signer == LEGACY:
        return ""
    if signer == API_CLIENT:
        return _client_usages_problem(usages)
    return next(_problems_of_node(signer, request, frozenset(usages)), "")


def _client_usages_problem(usages: Sequence[str]) -> str:
    for usage in usages:
        if usage not in _CLIENT_USAGES:
            return f"invalid usage for client certificate: {usage}"
    return "" if "client auth" in usages else "missing required usage for client certificate: client auth"


def _problems_of_node(signer: str, request: x509.CertificateSigningRequest, usages: frozenset[str]) -> Iterator[str]:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    organizations = [str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    if organizations != ["system:nodes"]:
        yield "subject organization is not system:nodes"
    named = {
        word: bool(_alternatives(request, kind))
        for word, kind in (
            ("DNS", x509.DNSName),
            ("Email", x509.RFC822Name),
            ("IP", x509.IPAddress),
            ("URI", x509.UniformResourceIdentifier),
        )
    }
    serves = signer == KUBELET_SERVING
    if serves and not (named["DNS"] or named["IP"]):
        yield "DNS or IP subjectAltName is required"
    for word, is_there in named.items():
        if is_there and not (serves and word in ("DNS", "IP")):
            yield f"{word} subjectAltNames are not allowed"
    wanted = _SERVING_USAGES if serves else _CLIENT_USAGES
    if usages not in (wanted, wanted - _OF_RSA):
        yield f"usages did not match [{' '.join(sorted(wanted))}]"
    if not common_name_of(request).startswith(_NODE):
        yield f"subject common name does not begin with {_NODE}"


def _alternatives(request: x509.CertificateSigningRequest, kind: type[x509.GeneralName]) -> list[object]:
    """The names of one kind that the certificate is to be good for beside its subject."""
    from cryptography import x509

    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [name for name in names if isinstance(name, kind)]


def common_name_of(request: x509.CertificateSigningRequest) -> str:
    from cryptography.x509.oid import NameOID

    return next((str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)), "")


def node_of(user: str) -> str:
    """The node whose kubelet a user is; empty for anybody else."""
    return user[len(_NODE) :] if user.startswith(_NODE) else ""


def rights_for(spec: Obj, request: x509.CertificateSigningRequest, node: Obj | None) -> Iterator[tuple[str, str]]:
    """Which rights to subresources of certificatesigningrequests would do, and what for. The request is one that its
    signer can sign; `node` is the requester's, for a serving certificate."""
    signer, user = spec["signerName"], spec.get("username") or ""
    common_name = common_name_of(request)
    if signer == KUBELET_CLIENT:
        if common_name == user:
            yield "selfnodeclient", "selfnodeclient CSR after SubjectAccessReview."
        yield "nodeclient", "kubelet client certificate after SubjectAccessReview."
    elif signer == KUBELET_SERVING:
        if common_name == user and node is not None and _is_known_as(node, request):
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
