"""Which handler answers a subresource.

`/status` and others that read and write the object's own kind (`resize`, `approval`, `finalize` …) go through the same
handlers as the object; the rest have handlers of their own, found here by kind and name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from navarch.api.meta import Resource
from navarch.apiserver.call import Call
from navarch.apiserver.core import Core
from navarch.apiserver.handlers.accounts import Accounts
from navarch.apiserver.handlers.connect import Connect
from navarch.apiserver.handlers.objects import Objects
from navarch.apiserver.handlers.pods import PodActions
from navarch.apiserver.handlers.scale import Scaling
from navarch.client.transport import Response
from navarch.kinds import resources as r

Handler = Callable[[Call], Awaitable[Response]]


class Subresources:
    def __init__(self, core: Core, objects: Objects) -> None:
        pods, connect = PodActions(core, objects), Connect(core, objects)
        scaling = Scaling(core, objects)
        self._own: dict[str, Handler] = {"get": objects.get, "update": objects.update, "patch": objects.patch}
        self._scale: dict[str, Handler] = {"get": scaling.get, "update": scaling.update, "patch": scaling.patch}
        self._special: dict[tuple[Resource, str], Handler] = {
            (r.PODS, "binding"): pods.bind,
            (r.PODS, "eviction"): pods.evict,
            (r.PODS, "log"): connect.pod_log,
            (r.PODS, "exec"): connect.pod_stream,
            (r.PODS, "attach"): connect.pod_stream,
            (r.PODS, "portforward"): connect.pod_stream,
            (r.PODS, "proxy"): connect.pod_proxy,
            (r.SERVICES, "proxy"): connect.service_proxy,
            (r.NODES, "proxy"): connect.node_proxy,
            (r.SERVICE_ACCOUNTS, "token"): Accounts(core, objects).token,
        }
        self._connect = connect
        self.bind = pods.bind

    def find(self, call: Call) -> Handler | None:
        """None where there is none. That the kind has the subresource, and takes the method, is known by its path."""
        kind, name, verb = call.kind, call.route.subresource, call.verb
        if name == "scale" and kind.scale is not None:
            return self._scale.get(verb)
        special = self._special.get((kind.resource, name))
        return special if special is not None else self._own.get(verb)

    async def close(self) -> None:
        """Close the connections that are kept to kubelets."""
        await self._connect.close()
