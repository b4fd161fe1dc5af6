"""The pod network of a node: a bridge with the node's own addresses among its pods, and the rules around it.

In: the node's pod ranges (from its Node object) and the cluster's ranges, one per family. Out: devices, sysctls, one
nftables table, and at last the CNI configuration, whose appearance is what makes the runtime report a ready network.
Invariant: everything is named after cluster and node (`names.py`), so that several live on one machine and `cleanup`
finds its own things alone.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final, TypeVar

from navarch.node import host_ports
from navarch.node.cni import CniConfig, gateway_of
from navarch.node.names import HostNames
from navarch.node.proxy.nftables import NFT_LIMIT_S, apply_script
from navarch.node.routing.kernel import MAIN_TABLE, PROTOCOL, Kernel, but_for
from navarch.node.routing.plan import OVERHEAD, PORT, Mode, family_of, network_number
from navarch.world import MACHINE

log = logging.getLogger(__name__)

T = TypeVar("T")

_MULTICAST: Final = {4: "224.0.0.0/4", 6: "ff00::/8"}
_IFA_F_NODAD: Final = 2
_BRIDGE_NF: Final = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Ranges:
    """Ranges of addresses, at most one per family: of the node's pods, of all pods, and of services."""

    own: tuple[str, ...]
    cluster: tuple[str, ...]
    services: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError for ranges that cannot be."""
        if not self.own:
            raise ValueError("the node has no pod range")
        for each in self.own:
            mine, all_ = ip_network(each), [ip_network(other) for other in self.cluster]
            if not any(mine.version == other.version and mine.subnet_of(other) for other in all_):  # type: ignore[arg-type]
                raise ValueError(f"the node's pod range {each} is not within the cluster's {','.join(self.cluster)}")


def of_family(ranges: Iterable[str], family: int) -> str:
    """The range of a family, or an empty text."""
    return next((each for each in ranges if family_of(each) == family), "")


class PodNetwork:
    """`state_dir` survives reboots; the CNI configuration goes to `conf_dir`. The node's own addresses on the bridge
    are the first of each range and `addresses`, where these are others. `node_ip` is the address that other nodes have
    for it, `mode` says how it reaches these."""

    def __init__(
        self,
        names: HostNames,
        state_dir: Path,
        conf_dir: Path | None = None,
        *,
        addresses: Sequence[str] = (),
        node_ip: str = "",
        mode: Mode = Mode.AUTO,
    ) -> None:
        self.names = names
        self.bridge = names.bridge
        self.table = names.network_table
        self.addresses = addresses
        self.node_ip = node_ip
        self.mode = mode
        self.ipam_dir = state_dir / "ipam"
        self.conf_dir = conf_dir or state_dir / "cni"
        self.link_mtu = 1500
        self._bridged = True

    @property
    def mtu(self) -> int:
        """What pods may send. Where there can be tunnels, all pods leave room for what these add: on one bridge, a pod
        that may send more than another can take would lose packets without hearing of it."""
        return self.link_mtu - (0 if self.mode is Mode.ROUTES else OVERHEAD[family_of(self.node_ip)])

    # Setting up.

    async def setup(self, ranges: Ranges) -> None:
        """Make or repair everything, then write the CNI configuration. Safe to repeat while pods run."""
        self._bridged = await MACHINE.in_thread(_bridge_filtering)
        _write_sysctl("net/ipv4/ip_forward", "1")
        if of_family(ranges.own, 6):
            forward_ipv6()
        # The calls block, and bring an event loop of their own.
        self.link_mtu = await MACHINE.in_thread(self._make_device, ranges)
        # Node ports on localhost leave by the bridge with a loopback source.
        _write_sysctl(f"net/ipv4/conf/{self.bridge}/route_localnet", "1")
        await apply_script(self.rules(ranges))
        await MACHINE.in_thread(self._forget_old_leases)
        self.write_cni_config(ranges)

    def write_cni_config(self, ranges: Ranges) -> Path:
        """Write the configuration alone; the network must have been set up."""
        config = CniConfig(
            network=self.names.cni_network,
            bridge=self.bridge,
            pod_cidrs=ranges.own,
            ipam_dir=self.ipam_dir,
            mtu=self.mtu,
            bridged=self._bridged,
        )
        return config.write(self.conf_dir)

    def rules(self, ranges: Ranges) -> list[str]:
        """The tables of both families. What their sets and maps hold stays when this is applied again."""
        return [line for family in (4, 6) for line in self._family_rules(family, ranges)]

    def _family_rules(self, family: int, ranges: Ranges) -> Iterator[str]:
        """Masquerade what leaves the cluster, and nothing else: pods see pods, and nodes see pods, as they are. Into
        the tunnel come only nodes."""
        ip = "ip6" if family == 6 else "ip"
        at = f"{ip} {self.table}"
        yield f"add table {at}"
        yield f"add set {at} nodes {{ type ipv{family}_addr ; }}"
        yield f"add chain {at} tunnel-guard {{ type filter hook input priority -10 ; }}"
        yield f"flush chain {at} tunnel-guard"
        # The network's number stands 12 bytes after the beginning of the UDP header.
        number = network_number(ranges.cluster)
        yield f"add rule {at} tunnel-guard udp dport {PORT} @th,96,24 {number:#x} {ip} saddr != @nodes drop"
        own, cluster = of_family(ranges.own, family), of_family(ranges.cluster, family)
        if not own:
            return
        yield from host_ports.rules(self.table, own, family)
        yield f"add chain {at} postrouting {{ type nat hook postrouting priority 100 ; }}"
        yield f"flush chain {at} postrouting"
        yield f"add rule {at} postrouting jump host-ports-masquerade"
        yield f"add rule {at} postrouting {ip} saddr {own} {ip} daddr {{ {cluster}, {_MULTICAST[family]} }} return"
        yield f"add rule {at} postrouting {ip} saddr {own} {ip} daddr @nodes return"
        yield f'add rule {at} postrouting {ip} saddr {own} oifname != "{self.bridge}" masquerade fully-random'

    def _make_device(self, ranges: Ranges) -> int:
        """The bridge (or where pods have routed links, a dummy) with the node's addresses, and the routes that take
        the node's own traffic to services as far as the rules.  Returns the MTU of the link to other nodes."""
        from pyroute2 import IPRoute

        kind = "bridge" if self._bridged else "dummy"
        with IPRoute() as ip:
            mtu = _link_mtu(ip, self.node_ip, self.bridge)
            found = ip.link_lookup(ifname=self.bridge)
            if found and ip.get_links(found[0])[0].get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") != kind:
                ip.link("del", index=found[0])
                found = []
            if not found:
                ip.link("add", ifname=self.bridge, kind=kind, mtu=mtu)
                found = ip.link_lookup(ifname=self.bridge)
            index = found[0]
            ip.link("set", index=index, mtu=mtu, state="up")
            self._address_device(ip, index, ranges.own)
            for services in ranges.services:
                if of_family(ranges.own, family_of(services)):
                    scope = {} if family_of(services) == 6 else {"scope": "link"}
                    ip.route("replace", dst=services, oif=index, proto=PROTOCOL, **scope)
        return mtu

    def _address_device(self, ip: Any, index: int, own: Sequence[str]) -> None:
        wanted = {(gateway_of(each), ip_network(each).prefixlen if self._bridged else _whole(each)) for each in own}
        firsts = {address for address, _ in wanted}
        wanted |= {(address, _whole(address)) for address in self.addresses if address not in firsts}
        for address in ip.get_addr(index=index):
            have = (address.get_attr("IFA_ADDRESS"), address["prefixlen"])
            if have not in wanted and not ip_address(have[0]).is_link_local:
                ip.addr("del", index=index, address=have[0], prefixlen=have[1])
        # The bridge plugin gives up at the first address that is not the pods' gateway, which therefore comes first.
        others = {one for one in wanted if self._bridged and one[1] == _whole(one[0])}
        for family in (4, 6):
            there = [(one.get_attr("IFA_ADDRESS"), one["prefixlen"]) for one in ip.get_addr(index=index)]
            ours = [one for one in there if family_of(one[0]) == family and one in wanted]
            if ours and ours[0] in others:
                ip.addr("del", index=index, address=ours[0][0], prefixlen=ours[0][1])
        for address, length in sorted(wanted, key=lambda one: (one in others, one)):
            # Nobody else can have it: no need to ask around first.
            more = {"flags": _IFA_F_NODAD} if family_of(address) == 6 else {}
            with but_for(errno.EEXIST):
                ip.addr("add", index=index, address=address, prefixlen=length, **more)

    def _forget_old_leases(self) -> None:
        """Addresses that were handed out before a reboot belong to pods that are no more."""
        marker = self.ipam_dir / "boot_id"
        boot = _BOOT_ID.read_text().strip()
        if marker.exists() and marker.read_text() != boot:
            shutil.rmtree(self.ipam_dir, ignore_errors=True)
        self.ipam_dir.mkdir(parents=True, exist_ok=True)
        marker.write_text(boot)

    # Taking down.

    def cleanup(self, cluster: Sequence[str] = ()) -> None:
        """Remove devices, routes, rules, addresses and the configuration. Idempotent; pods must be gone."""
        for ip in ("ip", "ip6"):
            _nft([f"add table {ip} {self.table}", f"delete table {ip} {self.table}"])
        with ThreadPoolExecutor(1) as executor:
            executor.submit(Kernel(self.names, tuple(cluster)).remove).result()
            executor.submit(self._remove_device).result()
        (self.conf_dir / f"10-{self.names.cni_network}.conflist").unlink(missing_ok=True)
        shutil.rmtree(self.ipam_dir, ignore_errors=True)

    def _remove_device(self) -> None:
        from pyroute2 import IPRoute

        with IPRoute() as ip:
            for index in ip.link_lookup(ifname=self.bridge):
                for link in ip.get_links(master=index):
                    with but_for(errno.ENODEV):
                        ip.link("del", index=link["index"])
                with but_for(errno.ENODEV):
                    ip.link("del", index=index)


