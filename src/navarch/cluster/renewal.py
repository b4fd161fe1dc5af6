"""The certificates of the cluster's own processes are renewed while these run.

In: the files of `pki`. Out: what is about to expire is made anew by the API server's process, which has the authority
beside it; each process shows it when it looks next (`certificates.py`). What nodes show is their own business:
`node/certificates.py` asks for it.
"""

from __future__ import annotations

import logging
from typing import Final

from navarch.cluster.certificates import stamp
from navarch.cluster.config import ClusterConfig

log = logging.getLogger(__name__)

RENEW_EVERY_S: Final = 3600.0


def renew(config: ClusterConfig) -> None:
    """Also in the user's kubeconfig, where the administrator's certificate is."""
    # At a start nobody needs them.
    from navarch.cluster import kubeconfig, pki

    before = stamp(config.admin_kubeconfig)
    pki.renew(config)
    if stamp(config.admin_kubeconfig) == before:
        return
    try:
        kubeconfig.refresh(config)
    except (kubeconfig.KubeconfigError, OSError) as error:
        log.warning("the kubeconfig has the certificate of before, until the next `navarch up`: %s", error)
