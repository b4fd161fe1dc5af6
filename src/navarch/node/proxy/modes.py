"""The modes of the proxy: which of them this machine has, how each is made, and how the others' traces go."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from navarch.node.names import HostNames
from navarch.node.proxy.base import Proxier, ProxierConfig
from navarch.node.proxy.commands import CommandError, run_command
from navarch.node.proxy.configuration import MODES
from navarch.node.proxy.iptables import IptablesProxier, flavours
from navarch.node.proxy.nftables import NftablesProxier
from navarch.node.proxy.userspace import UserspaceProxier

log = logging.getLogger(__name__)

_MAKERS: dict[str, Callable[[ProxierConfig], Proxier]] = {
    "nftables": NftablesProxier,
    "iptables": IptablesProxier,
    "userspace": UserspaceProxier,
}


def make(mode: str, config: ProxierConfig) -> Proxier:
    return _MAKERS[mode](config)


async def why_not(mode: str) -> str:
    """What this machine lacks for a mode; empty where it can be had."""
    commands = {"nftables": ("nft", "list", "tables"), "iptables": ("iptables-save", "-t", "nat")}.get(mode)
    if commands is None:
        return ""
    try:
        await run_command(*commands)
    except CommandError as error:
        return str(error)
    return ""


async def choose_mode(stated: str) -> str:
    """The mode that was stated; where there is none, or the machine does not have it, the first that it has."""
    lacking: dict[str, str] = {}
    for mode in dict.fromkeys((*([stated] if stated else []), *MODES)):
        lacking[mode] = await why_not(mode)
        if not lacking[mode]:
            break
    for each, why in lacking.items():
        if why:
            level = logging.ERROR if each == stated else logging.WARNING
            log.log(level, "services cannot be proxied with %s here (%s); taking %s", each, why, mode)
    return mode


async def clean_others(mode: str, names: HostNames) -> None:
    """Remove what other modes have left on this machine, of either IP family."""
    for what, cleanup in _cleanups(mode, names):
        try:
            await cleanup()
        except (CommandError, OSError) as error:
            log.warning("what %s has left of %s: %s", what, names.whole, error)


async def clean_all(names: HostNames) -> None:
    """Remove what any mode has left."""
    await clean_others("", names)


def _cleanups(mode: str, names: HostNames) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
    for family in (4, 6):
        config = ProxierConfig(names.services_table, family=family)
        if mode != "nftables" and shutil.which("nft"):
            yield "nftables", NftablesProxier(config).cleanup
        if mode != "iptables":
            for flavour in flavours()[1:] or flavours():
                if family == 4 or Path("/proc/net/if_inet6").exists():
                    yield "iptables", IptablesProxier(config, flavour).cleanup
        if mode != "userspace" and (family == 4 or Path("/proc/net/if_inet6").exists()):
            yield "userspace", UserspaceProxier(config).cleanup
