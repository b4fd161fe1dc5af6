"""The embedded Ingress controller of a node: HAProxy, told what Ingresses, Services and EndpointSlices say.

`rules` says what Ingresses mean, `certificates` what their TLS Secrets hold, `backends` where Services lead to,
`rendering` writes it down for HAProxy, `haproxy` keeps the process and changes it while it serves, `runner` follows the
API and puts them together.
"""

from navarch.node.ingress.haproxy import purge
from navarch.node.ingress.runner import IngressConfig, IngressController, on_node

__all__ = ["IngressConfig", "IngressController", "on_node", "purge"]
