"""The proxy's configuration as a file of Kubernetes' form: `KubeProxyConfiguration`, kubeproxy.config.k8s.io/v1alpha1.

In: the text of a file, and a mode stated beside it. Out: `ProxySettings`, defaults filled in, and what is to be said
about settings that have no meaning here. A field that the kind does not have is an error, as is a value that kube-proxy
would refuse. What is about kube-proxy as a process of its own (profiling, logging, OOM score) is read and left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

from navarch.api.config_files import TEXTS, Shape, ShapeError, Struct, fit
from navarch.api.meta import Obj
from navarch.kinds.batch.cron import duration_s

API_VERSION: Final = "kubeproxy.config.k8s.io/v1alpha1"
KIND: Final = "KubeProxyConfiguration"
MODES: Final = ("nftables", "iptables", "userspace")
_IPVS: Final = "ipvs"
_PRIMARY: Final = "primary"
_FLAGS: Final = "featureGates"
_BACKEND: Final[Mapping[str, Shape]] = {
    "masqueradeBit": int,
    "masqueradeAll": bool,
    "syncPeriod": str,
    "minSyncPeriod": str,
}
_FIELDS: Final[Mapping[str, Shape]] = {
    _FLAGS: object,
    "clientConnection": Struct(
        {"kubeconfig": str, "acceptContentTypes": str, "contentType": str, "qps": object, "burst": int}
    ),
    "logging": object,
    "hostnameOverride": str,
    "bindAddress": str,
    "healthzBindAddress": str,
    "metricsBindAddress": str,
    "bindAddressHardFail": bool,
    "enableProfiling": bool,
    "showHiddenMetricsForVersion": str,
    "mode": str,
    "iptables": Struct({**_BACKEND, "localhostNodePorts": bool}),
    _IPVS: Struct(
        {
            "syncPeriod": str,
            "minSyncPeriod": str,
            "scheduler": str,
            "excludeCIDRs": TEXTS,
            "strictARP": bool,
            "tcpTimeout": str,
            "tcpFinTimeout": str,
            "udpTimeout": str,
        }
    ),
    "nftables": Struct(_BACKEND),
    "winkernel": Struct(
        {
            "networkName": str,
            "sourceVip": str,
            "enableDSR": bool,
            "rootHnsEndpointName": str,
            "forwardHealthCheckVip": bool,
        }
    ),
    "detectLocalMode": str,
    "detectLocal": Struct({"bridgeInterface": str, "interfaceNamePrefix": str}),
    "clusterCIDR": str,
    "nodePortAddresses": TEXTS,
    "oomScoreAdj": int,
    "conntrack": Struct(
        {
            "maxPerCore": int,
            "min": int,
            "tcpEstablishedTimeout": str,
            "tcpCloseWaitTimeout": str,
            "tcpBeLiberal": bool,
            "udpTimeout": str,
            "udpStreamTimeout": str,
        }
    ),
    "configSyncPeriod": str,
    "portRange": str,
    "windowsRunAsService": bool,
}
_DURATIONS: Final = (
    "configSyncPeriod",
    *(f"{backend}.{name}" for backend in ("iptables", _IPVS, "nftables") for name in ("syncPeriod", "minSyncPeriod")),
    *(f"{_IPVS}.{name}" for name in ("tcpTimeout", "tcpFinTimeout", "udpTimeout")),
    *(
        f"conntrack.{name}"
        for name in ("tcpEstablishedTimeout", "tcpCloseWaitTimeout", "udpTimeout", "udpStreamTimeout")
    ),
)
_LOCAL_MODES: Final = ("", "ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix")


class ProxyConfigError(ValueError):
    """The file cannot be used; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Conntrack:
    """What the kernel's memory of connections is set to; None is left as it is."""

    max_entries_per_core: int = 0
    min_entries: int = 0
    tcp_established_s: float | None = None
    tcp_close_wait_s: float | None = None
    tcp_be_liberal: bool = False
    udp_s: float | None = None
    udp_stream_s: float | None = None


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """How a node proxies, beside what the cluster says. Without a `mode` the machine decides."""

    mode: str = ""
    masquerade_all: bool = False
    masquerade_bit: int = 14
    min_interval_s: float = 0.0
    verify_s: float = 60.0
    pod_cidr: str = ""
    node_port_addresses: tuple[str, ...] = ()
    primary_only: bool = False
    localhost_node_ports: bool = True
    health_address: str = ""
    health_port: int = 0
    metrics_address: str = ""
    metrics_port: int = 0
    conntrack: Conntrack = Conntrack()
    warnings: tuple[str, ...] = ()


