"""The pod network of a node: a bridge with the node's own address among its pods, the rules and routes around it, and
the routes to the pods of other nodes.

In: the node's pod range (from its Node object) and the cluster's ranges. Out: devices, sysctls, one nftables table, and
at last the CNI configuration, whose appearance is what makes the runtime report a ready network.
Invariant: everything is named after cluster and node (`names.py`), so that several live on one machine and `cleanup`
finds its own things alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final, TypeVar

from navarch.api.meta import Obj, name_of
from navarch.client.base import Client
from navarch.client.following import follow
from navarch.client.informer import Informer
from navarch.client.resources import NODES
from navarch.node import host_ports
from navarch.node.cni import CniConfig, gateway_of
from navarch.node.names import HostNames
from navarch.node.proxy.nftables import NFT_LIMIT_S, apply_script

log = logging.getLogger(__name__)

T = TypeVar("T")

# Marks the routes that are ours (/etc/iproute2/rt_protos has nothing at this number).
_ROUTE_PROTOCOL: Final = 78
_MAIN_TABLE: Final = 254
_BRIDGE_NF: Final = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class PodNetwork:
    """`state_dir` survives reboots; the CNI configuration goes to `conf_dir`. The node's own address is the first of
    its range and `address`, where that is another one."""

    def __init__(self, names: HostNames, state_dir: Path, conf_dir: Path | None = None, *, address: str = "") -> None:
        self.names = names
        self.bridge = names.bridge
        self.table = names.network_table
        self.address = address
        self.ipam_dir = state_dir / "ipam"
        self.conf_dir = conf_dir or state_dir / "cni"
        self._bridged = True
        self._mtu = 1500

    # Setting up.

    async def setup(self, pod_cidr: str, cluster_cidr: str, service_cidr: str = "") -> None:
        """Make or repair everything, then write the CNI configuration. Safe to repeat while pods run."""
        self.check(pod_cidr, cluster_cidr)
        self._bridged = await asyncio.to_thread(_bridge_filtering)
        _write_sysctl("net/ipv4/ip_forward", "1")
        self._mtu = await in_thread(self._make_device, pod_cidr, service_cidr)
        # Node ports on localhost leave by the bridge with a loopback source.
        _write_sysctl(f"net/ipv4/conf/{self.bridge}/route_localnet", "1")
        await apply_script(self.rules(pod_cidr, cluster_cidr))
        await asyncio.to_thread(self._forget_old_leases)
        self.write_cni_config(pod_cidr, cluster_cidr)

    @staticmethod
    def check(pod_cidr: str, cluster_cidr: str) -> None:
        """Raises ValueError for ranges that cannot be."""
        mine, all_ = ip_network(pod_cidr), ip_network(cluster_cidr)
        if mine.version != all_.version or not mine.subnet_of(all_):  # type: ignore[arg-type]
            raise ValueError(f"the node's pod range {pod_cidr} is not within the cluster's {cluster_cidr}")

    def write_cni_config(self, pod_cidr: str, cluster_cidr: str) -> Path:
        """Write the configuration alone; the network must have been set up."""
        self.check(pod_cidr, cluster_cidr)
        config = CniConfig(
            network=self.names.cni_network,
            bridge=self.bridge,
            pod_cidr=pod_cidr,
            ipam_dir=self.ipam_dir,
            mtu=self._mtu,
            bridged=self._bridged,
        )
        return config.write(self.conf_dir)

    def rules(self, pod_cidr: str, cluster_cidr: str) -> list[str]:
        """Masquerade what leaves the cluster, and nothing else: pods see pods, and nodes see pods, as they are. What
        the table's sets and maps hold stays when this is applied again."""
        at = f"ip {self.table}"
        return [
            f"add table {at}",
            f"add set {at} nodes {{ type ipv4_addr ; }}",
            *host_ports.rules(self.table, pod_cidr),
            f"add chain {at} postrouting {{ type nat hook postrouting priority 100 ; }}",
            f"flush chain {at} postrouting",
            f"add rule {at} postrouting jump host-ports-masquerade",
            f"add rule {at} postrouting ip saddr {pod_cidr} ip daddr {{ {cluster_cidr}, 224.0.0.0/4 }} return",
            f"add rule {at} postrouting ip saddr {pod_cidr} ip daddr @nodes return",
            f'add rule {at} postrouting ip saddr {pod_cidr} oifname != "{self.bridge}" masquerade fully-random',
        ]

    def _make_device(self, pod_cidr: str, service_cidr: str) -> int:
        """The bridge (or where pods have routed links, a dummy) with the node's address, and the route that takes
        the node's own traffic to services as far as the rules.  Returns the MTU."""
        from pyroute2 import IPRoute

        kind = "bridge" if self._bridged else "dummy"
        gateway = gateway_of(pod_cidr)
        length = ip_network(pod_cidr).prefixlen if self._bridged else 32
        with IPRoute() as ip:
            mtu = _default_mtu(ip)
            found = ip.link_lookup(ifname=self.bridge)
            if found and ip.get_links(found[0])[0].get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") != kind:
                ip.link("del", index=found[0])
                found = []
            if not found:
                ip.link("add", ifname=self.bridge, kind=kind, mtu=mtu)
                found = ip.link_lookup(ifname=self.bridge)
            index = found[0]
            ip.link("set", index=index, mtu=mtu, state="up")
            wanted = {(gateway, length)}
            if self.address not in ("", gateway):
                wanted.add((self.address, 32))
            for address in ip.get_addr(index=index, family=socket.AF_INET):
                have = (address.get_attr("IFA_ADDRESS"), address["prefixlen"])
                if have not in wanted:
                    ip.addr("del", index=index, address=have[0], prefixlen=have[1])
            for own, own_length in sorted(wanted):
                with _but_for(errno.EEXIST):
                    ip.addr("add", index=index, address=own, prefixlen=own_length)
            if service_cidr:
                ip.route("replace", dst=service_cidr, oif=index, scope="link", proto=_ROUTE_PROTOCOL)
        return mtu

    def _forget_old_leases(self) -> None:
        """Addresses that were handed out before a reboot belong to pods that are no more."""
        marker = self.ipam_dir / "boot_id"
        boot = _BOOT_ID.read_text().strip()
        if marker.exists() and marker.read_text() != boot:
            shutil.rmtree(self.ipam_dir, ignore_errors=True)
        self.ipam_dir.mkdir(parents=True, exist_ok=True)
        marker.write_text(boot)

    # Other nodes.

    async def run(self, client: Client, node_name: str, cluster_cidr: str) -> None:
        """Keep routes to the pods of all other nodes until cancelled (they are next to us, or reached by a router
        that knows them)."""
        informer = Informer(client, NODES, transform=_slim_node)

        async def write() -> None:
            routes = dict(filter(None, (route_of(node) for node in informer.list() if name_of(node) != node_name)))
            reached = await in_thread(self._write_routes, routes, cluster_cidr)
            await self._write_nodes(reached)

        await follow(
            "routes to other nodes",
            [informer],
            write,
            matters=lambda old, new: route_of(old) != route_of(new),
            calm_s=0.5,
        )

    def _write_routes(self, routes: Mapping[str, str], cluster_cidr: str) -> set[str]:
        """Make the routes to other nodes' pods exactly `routes` (pod range to node address); the node addresses that
        are our neighbours."""
        from pyroute2 import IPRoute

        all_pods = ip_network(cluster_cidr)
        reached: set[str] = set()
        with IPRoute() as ip:
            here = {address.get_attr("IFA_ADDRESS") for address in ip.get_addr(family=socket.AF_INET)}
            present: dict[str, str] = {}
            for route in ip.get_routes(family=socket.AF_INET, table=_MAIN_TABLE, proto=_ROUTE_PROTOCOL):
                destination, gateway = route.get_attr("RTA_DST"), route.get_attr("RTA_GATEWAY")
                if destination and gateway and ip_address(destination) in all_pods:
                    present[f"{destination}/{route['dst_len']}"] = gateway
            for destination, gateway in routes.items():
                if gateway in here or not _is_neighbour(ip, gateway):
                    continue
                reached.add(gateway)
                if present.get(destination) != gateway:
                    ip.route("replace", dst=destination, gateway=gateway, proto=_ROUTE_PROTOCOL)
            for destination in present:
                if routes.get(destination) not in reached:
                    with _but_for(errno.ESRCH):
                        ip.route("del", dst=destination, proto=_ROUTE_PROTOCOL)
        return reached

    async def _write_nodes(self, addresses: Iterable[str]) -> None:
        script = [f"flush set ip {self.table} nodes"]
        if members := ", ".join(sorted(addresses)):
            script.append(f"add element ip {self.table} nodes {{ {members} }}")
        await apply_script(script)

    # Taking down.

    def cleanup(self, cluster_cidr: str = "") -> None:
        """Remove devices, routes, rules, addresses and the configuration. Idempotent; pods must be gone."""
        _nft([f"add table ip {self.table}", f"delete table ip {self.table}"])
        with ThreadPoolExecutor(1) as executor:
            executor.submit(self._remove_device, cluster_cidr).result()
        (self.conf_dir / f"10-{self.names.cni_network}.conflist").unlink(missing_ok=True)
        shutil.rmtree(self.ipam_dir, ignore_errors=True)

    def _remove_device(self, cluster_cidr: str) -> None:
        from pyroute2 import IPRoute

        with IPRoute() as ip:
            # Routes by way of the device go with it; those by way of other nodes do not.
            if cluster_cidr:
                pods = ip_network(cluster_cidr)
                for route in ip.get_routes(family=socket.AF_INET, table=_MAIN_TABLE, proto=_ROUTE_PROTOCOL):
                    destination = route.get_attr("RTA_DST")
                    if destination and ip_address(destination) in pods:
                        with _but_for(errno.ESRCH):
                            ip.route("del", dst=f"{destination}/{route['dst_len']}", proto=_ROUTE_PROTOCOL)
            for index in ip.link_lookup(ifname=self.bridge):
                for link in ip.get_links(master=index):
                    with _but_for(errno.ENODEV):
                        ip.link("del", index=link["index"])
                with _but_for(errno.ENODEV):
                    ip.link("del", index=index)


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Run what uses pyroute2's blocking calls: they bring an event loop of their own, so not in ours."""
    return await asyncio.to_thread(function, *arguments)


