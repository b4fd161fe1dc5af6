"""Container images as files: OCI archives built from plain data, and their import into containerd.

`write_image` makes an archive (an OCI image layout in a tar file, with the reference as annotation) of one or more
platforms; `load_image` hands any archive, ours or what `docker save` wrote, to containerd. Building is deterministic:
the same files give the same digests.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_CREATED: Final = "1970-01-01T00:00:00Z"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_INDEX: Final = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True, slots=True)
class LayerFile:
    """A file, directory (`data` None) or symbolic link (`link`) of a layer; `path` has no leading slash."""

    path: str
    data: bytes | None = None
    mode: int = 0o644
    link: str = ""
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class Platform:
    """One architecture's image: the files of its only layer, and how it runs."""

    architecture: str
    files: Sequence[LayerFile]
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    env: Sequence[str] = ()
    user: str = ""
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    exposed_ports: Sequence[str] = ()


def _layer(files: Iterable[LayerFile]) -> tuple[bytes, str]:
    """The gzipped tar of a layer, and the digest of the tar within."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in files:
            info = tarfile.TarInfo(entry.path)
            info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
            if entry.link:
                info.type, info.linkname = tarfile.SYMTYPE, entry.link
                archive.addfile(info)
            elif entry.data is None:
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            else:
                info.size = len(entry.data)
                archive.addfile(info, io.BytesIO(entry.data))
    data = raw.getvalue()
    return gzip.compress(data, compresslevel=6, mtime=0), f"sha256:{hashlib.sha256(data).hexdigest()}"


class _Blobs:
    """Content by digest; `add` returns the descriptor that refers to it."""

    def __init__(self) -> None:
        self.by_digest: dict[str, bytes] = {}

    def add(self, media_type: str, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        self.by_digest[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def add_json(self, media_type: str, value: Any) -> dict[str, Any]:
        return self.add(media_type, json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def _manifest(blobs: _Blobs, platform: Platform) -> dict[str, Any]:
    layer, layer_digest = _layer(platform.files)
    run: dict[str, Any] = {
        "Entrypoint": list(platform.entrypoint),
        "Cmd": list(platform.command),
        "Env": list(platform.env) or ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "User": platform.user,
        "WorkingDir": platform.working_dir,
        "Labels": dict(platform.labels),
        "ExposedPorts": {port: {} for port in platform.exposed_ports},
    }
    config = {
        "architecture": platform.architecture,
        "os": "linux",
        "created": _CREATED,
        "config": {key: value for key, value in run.items() if value},
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
        "history": [{"created": _CREATED, "created_by": "navarch"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": blobs.add_json(_CONFIG, config),
        "layers": [blobs.add(_LAYER, layer)],
    }
    descriptor = blobs.add_json(_MANIFEST, manifest)
    descriptor["platform"] = {"architecture": platform.architecture, "os": "linux"}
    return descriptor


def write_image(path: Path, reference: str, platforms: Sequence[Platform]) -> str:
    """Write an OCI archive holding the image `reference` (`host/name:tag`); returns its digest."""
    blobs = _Blobs()
    manifests = [_manifest(blobs, platform) for platform in platforms]
    if len(manifests) == 1:
        top = dict(manifests[0])
    else:
        top = blobs.add_json(_INDEX, {"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests})
    top["annotations"] = {
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
    }
    with tarfile.open(path, "w") as archive:
        _add(archive, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        _add(archive, "index.json", json.dumps({"schemaVersion": 2, "manifests": [top]}).encode())
        for digest, data in blobs.by_digest.items():
            _add(archive, f"blobs/sha256/{digest}", data)
    return str(top["digest"])


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o644
    archive.addfile(info, io.BytesIO(data))


def read_layout(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """An OCI archive's top descriptor and its blobs by digest; what a registry needs to serve it."""
    blobs: dict[str, bytes] = {}
    index: dict[str, Any] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is None:
                continue
            if member.name == "index.json":
                index = json.loads(content.read())
            elif member.name.startswith("blobs/sha256/"):
                blobs["sha256:" + member.name.rpartition("/")[2]] = content.read()
    return index["manifests"][0], blobs


_APPLET_DIRECTORY: Final = "bin"


def busybox_files(busybox: Path) -> list[LayerFile]:
    """A root file system around a static busybox: every applet a link to it, the few files that programs expect.
    Raises OSError or subprocess.CalledProcessError where the program cannot be read or run."""
    applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    directories = ["bin", "dev", "etc", "home", "proc", "root", "sys", "usr", "usr/bin", "usr/sbin", "var", "sbin"]
    files = [LayerFile(name, mode=0o755) for name in directories]
    files += [LayerFile("tmp", mode=0o1777), LayerFile("var/tmp", mode=0o1777)]
    files += [
        LayerFile(
            "etc/passwd",
            b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
            b"nobody:x:65534:65534:nobody:/home:/bin/false\n",
        ),
        LayerFile("etc/group", b"root:x:0:\ndaemon:x:1:\nnobody:x:65534:\n"),
        LayerFile("bin/busybox", busybox.read_bytes(), 0o755),
    ]
    files += [LayerFile(f"{_APPLET_DIRECTORY}/{name}", link="busybox") for name in applets if name != "busybox"]
    return files


def host_architecture() -> str:
    """This machine's architecture in OCI's words."""
    import platform

    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


async def load_image(socket: Path, archive: Path, *, snapshotter: str = "overlayfs") -> list[str]:
    """Import an image archive into the Kubernetes namespace of the containerd at `socket`; returns the references.

    Raises RuntimeError with ctr's words where it fails."""
    output = await _ctr(socket, "images", "import", "--snapshotter", snapshotter, str(archive))
    # One line per image: "unpacking docker.io/library/x:1 (sha256:…)...done".
    return [line.split()[1] for line in output.splitlines() if line.startswith("unpacking ")]


async def mount_image(socket: Path, image: str, place: Path, *, snapshotter: str) -> None:
    """Mount an image's files read-only at `place`.  Raises RuntimeError with ctr's words where it fails."""
    with contextlib.suppress(RuntimeError):
        # A view that was mounted here before a reboot would be in the way.
        await _ctr(socket, "images", "unmount", "--rm", "--snapshotter", snapshotter, str(place))
    await _ctr(socket, "images", "mount", "--snapshotter", snapshotter, image, str(place))


async def _ctr(socket: Path, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "ctr",
        "--address",
        str(socket),
        "--namespace",
        "k8s.io",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(errors.decode(errors="replace").strip() or f"ctr exited with {process.returncode}")
    return output.decode(errors="replace")
