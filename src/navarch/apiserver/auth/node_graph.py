"""The graph behind node authorization: which nodes lead to an object, through the pods bound to them.

In: changes of pods, persistent volumes, volume attachments, pod certificate requests and resource slices, from the
watch caches. Out: whether an object is one that a node needs. Edges run secret, config map, account, claim → pod →
node; volume → claim; secret → volume; attachment, request, slice → node.

A change is only noted; a pod is decoded when its node next asks for something and the pod has changed since. So a node
that asks much costs one decoding per change of its pods, and the many changes of nodes that ask for nothing cost
nothing.

Invariant: a mirror pod has no edges but the one to its node, whatever it names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from navarch.api.meta import Obj, annotations_of
from navarch.apiserver.caches import Caches
from navarch.apiserver.changes import Cached, Change
from navarch.kinds.core.references import CLAIMS, Reference, of_pod, secrets_of_volume
from navarch.kinds.resources import (
    INGRESSES,
    PERSISTENT_VOLUMES,
    POD_CERTIFICATE_REQUESTS,
    PODS,
    RESOURCE_SLICES,
    VOLUME_ATTACHMENTS,
)

MIRROR: Final = "kubernetes.io/config.mirror"
_NOTHING: Final[frozenset[Reference]] = frozenset()
_Listener = Callable[[Change], None]


class _Node:
    """The pods of one node, and what they refer to, counted."""

    __slots__ = ("_changed", "_needed", "_references", "pods")

    def __init__(self) -> None:
        self.pods: dict[tuple[str, str], Cached] = {}
        self._changed: set[tuple[str, str]] = set()
        self._references: dict[tuple[str, str], frozenset[Reference]] = {}
        self._needed: Counter[Reference] = Counter()

    def put(self, pod: Cached) -> None:
        key = (pod.namespace, pod.name)
        self.pods[key] = pod
        self._changed.add(key)

    def remove(self, pod: Cached) -> None:
        key = (pod.namespace, pod.name)
        self.pods.pop(key, None)
        if key in self._references:
            self._changed.add(key)
        else:
            # Nothing is known of it that would have to be forgotten.
            self._changed.discard(key)

    def needs(self, reference: Reference) -> bool:
        if self._changed:
            for key in self._changed:
                pod = self.pods.get(key)
                self._set(key, _NOTHING if pod is None else _references(pod.obj()))
            self._changed.clear()
        return self._needed[reference] > 0

    def _set(self, key: tuple[str, str], now: frozenset[Reference]) -> None:
        was = self._references.pop(key, _NOTHING)
        if now:
            self._references[key] = now
        for reference in now - was:
            self._needed[reference] += 1
        for reference in was - now:
            self._needed[reference] -= 1
            if not self._needed[reference]:
                del self._needed[reference]


def _references(pod: Obj) -> frozenset[Reference]:
    return _NOTHING if MIRROR in annotations_of(pod) else frozenset(of_pod(pod))


class NodeGraph:
    """Follows the caches from its making on; they are filled by then."""

    def __init__(self, caches: Caches) -> None:
        self._nodes: dict[str, _Node] = {}
        # Volume -> its claim and the secrets that it is mounted with; secret -> the volumes that use it.
        self._volumes: dict[str, tuple[Reference, frozenset[Reference]]] = {}
        self._volumes_by_secret: dict[Reference, set[str]] = {}
        # What belongs to a node directly: (resource, namespace, name) -> node.
        self._owners: dict[Reference, str] = {}
        # Ingress -> the Secrets that it names, and how many Ingresses name each.
        self._ingresses: dict[tuple[str, str], frozenset[tuple[str, str]]] = {}
        self._shown: Counter[tuple[str, str]] = Counter()
        for resource, listener in (
            (INGRESSES, self._ingress_changed),
            (PODS, self._pod_changed),
            (PERSISTENT_VOLUMES, self._volume_changed),
            (VOLUME_ATTACHMENTS, self._owned_changed(VOLUME_ATTACHMENTS.plural)),
            (POD_CERTIFICATE_REQUESTS, self._owned_changed(POD_CERTIFICATE_REQUESTS.plural)),
            (RESOURCE_SLICES, self._slice_changed),
        ):
            try:
                cache = caches.of(resource)
            except LookupError:
                # Not every version of Kubernetes serves each of them.
                continue
            for cached in cache.items():
                listener(Change(cache.codec, cached.key, cached.revision, None, cached, 0.0))
            cache.listeners.append(listener)

    # ------------------------------------------------------------------------------------------------------ questions

    def has_pod(self, node: str, namespace: str, name: str) -> bool:
        found = self._nodes.get(node)
        return found is not None and (namespace, name) in found.pods

    def needs(self, node: str, resource: str, namespace: str, name: str) -> bool:
        """Whether a pod on the node refers to the object, itself or through the volume that it claims."""
        reference = Reference(resource, namespace, name)
        if self._owners.get(reference) == node:
            return True
        found = self._nodes.get(node)
        if found is None:
            return False
        if resource == PERSISTENT_VOLUMES.plural:
            volume = self._volumes.get(name)
            return volume is not None and found.needs(volume[0])
        if found.needs(reference):
            return True
        return any(found.needs(self._volumes[volume][0]) for volume in self._volumes_by_secret.get(reference, ()))

    def is_shown(self, namespace: str, secret: str) -> bool:
        """Whether an Ingress of the namespace names the Secret for its certificate."""
        return self._shown[namespace, secret] > 0

    # -------------------------------------------------------------------------------------------------------- changes

    def _ingress_changed(self, change: Change) -> None:
        shown = change.new or change.old
        assert shown is not None
        self._shown -= Counter(self._ingresses.pop((shown.namespace, shown.name), ()))
        if change.new is None:
            return
        listed = (change.new.obj().get("spec") or {}).get("tls") or ()
        named = frozenset((shown.namespace, str(entry["secretName"])) for entry in listed if entry.get("secretName"))
        if named:
            self._ingresses[shown.namespace, shown.name] = named
            self._shown += Counter(named)

    def _pod_changed(self, change: Change) -> None:
        old, new = change.old, change.new
        was = old.field("spec.nodeName") if old is not None else ""
        now = new.field("spec.nodeName") if new is not None else ""
        if old is not None and was and was != now:
            self._nodes[was].remove(old)
            if not self._nodes[was].pods:
                del self._nodes[was]
        if new is not None and now:
            self._nodes.setdefault(now, _Node()).put(new)

    def _volume_changed(self, change: Change) -> None:
        shown = change.new or change.old
        assert shown is not None
        _, secrets = self._volumes.pop(shown.name, (None, _NOTHING))
        for secret in secrets:
            self._volumes_by_secret[secret].discard(shown.name)
            if not self._volumes_by_secret[secret]:
                del self._volumes_by_secret[secret]
        if change.new is None:
            return
        volume = change.new.obj()
        claim = (volume.get("spec") or {}).get("claimRef")
        if not claim:
            return
        secrets = frozenset(secrets_of_volume(volume))
        self._volumes[shown.name] = (
            Reference(CLAIMS, claim.get("namespace") or "", claim.get("name") or ""),
            secrets,
        )
        for secret in secrets:
            self._volumes_by_secret.setdefault(secret, set()).add(shown.name)

    def _slice_changed(self, change: Change) -> None:
        # By its selectable field: a slice may list hundreds of devices.
        shown = change.new or change.old
        assert shown is not None
        self._own(RESOURCE_SLICES.plural, shown, shown.field("spec.nodeName") if change.new is not None else "")

    def _own(self, plural: str, shown: Cached, node: str | None) -> None:
        reference = Reference(plural, shown.namespace, shown.name)
        if node:
            self._owners[reference] = node
        else:
            self._owners.pop(reference, None)

    def _owned_changed(self, plural: str) -> _Listener:
        """Of objects whose `spec.nodeName` says to which node they belong."""

        def changed(change: Change) -> None:
            shown = change.new or change.old
            assert shown is not None
            node = (change.new.obj().get("spec") or {}).get("nodeName") if change.new is not None else None
            self._own(plural, shown, node)

        return changed
