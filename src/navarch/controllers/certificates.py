"""Certificate requests: approve what nodes may have, sign what is approved, forget what is old.

In: CertificateSigningRequests. Out: the Approved condition for what a node needs and may have (`approval.py`),
certificates for the signers that the cluster's CA serves, old requests deleted. `kubernetes.io/legacy-unknown` is
signed when somebody has approved it, and never approved here.
"""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, ClassVar

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, name_of
from navarch.api.time import format_time, parse_time
from navarch.client.resources import CERTIFICATE_SIGNING_REQUESTS, NODES, SUBJECT_ACCESS_REVIEWS
from navarch.controllers.approval import KUBELET_SERVING, SIGNERS, node_of, problem_of, rights_for
from navarch.controllers.base import Context, Controller, Requeue
from navarch.controllers.pods import created_at

if TYPE_CHECKING:
    # Imported where it is used: requests are rare, and the library is among the largest that there are.
    from cryptography import x509

_SHORTEST_S = 600
_NODE_SAYS_S = 10.0


class CertificateController(Controller):
    name: ClassVar[str] = "certificates"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._requests = self.watch_primary(CERTIFICATE_SIGNING_REQUESTS)

    async def reconcile(self, key: Key) -> Requeue | None:
        cached = self._requests.get("", key.name)
        if cached is None:
            return None
        made = self.newest(CERTIFICATE_SIGNING_REQUESTS, cached)
        status = made.get("status") or {}
        conditions = {condition["type"] for condition in status.get("conditions") or ()}
        expiry = _expiry(made, conditions, self.clock.now())
        if expiry <= self.clock.now():
            await self._delete(made)
            return None
        wait_s = (expiry - self.clock.now()).total_seconds()
        if made["spec"].get("signerName") in SIGNERS and not conditions & {"Denied", "Failed"}:
            if "Approved" not in conditions:
                if not await self._approve(made) and made["spec"]["signerName"] == KUBELET_SERVING:
                    # The node may say only later that it has these addresses.
                    wait_s = min(wait_s, _NODE_SAYS_S)
            elif not status.get("certificate"):
                await self._sign(made)
        return Requeue(wait_s)

    async def _delete(self, made: Obj) -> None:
        try:
            await self.client.delete(CERTIFICATE_SIGNING_REQUESTS, name_of(made), uid=made["metadata"]["uid"])
        except StatusError as error:
            if error.code != 404:
                raise

    async def _approve(self, made: Obj) -> bool:
        """What a node needs, where the requester has the right to it; whether it was approved."""
        spec = made["spec"]
        try:
            request = _parse(made)
        except ValueError:
            return False
        if problem_of(spec["signerName"], request, spec.get("usages") or ()):
            return False
        node = None
        if spec["signerName"] == KUBELET_SERVING:
            node = await self.client.find(NODES, node_of(spec.get("username") or ""))
        for subresource, what in rights_for(spec, request, node):
            if await self._allowed(spec, subresource):
                told = {
                    "type": "Approved",
                    "status": "True",
                    "reason": "AutoApproved",
                    "message": f"Auto approving {what}",
                    "lastUpdateTime": format_time(self.clock.now()),
                    "lastTransitionTime": format_time(self.clock.now()),
                }
                status = made.get("status") or {}
                changed = {**made, "status": {**status, "conditions": [*(status.get("conditions") or ()), told]}}
                await self.write(CERTIFICATE_SIGNING_REQUESTS, changed, subresource="approval")
                return True
        return False

    async def _allowed(self, spec: Obj, subresource: str) -> bool:
        attributes = {
            "group": "certificates.k8s.io",
            "resource": "certificatesigningrequests",
            "verb": "create",
            "subresource": subresource,
            "version": "*",
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "metadata": {},
            "spec": {
                "user": spec.get("username") or "",
                "uid": spec.get("uid") or "",
                "groups": spec.get("groups") or [],
                "extra": spec.get("extra") or {},
                "resourceAttributes": attributes,
            },
        }
        answer = await self.client.create(SUBJECT_ACCESS_REVIEWS, review)
        return bool((answer.get("status") or {}).get("allowed"))

    async def _sign(self, made: Obj) -> None:
        signer = self.context.config.certificate_signer
        if signer is None:
            return
        spec = made["spec"]
        usages = list(spec.get("usages") or ())
        status = dict(made.get("status") or {})
        try:
            request = _parse(made)
            problem = problem_of(spec["signerName"], request, usages)
        except ValueError as error:
            problem = f"unable to parse csr: {error}"
        if problem:
            told = {
                "type": "Failed",
                "status": "True",
                "reason": "SignerValidationFailure",
                "message": problem,
                "lastUpdateTime": format_time(self.clock.now()),
                "lastTransitionTime": format_time(self.clock.now()),
            }
            status["conditions"] = [*(status.get("conditions") or ()), told]
        else:
            longest_s = self.context.config.certificate_lifetime_s
            wanted_s = int(spec.get("expirationSeconds") or longest_s)
            lifetime_s = max(min(wanted_s, longest_s), _SHORTEST_S)
            certificate = signer(base64.b64decode(spec["request"]), usages, lifetime_s)
            status["certificate"] = base64.b64encode(certificate).decode()
        await self.write_status(CERTIFICATE_SIGNING_REQUESTS, made, status)


def _parse(made: Obj) -> x509.CertificateSigningRequest:
    from cryptography import x509

    return x509.load_pem_x509_csr(base64.b64decode(made["spec"]["request"]))


def _expiry(made: Obj, conditions: set[str], now: datetime) -> datetime:
    """Pending requests are kept for a day, settled ones for an hour, and none beyond its certificate."""
    settled = bool(conditions & {"Approved", "Denied", "Failed"})
    since = created_at(made)
    for condition in (made.get("status") or {}).get("conditions") or ():
        if condition.get("lastUpdateTime"):
            since = max(since, parse_time(condition["lastUpdateTime"]))
    due = since + (timedelta(hours=1) if settled else timedelta(hours=24))
    certificate = (made.get("status") or {}).get("certificate")
    if certificate:
        from cryptography import x509

        try:
            ends = x509.load_pem_x509_certificate(base64.b64decode(certificate)).not_valid_after_utc
        except ValueError:
            return due
        return min(due, ends)
    return due