def read_settings(path: Path | None, mode: str = "") -> ProxySettings:
    """The settings of a file, or the defaults; `mode` goes before what the file says.  Raises ProxyConfigError."""
    if path is None:
        return settings_of({}, mode)
    import yaml

    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ProxyConfigError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise ProxyConfigError(f"{path}: expected `apiVersion: {API_VERSION}` and `kind: {KIND}`")
    try:
        if document.get("apiVersion") != API_VERSION or document.get("kind") != KIND:
            seen = f"{document.get('apiVersion')!r}, {document.get('kind')!r}"
            raise ProxyConfigError(f"expected apiVersion {API_VERSION} and kind {KIND}, not {seen}")
        return settings_of(document, mode)
    except (ProxyConfigError, ShapeError) as error:
        raise ProxyConfigError(f"{path}: {error}") from None


def settings_of(document: Obj, mode: str = "") -> ProxySettings:
    """Raises ProxyConfigError, ShapeError."""
    fit(document, _FIELDS)
    if problems := list(_problems(document)):
        raise ProxyConfigError("; ".join(problems))
    chosen, warnings = mode or document.get("mode") or "", list(_unheeded(document))
    if chosen == _IPVS:
        warnings.append("mode ipvs is proxied with nftables, which serves any number of services as fast")
        chosen = "nftables"
    backend = document.get("iptables" if chosen == "iptables" else "nftables") or {}
    addresses = tuple(document.get("nodePortAddresses") or ())
    health, metrics = (_host_port(document.get(name) or "") for name in ("healthzBindAddress", "metricsBindAddress"))
    bit = backend.get("masqueradeBit")
    local_ports = (document.get("iptables") or {}).get("localhostNodePorts")
    return ProxySettings(
        mode=chosen,
        masquerade_all=bool(backend.get("masqueradeAll")),
        masquerade_bit=14 if bit is None else bit,
        min_interval_s=duration_s(backend.get("minSyncPeriod") or "0s"),
        verify_s=duration_s(backend.get("syncPeriod") or "0s") or 60.0,
        pod_cidr=document.get("clusterCIDR") or "",
        node_port_addresses=() if addresses == (_PRIMARY,) else addresses,
        primary_only=addresses == (_PRIMARY,),
        localhost_node_ports=local_ports is not False,
        health_address=health[0],
        health_port=health[1],
        metrics_address=metrics[0],
        metrics_port=metrics[1],
        conntrack=_conntrack(document.get("conntrack") or {}),
        warnings=tuple(warnings),
    )


def _conntrack(stated: Obj) -> Conntrack:
    def seconds(name: str) -> float | None:
        # Nothing and zero leave the machine's own value.
        return duration_s(stated.get(name) or "0s") or None

    return Conntrack(
        max_entries_per_core=stated.get("maxPerCore") or 0,
        min_entries=stated.get("min") or 0,
        tcp_established_s=seconds("tcpEstablishedTimeout"),
        tcp_close_wait_s=seconds("tcpCloseWaitTimeout"),
        tcp_be_liberal=bool(stated.get("tcpBeLiberal")),
        udp_s=seconds("udpTimeout"),
        udp_stream_s=seconds("udpStreamTimeout"),
    )


def _unheeded(document: Obj) -> Iterator[str]:
    """What is said in vain, in words."""
    mode = document.get("detectLocalMode") or ""
    if mode not in ("", "ClusterCIDR"):
        yield f"detectLocalMode {mode} is taken as ClusterCIDR: all pods of the cluster are in one range"
    if document.get("winkernel") or document.get("windowsRunAsService"):
        yield "settings for Windows have no effect"
    if document.get(_IPVS):
        yield "settings of ipvs have no effect"


