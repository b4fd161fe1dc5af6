"""What was stated is looked at before anything is started: addresses, versions, flags, and the files that configure
components.  Each raises ConfigError where what was stated cannot be used, and says what it says in vain."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from navarch.cli.steps import say
from navarch.cluster.config import ClusterConfig, ConfigError
from navarch.cluster.planning import KUBELET_FILES


def apiserver_flags(stated: Any) -> dict[str, str]:
    """kube-apiserver's flags by name, files by their full paths.  Raises ConfigError."""
    from navarch.cluster.flags.apiserver_settings import cluster_flags
    from navarch.cluster.flags.pflag import FlagError

    if not isinstance(stated, dict):
        raise ConfigError(
            "spec.apiserver: flags of kube-apiserver by their names, such as `audit-log-path: /var/log/a`"
        )
    flags: dict[str, str] = {}
    for name, value in stated.items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        if isinstance(value, bool):
            text = text.lower()
        is_file = str(name).endswith(("-file", "-config", "-path"))
        flags[str(name)] = str(Path(text).absolute()) if is_file and text not in ("", "-") else text
    try:
        cluster_flags(flags)
    except FlagError as error:
        raise ConfigError(f"spec.apiserver: {error}") from None
    return flags


def controller_flags(stated: Any) -> dict[str, str]:
    """kube-controller-manager's flags by name.  Raises ConfigError."""
    from navarch.cluster.flags.controller_settings import changed
    from navarch.cluster.flags.pflag import FlagError
    from navarch.controllers.base import ControllerConfig

    if not isinstance(stated, dict):
        raise ConfigError(
            "spec.controllerManager: flags of kube-controller-manager by their names, such as "
            "`node-monitor-grace-period: 20s`"
        )
    flags = {str(name): str(value) for name, value in stated.items()}
    try:
        changed(ControllerConfig(), flags)
    except FlagError as error:
        raise ConfigError(f"spec.controllerManager: {error}") from None
    return flags


def runtime_config_of(texts: Sequence[str]) -> dict[str, str]:
    """The setting, in one text.  Raises ConfigError."""
    from navarch.kinds.enablement import parse

    try:
        return {"runtime_config": ",".join(parse(texts).texts())} if any(texts) else {}
    except ValueError as error:
        raise ConfigError(f"--runtime-config: {error}") from None


def check_versions(config: ClusterConfig) -> None:
    """Whether the served Kubernetes has the versions that are switched on.  Raises ConfigError."""
    if not config.runtime_config:
        return
    from navarch.api import schema
    from navarch.kinds.enablement import parse
    from navarch.kinds.registry import builtin

    try:
        builtin(schema.load(config.kubernetes_version), parse([config.runtime_config]))
    except ValueError as error:
        raise ConfigError(f"--runtime-config: {error}") from None


def check_kubelet(config: ClusterConfig) -> None:
    """Whether the kubelet can be as its files say; what they say in vain is told.  Raises ConfigError."""
    if config.image_credential_provider_config:
        from navarch.node.images.providers import ProviderError
        from navarch.node.images.providers import read as read_providers

        try:
            read_providers(Path(config.image_credential_provider_config))
        except ProviderError as error:
            raise ConfigError(str(error)) from None
    if not config.kubelet_config:
        return
    from navarch.cluster.run_node import agent_config
    from navarch.node.configuration.reading import ConfigurationError, read, warnings

    if config.runtime != "containerd":
        say(f"--kubelet-config: cluster {config.name!r} has simulated nodes, which it says nothing of.")
    try:
        for words in warnings(read(Path(config.kubelet_config), config.kubernetes_version)):
            say(words)
        if config.runtime == "containerd":
            agent_config(config).kubelet()
    except ConfigurationError as error:
        raise ConfigError(str(error)) from None


def check_scheduler(config: ClusterConfig) -> None:
    """Whether the scheduler can be as its file says; what it says in vain is told.  Raises ConfigError."""
    if not config.scheduler_config:
        return
    from navarch.scheduler.configuration.reading import ConfigurationError, configured, read, warnings

    try:
        document = read(Path(config.scheduler_config))
        configured(document)
    except ConfigurationError as error:
        raise ConfigError(f"--scheduler-config: {error}") from None
    for words in warnings(document):
        say(words)


def check_settings(changes: dict[str, Any]) -> None:
    """Whether the settings are ones that there are, written as they are kept.  Raises ConfigError."""
    for key in ("proxy_config", "scheduler_config", *KUBELET_FILES):
        if changes.get(key):
            # The processes of the cluster have another folder.
            changes[key] = str(Path(str(changes[key])).absolute())
    if bind := changes.get("bind_address"):
        try:
            changes["bind_address"] = str(ip_address(str(bind)))
        except ValueError:
            raise ConfigError(f"invalid address {bind!r}: write it like 192.168.1.20; 0.0.0.0 is every one") from None
    store = str(changes.get("store", "sqlite"))
    if store.startswith("etcd:"):
        from navarch.store.etcd.target import TargetError, parse

        try:
            parse(store)
        except TargetError as error:
            raise ConfigError(str(error)) from error
    elif store not in ("sqlite", "memory"):
        raise ConfigError(f"unknown store {store!r}: sqlite, memory or etcd://HOST:PORT[,…]")
    if "kubernetes_version" in changes:
        changes["kubernetes_version"] = served_version(str(changes["kubernetes_version"]))


def served_version(text: str) -> str:
    """A version of Kubernetes that can be served, as it is kept: `1.36` for `v1.36.2`.  Raises ConfigError."""
    from navarch.api.schema import versions

    version = ".".join(text.removeprefix("v").split(".")[:2])
    if version not in versions():
        raise ConfigError(f"unknown Kubernetes version {version!r}: this package has {', '.join(versions())}")
    return version


def check_proxy(config: ClusterConfig) -> tuple[str, ...]:
    """What the file for the proxy says in vain.  Raises ConfigError where it cannot be used."""
    if not config.proxy_config:
        return ()
    from navarch.node.proxy.configuration import ProxyConfigError, read_settings

    try:
        return read_settings(Path(config.proxy_config), config.proxy_mode).warnings
    except ProxyConfigError as error:
        raise ConfigError(f"invalid --proxy-config: {error}") from None
