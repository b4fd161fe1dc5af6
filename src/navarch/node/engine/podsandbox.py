"""`PodSandbox`: the sandbox of one pod, made once all is there that it needs: volumes, a network, devices.

In: what the plan says of the attempt. Out: a sandbox in the runtime, and its configuration, which containers are made
with. Where one cannot be made, an event says why, and a later turn tries again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from navarch.client.resources import RUNTIME_CLASSES
from navarch.node import oserrors, podspec
from navarch.node.engine import retries
from navarch.node.engine.plan import Plan
from navarch.node.engine.poddevices import PodDevices
from navarch.node.engine.podstate import PodState
from navarch.node.engine.podvolumes import PodVolumes
from navarch.node.engine.stop import Stopper
from navarch.node.runtime.base import RuntimeFailure, SandboxConfig
from navarch.node.spec.dns import read_resolv_conf, resolver_of
from navarch.node.spec.sandbox import sandbox_config
from navarch.node.spec.security import has_user_namespace
from navarch.node.user_namespaces import unsupported


class PodSandbox:
    """Owned by a PodWorker; `changed` is told that the pod's status may differ now."""

    def __init__(
        self,
        worker: PodState,
        volumes: PodVolumes,
        devices: PodDevices,
        stopper: Stopper,
        changed: Callable[[], None],
    ) -> None:
        self._worker = worker
        self._volumes = volumes
        self._devices = devices
        self._stopper = stopper
        self._changed = changed
        # The first attempt at a sandbox whose name the runtime has not taken for itself.
        self._free_attempt = 0
        # The one whose network is known to who guards it.
        self._wired_id = ""

    async def make(self, plan: Plan) -> bool:
        """Whether the pod has its sandbox now, and its containers can be started in the same turn."""
        worker = self._worker
        first = not worker.observed.sandboxes and not worker.observed.containers
        if worker.observed.any_running or worker.observed.sandbox_ready:
            worker.event("Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
            await self._stopper.stop_leftovers()
        if not await self._has_what_it_needs():
            return False
        self._changed()
        sandbox_id = await self._run(plan)
        if not sandbox_id:
            return False
        if not first or worker.is_to_end:
            worker.wake()
            return False
        worker.observed = await worker.parts.observer.with_sandbox(worker.uid, sandbox_id)
        self._changed()
        return True

    async def _has_what_it_needs(self) -> bool:
        worker = self._worker
        if not self._volumes.set_up():
            self._changed()
            if not await self._volumes.soon() or worker.is_to_end:
                return False
        missing = await self._missing_network()
        if missing:
            worker.event("Warning", "NetworkNotReady", f"network is not ready: {missing}")
            worker.wake_after(retries.SOON)
            return False
        return self._devices.prepare()

    async def _run(self, plan: Plan) -> str:
        """The new sandbox's id; empty where there is none."""
        worker, parts = self._worker, self._worker.parts
        attempt = max(plan.attempt, self._free_attempt)
        await parts.resources.publish(worker.pod)
        try:
            handler = await self._runtime_handler()
            await self._check_users(handler)
            config = self._config(attempt)
            await parts.world.in_thread(Path(config.log_directory).mkdir, parents=True, exist_ok=True)
            sandbox_id = await parts.runtime.run_sandbox(config, handler)
        except ConnectionError:
            raise
        except (RuntimeFailure, OSError) as error:
            words = oserrors.words(error)
            worker.event("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {words}")
            if "failed to reserve sandbox name" in str(error):
                # containerd 1.6 keeps the name of a sandbox that it failed to make, and does not list that sandbox.
                self._free_attempt = attempt + 1
            worker.wake_after(retries.AGAIN if plan.attempt else 3 * retries.SOON)
            return ""
        parts.owned(sandbox_id, worker.uid)
        worker.sandbox_config = config
        return sandbox_id

    async def _missing_network(self) -> str:
        """Why no sandbox can get a network now, as after a start of the node; empty where one can."""
        if podspec.host_network(self._worker.pod):
            return ""
        for condition in await self._worker.parts.runtime.conditions():
            if condition.type == "NetworkReady" and not condition.status:
                words = f"reason:{condition.reason} message:{condition.message}"
                return f"container runtime network not ready: NetworkReady=false {words}"
        return ""

    async def _runtime_handler(self) -> str:
        """The handler of the pod's RuntimeClass; `runc` is what there is without one."""
        name = self._worker.pod["spec"].get("runtimeClassName")
        if not name:
            return ""
        found = await self._worker.parts.source.get(RUNTIME_CLASSES, "", name)
        if found is None:
            raise RuntimeFailure(f'runtimeclass.node.k8s.io "{name}" not found')
        return str(found.get("handler") or "")

    async def _check_users(self, handler: str) -> None:
        """Raises RuntimeFailure where the pod is to have a user namespace and cannot."""
        if not has_user_namespace(self._worker.pod):
            return
        if why := unsupported(await self._worker.parts.runtime.features(), handler):
            raise RuntimeFailure(why)

    def _config(self, attempt: int) -> SandboxConfig:
        worker, config = self._worker, self._worker.parts.config
        host = read_resolv_conf(config.host_resolv_conf)
        resolver = resolver_of(worker.pod, host, config.cluster_dns, config.cluster_domain)
        return sandbox_config(worker.pod, attempt, resolver, config, worker.users())

    def configure(self) -> None:
        """Have the sandbox's configuration at hand, also for a sandbox made by an earlier kubelet."""
        worker = self._worker
        if worker.sandbox_config is None:
            sandbox = worker.observed.sandbox
            worker.sandbox_config = self._config(sandbox.attempt if sandbox is not None else 0)

    async def wire(self) -> None:
        """Once per network that the pod gets: what it may say is settled before its containers say it."""
        worker = self._worker
        sandbox_id = worker.observed.sandboxes[0].id
        if sandbox_id != self._wired_id and not worker.pod["spec"].get("hostNetwork"):
            await worker.parts.wired(worker.pod, worker.observed.ips)
        self._wired_id = sandbox_id
