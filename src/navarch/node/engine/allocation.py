"""`Allocation`: the amounts of CPU and memory that a pod's containers may have, and those that they were given.

A pod that comes to the node is allocated what its specification states. A resize changes the specification; what it
asks for is allocated once the node has room for it, and until then the pod is run as if nothing had changed. What each
running container was last given (made with, or updated to) is kept beside it. Both are in a file of the pod's, so that
a restarted kubelet goes on with them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from navarch.api.meta import Obj
from navarch.node import podspec

_LISTS = ("initContainers", "containers")


def resizable(pod: Obj) -> Iterator[Obj]:
    """The containers whose amounts may change while they run."""
    yield from (container for container in podspec.init_containers(pod) if podspec.is_sidecar(container))
    yield from podspec.containers(pod)


class Allocation:
    """Of one pod; `file` need not be there, nor its folder."""

    def __init__(self, pod: Obj, file: Path) -> None:
        self._file = file
        given, allocated = self._read()
        self._given: dict[str, Obj] = given
        self._allocated: dict[str, Obj] = allocated or _stated(pod)

    def _read(self) -> tuple[dict[str, Obj], dict[str, Obj]]:
        """What is in the file; nothing where that is not what is written there."""
        try:
            kept = json.loads(self._file.read_text())
            if "given" not in kept:
                # As it was written before resizes had to be allocated.
                kept = {"given": kept, "allocated": {name: entry["resources"] for name, entry in kept.items()}}
            given = {
                name: {"id": one["id"], "resources": dict(one["resources"])} for name, one in kept["given"].items()
            }
            return given, {name: dict(amounts) for name, amounts in kept["allocated"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}, {}

    def _keep(self) -> None:
        # On a full disk the pod runs all the same; only this kubelet's successor will not know.
        with contextlib.suppress(OSError):
            self._write()

    def _write(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: half a file would be no allocation.
        fresh = self._file.with_name(f"{self._file.name}.new")
        fresh.write_text(json.dumps({"allocated": self._allocated, "given": self._given}))
        fresh.replace(self._file)

    def applied(self, pod: Obj) -> Obj:
        """The pod with the amounts that it is allocated: how it is run."""
        if not self.differs(pod):
            return pod
        spec = dict(pod["spec"])
        for field in _LISTS:
            if spec.get(field):
                spec[field] = [self._with_amounts(container) for container in spec[field]]
        return {**pod, "spec": spec}

    def _with_amounts(self, container: Obj) -> Obj:
        amounts = self._allocated.get(container["name"])
        return container if amounts is None else {**container, "resources": amounts}

    def differs(self, pod: Obj) -> bool:
        """Whether the pod states other amounts than it is allocated."""
        stated = _stated(pod)
        return any(stated[name] != amounts for name, amounts in self._allocated.items() if name in stated)

    def allocate(self, pod: Obj) -> None:
        """The pod may have what it states."""
        self._allocated = _stated(pod)
        self._keep()

    def give(self, container: Obj, container_id: str) -> None:
        """A container runs with the amounts of its specification from now on."""
        self._given[container["name"]] = {"id": container_id, "resources": container.get("resources") or {}}
        self._keep()

    def given(self, name: str, container_id: str) -> Obj | None:
        """The amounts that this instance of a container runs with; None where that is not known."""
        entry = self._given.get(name)
        return entry["resources"] if entry is not None and entry["id"] == container_id else None


def _stated(pod: Obj) -> dict[str, Obj]:
    return {container["name"]: container.get("resources") or {} for container in resizable(pod)}
