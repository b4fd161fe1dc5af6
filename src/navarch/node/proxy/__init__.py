"""The service proxy: virtual IPs, node ports and their like, forwarded to endpoints by rules in the kernel.

`runner` watches Services and EndpointSlices; `services` reads them; `rules` says what nftables should hold, `nftables`
writes only what changed; `conntrack` forgets UDP flows to endpoints that are gone; `health` answers load balancers.
"""

from navarch.node.proxy.runner import ProxyConfig, ServiceProxy, cleanup, run

__all__ = ["ProxyConfig", "ServiceProxy", "cleanup", "run"]
