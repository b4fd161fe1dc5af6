"""DefaultStorageClass and DefaultIngressClass: who names no class gets the cluster's default one, if there is one."""

from __future__ import annotations

from collections.abc import Iterable

from navarch.api.meta import Obj, annotations_of, name_of
from navarch.apiserver.admission.base import Attributes, Plugin, Reader
from navarch.kinds.resources import INGRESS_CLASSES, STORAGE_CLASSES


def _default_of(classes: Iterable[Obj], *annotations: str) -> Obj | None:
    """The class marked as default; of several the youngest, then the first by name."""
    marked = [each for each in classes if any(annotations_of(each).get(key) == "true" for key in annotations)]
    marked.sort(key=name_of)
    marked.sort(key=lambda each: str(each["metadata"].get("creationTimestamp") or ""), reverse=True)
    return marked[0] if marked else None


class DefaultStorageClass(Plugin):
    name = "DefaultStorageClass"
    leaves_whole = True
    resources = frozenset({("", "persistentvolumeclaims")})
    operations = frozenset({"CREATE"})

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def mutate(self, attributes: Attributes) -> None:
        claim = attributes.obj
        if claim is None:
            return
        if "volume.beta.kubernetes.io/storage-class" in annotations_of(claim):
            return
        # An empty name says "no class", which is not the same as saying nothing.
        if claim["spec"].get("storageClassName") is not None:
            return
        default = _default_of(
            self._reader.list(STORAGE_CLASSES),
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        )
        if default is not None:
            claim["spec"]["storageClassName"] = name_of(default)


class DefaultIngressClass(Plugin):
    name = "DefaultIngressClass"
    leaves_whole = True
    resources = frozenset({("networking.k8s.io", "ingresses")})
    operations = frozenset({"CREATE"})

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def mutate(self, attributes: Attributes) -> None:
        ingress = attributes.obj
        if ingress is None:
            return
        spec = ingress.setdefault("spec", {})
        if spec.get("ingressClassName") is not None or "kubernetes.io/ingress.class" in annotations_of(ingress):
            return
        default = _default_of(self._reader.list(INGRESS_CLASSES), "ingressclass.kubernetes.io/is-default-class")
        if default is not None:
            spec["ingressClassName"] = name_of(default)
