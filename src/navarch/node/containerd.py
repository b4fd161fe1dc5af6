"""containerd: the configuration of a containerd of the cluster's own, how to start it, and how to leave no trace of it.

Each cluster runs its own containerd, apart from any other on the machine: own root, state and socket below the
cluster's directories, own cgroup root. A supervisor starts `command()`; containers belong to shims that outlive
containerd, so that it may be killed and started again. `purge` removes what is left of a cluster's containers when it
is taken down.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from navarch.node import cni
from navarch.node.images.archives import load_image
from navarch.node.pause import PAUSE_IMAGE, write_pause_image
from navarch.numbers import is_digits
from navarch.world import MACHINE

_CAP_SYS_RESOURCE: Final = 24
_MNT_DETACH: Final = 2
_KILL_LIMIT_S: Final = 10.0
_LONGEST_SOCKET: Final = 104  # bytes of a path: containerd's own limit, below the kernel's 107
_SHORT_RUN: Final = Path("/run/navarch")
# Plugins that a node of ours never uses; each costs start-up time, and some log errors where the kernel lacks them.
_UNUSED_PLUGINS: Final = (
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.nri.v1.nri",
)


@dataclass(frozen=True, slots=True)
class ContainerdPaths:
    """Where one cluster's containerd keeps its things: `data` survives a reboot, `run` does not."""

    data: Path
    run: Path

    @property
    def config(self) -> Path:
        return self.data / "containerd.toml"

    @property
    def root(self) -> Path:
        return self.data / "containerd"

    @property
    def state(self) -> Path:
        return self.run / "containerd"

    @property
    def socket(self) -> Path:
        """Below `run`, or where containerd would refuse that path as too long, in a folder with a short name."""
        place = self.run / "containerd.sock"
        if len(os.fsencode(f"{place}.ttrpc")) <= _LONGEST_SOCKET:
            return place
        return _SHORT_RUN / hashlib.sha256(os.fsencode(self.run)).hexdigest()[:16] / "containerd.sock"

    @property
    def cni_conf(self) -> Path:
        return self.data / "cni"

    @property
    def registries(self) -> Path:
        """`<host>/hosts.toml` per registry: mirrors, plain HTTP, certificates."""
        return self.data / "registries"


