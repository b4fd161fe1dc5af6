"""What a cluster tells `kubeadm join`, and the kubelet and kube-proxy of Kubernetes that it sets up on a machine.

In: the cluster's configuration. Out: the ConfigMaps that kubeadm reads with a bootstrap token: what the cluster is,
how its kubelets are to be configured, and what a kube-proxy that runs as a pod is configured by. Pure.

The kubelet is told to ask for its serving certificate (`serverTLSBootstrap`), because kubelets are held to the
cluster's CA here. No `controlPlaneEndpoint` is named: the control plane is this cluster's own, and kubeadm says so to
who would add to it.
"""

from __future__ import annotations

from typing import Any, Final

from navarch.api import yaml_writer
from navarch.api.meta import Obj
from navarch.apiserver.auth.bootstrap import KUBEADM_CONFIG, KUBELET_CONFIG, PROXY_CONFIG
from navarch.cluster.config import ClusterConfig

_SYSTEM: Final = "kube-system"
# Where kubeadm and its DaemonSet of kube-proxy have things.
_PKI: Final = "/etc/kubernetes/pki"
_MANIFESTS: Final = "/etc/kubernetes/manifests"
_PROXY_FOLDER: Final = "/var/lib/kube-proxy"
_ACCOUNT_FOLDER: Final = "/var/run/secrets/kubernetes.io/serviceaccount"


def config_maps(config: ClusterConfig, server: str) -> tuple[Obj, ...]:
    """`server` is where other machines reach the API server."""
    proxy = {"config.conf": _text(_proxy(config)), "kubeconfig.conf": _text(_proxy_kubeconfig(server))}
    return (
        _named(KUBEADM_CONFIG, {"ClusterConfiguration": _text(_cluster(config))}),
        _named(KUBELET_CONFIG, {"kubelet": _text(_kubelet(config))}),
        _named(PROXY_CONFIG, proxy),
    )


def _named(name: str, data: dict[str, str]) -> Obj:
    return {"metadata": {"name": name, "namespace": _SYSTEM}, "data": data}


def _text(document: dict[str, Any]) -> str:
    return yaml_writer.write(document)


def _cluster(config: ClusterConfig) -> dict[str, Any]:
    """DNS and proxies are the nodes' own here: kubeadm is not to look after them."""
    return {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "clusterName": config.name,
        "kubernetesVersion": f"v{config.kubernetes_version}.0",
        "certificatesDir": _PKI,
        "encryptionAlgorithm": "ECDSA-P256",
        "imageRepository": "registry.k8s.io",
        "networking": {
            "dnsDomain": config.cluster_domain,
            "podSubnet": config.pod_cidr,
            "serviceSubnet": config.service_cidr,
        },
        "apiServer": {},
        "controllerManager": {},
        "scheduler": {},
        "etcd": {"local": {"dataDir": "/var/lib/etcd"}},
        "dns": {"disabled": True},
        "proxy": {"disabled": True},
    }


def _kubelet(config: ClusterConfig) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{_PKI}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "systemd",
        "clusterDNS": [config.cluster_dns],
        "clusterDomain": config.cluster_domain,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": 10248,
        "rotateCertificates": True,
        "serverTLSBootstrap": True,
        "staticPodPath": _MANIFESTS,
    }


def _proxy(config: ClusterConfig) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": "::" if ":" in config.advertise_address else "0.0.0.0",
        "clientConnection": {"kubeconfig": f"{_PROXY_FOLDER}/kubeconfig.conf"},
        "clusterCIDR": config.pod_cidr,
        "mode": config.proxy_mode if config.proxy_mode == "iptables" else "nftables",
    }


def _proxy_kubeconfig(server: str) -> dict[str, Any]:
    cluster = {"certificate-authority": f"{_ACCOUNT_FOLDER}/ca.crt", "server": server}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "default", "cluster": cluster}],
        "contexts": [{"name": "default", "context": {"cluster": "default", "namespace": "default", "user": "default"}}],
        "current-context": "default",
        "users": [{"name": "default", "user": {"tokenFile": f"{_ACCOUNT_FOLDER}/token"}}],
    }
