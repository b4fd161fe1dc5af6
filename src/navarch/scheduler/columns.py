"""The nodes as columns of NumPy arrays, one row per node, kept up to date pod by pod.

In: Node objects and the PodInfos that run (or are assumed to run) on them.  Out: arrays that `NodeTable` shows to
plugins, and two logs, of rows whose node changed and of pods that came or went, from which caches catch up.
Invariant: after any sequence of calls a row's `requested` is the sum over `pods[row]`, and every change of a row is
in a log. A row without a Node object (`alive` is False) keeps the pods of a node that is not there yet or no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from navarch.api.meta import Obj, labels_of, name_of
from navarch.kinds.core.resource_lists import units
from navarch.scheduler.podinfo import HostPort, PodInfo, Traits
from navarch.scheduler.terms import AffinityTerm

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

T = TypeVar("T")
A = TypeVar("A", bound="NDArray[Any]")

_LOG_LIMIT = 65_536
_FIRST_CAPACITY = 64

CPU, MEMORY, EPHEMERAL_STORAGE, PODS = "cpu", "memory", "ephemeral-storage", "pods"


class Log(Generic[T]):
    """A bounded log; a reader keeps its position and is told when it has fallen off the end."""

    def __init__(self) -> None:
        self._entries: list[T] = []
        self._base = 0

    @property
    def end(self) -> int:
        return self._base + len(self._entries)

    def append(self, entry: T) -> None:
        self._entries.append(entry)
        if len(self._entries) > _LOG_LIMIT:
            half = _LOG_LIMIT // 2
            del self._entries[:half]
            self._base += half

    def since(self, position: int) -> list[T] | None:
        """Entries after `position`, or None where some of them are gone."""
        if position < self._base:
            return None
        return self._entries[position - self._base :]


class PodChange(NamedTuple):
    """A pod came to (`sign` 1) or left (-1) a row. The log outlives the pods, so it holds of them what is counted."""

    row: int
    traits: Traits
    priority: int
    deleting: bool
    sign: int


class Taint(NamedTuple):
    key: str
    value: str
    effect: str


class Interned(Generic[T]):
    """Small integers for values."""

    def __init__(self) -> None:
        self.values: list[T] = []
        self.ids: dict[T, int] = {}

    def id(self, value: T) -> int:
        known = self.ids.get(value)
        if known is None:
            known = self.ids[value] = len(self.values)
            self.values.append(value)
        return known


class LabelColumn:
    """The values of one label key over all rows: `codes[row]` indexes `interned.values`; -1 means absent."""

    def __init__(self, capacity: int) -> None:
        self.interned: Interned[str] = Interned()
        self.codes: IntArray = np.full(capacity, -1, np.int64)

    def set(self, row: int, value: str | None) -> None:
        self.codes[row] = -1 if value is None else self.interned.id(value)


class NodeColumns:
    """The storage behind `NodeTable`."""

    def __init__(self) -> None:
        self.capacity = _FIRST_CAPACITY
        self.size = 0
        """Rows in use or once used; all others are empty."""
        self.names: list[str] = []
        self.nodes: list[Obj | None] = []
        self.pods: list[dict[str, PodInfo]] = []
        self.rows: dict[str, int] = {}
        self._free: list[int] = []
        self.alive: BoolArray = np.zeros(self.capacity, np.bool_)
        self.unschedulable: BoolArray = np.zeros(self.capacity, np.bool_)
        self.taint_set: IntArray = np.zeros(self.capacity, np.int64)
        self.taint_sets: Interned[tuple[Taint, ...]] = Interned()
        self.taint_sets.id(())
        self.feature_set: IntArray = np.zeros(self.capacity, np.int64)
        self.feature_sets: Interned[frozenset[str]] = Interned()
        self.feature_sets.id(frozenset())
        self.resources: Interned[str] = Interned()
        self.allocatable: list[IntArray] = []
        self.requested: list[IntArray] = []
        for name in (CPU, MEMORY, EPHEMERAL_STORAGE, PODS):
            self.resource(name)
        self.nonzero_milli_cpu: IntArray = np.zeros(self.capacity, np.int64)
        self.nonzero_memory: IntArray = np.zeros(self.capacity, np.int64)
        self.labels: dict[str, LabelColumn] = {}
        self.host_ports: dict[tuple[str, int], dict[tuple[str, int], int]] = {}
        """By protocol and port: how often each (address, row) is taken."""
        self.claims: dict[tuple[str, str], int] = {}
        """By namespace and name: how many placed pods use the claim."""
        self.images: dict[str, dict[int, int]] = {}
        """By image name: its size on each row that has it."""
        self._row_images: dict[int, list[str]] = {}
        self.term_holders: dict[str, dict[AffinityTerm, IntArray]] = {
            "affinity": {},
            "anti_affinity": {},
            "preferred_affinity": {},
            "preferred_anti_affinity": {},
        }
        """For the terms of pods that are placed: how many pods on each row hold the term."""
        self._held: dict[tuple[str, AffinityTerm], int] = {}
        self.node_log: Log[int] = Log()
        self.pod_log: Log[PodChange] = Log()
        self.node_count = 0

    # Nodes.

    def row_of(self, name: str) -> int:
        """The node's row, made if there is none."""
        row = self.rows.get(name)
        if row is not None:
            return row
        if self._free:
            row = self._free.pop()
            self.names[row] = name
        else:
            row = self.size
            if row == self.capacity:
                self._grow()
            self.size += 1
            self.names.append(name)
            self.nodes.append(None)
            self.pods.append({})
        self.rows[name] = row
        return row

    def _release(self, row: int) -> None:
        """Let a row be used again that has neither a node nor pods, or nodes that come and go would fill the table."""
        if self.nodes[row] is None and not self.pods[row]:
            del self.rows[self.names[row]]
            self.names[row] = ""
            self._free.append(row)

    def set_node(self, node: Obj) -> None:
        """Take over a node that was added or changed."""
        row = self.row_of(name_of(node))
        if self.nodes[row] is None:
            self.node_count += 1
        self.nodes[row] = node
        spec = node.get("spec") or {}
        status = node.get("status") or {}
        self.alive[row] = True
        self.unschedulable[row] = bool(spec.get("unschedulable"))
        self.taint_set[row] = self.taint_sets.id(
            tuple(Taint(t["key"], t.get("value", ""), t["effect"]) for t in spec.get("taints") or ())
        )
        self.feature_set[row] = self.feature_sets.id(frozenset(status.get("declaredFeatures") or ()))
        self._set_allocatable(row, units(status.get("allocatable") or status.get("capacity")))
        labels = labels_of(node)
        for key, column in self.labels.items():
            column.set(row, labels.get(key))
        self._set_images(row, status.get("images") or ())
        self.node_log.append(row)

    def remove_node(self, name: str) -> None:
        """The node is gone; its pods stay counted until they go too."""
        row = self.rows.get(name)
        if row is None or self.nodes[row] is None:
            return
        self.node_count -= 1
        self.nodes[row] = None
        self.alive[row] = False
        self._set_images(row, ())
        self.node_log.append(row)
        self._release(row)

    def _set_allocatable(self, row: int, values: Mapping[str, int]) -> None:
        for name in values:
            self.resource(name)
        for index, name in enumerate(self.resources.values):
            self.allocatable[index][row] = values.get(name, 0)

    def _set_images(self, row: int, images: Iterable[Obj]) -> None:
        for name in self._row_images.pop(row, ()):
            sizes = self.images[name]
            sizes.pop(row, None)
            if not sizes:
                del self.images[name]
        names: list[str] = []
        for image in images:
            for name in image.get("names") or ():
                self.images.setdefault(name, {})[row] = image.get("sizeBytes", 0)
                names.append(name)
        if names:
            self._row_images[row] = names

    # Pods.

    def add_pod(self, pod: PodInfo, name: str) -> None:
        """`pod` takes its share of the node."""
        row = self.row_of(name)
        self.pods[row][pod.uid] = pod
        self._count(row, pod, 1)

    def remove_pod(self, pod: PodInfo, name: str) -> None:
        """`pod`, exactly as it was added, gives its share back."""
        row = self.rows[name]
        del self.pods[row][pod.uid]
        self._count(row, pod, -1)
        self._release(row)

    def _count(self, row: int, pod: PodInfo, sign: int) -> None:
        traits = pod.traits
        ids = self.resources.ids
        for name, value in traits.requests.items():
            index = ids.get(name)
            if index is None:
                index = self.resource(name)
            self.requested[index][row] += sign * value
        self.requested[3][row] += sign
        self.nonzero_milli_cpu[row] += sign * traits.nonzero_milli_cpu
        self.nonzero_memory[row] += sign * traits.nonzero_memory
        if traits.host_ports:
            self._count_ports(row, traits.host_ports, sign)
        for claim in traits.claims:
            used = (traits.namespace, claim)
            self.claims[used] = self.claims.get(used, 0) + sign
            if not self.claims[used]:
                del self.claims[used]
        if traits.has_terms:
            self._count_terms(row, traits, sign)
        self.pod_log.append(PodChange(row, traits, pod.priority, pod.deleting, sign))

    def _count_ports(self, row: int, ports: Iterable[HostPort], sign: int) -> None:
        for port in ports:
            taken = self.host_ports.setdefault((port.protocol, port.port), {})
            count = taken.get((port.ip, row), 0) + sign
            if count:
                taken[port.ip, row] = count
            else:
                del taken[port.ip, row]

    def _count_terms(self, row: int, traits: Traits, sign: int) -> None:
        for group, holders in self.term_holders.items():
            for term in getattr(traits, group):
                counts = holders.get(term)
                if counts is None:
                    counts = holders[term] = np.zeros(self.capacity, np.int64)
                counts[row] += sign
                held = self._held.get((group, term), 0) + sign
                if held:
                    self._held[group, term] = held
                else:
                    del self._held[group, term]
                    del holders[term]

    # Columns.

    def resource(self, name: str) -> int:
        """The index of a resource's arrays, made if there are none."""
        known = self.resources.ids.get(name)
        if known is not None:
            return known
        self.allocatable.append(np.zeros(self.capacity, np.int64))
        self.requested.append(np.zeros(self.capacity, np.int64))
        return self.resources.id(name)

    def label(self, key: str) -> LabelColumn:
        """The column of a label key, filled at its first use."""
        column = self.labels.get(key)
        if column is None:
            column = self.labels[key] = LabelColumn(self.capacity)
            for row, node in enumerate(self.nodes):
                if node is not None:
                    column.set(row, labels_of(node).get(key))
        return column

    def _grow(self) -> None:
        self.capacity *= 2
        self.alive = _longer(self.alive, self.capacity)
        self.unschedulable = _longer(self.unschedulable, self.capacity)
        self.feature_set = _longer(self.feature_set, self.capacity)
        self.taint_set = _longer(self.taint_set, self.capacity)
        self.allocatable = [_longer(column, self.capacity) for column in self.allocatable]
        self.requested = [_longer(column, self.capacity) for column in self.requested]
        self.nonzero_milli_cpu = _longer(self.nonzero_milli_cpu, self.capacity)
        self.nonzero_memory = _longer(self.nonzero_memory, self.capacity)
        for column in self.labels.values():
            codes = np.full(self.capacity, -1, np.int64)
            codes[: len(column.codes)] = column.codes
            column.codes = codes
        for holders in self.term_holders.values():
            for term in holders:
                holders[term] = _longer(holders[term], self.capacity)


def _longer(array: A, length: int) -> A:
    fresh = np.zeros(length, array.dtype)
    fresh[: len(array)] = array
    return fresh  # type: ignore[return-value]
