"""The `--config` files of `navarch up` and `navarch agent`: settings by the names of the flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from navarch.cluster.config import ConfigError

_AGENT = {
    "server": "server", "token": "token", "caHash": "ca_hash", "nodeName": "node_name", "nodeIP": "node_ip",
    "proxyMode": "proxy_mode", "proxyConfig": "proxy_config",
    "nodeLabels": "node_label", "nodeTaints": "node_taint", "name": "name", "dataDir": "data_dir", "wait": "wait",
    "podNetwork": "pod_network", "kubeletConfig": "kubelet_config",
}  # fmt: skip


def read_config_file(path: str | None) -> dict[str, Any]:
    """The settings of a `kind: Cluster` file, by the names of the flags (with underscores).  Raises ConfigError."""
    if path is None:
        return {}
    known = {"name", "nodes", "workers", "runtime", "store", "kubernetesVersion", "port", "dataDir", "kubeconfig",
             "wait", "seed", "podCIDR", "serviceCIDR", "bindAddress", "eventTTL", "runtimeConfig", "apiserver",
             "controllerManager", "kubeletConfig", "schedulerConfig", "imageCredentialProviderConfig",
             "imageCredentialProviderBinDir", "disable", "podNetwork", "tlsSANs",
             "proxyMode", "proxyConfig"}  # fmt: skip
    settings = _read_document(path, "Cluster", known)
    names = {"kubernetesVersion": "kubernetes_version", "dataDir": "data_dir", "podCIDR": "pod_cidr",
             "podNetwork": "pod_network", "serviceCIDR": "service_cidr", "bindAddress": "bind_address",
             "eventTTL": "event_ttl", "tlsSANs": "tls_san",
             "proxyMode": "proxy_mode", "proxyConfig": "proxy_config",
             "runtimeConfig": "runtime_config", "kubeletConfig": "kubelet_config",
             "schedulerConfig": "scheduler_config",
             "controllerManager": "controller_manager",
             "imageCredentialProviderConfig": "image_credential_provider_config",
             "imageCredentialProviderBinDir": "image_credential_provider_bin_dir"}  # fmt: skip
    versions = settings.get("runtimeConfig")
    if isinstance(versions, dict):
        # As flags are: `{api/beta: true}` is `api/beta=true`.
        settings["runtimeConfig"] = ",".join(f"{name}={str(on).lower()}" for name, on in versions.items())
    for several in ("disable", "tlsSANs", "podCIDR", "serviceCIDR"):
        if isinstance(settings.get(several), list):
            settings[several] = ",".join(map(str, settings[several]))
    return {names.get(str(key), str(key)): value for key, value in settings.items()}


def _read_document(path: str, kind: str, known: set[str]) -> dict[str, Any]:
    """The `spec` of a configuration file, with the name from its metadata.  Raises ConfigError."""
    import yaml

    try:
        document = yaml.safe_load(Path(path).read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        # A YAML error draws where it is over several lines; one says it.
        raise ConfigError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict) or document.get("kind") != kind:
        raise ConfigError(f"{path}: expected `apiVersion: navarch.dev/v1` and `kind: {kind}`")
    if document.get("apiVersion") != "navarch.dev/v1":
        raise ConfigError(f"{path}: unknown apiVersion {document.get('apiVersion')!r}, expected 'navarch.dev/v1'")
    spec, metadata = document.get("spec") or {}, document.get("metadata") or {}
    if not isinstance(spec, dict) or not isinstance(metadata, dict):
        raise ConfigError(f"{path}: spec and metadata must be objects, such as `spec: {{nodes: 3}}`")
    settings = dict(spec)
    if name := metadata.get("name"):
        settings.setdefault("name", name)
    for key in settings:
        if key not in known:
            raise ConfigError(f"{path}: unknown setting {key!r} in spec; known are {', '.join(sorted(known))}")
    return settings


def read_agent_file(path: str | None) -> dict[str, Any]:
    """The settings of a `kind: Agent` file, by the names of the flags (with underscores).  Raises ConfigError."""
    spec = _read_document(path, "Agent", set(_AGENT)) if path is not None else {}
    return {_AGENT[key]: value for key, value in spec.items()}
