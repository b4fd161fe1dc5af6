"""Cluster DNS: `records` says what names mean, `wire` speaks the format, `server` listens, `upstream` asks others,
`publish` makes the server findable as the service `kube-dns`."""

from navarch.node.dns.runner import ClusterDns, DnsConfig, run

__all__ = ["ClusterDns", "DnsConfig", "run"]
