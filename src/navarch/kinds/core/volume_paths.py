"""Files of a volume that fall on each other: what the kubelet writes last is what is seen.

In: a pod's volume.  Out: one warning, in Kubernetes' words, that tells every such pair.
"""

from __future__ import annotations

from collections.abc import Iterator

from navarch.api.meta import Obj


def overlapping_paths(volume: Obj) -> Iterator[str]:
    name = volume.get("name") or ""
    for field, word, named in (("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")):
        source = volume.get(field)
        if source and source.get("items"):
            files = [(item.get("path") or "", "") for item in source["items"]]
            yield from _warning(name, f'{word} "{source.get(named) or ""}"', files)
    if (volume.get("downwardAPI") or {}).get("items"):
        files = [(item.get("path") or "", "") for item in volume["downwardAPI"]["items"]]
        yield from _warning(name, "DownwardAPI", files)
    sources = (volume.get("projected") or {}).get("sources")
    for source in sources or ():
        if not source:
            yield f'volume "{name}" (Projected) has no sources provided'
    if sources:
        yield from _warning(name, "Projected", [file for source in sources for file in _projected(source)])


def _projected(source: Obj) -> Iterator[tuple[str, str]]:
    """Files that a projection writes, with what they come from."""
    for field, word in (("configMap", "ConfigMap"), ("secret", "Secret")):
        part = source.get(field)
        for item in (part or {}).get("items") or ():
            yield item.get("path") or "", f'{word} "{(part or {}).get("name") or ""}"'
    for item in (source.get("downwardAPI") or {}).get("items") or ():
        yield item.get("path") or "", "DownwardAPI"
    if source.get("serviceAccountToken"):
        yield source["serviceAccountToken"].get("path") or "", "ServiceAccountToken"
    bundle = source.get("clusterTrustBundle")
    if bundle:
        named = bundle.get("name") if bundle.get("name") is not None else bundle.get("signerName")
        yield bundle.get("path") or "", f'ClusterTrustBundle "{named or ""}"'
    for field in ("credentialBundlePath", "keyPath", "certificateChainPath"):
        if path := (source.get("podCertificate") or {}).get(field):
            yield path, "PodCertificate"


def _warning(volume: str, source: str, files: list[tuple[str, str]]) -> Iterator[str]:
    if len(files) < 2:
        return
    found: list[str] = []
    before: list[tuple[str, str]] = []
    for path, origin in files:
        path = path.rstrip("/")
        for other, other_origin in before:
            if path == other or path.startswith(f"{other}/") or other.startswith(f"{path}/"):
                found.append(f"{_shown(path, origin)} with {_shown(other, other_origin)}")
        before.append((path, origin))
    if found:
        yield f'volume "{volume}" ({source}): overlapping paths: {", ".join(found)}'


def _shown(path: str, origin: str) -> str:
    return f'"{path}" ({origin})' if origin else f'"{path}"'