def route_of(node: Obj) -> tuple[str, str] | None:
    """A node's pod range and the address by which to reach it."""
    pod_cidr = (node.get("spec") or {}).get("podCIDR")
    for address in (node.get("status") or {}).get("addresses") or ():
        if address.get("type") == "InternalIP" and pod_cidr and ":" not in address.get("address", ":"):
            return pod_cidr, address["address"]
    return None


def _slim_node(node: Obj) -> Obj:
    metadata = {name: node["metadata"].get(name) for name in ("name", "resourceVersion")}
    return {
        "metadata": metadata,
        "spec": {"podCIDR": (node.get("spec") or {}).get("podCIDR")},
        "status": {"addresses": (node.get("status") or {}).get("addresses")},
    }


def _is_neighbour(ip: Any, address: str) -> bool:
    """Whether an address is on a link of ours, not behind a router."""
    try:
        route = ip.route("get", dst=address)[0]
    except Exception as error:
        log.debug("no route to %s: %s", address, error)
        return False
    return route.get_attr("RTA_GATEWAY") is None and route.get_attr("RTA_OIF") is not None


def _default_mtu(ip: Any) -> int:
    """The MTU of the link that the default route uses, so that pods never send what cannot leave."""
    for route in ip.get_default_routes(family=socket.AF_INET, table=_MAIN_TABLE):
        index = route.get_attr("RTA_OIF")
        if index:
            return min(int(ip.get_links(index)[0].get_attr("IFLA_MTU")), 65535)
    return 1500


