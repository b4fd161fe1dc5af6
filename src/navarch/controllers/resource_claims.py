"""Claims of devices: made for pods that bring a template, kept for the pods that use them, let go afterwards.

In: pods with `spec.resourceClaims`, ResourceClaims. Out: a claim for each template that a pod names, told in the pod's
status; `status.reservedFor` without pods that are gone or done; an allocation that nobody uses taken back; a claim that
was made for a pod deleted when that pod is done. Both controllers rest where the group is not served.
Invariant: a claim is made once for a pod and its entry, also while the informer has not seen it yet.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable
from typing import ClassVar, Final

from navarch.api.errors import StatusError
from navarch.api.meta import (
    Key,
    Obj,
    Resource,
    controller_of,
    controller_reference,
    is_deleting,
    key_of,
    name_of,
    namespace_of,
    uid_of,
)
from navarch.client.informer import Informer
from navarch.client.resources import PODS, RESOURCE_CLAIM_TEMPLATES, RESOURCE_CLAIMS
from navarch.controllers.base import Context, Requeue
from navarch.controllers.optional import OptionalController
from navarch.kinds.core.pod_state import is_finished
from navarch.kinds.core.references import resource_claims_of

FINALIZER: Final = "resource.kubernetes.io/delete-protection"
_ENTRY: Final = "resource.kubernetes.io/pod-claim-name"
_MANAGER: Final = "ResourceClaimController"
# Room for a hyphen and five random characters in a name of 63.
_LONGEST_BASE: Final = 57
_MOST_USERS: Final = 256


class _ClaimController(OptionalController):
    """Follows pods and claims."""

    needs = RESOURCE_CLAIMS
    _served: Resource
    _pods: Informer
    _claims: Informer

    def follow(self, served: Resource) -> None:
        self._served = served
        self._pods = self.informer(PODS)
        self._claims = self.informer(served)
        self.listen()

    def listen(self) -> None:
        """Ask to be told what happens."""
        raise NotImplementedError


class PodResourceClaimController(_ClaimController):
    """By pod: makes claims, and reserves them for a pod that was bound without the scheduler."""

    name: ClassVar[str] = "pod-resource-claim"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._made: dict[tuple[str, str], Obj] = {}
        self._recorder = context.recorder("resource_claim")

    def listen(self) -> None:
        self._pods.add_handler(self._pod_seen, lambda _old, new: self._pod_seen(new), self._pod_gone)
        self._claims.add_handler(self._claim_changed, lambda _old, new: self._claim_changed(new), self._claim_changed)

    def _pod_seen(self, pod: Obj) -> None:
        if pod["spec"].get("resourceClaims") and not _is_done(pod):
            self.enqueue(key_of(pod))

    def _pod_gone(self, pod: Obj) -> None:
        for entry in pod["spec"].get("resourceClaims") or ():
            self._made.pop((uid_of(pod), entry["name"]), None)

    def _claim_changed(self, claim: Obj) -> None:
        """A claim that was deleted is made again; one that got its devices may wait for being reserved."""
        owner = _owner(claim)
        if owner is not None:
            entry = (claim["metadata"].get("annotations") or {}).get(_ENTRY, "")
            self._made.pop((owner["uid"], entry), None)
            self.enqueue(Key(namespace_of(claim), owner["name"]))
        elif (claim.get("status") or {}).get("allocation") is not None:
            for pod in self._pods.list(namespace_of(claim)):
                if pod["spec"].get("resourceClaims") and name_of(claim) in resource_claims_of(pod):
                    self.enqueue(key_of(pod))

    async def reconcile(self, key: Key) -> Requeue | None:
        pod = self._pods.get(*key)
        if pod is None or is_deleting(pod) or is_finished(pod):
            return None
        entries = pod["spec"].get("resourceClaims") or ()
        told = _told(pod)
        made = {}
        for entry in entries:
            if entry.get("resourceClaimTemplateName") and not self._has_claim(pod, told.get(entry["name"])):
                made[entry["name"]] = name_of(await self._claim_for(pod, entry))
        if made != {name: told.get(name) for name in made}:
            await self._tell(pod, {**told, **made})
        if pod["spec"].get("nodeName"):
            for name in resource_claims_of(pod):
                await self._reserve(pod, name)
        return None

    def _has_claim(self, pod: Obj, name: str | None) -> bool:
        claim = self._claims.get(namespace_of(pod), name) if name else None
        return claim is not None and _is_for(claim, pod)

    async def _claim_for(self, pod: Obj, entry: Obj) -> Obj:
        known = self._find(pod, entry["name"])
        if known is not None:
            return known
        template_name = entry["resourceClaimTemplateName"]
        try:
            try:
                # In the version in which claims are served, so that the one's requests are the other's.
                templates = RESOURCE_CLAIM_TEMPLATES._replace(version=self._served.version)
                template = await self.client.get(templates, template_name, namespace_of(pod))
            except StatusError as error:
                if error.code != 404:
                    raise
                missing = f'resourceclaimtemplate.resource.k8s.io "{template_name}" not found'
                raise _Missing(f'resource claim template "{template_name}": {missing}') from None
            made = await self.client.create(self._served, make_claim(pod, entry["name"], template))
        except StatusError as error:
            self._recorder.event(
                pod, "Warning", "FailedResourceClaimCreation", f"PodResourceClaim {entry['name']}: {error.message}"
            )
            raise
        self._made[uid_of(pod), entry["name"]] = made
        return made

    def _find(self, pod: Obj, entry: str) -> Obj | None:
        """The claim that was made for the entry of the pod, if there is one."""
        for claim in self._claims.list(namespace_of(pod)):
            if _is_for(claim, pod) and (claim["metadata"].get("annotations") or {}).get(_ENTRY) == entry:
                return claim
        return self._made.get((uid_of(pod), entry))

    async def _tell(self, pod: Obj, told: dict[str, str | None]) -> None:
        statuses = [
            {"name": name} | ({"resourceClaimName": claim} if claim else {}) for name, claim in sorted(told.items())
        ]
        applied = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name_of(pod), "namespace": namespace_of(pod)},
            "status": {"resourceClaimStatuses": statuses},
        }
        await self.client.apply(PODS, applied, field_manager=_MANAGER, force=True, subresource="status")

    async def _reserve(self, pod: Obj, name: str) -> None:
        claim = self._claims.get(namespace_of(pod), name)
        if claim is None:
            return
        claim = self.newest(self._served, claim)
        status = claim.get("status") or {}
        users = status.get("reservedFor") or []
        is_reserved = any(user.get("uid") == uid_of(pod) for user in users)
        if status.get("allocation") is None or is_reserved or len(users) >= _MOST_USERS:
            return
        user = {"resource": "pods", "name": name_of(pod), "uid": uid_of(pod)}
        await self.write_status(self._served, claim, {**status, "reservedFor": [*users, user]})


class ResourceClaimController(_ClaimController):
    """By claim: lets go of pods that are gone, of devices that nobody uses and of claims whose pod is done."""

    name: ClassVar[str] = "resource-claim"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._users: defaultdict[str, set[Key]] = defaultdict(set)

    def listen(self) -> None:
        self._claims.add_handler(self._claim_seen, lambda _old, new: self._claim_seen(new), self._claim_gone)
        self._pods.add_handler(self._pod_seen, lambda _old, new: self._pod_seen(new), self._pod_gone)

    def _claim_seen(self, claim: Obj) -> None:
        for user in _users(claim):
            self._users[user["uid"]].add(key_of(claim))
        owner = _owner(claim)
        if owner is not None:
            self._users[owner["uid"]].add(key_of(claim))
        self.enqueue(key_of(claim))

    def _claim_gone(self, claim: Obj) -> None:
        for uid in [user["uid"] for user in _users(claim)] + [owner["uid"] for owner in _owners(claim)]:
            claims = self._users.get(uid)
            if claims is not None:
                claims.discard(key_of(claim))
                if not claims:
                    del self._users[uid]

    def _pod_seen(self, pod: Obj) -> None:
        if pod["spec"].get("resourceClaims") and _is_done(pod):
            self._pod_gone(pod)

    def _pod_gone(self, pod: Obj) -> None:
        for claim in sorted(self._users.get(uid_of(pod), ())):
            self.enqueue(claim)

    async def reconcile(self, key: Key) -> Requeue | None:
        claim = self._claims.get(*key)
        if claim is None:
            return None
        claim = self.newest(self._served, claim)
        users = _users(claim)
        staying = [user for user in users if await self._is_used_by(key.namespace, user)]
        is_unused = not staying
        if len(staying) < len(users) or (is_unused and is_deleting(claim)):
            claim = await self._let_go(claim, staying)
        if is_unused:
            await self._delete_with_pod(claim)
        return None

    async def _is_used_by(self, namespace: str, user: Obj) -> bool:
        if user.get("apiGroup") or user.get("resource") != "pods":
            return True
        pod = self._pods.get(namespace, user["name"])
        if pod is None:
            # The informer may be behind the scheduler; a device must not be taken from a pod that starts.
            pod = await self.client.find(PODS, user["name"], namespace)
        return pod is not None and uid_of(pod) == user["uid"] and not _is_done(pod)

    async def _let_go(self, claim: Obj, staying: list[Obj]) -> Obj:
        status = {name: value for name, value in (claim.get("status") or {}).items() if name != "reservedFor"}
        if staying:
            status["reservedFor"] = staying
        is_protected = FINALIZER in (claim["metadata"].get("finalizers") or ())
        if not staying and is_protected:
            # Devices go back when the last who used them is gone, for another to be placed where it likes.
            status.pop("allocation", None)
        if status != (claim.get("status") or {}):
            claim = await self.write_status(self._served, claim, status)
        if not staying and is_protected and "allocation" not in (claim.get("status") or {}):
            claim = copy.deepcopy(claim)
            claim["metadata"]["finalizers"].remove(FINALIZER)
            claim = await self.write(self._served, claim)
        return claim

    async def _delete_with_pod(self, claim: Obj) -> None:
        """The garbage collector would do it, but a pod that is done may stay for a while."""
        owner = _owner(claim)
        if owner is None or is_deleting(claim):
            return
        pod = self._pods.get(namespace_of(claim), owner["name"])
        if pod is not None and (uid_of(pod) != owner["uid"] or _is_done(pod)):
            await self.client.delete(self._served, name_of(claim), namespace_of(claim), uid=uid_of(claim))


class _Missing(StatusError):
    """The template that a pod names is not there: tried again like any other failure, until it is."""

    def __init__(self, message: str) -> None:
        super().__init__(500, "InternalError", message)


def make_claim(pod: Obj, entry: str, template: Obj) -> Obj:
    """The claim for a pod's entry `spec.resourceClaims[name]`."""
    origin = template["spec"].get("metadata") or {}
    metadata: Obj = {
        "generateName": _base(name_of(pod), entry),
        "namespace": namespace_of(pod),
        "annotations": {**(origin.get("annotations") or {}), _ENTRY: entry},
        "ownerReferences": [controller_reference({**pod, "apiVersion": "v1", "kind": "Pod"})],
    }
    if origin.get("labels"):
        metadata["labels"] = dict(origin["labels"])
    return {
        "apiVersion": template["apiVersion"],
        "kind": RESOURCE_CLAIMS.kind,
        "metadata": metadata,
        "spec": copy.deepcopy(template["spec"]["spec"]),
    }