def _link_mtu(ip: Any, node_ip: str, bridge: str) -> int:
    """The MTU of the link that has the node's address, else of the one that the default route uses, so that pods never
    send what cannot leave."""
    links = {link["index"]: link for link in ip.get_links()}
    found = [each["index"] for each in ip.get_addr() if node_ip and each.get_attr("IFA_ADDRESS") == node_ip]
    for family in (socket.AF_INET, socket.AF_INET6):
        found += [route.get_attr("RTA_OIF") for route in ip.get_default_routes(family=family, table=MAIN_TABLE)]
    for index in found:
        if index in links and links[index].get_attr("IFLA_IFNAME") not in (bridge, "lo"):
            return min(int(links[index].get_attr("IFLA_MTU")), 65535)
    return 1500


def _whole(text: str) -> int:
    """The prefix length of a single address of the family."""
    return 128 if family_of(text) == 6 else 32


def forward_ipv6() -> None:
    """Be a router, but go on learning the way out from one where that is how it was learnt."""
    for learning in Path("/proc/sys/net/ipv6/conf").glob("*/accept_ra"):
        name = learning.parent.name
        if name not in ("all", "default", "lo") and learning.read_text().strip() == "1":
            _write_sysctl(f"net/ipv6/conf/{name}/accept_ra", "2")
    _write_sysctl("net/ipv6/conf/all/forwarding", "1")


def _bridge_filtering() -> bool:
    """Have bridged packets pass the rules; False where the kernel has no such thing."""
    if not _BRIDGE_NF.exists() and shutil.which("modprobe"):
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(["modprobe", "-q", "br_netfilter"], check=False, capture_output=True, timeout=NFT_LIMIT_S)
    if not _BRIDGE_NF.exists():
        return False
    _write_sysctl("net/bridge/bridge-nf-call-ip6tables", "1")
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