def _bridge_filtering() -> bool:
    """Have bridged packets pass the rules; False where the kernel has no such thing."""
    if not _BRIDGE_NF.exists() and shutil.which("modprobe"):
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(["modprobe", "-q", "br_netfilter"], check=False, capture_output=True, timeout=NFT_LIMIT_S)
    if not _BRIDGE_NF.exists():
        return False
    return _write_sysctl("net/bridge/bridge-nf-call-iptables", "1")


def _write_sysctl(path: str, value: str) -> bool:
    """Set a sysctl that is not so already; False (and a warning) where that is not allowed."""
    file = Path("/proc/sys") / path
    try:
        if file.read_text().strip() != value:
            file.write_text(value)
    except OSError as error:
        log.warning("sysctl %s: %s", path.replace("/", "."), error)
        return False
    return True


@contextlib.contextmanager
def _but_for(code: int) -> Any:
    """Let one netlink error pass: the state that it reports is the one wanted."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        if error.code != code:
            raise


def _nft(script: list[str]) -> None:
    if shutil.which("nft") is None:
        return
    try:
        subprocess.run(
            ["nft", "-f", "-"],
            input="\n".join(script) + "\n",
            text=True,
            check=False,
            capture_output=True,
            timeout=NFT_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        log.warning("nft did not end within %g s: %s", NFT_LIMIT_S, "; ".join(script))