def _base(pod: str, entry: str) -> str:
    whole = f"{pod}-{entry}-"
    if len(whole) <= _LONGEST_BASE:
        return whole
    # Both give up their share, so that the name still tells which entry it is.
    return "-".join(part[: len(part) * _LONGEST_BASE // len(whole)] for part in (pod, entry))


def _told(pod: Obj) -> dict[str, str | None]:
    statuses = (pod.get("status") or {}).get("resourceClaimStatuses") or ()
    return {each["name"]: each.get("resourceClaimName") for each in statuses}


def _users(claim: Obj) -> list[Obj]:
    return (claim.get("status") or {}).get("reservedFor") or []


def _owner(claim: Obj) -> Obj | None:
    """The pod for which the claim was made."""
    owner = controller_of(claim)
    return owner if owner is not None and (owner.get("apiVersion"), owner.get("kind")) == ("v1", "Pod") else None


def _owners(claim: Obj) -> Iterable[Obj]:
    owner = _owner(claim)
    return () if owner is None else (owner,)


def _is_for(claim: Obj, pod: Obj) -> bool:
    owner = _owner(claim)
    return owner is not None and owner["uid"] == uid_of(pod)


def _is_done(pod: Obj) -> bool:
    """Whether none of the pod's containers run or will ever run."""
    return is_finished(pod) or (is_deleting(pod) and not pod["spec"].get("nodeName"))
