"""VolumeBinding: a pod goes where its volumes can be.

Bound claims hold it to the nodes that their volumes can be used from. Unbound claims of classes that bind at once
keep it from being scheduled at all; those that wait for the first consumer follow it: to a fitting volume, or by
telling the provisioner which node was selected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import numpy as np

from navarch.api import quantity
from navarch.api.errors import StatusError
from navarch.api.meta import Obj, is_deleting, labels_of, name_of, namespace_of
from navarch.api.selectors import label_selector_of
from navarch.client import resources
from navarch.client.base import PatchKind
from navarch.scheduler.columns import BoolArray
from navarch.scheduler.environment import Environment
from navarch.scheduler.framework import Change, ClusterEvent, Plugin, Refusal
from navarch.scheduler.plugins.node_affinity import any_term_matches, term_matches
from navarch.scheduler.podinfo import PodInfo
from navarch.scheduler.table import NodeTable

SELECTED_NODE = "volume.kubernetes.io/selected-node"
_BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
_NO_PROVISIONER = "kubernetes.io/no-provisioner"
_BIND_TIMEOUT_S = 600.0
_POLL_S = 0.1

_CONFLICT = "node(s) had volume node affinity conflict"
_NONE_FITS = "node(s) didn't find available persistent volumes to bind"
_NO_ROOM = "node(s) did not have enough free storage"
_LOST = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"


class VolumeBinding(Plugin):
    """Match pods, claims, volumes and nodes."""

    name = "VolumeBinding"
    changes = frozenset({Change.NODE_ADDED, Change.NODE_UPDATED, Change.CLAIMS, Change.CLASSES, Change.VOLUMES})

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        """Every useless try makes the next one come later, so a volume that appears is not tried before the claim has
        it."""
        if event.change is Change.CLAIMS:
            return is_claim_of(pod, event)
        return event.change is Change.CLASSES or not pod.rejected_outright

    def __init__(self, bind_timeout_s: float = _BIND_TIMEOUT_S) -> None:
        self._bind_timeout_s = bind_timeout_s

    def reject(self, pod: PodInfo, environment: Environment) -> str | None:
        immediate = False
        for name in pod.traits.claims:
            claim = environment.claims.get(pod.key.namespace, name)
            if claim is None:
                if name in pod.traits.ephemeral_claims:
                    return f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"'
                return f'persistentvolumeclaim "{name}" not found'
            if (claim.get("status") or {}).get("phase") == "Lost":
                volume = claim["spec"].get("volumeName", "")
                return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{volume}"'
            if is_deleting(claim):
                return f'persistentvolumeclaim "{name}" is being deleted'
            immediate = immediate or not (is_bound(claim) or _waits_for_consumer(claim, environment))
        return "pod has unbound immediate PersistentVolumeClaims" if immediate else None

    def filters(self, pod: PodInfo) -> bool:
        return bool(pod.traits.claims)

    def filter(self, pod: PodInfo, nodes: NodeTable) -> BoolArray:
        good: BoolArray = np.ones(len(nodes), np.bool_)
        for _, verdict in self._verdicts(pod, nodes):
            good &= verdict
        return good

    def explain(self, pod: PodInfo, nodes: NodeTable) -> Refusal:
        reasons: dict[str, int] = {}
        for reason, verdict in self._verdicts(pod, nodes):
            refused = int(np.count_nonzero(~verdict))
            if refused:
                reasons[reason] = max(reasons.get(reason, 0), refused)
        return Refusal(reasons, np.zeros(len(nodes), np.bool_))

    def _verdicts(self, pod: PodInfo, nodes: NodeTable) -> Iterable[tuple[str, BoolArray]]:
        """For each claim the nodes that it allows, and what to say of the others."""
        environment = nodes.environment
        for name in pod.traits.claims:
            claim = environment.claims.get(pod.key.namespace, name)
            if claim is None:
                continue
            if is_bound(claim):
                volume = environment.volumes.get("", claim["spec"]["volumeName"])
                if volume is None:
                    yield _LOST, np.zeros(len(nodes), np.bool_)
                else:
                    yield _CONFLICT, reachable(volume, nodes)
            else:
                fits = self._fits_there(claim, nodes)
                storage_class = environment.classes.get("", class_of(claim, environment))
                if not _can_provision(storage_class):
                    yield _NONE_FITS, fits
                    continue
                assert storage_class is not None
                yield _NONE_FITS, fits | _allowed(storage_class, nodes)
                yield _NO_ROOM, fits | _has_room(claim, storage_class, nodes)

    @staticmethod
    def _fits_there(claim: Obj, nodes: NodeTable) -> BoolArray:
        """Nodes that reach a volume which the claim could have."""
        environment = nodes.environment
        good: BoolArray = np.zeros(len(nodes), np.bool_)
        for volume in fitting_volumes(claim, environment):
            good |= reachable(volume, nodes)
        return good

    # Binding.

    def binds(self, pod: PodInfo) -> bool:
        return bool(pod.traits.claims)

    async def pre_bind(self, pod: PodInfo, node: Obj, environment: Environment) -> None:
        waiting: list[str] = []
        for name in pod.traits.claims:
            claim = environment.claims.get(pod.key.namespace, name)
            if claim is not None and not is_bound(claim):
                await self._start_binding(claim, node, environment)
                waiting.append(name)
        waited_s = 0.0
        while waiting:
            waiting = [n for n in waiting if not _is_bound_now(environment.claims.get(pod.key.namespace, n))]
            if waited_s >= self._bind_timeout_s:
                raise StatusError(504, "Timeout", "binding volumes: timed out waiting for the condition")
            if waiting:
                if environment.has_gone(pod):
                    raise StatusError(404, "NotFound", "binding volumes: the pod is gone")
                await asyncio.sleep(_POLL_S)
                waited_s += _POLL_S

    @staticmethod
    async def _start_binding(claim: Obj, node: Obj, environment: Environment) -> None:
        on_node = [v for v in fitting_volumes(claim, environment) if _node_can_reach(node, v)]
        namespace, name = claim["metadata"]["namespace"], name_of(claim)
        if not on_node:
            patch: Obj = {"metadata": {"annotations": {SELECTED_NODE: name_of(node)}}}
            await environment.client.patch(
                resources.PERSISTENT_VOLUME_CLAIMS, name, namespace, patch, kind=PatchKind.MERGE
            )
            return
        volume = min(on_node, key=_capacity)
        reference = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": namespace,
            "name": name,
            "uid": claim["metadata"].get("uid", ""),
            "resourceVersion": claim["metadata"].get("resourceVersion", ""),
        }
        patch = {
            "metadata": {
                "resourceVersion": volume["metadata"].get("resourceVersion"),
                "annotations": {_BOUND_BY_CONTROLLER: "yes"},
            },
            "spec": {"claimRef": reference},
        }
        await environment.client.patch(resources.PERSISTENT_VOLUMES, name_of(volume), "", patch, kind=PatchKind.MERGE)


def is_claim_of(pod: PodInfo, event: ClusterEvent) -> bool:
    """Whether what changed is a claim that the pod uses."""
    claim = event.new
    return claim is not None and namespace_of(claim) == pod.key.namespace and name_of(claim) in pod.traits.claims


def is_bound(claim: Obj) -> bool:
    return bool(claim["spec"].get("volumeName")) and (claim.get("status") or {}).get("phase") == "Bound"


def _is_bound_now(claim: Obj | None) -> bool:
    if claim is None:
        raise StatusError(404, "NotFound", "binding volumes: the claim is gone")
    return is_bound(claim)


def class_of(claim: Obj, environment: Environment) -> str:
    """The claim's class; empty for none. Claims that name none were given the default at admission."""
    named = claim["spec"].get("storageClassName")
    return str(named) if named is not None else environment.default_class()


