"""`KubeProxyConfiguration`: what is taken from it, and what is refused in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from navarch.node.proxy.configuration import ProxyConfigError, ProxySettings, read_settings
from navarch.node.proxy.runner import ProxyConfig
from navarch.node.proxy.tuning import sysctls

HEAD = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"


def read(tmp_path: Path, text: str, mode: str = "") -> ProxySettings:
    file = tmp_path / "proxy.yaml"
    file.write_text(HEAD + text)
    return read_settings(file, mode)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ProxyConfigError) as raised:
        read(tmp_path, text)
    return str(raised.value).removeprefix(f"{tmp_path}/proxy.yaml: ")


def test_what_kubeadm_writes_is_taken(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        """
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection: {acceptContentTypes: "", burst: 0, contentType: "", kubeconfig: /var/lib/k.conf, qps: 0.5}
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack: {maxPerCore: 32768, min: 131072, tcpCloseWaitTimeout: 1h0m0s, tcpEstablishedTimeout: 24h, udpTimeout: 0s}
detectLocal: {bridgeInterface: "", interfaceNamePrefix: ""}
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: 0.0.0.0:10256
hostnameOverride: ""
iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
ipvs: null
logging: {flushFrequency: 0, options: {json: {infoBufferSize: "0"}}, verbosity: 0}
metricsBindAddress: "[::1]:10249"
mode: ""
nftables: {masqueradeAll: true, masqueradeBit: 5, minSyncPeriod: 1s, syncPeriod: 30s}
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel: null
""",
    )

    assert (settings.mode, settings.masquerade_all, settings.masquerade_bit) == ("", True, 5)
    assert (settings.min_interval_s, settings.verify_s) == (1, 30)
    assert (settings.health_address, settings.health_port) == ("0.0.0.0", 10256)
    assert (settings.metrics_address, settings.metrics_port) == ("::1", 10249)
    assert settings.warnings == ()
    assert dict(sysctls(settings.conntrack, 2)) == {
        "nf_conntrack_max": 131072,
        "nf_conntrack_tcp_timeout_close_wait": 3600,
        "nf_conntrack_tcp_timeout_established": 86400,
    }


def test_the_flag_goes_before_the_file(tmp_path: Path) -> None:
    assert read(tmp_path, "mode: iptables").mode == "iptables"
    assert read(tmp_path, "mode: iptables", "userspace").mode == "userspace"


def test_ipvs_is_nftables_with_a_warning(tmp_path: Path) -> None:
    settings = read(tmp_path, "mode: ipvs\nipvs: {scheduler: rr, strictARP: true}")

    assert settings.mode == "nftables"
    assert [warning for warning in settings.warnings if "ipvs is proxied with nftables" in warning]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mod: iptables", 'strict decoding error: unknown field "mod"'),
        ("iptables: {masqueradBit: 3}", 'strict decoding error: unknown field "iptables.masqueradBit"'),
        ("mode: 5", "strict decoding error: mode: must be a string"),
        ("mode: kernelspace", 'mode: unsupported value "kernelspace"'),
        ("nftables: {syncPeriod: 1x}", 'nftables.syncPeriod: time: invalid duration "1x"'),
        ("iptables: {masqueradeBit: 32}", "iptables.masqueradeBit: must be from 0 to 31"),
        ("iptables: {syncPeriod: 1s, minSyncPeriod: 2s}", "iptables.syncPeriod: must not be less than minSyncPeriod"),
        ("clusterCIDR: 10.0.0.0", 'clusterCIDR: "10.0.0.0" is not a range'),
        ("nodePortAddresses: [primary, 10.0.0.0/8]", 'nodePortAddresses: "primary" must be alone'),
        ("healthzBindAddress: somewhere:99", 'healthzBindAddress: "somewhere:99" is not an address with a port'),
        ("conntrack: {min: -1}", "conntrack.min: must not be negative"),
    ],
)
def test_what_kube_proxy_would_refuse_is_refused_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    assert refusal(tmp_path, text).startswith(words)


def test_another_kind_is_told(tmp_path: Path) -> None:
    file = tmp_path / "proxy.yaml"
    file.write_text("apiVersion: v1\nkind: Pod\n")

    with pytest.raises(ProxyConfigError, match="expected apiVersion kubeproxy"):
        read_settings(file)


def test_each_ip_family_of_services_has_its_proxier(tmp_path: Path) -> None:
    settings = read(tmp_path, "nodePortAddresses: [192.168.0.0/16, fd00::/8]")
    config = ProxyConfig("c", "n", "10.42.0.0/16,fd42::/48", "10.43.0.0/16,fd43::/112", settings=settings)

    four, six = config.proxiers()

    assert (four.family, four.pod_cidr, four.service_cidr) == (4, "10.42.0.0/16", "10.43.0.0/16")
    assert (six.family, six.pod_cidr, six.service_cidr) == (6, "fd42::/48", "fd43::/112")
    assert (four.node_port_addresses, six.node_port_addresses) == (("192.168.0.0/16",), ("fd00::/8",))
