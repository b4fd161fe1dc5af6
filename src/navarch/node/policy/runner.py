"""Policies as they are enforced on a node: informers change the state, one loop writes what changed as one transaction.

In: NetworkPolicies; once there is one, Pods and Namespaces too (a cluster without policies pays for one watch). The
kubelet tells of each pod whose network it has made (`admit`) and starts its containers when the pod's rules are
written: no container runs before the policies that are known. As a peer, a pod is let through once its address is in
the API; until then it is nobody. What was written stays when the agent stops.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from navarch.api.meta import Key, Obj, key_of, labels_of, name_of, revision_of, uid_of
from navarch.client.base import Client
from navarch.client.following import Applier, run_with
from navarch.client.informer import Informer
from navarch.client.resources import NAMESPACES, NETWORK_POLICIES, PODS
from navarch.client.supervision import Failures, supervised
from navarch.kinds.core.pod_state import is_finished
from navarch.node.names import HostNames
from navarch.node.policy.objects import pod_of, policy_of
from navarch.node.policy.state import PolicyState
from navarch.node.proxy.nftables import apply_script, delete_table, listed

log = logging.getLogger(__name__)

_CALM_S: Final = 0.01
_VERIFY_S: Final = 60.0
# How long a pod's containers wait for its rules before they are started without: an agent that cannot reach the API
# server still runs static pods.
_PATIENCE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    names: HostNames
    node_name: str
    families: tuple[int, ...] = (4,)


class _Admitted(NamedTuple):
    uid: str
    addresses: tuple[str, ...]
    revision: int


class PolicyEnforcer:
    """`client` has to see all policies, pods and namespaces."""

    def __init__(self, client: Client, config: PolicyConfig) -> None:
        self.config = config
        self.state = PolicyState(config.names.policy_table, config.node_name, config.families)
        self._failures = Failures()
        self._policies = Informer(client, NETWORK_POLICIES)
        self._pods = Informer(client, PODS, transform=_slim_pod)
        self._namespaces = Informer(client, NAMESPACES, transform=_slim_namespace)
        self._applier = Applier(
            "network policies", self._write, self._failures, calm_s=_CALM_S, check=self._look, check_every_s=_VERIFY_S
        )
        self._needed = asyncio.Event()
        self._admitted: dict[Key, _Admitted] = {}
        self._trusted = False
        self._stands = False
        self._asked = 0
        self._written = 0
        self._progress = asyncio.Condition()

    async def run(self) -> None:
        """Until cancelled."""
        self._policies.add_handler(self._policy, lambda _, new: self._policy(new), self._policy_gone)
        self._pods.add_handler(self._pod, lambda _, new: self._pod(new), self._pod_gone)
        self._namespaces.add_handler(self._namespace, lambda _, new: self._namespace(new), self._namespace_gone)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(run_with([self._policies], self._applier, self._failures), name="network policies")
            await self._needed.wait()
            for informer in (self._pods, self._namespaces):
                what = f"informer {informer.resource.group_resource}"
                tasks.create_task(supervised(what, informer.run, self._failures), name=what)

    async def admit(self, pod: Obj, addresses: Sequence[str]) -> None:
        """A pod of this node has got its network: return when its rules are written."""
        if self._policies.has_synced and not self._needed.is_set():
            return
        self._admitted[key_of(pod)] = _Admitted(uid_of(pod), tuple(addresses), revision_of(pod))
        self._set_pod(pod)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self.settled()
        except TimeoutError:
            log.warning("the rules of pod %s are not written yet; its containers start without", key_of(pod))

    async def settled(self) -> None:
        """Wait until everything that is known now has been written."""
        self._asked += 1
        asked = self._asked
        self._applier.changed()
        async with self._progress:
            await self._progress.wait_for(lambda: self._written >= asked)

    def policies(self) -> list[Obj]:
        """Those that are known."""
        return self._policies.list()

    def has_seen(self, revision: int) -> bool:
        """Whether the object that has this revision has come."""
        informers = (self._policies, self._pods, self._namespaces)
        return any(revision_of(obj) >= revision for informer in informers for obj in informer.list())

    # What informers say.

    def _policy(self, obj: Obj) -> None:
        self._needed.set()
        self.state.set_policy(key_of(obj), policy_of(obj))
        self._applier.changed()

    def _policy_gone(self, obj: Obj) -> None:
        self.state.set_policy(key_of(obj), None)
        self._applier.changed()

    def _pod(self, obj: Obj) -> None:
        self._set_pod(obj)
        self._applier.changed()

    def _set_pod(self, obj: Obj) -> None:
        key, uid = key_of(obj), uid_of(obj)
        known = self._admitted.get(key)
        # The kubelet knows its pods' addresses before, and better than, the API.
        pod = pod_of(obj, known.addresses if known is not None and known.uid == uid else None)
        if known is not None and known.uid != uid:
            if revision_of(obj) < known.revision or (pod is None and not is_finished(obj)):
                # Of an older pod of the name, whose end has not been told yet, or a mirror without an address so far.
                return
            del self._admitted[key]
        self.state.set_pod(key, pod)

    def _pod_gone(self, obj: Obj) -> None:
        key, uid = key_of(obj), uid_of(obj)
        known = self._admitted.get(key)
        if known is not None and known.uid == uid:
            del self._admitted[key]
        if self.state.uid_of(key) == uid:
            self.state.set_pod(key, None)
            self._applier.changed()

    def _namespace(self, obj: Obj) -> None:
        self.state.set_namespace(name_of(obj), dict(labels_of(obj)))
        self._applier.changed()

    def _namespace_gone(self, obj: Obj) -> None:
        self.state.set_namespace(name_of(obj), None)
        self._applier.changed()

    # Writing.

    async def _write(self) -> None:
        asked = self._asked
        if self._needed.is_set():
            await self._pods.synced()
            await self._namespaces.synced()
        stands, self._stands = self._stands, self.state.has_policies
        if self.state.has_policies:
            script = self.state.take() if self._trusted and stands else self.state.whole()
            if script:
                self._trusted = False
                await apply_script(script)
            self._trusted = True
        else:
            # Nobody needs these changes: the next table is made as a whole.
            self.state.take()
            if stands or not self._trusted:
                # The last policy has left it, or an earlier run.
                self._trusted = False
                await delete_table("inet", self.config.names.policy_table)
                self._trusted = True
        async with self._progress:
            self._written = max(self._written, asked)
            self._progress.notify_all()

    async def _look(self) -> None:
        """Now and then: is the table still there?"""
        if not self._trusted or not self._stands:
            return
        tables = [entry["table"]["name"] for entry in await listed("tables") if "table" in entry]
        if self.config.names.policy_table not in tables:
            log.warning("the table %s is gone, writing it anew", self.config.names.policy_table)
            self._trusted = False
            self._applier.changed()


async def cleanup(names: HostNames) -> None:
    """Remove every trace."""
    await delete_table("inet", names.policy_table)


def _slim_pod(pod: Obj) -> Obj:
    """Only what policies depend on: there is one of each pod of the cluster."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    kept = ("name", "namespace", "uid", "resourceVersion", "labels")
    containers = {
        part: [
            {"restartPolicy": one.get("restartPolicy"), "ports": [port for port in one["ports"] if port.get("name")]}
            for one in spec.get(part) or ()
            if one.get("ports")
        ]
        for part in ("initContainers", "containers")
    }
    return {
        "metadata": {name: pod["metadata"][name] for name in kept if name in pod["metadata"]},
        "spec": {"nodeName": spec.get("nodeName"), "hostNetwork": spec.get("hostNetwork"), **containers},
        "status": {name: status.get(name) for name in ("podIP", "podIPs", "phase")},
    }


def _slim_namespace(namespace: Obj) -> Obj:
    return {"metadata": {name: namespace["metadata"].get(name) for name in ("name", "resourceVersion", "labels")}}
