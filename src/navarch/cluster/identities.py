"""Names of keys and certificates that others ask for by name; `pki` makes them."""

from __future__ import annotations

from typing import Final

# The parts that every real node has beside its kubelet -> as whom each speaks to the API server.
NODE_COMPONENTS: Final = {"proxy": "system:kube-proxy", "dns": "system:kube-dns", "ingress": "navarch:ingress"}

FRONT_PROXY_CA: Final = "front-proxy-ca"
FRONT_PROXY_CLIENT: Final = "front-proxy-client"
# The name in the certificate by which extension API servers know this API server.
FRONT_PROXY_NAME: Final = "front-proxy"