def _problems(document: Obj) -> Iterator[str]:
    """What kube-proxy would refuse."""
    mode = document.get("mode") or ""
    if mode not in ("", _IPVS, *MODES):
        yield f'mode: unsupported value "{mode}": must be one of {", ".join(sorted((*MODES, _IPVS)))}, or nothing'
    for path in _DURATIONS:
        part, _, name = path.rpartition(".")
        text = (document.get(part) or {} if part else document).get(name)
        if text:
            yield from _wrong_duration(path, text)
    for backend in ("iptables", "nftables"):
        yield from _wrong_backend(backend, document.get(backend) or {})
    for name in ("maxPerCore", "min"):
        if ((document.get("conntrack") or {}).get(name) or 0) < 0:
            yield f"conntrack.{name}: must not be negative"
    if not -1000 <= (document.get("oomScoreAdj") or 0) <= 1000:
        yield "oomScoreAdj: must be from -1000 to 1000"
    if (document.get("detectLocalMode") or "") not in _LOCAL_MODES:
        known = ", ".join(_LOCAL_MODES[1:])
        yield f'detectLocalMode: unsupported value "{document["detectLocalMode"]}": must be one of {known}'
    yield from _wrong_addresses(document)
    gates = document.get(_FLAGS) or {}
    if not isinstance(gates, dict) or not all(isinstance(value, bool) for value in gates.values()):
        yield f"{_FLAGS}: must be true or false by name"


def _wrong_duration(path: str, text: str) -> Iterator[str]:
    try:
        negative = duration_s(text) < 0
    except ValueError as error:
        yield f"{path}: {error}"
        return
    if negative:
        yield f"{path}: must not be negative"


def _wrong_backend(name: str, stated: Obj) -> Iterator[str]:
    if not 0 <= (stated.get("masqueradeBit") or 0) <= 31:
        yield f"{name}.masqueradeBit: must be from 0 to 31"
    try:
        longest, shortest = (duration_s(stated.get(each) or "0s") for each in ("syncPeriod", "minSyncPeriod"))
    except ValueError:
        return
    if stated.get("syncPeriod") and shortest > longest:
        yield f"{name}.syncPeriod: must not be less than minSyncPeriod"


def _wrong_addresses(document: Obj) -> Iterator[str]:
    if text := document.get("bindAddress"):
        try:
            ip_address(text)
        except ValueError:
            yield f'bindAddress: "{text}" is not an IP address'
    for name in ("healthzBindAddress", "metricsBindAddress"):
        try:
            _host_port(document.get(name) or "")
        except ValueError:
            yield f'{name}: "{document[name]}" is not an address with a port, such as 0.0.0.0:10256'
    for text in filter(None, (document.get("clusterCIDR") or "").split(",")):
        yield from _wrong_range("clusterCIDR", text)
    stated = document.get("nodePortAddresses") or ()
    for text in stated:
        if text == _PRIMARY:
            if len(stated) > 1:
                yield f'nodePortAddresses: "{_PRIMARY}" must be alone'
        else:
            yield from _wrong_range("nodePortAddresses", text)


def _wrong_range(name: str, text: str) -> Iterator[str]:
    try:
        ip_network(text, strict=False)
    except ValueError:
        yield f'{name}: "{text}" is not a range of addresses, such as 10.0.0.0/8'
        return
    if "/" not in text:
        yield f'{name}: "{text}" is not a range of addresses, such as 10.0.0.0/8'


def _host_port(text: str) -> tuple[str, int]:
    """Address and port of `0.0.0.0:10256` or `[::]:10256`; ("", 0) of nothing.  Raises ValueError."""
    if not text:
        return "", 0
    host, separator, port = text.rpartition(":")
    if not separator:
        return str(ip_address(text)), 0
    address = str(ip_address(host.removeprefix("[").removesuffix("]")))
    number = int(port)
    if not 0 < number < 65536:
        raise ValueError(text)
    return address, number


def ranges_of(texts: Iterable[str], family: int) -> tuple[str, ...]:
    """Those of some ranges that are of one IP family, as rules write them."""
    networks = [ip_network(text.strip(), strict=False) for text in texts if text.strip()]
    return tuple(str(each) for each in networks if each.version == family)