def _waits_for_consumer(claim: Obj, environment: Environment) -> bool:
    storage_class = environment.classes.get("", class_of(claim, environment))
    return storage_class is not None and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"


def _can_provision(storage_class: Obj | None) -> bool:
    return storage_class is not None and storage_class.get("provisioner") not in (None, "", _NO_PROVISIONER)


def _allowed(storage_class: Obj, nodes: NodeTable) -> BoolArray:
    """Nodes for which the class has volumes made."""
    topologies = storage_class.get("allowedTopologies")
    if not topologies:
        return np.ones(len(nodes), np.bool_)
    return any_term_matches(map(_as_node_selector_term, topologies), nodes)


def _has_room(claim: Obj, storage_class: Obj, nodes: NodeTable) -> BoolArray:
    """Nodes for which the driver says that it has room; of one that says nothing of that, all."""
    environment = nodes.environment
    about = environment.csi_drivers.get("", storage_class["provisioner"])
    if about is None or not about["spec"].get("storageCapacity"):
        return np.ones(len(nodes), np.bool_)
    wanted = quantity.parse(((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage", "0"))
    good: BoolArray = np.zeros(len(nodes), np.bool_)
    for told in environment.capacities.list():
        if told["storageClassName"] != name_of(storage_class):
            continue
        room = told.get("maximumVolumeSize") or told.get("capacity")
        where = told.get("nodeTopology")
        if room is None or where is None or quantity.parse(room) < wanted:
            continue
        term = _as_term(where)
        good |= term_matches(term, nodes)
    return good


def _as_term(selector: Obj) -> Obj:
    """A label selector as a node selector term; an empty one selects every node."""
    by_value = [
        {"key": key, "operator": "In", "values": [value]} for key, value in (selector.get("matchLabels") or {}).items()
    ]
    return {"matchExpressions": [*by_value, *(selector.get("matchExpressions") or ())]}


def fitting_volumes(claim: Obj, environment: Environment) -> list[Obj]:
    """Volumes that the claim could be bound to, wherever they are."""
    return [volume for volume in environment.volumes.list() if _fits(claim, volume, environment)]


def _fits(claim: Obj, volume: Obj, environment: Environment) -> bool:
    wanted, offered = claim["spec"], volume["spec"]
    reference = offered.get("claimRef")
    if reference is not None:
        same = (reference.get("namespace"), reference.get("name")) == (
            claim["metadata"]["namespace"],
            claim["metadata"]["name"],
        )
        return same and reference.get("uid") in (None, "", claim["metadata"].get("uid"))
    if is_deleting(volume) or (volume.get("status") or {}).get("phase") not in (None, "", "Available"):
        return False
    if (offered.get("storageClassName") or "") != class_of(claim, environment):
        return False
    if (offered.get("volumeMode") or "Filesystem") != (wanted.get("volumeMode") or "Filesystem"):
        return False
    if not set(wanted.get("accessModes") or ()) <= set(offered.get("accessModes") or ()):
        return False
    if wanted.get("selector") is not None and not label_selector_of(wanted["selector"]).matches(labels_of(volume)):
        return False
    size = ((wanted.get("resources") or {}).get("requests") or {}).get("storage", "0")
    return _capacity(volume) >= quantity.value(size)


def _capacity(volume: Obj) -> int:
    return quantity.value((volume["spec"].get("capacity") or {}).get("storage", "0"))


def reachable(volume: Obj, nodes: NodeTable) -> BoolArray:
    """Nodes from which the volume can be used."""
    required = (volume["spec"].get("nodeAffinity") or {}).get("required")
    if not required:
        return np.ones(len(nodes), np.bool_)
    return any_term_matches(required.get("nodeSelectorTerms") or (), nodes)


def _node_can_reach(node: Obj, volume: Obj) -> bool:
    required = (volume["spec"].get("nodeAffinity") or {}).get("required")
    if not required:
        return True
    return any(_term_selects(term, node) for term in required.get("nodeSelectorTerms") or ())


def _term_selects(term: Obj, node: Obj) -> bool:
    by_label = {"matchExpressions": [_as_label_requirement(r) for r in term.get("matchExpressions") or ()]}
    if not label_selector_of(by_label).matches(labels_of(node)):
        return False
    for field in term.get("matchFields") or ():
        inside = name_of(node) in (field.get("values") or ())
        if inside == (field.get("operator") == "NotIn"):
            return False
    return True


def _as_label_requirement(requirement: Obj) -> Obj:
    return {"key": requirement["key"], "operator": requirement["operator"], "values": requirement.get("values") or []}


def _as_node_selector_term(topology: Obj) -> Obj:
    return {
        "matchExpressions": [
            {"key": e["key"], "operator": "In", "values": e.get("values") or []}
            for e in topology.get("matchLabelExpressions") or ()
        ]
    }
