"""A machine of its own (here: a network namespace) joins a cluster with the command that `navarch token create` prints,
is killed and comes back, and leaves without a trace."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from navarch.cluster import strays
from navarch.cluster.config import ClusterConfig
from navarch.cluster.state import ClusterState
from navarch.node.containerd import why_unavailable
from navarch.node.images.archives import Platform, busybox_files, host_architecture, write_image
from navarch.node.names import HostNames

from .conftest import BUSYBOX, NAVARCH, Cluster, _running
from .objects import pod
from .podnet import process_of

pytestmark = [pytest.mark.e2e, pytest.mark.containers]

FOREVER = ("sh", "-c", "trap exit TERM; while :; do sleep 0.1; done")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@dataclass
class Machine:
    """Another machine: a network of its own, a folder of its own."""

    space: str
    address: str
    home: Path
    node: str

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "NAVARCH_HOME": str(self.home), "KUBECONFIG": str(self.home / "kubeconfig")}
        done = subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.space}", *command],
            env=env, text=True, capture_output=True, check=False, timeout=180,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise AssertionError(f"{shlex.join(command)}: {done.stderr}{done.stdout}\n{self.logs()}")
        return done

    def navarch(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(*NAVARCH, *arguments, check=check)

    def logs(self) -> str:
        files = sorted(self.home.glob("*/logs/*.log"))
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-2000:]}" for file in files)

    @property
    def config(self) -> ClusterConfig:
        return ClusterConfig.load(self.home / "default")


@dataclass
class Site:
    """A server and a machine beside it."""

    server: Cluster
    machine: Machine

    def token(self, *flags: str) -> dict[str, Any]:
        made = self.server.navarch("token", "create", "--name", self.server.name, "-o", "json", *flags)
        return dict(json.loads(made.stdout))

    def join(self, command: str, *flags: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        words = shlex.split(command)
        assert words[0] == "navarch"
        return self.machine.navarch(*words[1:], "--node-name", self.machine.node, "--detach", *flags, check=check)

    def node(self) -> dict[str, Any]:
        return dict(self.server.get("node", self.machine.node))

    def is_ready(self) -> bool:
        return any(one["type"] == "Ready" and one["status"] == "True" for one in self.node()["status"]["conditions"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if why := why_unavailable():
        pytest.skip(why)
    number = os.getpid()
    prefix, bridge, space = f"198.18.{number % 250}", f"njb{number}", f"navarch-test-{number}"
    home = tmp_path_factory.mktemp("join")
    try:
        ip("link", "add", bridge, "type", "bridge")
        ip("addr", "add", f"{prefix}.1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        ip("netns", "add", space)
        ip("link", "add", f"njv{number}", "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("link", "set", f"njv{number}", "master", bridge, "up")
        ip("-n", space, "addr", "add", f"{prefix}.11/24", "dev", "eth0")
        for link in ("eth0", "lo"):
            ip("-n", space, "link", "set", link, "up")
        ip("-n", space, "route", "add", "default", "via", f"{prefix}.1")
        machine = Machine(space, f"{prefix}.11", home / "machine", f"joined-{number}")
        flags = ("--runtime", "simulated", "--nodes", "0", "--bind-address", f"{prefix}.1")
        for server in _running(f"join-{number}", home / "server", *flags):
            try:
                yield Site(server, machine)
            finally:
                if (machine.home / "default").exists():
                    machine.navarch("down", "--purge", "--grace", "1s", check=False)
    finally:
        for command in (("netns", "del", space), ("link", "del", bridge)):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip(*command)


@pytest.fixture(scope="module")
def joined(site: Site) -> Site:
    """The machine is a node, and has the image."""
    made = site.token()
    site.join(made["command"], "--node-label", "disk=fast", "--node-taint", "dedicated=test:PreferNoSchedule")
    archive = site.machine.home / "busybox.tar"
    write_image(archive, BUSYBOX, [Platform(host_architecture(), tuple(busybox_files(Path("/bin/busybox"))))])
    site.machine.navarch("image", "load", str(archive))
    return site


def test_the_printed_command_makes_a_node(joined: Site) -> None:
    node = joined.node()

    assert joined.is_ready()
    assert node["status"]["addresses"][0] == {"type": "InternalIP", "address": joined.machine.address}
    assert node["spec"]["podCIDR"]
    assert node["metadata"]["labels"]["disk"] == "fast"
    assert {"key": "dedicated", "value": "test", "effect": "PreferNoSchedule"} in node["spec"]["taints"]


def test_its_certificates_were_approved_without_a_person(joined: Site) -> None:
    def kinds() -> set[tuple[str, bool]]:
        return {
            (one["spec"]["signerName"], bool((one.get("status") or {}).get("certificate")))
            for one in joined.server.get("csr")["items"]
        }

    # The serving one is asked for last, once the node has said which addresses it has.
    wanted = {("kubernetes.io/" + name, True)
              for name in ("kube-apiserver-client-kubelet", "kubelet-serving", "kube-apiserver-client")}  # fmt: skip
    joined.server.wait_until(lambda: kinds() == wanted, 30, "all three kinds of certificates")


def test_its_pods_are_run_and_reached_through_the_server(joined: Site) -> None:
    joined.server.apply(pod("on", "sh", "-c", f"echo here; {FOREVER[2]}"))
    joined.server.kubectl("wait", "--for=condition=Ready", "pod/on", "--timeout=60s")

    assert joined.server.wait_until(lambda: joined.server.kubectl("logs", "on"), 30) == "here\n"
    assert joined.server.kubectl("exec", "on", "--", "hostname") == "on\n"


def test_status_tells_of_the_node(joined: Site) -> None:
    said = json.loads(joined.machine.navarch("status", "-o", "json").stdout)

    assert said["role"] == "agent"
    assert said["ready"]
    assert [one["name"] for one in said["processes"]] == ["supervisor", "containerd", "node"]


def test_tokens_are_listed_and_taken_back(joined: Site) -> None:
    made = joined.token("--ttl", "1h", "--description", "for the shelf")
    name = ("--name", joined.server.name)

    listed = json.loads(joined.server.navarch("token", "list", *name, "-o", "json").stdout)
    mine = next(one for one in listed if one["token"] == made["token"])
    assert mine["description"] == "for the shelf"
    joined.server.navarch("token", "delete", *name, made["token"])

    left = json.loads(joined.server.navarch("token", "list", *name, "-o", "json").stdout)
    assert made["token"] not in [one["token"] for one in left]
    refused = joined.join(made["command"], "--name", "again", "--node-name", "another", check=False)
    assert refused.returncode == 1
    assert "does not take the token" in refused.stderr
    assert not (joined.machine.home / "again").exists()


def test_a_second_node_of_the_same_name_is_refused(joined: Site) -> None:
    refused = joined.join(joined.token()["command"], "--name", "twin", check=False)

    assert refused.returncode == 1
    assert "choose another name with --node-name" in refused.stderr


def test_a_machine_whose_processes_were_all_killed_comes_back_without_a_token(joined: Site) -> None:
    joined.server.apply(pod("kept", *FOREVER))
    joined.server.kubectl("wait", "--for=condition=Ready", "pod/kept", "--timeout=60s")
    before = joined.server.get("pod", "kept")["status"]["containerStatuses"][0]["containerID"]
    root = joined.machine.config.root
    for stray in sorted(strays.processes_of(root), key=lambda one: one.name != "supervisor"):
        os.kill(stray.pid, signal.SIGKILL)

    joined.machine.navarch("agent", "--detach")

    joined.server.wait_until(lambda: joined.server.kubectl("exec", "kept", "--", "hostname"), 60, "it answers again")
    assert joined.server.get("pod", "kept")["status"]["containerStatuses"][0]["containerID"] == before


def test_down_leaves_no_trace_of_the_node(joined: Site) -> None:
    machine, config = joined.machine, joined.machine.config
    joined.server.apply(pod("last", *FOREVER))
    joined.server.kubectl("wait", "--for=condition=Ready", "pod/last", "--timeout=60s")
    inside = process_of(joined.server.get("pod", "last")["status"]["containerStatuses"][0]["containerID"])
    names = HostNames(config.name, config.node_name)
    assert traces(machine, names, config.root)

    joined.server.kubectl("delete", "node", machine.node)
    machine.navarch("down", "--purge", "--grace", "1s")

    assert traces(machine, names, config.root) == []
    assert not Path(f"/proc/{inside}").exists()
    assert not config.root.exists()
    assert not ClusterState.load(config.run).living
    assert joined.server.get("nodes")["items"] == []


def traces(machine: Machine, names: HostNames, root: Path) -> list[str]:
    """What of the node is on its machine, folder and processes included."""

    def lines(*command: str) -> list[str]:
        return machine.run(*command).stdout.splitlines()

    words = (names.whole, names.bridge, str(root))
    found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(root) in line]
    for command in (("nft", "list", "tables"), ("ip", "-o", "link"), ("ip", "route")):
        found += [line for line in lines(*command) if any(word in line for word in words)]
    found += [line for line in lines("ip", "-o", "link") if ": eth0" not in line and ": lo" not in line]
    found += [str(place) for place in Path("/sys/fs/cgroup").rglob(f"*{names.whole}*")]
    found += [str(file) for file in Path("/var/lib/cni").rglob("*") if names.whole in file.name]
    found += [str(stray) for stray in strays.processes_of(root)]
    return found
