"""What the server changes in a pod's spec, or a template's, before it looks whether it is sound: fields of features
that are switched off go, and a claim's source is said in both of its ways.

In: a spec as it was asked for, and the one that is stored.  It is changed in place. Who asked owns the fields all the
same: owners are written down before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from navarch.api.meta import Obj

_LISTS: Final = ("containers", "initContainers")
_SNAPSHOTS: Final = ("snapshot.storage.k8s.io", "VolumeSnapshot")
_CLAIMS: Final = ("", "PersistentVolumeClaim")
_PROJECTIONS: Final[Mapping[str, str]] = {
    "ClusterTrustBundleProjection": "clusterTrustBundle",
    "PodCertificateRequest": "podCertificate",
}
# What kinds of pods ask of.
GATES: Final = tuple(_PROJECTIONS)
_GATES: Final = frozenset(GATES)


def prepare_pod_spec(spec: Obj | None, old: Obj | None = None, on: frozenset[str] = frozenset()) -> None:
    """`old` is what is stored: a field in use there may be used on. `on`: which of the gates are."""
    if not spec:
        return
    if "schedulingGroup" in spec and (old is None or old.get("schedulingGroup") is None):
        del spec["schedulingGroup"]
    for field in _LISTS:
        for container in spec.get(field) or ():
            lifecycle = container.get("lifecycle")
            if lifecycle and "stopSignal" in lifecycle and not _uses_stop_signals(old):
                container["lifecycle"] = {key: value for key, value in lifecycle.items() if key != "stopSignal"}
                if not container["lifecycle"]:
                    del container["lifecycle"]
    for volume in spec.get("volumes") or ():
        if "ephemeral" in volume:
            template = (volume["ephemeral"] or {}).get("volumeClaimTemplate")
            if template is not None and template.get("spec"):
                prepare_claim_spec(template["spec"])
        elif volume.get("projected") is not None and not on >= _GATES:
            _drop_projections(volume["projected"].get("sources") or [], old or {}, on)


def _drop_projections(sources: list[Obj], old: Obj, on: frozenset[str]) -> None:
    """Kubernetes leaves a source without any content where one was."""
    for gate, field in _PROJECTIONS.items():
        if gate in on or any(
            source.get(field) is not None
            for volume in old.get("volumes") or ()
            for source in (volume.get("projected") or {}).get("sources") or ()
        ):
            continue
        for index, source in enumerate(sources):
            if field in source:
                sources[index] = {name: value for name, value in source.items() if name != field}


def prepare_template(spec: Obj, old: Obj | None = None, on: frozenset[str] = frozenset()) -> None:
    """The same for a workload: `spec` has a `template`."""
    template, was = spec.get("template"), (old or {}).get("template")
    if template:
        prepare_pod_spec(template.get("spec"), (was or {}).get("spec"), on)


def _uses_stop_signals(spec: Obj | None) -> bool:
    return spec is not None and any(
        "stopSignal" in (container.get("lifecycle") or ()) for field in _LISTS for container in spec.get(field) or ()
    )


def prepare_claim_spec(spec: Obj, old: Obj | None = None) -> None:
    """`dataSource` and `dataSourceRef` mirror each other where both can express the source; what no volume can come
    from is taken out of the older of the two, and a source in another namespace is none as long as that is not
    switched on. What is stored (`old`) may stay."""
    was = old or {}
    if (spec.get("dataSourceRef") or {}).get("namespace") and was.get("dataSourceRef") is None:
        del spec["dataSourceRef"]
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if source is not None and was.get("dataSource") is None and was.get("dataSourceRef") is None:
        what = (source.get("apiGroup") or "", source.get("kind") or "")
        if reference is None and what not in (_CLAIMS, _SNAPSHOTS):
            del spec["dataSource"]
            return
    if source is not None and reference is None:
        spec["dataSourceRef"] = dict(source)
    elif reference is not None and source is None and not reference.get("namespace"):
        spec["dataSource"] = {key: value for key, value in reference.items() if key != "namespace"}