def containerd_version() -> tuple[int, ...]:
    """The installed containerd's version.  Raises FileNotFoundError where there is none."""
    output = subprocess.run(["containerd", "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", output, re.ASCII)
    if found is None:
        raise ValueError(f"containerd --version says {output.strip()!r}")
    return tuple(int(part) for part in found.groups())


def why_unavailable() -> str:
    """Why containers cannot be run on this machine; empty where they can."""
    if os.name != "posix" or not Path("/proc/self/ns/net").exists():
        return "containers need Linux"
    if os.geteuid() != 0:
        return "running containers needs root"
    for program in ("containerd", "ctr", "runc"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if cni.directory() is None:
        return "the CNI plugins are not installed (looked in " + ", ".join(cni.DIRECTORIES) + ")"
    if not any(Path("/sys/fs/cgroup").iterdir()):
        return "no cgroups are mounted at /sys/fs/cgroup"
    return ""


def may_lower_oom_score() -> bool:
    """Whether this process has CAP_SYS_RESOURCE, without which a container's OOM score cannot be below our own."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)
    return False


def pick_snapshotter(directory: Path) -> str:
    """`overlayfs` where an overlay can be mounted below `directory`, else `native` (which copies)."""
    directory.mkdir(parents=True, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix="overlay-check-") as place:
        base = Path(place)
        for name in ("lower", "upper", "work", "merged"):
            (base / name).mkdir()
        options = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work"
        target = str(base / "merged").encode()
        if libc.mount(b"overlay", target, b"overlay", 0, options.encode()) != 0:
            return "native"
        libc.umount2(target, _MNT_DETACH)
        return "overlayfs"


@dataclass(frozen=True, slots=True)
class ContainerdConfig:
    """What the configuration file says; `of_this_machine` looks it up."""

    paths: ContainerdPaths
    version: tuple[int, ...]
    snapshotter: str
    restrict_oom_score: bool
    cni_bin: Path
    sandbox_image: str = PAUSE_IMAGE

    @classmethod
    def of_this_machine(cls, paths: ContainerdPaths) -> ContainerdConfig:
        return cls(
            paths=paths,
            version=containerd_version(),
            snapshotter=pick_snapshotter(paths.data),
            restrict_oom_score=not may_lower_oom_score(),
            cni_bin=cni.directory() or Path(cni.DIRECTORIES[0]),
        )

    def text(self) -> str:
        """The TOML file: format 2 for containerd 1.x, format 3 for 2.x, where the CRI plugin was split in three."""
        return self._top() + (self._plugins_2x() if self.version >= (2,) else self._plugins_1x())

    def _top(self) -> str:
        unused = ", ".join(f'"{name}"' for name in _UNUSED_PLUGINS)
        return f"""\
version = {3 if self.version >= (2,) else 2}
root = "{self.paths.root}"
state = "{self.paths.state}"
disabled_plugins = [{unused}]

[grpc]
  address = "{self.paths.socket}"

[ttrpc]
  address = "{self.paths.socket}.ttrpc"
"""

    def _plugins_1x(self) -> str:
        return f"""
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{self.sandbox_image}"
  restrict_oom_score_adj = {_toml(self.restrict_oom_score)}
  netns_mounts_under_state_dir = true
  disable_apparmor = {_toml(not _has_apparmor())}
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  tolerate_missing_hugetlb_controller = true
  max_container_log_line_size = 16384
  stats_collect_period = 60
{self._cdi()}
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{self.cni_bin}"
    conf_dir = "{self.paths.cni_conf}"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{self.snapshotter}"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "{self.paths.run}/runc"

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{self.paths.registries}"

[plugins."io.containerd.runtime.v1.linux"]
  no_shim = false
"""

    def _cdi(self) -> str:
        """Devices by their CDI names: 1.6 knows nothing of them, 1.7 has to be asked to, later ones do it anyhow."""
        return '  enable_cdi = true\n  cdi_spec_dirs = ["/etc/cdi", "/var/run/cdi"]\n' if self.version >= (1, 7) else ""

    def _plugins_2x(self) -> str:
        return f"""
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{self.snapshotter}"

  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{self.sandbox_image}"

  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{self.paths.registries}"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = {_toml(self.restrict_oom_score)}
  netns_mounts_under_state_dir = true
  disable_apparmor = {_toml(not _has_apparmor())}
  tolerate_missing_hugetlb_controller = true
  max_container_log_line_size = 16384
  stats_collect_period = 60

  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dir = "{self.cni_bin}"
    conf_dir = "{self.paths.cni_conf}"

  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"

    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "{self.paths.run}/runc"

[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
"""

    def write(self) -> None:
        """Write the file and make the directories that it names."""
        for place in (self.paths.root, self.paths.state, self.paths.cni_conf, self.paths.registries):
            place.mkdir(parents=True, exist_ok=True)
        self.paths.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.paths.config.write_text(self.text())


def _toml(value: bool) -> str:
    return "true" if value else "false"


def _has_apparmor() -> bool:
    try:
        return Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        return False


def command(paths: ContainerdPaths) -> list[str]:
    """The argument vector of containerd; its environment is `environment()`.

    Start it in a session of its own and end it with SIGTERM to it alone: shims are in sessions and cgroups of their
    own, and must not be killed with it."""
    return ["containerd", "--config", str(paths.config), "--log-level", "warn"]


def environment() -> dict[str, str]:
    """What containerd's environment needs: the tools that it runs (runc, iptables, tar) found by PATH."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT_ENVIRONMENT}
    kept.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    # With gigabytes of Go heap to spare the collector is lazy; a small node wants the memory back.
    kept["GOGC"] = "50"
    return kept


_KEPT_ENVIRONMENT: Final = frozenset(
    ("PATH", "HOME", "TMPDIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
)


async def wait_ready(
    paths: ContainerdPaths, *, timeout_s: float = 30.0, process: asyncio.subprocess.Process | None = None
) -> None:
    """Wait until the CRI plugin answers.  Raises TimeoutError, and ConnectionError where `process` has ended."""
    from navarch.node.runtime.base import RuntimeFailure
    from navarch.node.runtime.cri import CRIRuntime

    async with asyncio.timeout(timeout_s):
        while True:
            if process is not None and process.returncode is not None:
                raise ConnectionError(f"containerd ended with {process.returncode}")
            if paths.socket.exists():
                runtime = CRIRuntime(paths.socket)
                try:
                    # Its version it tells before it can do anything.
                    await runtime.conditions()
                except (ConnectionError, RuntimeFailure):
                    pass
                else:
                    return
                finally:
                    await runtime.close()
            await asyncio.sleep(0.05)


async def ensure_pause_image(paths: ContainerdPaths, *, snapshotter: str = "overlayfs") -> None:
    """Have the pause image in containerd; importing it again changes nothing."""
    with tempfile.TemporaryDirectory(prefix="navarch-pause-") as place:
        archive = Path(place) / "pause.tar"
        write_pause_image(archive)
        await load_image(paths.socket, archive, snapshotter=snapshotter)


@asynccontextmanager
async def started(paths: ContainerdPaths, output: Path) -> AsyncIterator[None]:
    """A containerd that runs for the time of the block, by the configuration that is there.  Raises TimeoutError where
    it does not get ready, and OSError where it cannot be started."""
    with output.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command(paths), env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        await wait_ready(paths, process=process)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


def shims_of(paths: ContainerdPaths) -> list[int]:
    """The process ids of this containerd's shims, told from others by the socket that they report to."""
    wanted = f"{paths.socket}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not is_digits(entry.name):
            continue
        with contextlib.suppress(OSError):
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            if arguments and b"containerd-shim" in arguments[0] and wanted in arguments:
                found.append(int(entry.name))
    return found


def purge(paths: ContainerdPaths, *, keep_images: bool = False) -> None:
    """Remove what a stopped containerd left: shims with their containers, mounts, files. Idempotent.

    With `keep_images` it finds itself as after a reboot: images are there, and containers that have ended."""
    killed = [process for shim in shims_of(paths) for process in [*_descendants(shim), shim]]
    for process in killed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    _await_end(killed)
    for address in shim_sockets(paths):
        address.unlink(missing_ok=True)
    unmount_below([paths.data, paths.run])
    for place in (paths.state, paths.run / "runc", *(() if keep_images else (paths.root,))):
        shutil.rmtree(place, ignore_errors=True)
    for socket in (paths.socket, Path(f"{paths.socket}.ttrpc")):
        socket.unlink(missing_ok=True)
    if paths.socket.parent != paths.run:
        shutil.rmtree(paths.socket.parent, ignore_errors=True)
        with contextlib.suppress(OSError):
            _SHORT_RUN.rmdir()


def _await_end(processes: Sequence[int]) -> None:
    """What they have mounted and hold open is free only when the kernel is done with them."""
    give_up_s = MACHINE.monotonic() + _KILL_LIMIT_S
    while any(_lives(process) for process in processes) and MACHINE.monotonic() < give_up_s:
        MACHINE.pause(0.01)


def _lives(process: int) -> bool:
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False


def shim_sockets(paths: ContainerdPaths) -> set[Path]:
    """The sockets of this containerd's shims, which lie beside those of every other. Their bundles say where; these go
    when the shims do, and when a containerd that starts finds them dead."""
    found: set[str] = set()
    for file in (*paths.state.glob("*/*/*/address"), *paths.state.glob("*/*/*/bootstrap.json")):
        with contextlib.suppress(OSError):
            found |= set(re.findall(r"/run/containerd/s/[0-9a-f]{64}", file.read_text(errors="replace")))
    return {Path(path) for path in found}


def _descendants(ancestor: int) -> list[int]:
    """Every process below `ancestor`, deepest last."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if is_digits(entry.name):
            with contextlib.suppress(OSError, IndexError, ValueError):
                # The command may hold spaces and brackets; what follows the last bracket is state and parent.
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    todo = [ancestor]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def unmount_below(places: Sequence[Path]) -> None:
    """Detach every mount at or below `places`, the deepest first."""
    libc = ctypes.CDLL(None, use_errno=True)
    prefixes = tuple(f"{place.resolve()}" for place in places)
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for raw in sorted(mounts, key=len, reverse=True):
        mount = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), raw)
        if any(mount == prefix or mount.startswith(prefix + "/") for prefix in prefixes):
            libc.umount2(mount.encode(), _MNT_DETACH)
