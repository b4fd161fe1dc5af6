"""The certificates that a definition's conversion webhook is believed by.

In: a definition, or a bundle as it is written there.  Out: what is wrong with it, in Kubernetes' words. A definition
whose bundle holds no certificate is not served until it has one: installers write such bundles for others to fill in.
"""

from __future__ import annotations

import ssl
from base64 import b64decode

from navarch.api.meta import Obj


def conversion_bundle(crd: Obj) -> str:
    """The bundle as it is written; empty where there is none."""
    conversion = (crd.get("spec") or {}).get("conversion") or {}
    client = (conversion.get("webhook") or {}).get("clientConfig") or {}
    return client.get("caBundle") or ""


def bundle_problem(bundle: str) -> str:
    try:
        ssl.create_default_context(cadata=b64decode(bundle).decode("ascii"))
    except (ValueError, ssl.SSLError):
        return "unable to parse bytes as PEM block"
    return ""
