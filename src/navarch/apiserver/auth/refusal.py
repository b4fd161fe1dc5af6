"""How a request that is not allowed is refused: 403, in Kubernetes' words."""

from __future__ import annotations

from navarch.api.errors import StatusError, forbidden
from navarch.apiserver.auth.base import RequestAttributes
from navarch.apiserver.user import User


def refusal(user: User, attributes: RequestAttributes, reason: str) -> StatusError:
    """403 in Kubernetes' words."""
    if not attributes.is_resource:
        message = f'forbidden: User "{user.name}" cannot {attributes.verb} path "{attributes.path}"'
        return StatusError(403, "Forbidden", f"{message}: {reason}" if reason else message, details={})
    resource = attributes.resource + (f"/{attributes.subresource}" if attributes.subresource else "")
    why = f'User "{user.name}" cannot {attributes.verb} resource "{resource}" in API group "{attributes.group}"'
    if (attributes.namespace and attributes.resource != "namespaces") or attributes.namespace:
        why += f' in the namespace "{attributes.namespace}"'
    else:
        why += " at the cluster scope"
    if reason:
        why += f": {reason}"
    return forbidden(attributes.resource, attributes.group, attributes.name, why)
