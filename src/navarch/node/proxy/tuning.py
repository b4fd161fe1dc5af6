"""What the proxy's configuration says of the kernel's memory of connections, written as sysctls."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from navarch.node.proxy.configuration import Conntrack

log = logging.getLogger(__name__)

_FOLDER: Final = Path("/proc/sys/net/netfilter")


def sysctls(conntrack: Conntrack, cores: int) -> Iterator[tuple[str, int]]:
    """Names below `net.netfilter` and values; what is not stated is left alone."""
    if conntrack.max_entries_per_core:
        yield "nf_conntrack_max", max(conntrack.max_entries_per_core * cores, conntrack.min_entries)
    for name, seconds in (
        ("nf_conntrack_tcp_timeout_established", conntrack.tcp_established_s),
        ("nf_conntrack_tcp_timeout_close_wait", conntrack.tcp_close_wait_s),
        ("nf_conntrack_udp_timeout", conntrack.udp_s),
        ("nf_conntrack_udp_timeout_stream", conntrack.udp_stream_s),
    ):
        if seconds is not None:
            yield name, round(seconds)
    if conntrack.tcp_be_liberal:
        yield "nf_conntrack_tcp_be_liberal", 1


def tune(conntrack: Conntrack, folder: Path = _FOLDER) -> None:
    """Set what differs. As kube-proxy does, never lower how many connections may be remembered."""
    for name, value in sysctls(conntrack, os.cpu_count() or 1):
        try:
            present = int((folder / name).read_text())
            if present != value and not (name == "nf_conntrack_max" and present > value):
                (folder / name).write_text(str(value))
        except (OSError, ValueError) as error:
            log.warning("net.netfilter.%s: %s", name, error)
