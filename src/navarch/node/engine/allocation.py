"""`Allocation`: the amounts of CPU and memory that a pod and its containers may have, and those that they were given.

A pod that comes to the node is allocated what its specification states, of its containers and of itself as a whole. A
resize changes the specification; what it asks for is allocated once the node has room for it, and until then the pod is
run as if nothing had changed. What each running container was last given (made with, or updated to), and the pod as a
whole, is kept beside it. All of it is in a file of the pod's, so that a restarted kubelet goes on with it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from navarch.api.meta import Obj
from navarch.node import podspec

_LISTS = ("initContainers", "containers")


class Given(NamedTuple):
    """What a container runs with: the resources that were stated of it, and those of its pod as a whole, which bound it
    where it has no limits of its own."""

    own: Obj
    whole: Obj


def resizable(pod: Obj) -> Iterator[Obj]:
    """The containers whose amounts may change while they run."""
    yield from podspec.init_containers(pod)
    yield from podspec.containers(pod)


class Allocation:
    """Of one pod; `file` need not be there, nor its folder."""

    def __init__(self, pod: Obj, file: Path) -> None:
        self._file = file
        kept = self._read()
        self._given: dict[str, Obj] = kept.get("given") or {}
        self._allocated: dict[str, Obj] = kept.get("allocated") or _stated(pod)
        whole, given_whole = kept.get("whole"), kept.get("givenWhole")
        self._whole: Obj = whole_of(pod) if whole is None else whole
        self._given_whole: Obj = self._whole if given_whole is None else given_whole

    def _read(self) -> Obj:
        """What is in the file; nothing where that is not what is written there."""
        try:
            kept = json.loads(self._file.read_text())
            if "given" not in kept:
                # As it was written before resizes had to be allocated.
                kept = {"given": kept, "allocated": {name: entry["resources"] for name, entry in kept.items()}}
            whole = {name: dict(kept[name]) for name in ("whole", "givenWhole") if name in kept}
            given = {
                name: {**one, "id": one["id"], "resources": dict(one["resources"])}
                for name, one in kept["given"].items()
            }
            return {
                "given": given,
                "allocated": {name: dict(each) for name, each in kept["allocated"].items()},
                **whole,
            }
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}

    def _keep(self) -> None:
        # On a full disk the pod runs all the same; only this kubelet's successor will not know.
        with contextlib.suppress(OSError):
            self._write()

    def _write(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: half a file would be no allocation.
        fresh = self._file.with_name(f"{self._file.name}.new")
        state = {
            "allocated": self._allocated,
            "given": self._given,
            "whole": self._whole,
            "givenWhole": self._given_whole,
        }
        fresh.write_text(json.dumps(state))
        fresh.replace(self._file)

    def applied(self, pod: Obj) -> Obj:
        """The pod with the amounts that it is allocated: how it is run."""
        if not self.differs(pod):
            return pod
        spec = dict(pod["spec"])
        for field in _LISTS:
            if spec.get(field):
                spec[field] = [self._with_amounts(container) for container in spec[field]]
        return with_whole({**pod, "spec": spec}, self._whole)

    def _with_amounts(self, container: Obj) -> Obj:
        amounts = self._allocated.get(container["name"])
        return container if amounts is None else {**container, "resources": amounts}

    def differs(self, pod: Obj) -> bool:
        """Whether the pod states other amounts than it is allocated."""
        if whole_of(pod) != self._whole:
            return True
        stated = _stated(pod)
        return any(stated[name] != amounts for name, amounts in self._allocated.items() if name in stated)

    def allocate(self, pod: Obj) -> None:
        """The pod may have what it states."""
        self._allocated, self._whole = _stated(pod), whole_of(pod)
        self._keep()

    def give(self, container: Obj, container_id: str) -> None:
        """A container runs with the amounts of its specification, and of its pod's, from now on."""
        self._given[container["name"]] = {
            "id": container_id,
            "resources": container.get("resources") or {},
            "whole": self._whole,
        }
        self._keep()

    def given(self, name: str, container_id: str) -> Given | None:
        """The amounts that this instance of a container runs with; None where that is not known."""
        entry = self._given.get(name)
        if entry is None or entry["id"] != container_id:
            return None
        return Given(entry["resources"], entry.get("whole", self._given_whole))

    def give_whole(self) -> None:
        """The pod as a whole has from now on what it is allocated."""
        if self._given_whole != self._whole:
            self._given_whole = self._whole
            self._keep()

    @property
    def given_whole(self) -> Obj:
        """What the pod as a whole has now."""
        return self._given_whole


def whole_of(pod: Obj) -> Obj:
    """The amounts that are stated of a pod as a whole."""
    return pod["spec"].get("resources") or {}


def with_whole(pod: Obj, whole: Obj) -> Obj:
    """The pod with other amounts as a whole."""
    return {**pod, "spec": {**pod["spec"], "resources": whole}} if whole or "resources" in pod["spec"] else pod


def _stated(pod: Obj) -> dict[str, Obj]:
    return {container["name"]: container.get("resources") or {} for container in resizable(pod)}
