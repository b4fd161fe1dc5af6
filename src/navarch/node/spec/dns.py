"""Names inside a pod: its DNS configuration (`resolv.conf`) by policy, and its `/etc/hosts`. Pure but for reading the
host's own files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from navarch.api.meta import Obj
from navarch.node import podspec

RESOLV_CONF: Final = Path("/etc/resolv.conf")
_BEHIND_RESOLVED: Final = Path("/run/systemd/resolve/resolv.conf")
_MAX_SERVERS: Final = 3
_MAX_SEARCHES: Final = 32


@dataclass(slots=True)
class Resolver:
    """What a resolv.conf says."""

    servers: list[str] = field(default_factory=list)
    searches: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)


def read_resolv_conf(path: Path) -> Resolver:
    """The host's resolver; empty where the file cannot be read."""
    result = Resolver()
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return result
    for line in lines:
        words = line.split()
        if not words or words[0][0] in "#;":
            continue
        if words[0] == "nameserver" and len(words) > 1:
            result.servers.append(words[1])
        elif words[0] in ("search", "domain"):
            result.searches = [word.rstrip(".") or "." for word in words[1:]]
        elif words[0] == "options":
            result.options = words[1:]
    return result


def reached_from_elsewhere(own: Path = RESOLV_CONF, behind: Path = _BEHIND_RESOLVED) -> Path:
    """The file that names the machine's servers for pods and for nodes with a network of their own: where its resolver
    listens on loopback alone, the file of the servers that it asks, that systemd-resolved writes. As kubeadm does."""
    return behind if on_loopback_alone(own) and behind.exists() else own


def on_loopback_alone(resolv_conf: Path) -> bool:
    servers = read_resolv_conf(resolv_conf).servers
    return bool(servers) and all(_is_loopback(server) for server in servers)


def _is_loopback(server: str) -> bool:
    try:
        return ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return False


def resolver_of(pod: Obj, host: Resolver, cluster_dns: Sequence[str], cluster_domain: str) -> Resolver:
    """The pod's resolver by `dnsPolicy`, with `dnsConfig` added."""
    policy = pod["spec"].get("dnsPolicy") or "ClusterFirst"
    if policy == "ClusterFirst" and podspec.host_network(pod):
        policy = "Default"
    if policy == "None":
        result = Resolver()
    elif policy == "Default" or not cluster_dns:
        result = Resolver(list(host.servers), list(host.searches), list(host.options))
    else:
        namespace = pod["metadata"]["namespace"]
        searches = [f"{namespace}.svc.{cluster_domain}", f"svc.{cluster_domain}", cluster_domain]
        result = Resolver(list(cluster_dns), _unique([*searches, *host.searches]), ["ndots:5"])
    stated = pod["spec"].get("dnsConfig") or {}
    options = dict(_option(text) for text in result.options)
    for option in stated.get("options") or []:
        options[option["name"]] = option.get("value") or ""
    return Resolver(
        _unique([*result.servers, *(stated.get("nameservers") or [])])[:_MAX_SERVERS],
        _unique([*result.searches, *(stated.get("searches") or [])])[:_MAX_SEARCHES],
        [f"{name}:{value}" if value else name for name, value in options.items()],
    )


def _option(text: str) -> tuple[str, str]:
    name, _, value = text.partition(":")
    return name, value


def _unique(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


def hosts_file(pod: Obj, pod_ips: Sequence[str], cluster_domain: str, host_file: Path = Path("/etc/hosts")) -> str:
    """The text of the pod's `/etc/hosts`; a pod on the host's network sees the host's, plus its aliases."""
    if podspec.host_network(pod):
        try:
            text = "# Kubernetes-managed hosts file (host network).\n" + host_file.read_text()
        except OSError:
            text = "# Kubernetes-managed hosts file (host network).\n127.0.0.1\tlocalhost\n"
    else:
        name, domain = podspec.hostname(pod), podspec.host_domain(pod, cluster_domain)
        names = f"{name}.{domain}\t{name}" if domain else name
        text = (
            "# Kubernetes-managed hosts file.\n"
            "127.0.0.1\tlocalhost\n"
            "::1\tlocalhost ip6-localhost ip6-loopback\n"
            "fe00::0\tip6-localnet\n"
            "fe00::0\tip6-mcastprefix\n"
            "fe00::1\tip6-allnodes\n"
            "fe00::2\tip6-allrouters\n"
        ) + "".join(f"{address}\t{names}\n" for address in pod_ips)
    aliases = pod["spec"].get("hostAliases") or []
    if aliases:
        text += "\n# Entries added by HostAliases.\n"
        text += "".join("\t".join([alias.get("ip", ""), *(alias.get("hostnames") or [])]) + "\n" for alias in aliases)
    return text
